//! `drystone.lock`: what comes from outside, pinned by digest. Asks no registry and reads no file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

/// The version of the file that is written and read.
const VERSION: u32 = 1;

/// What the file begins with.
const HEADER: &str =
    "# Written by `drystone lock`. It belongs in git: builds take what it names, whatever tags say today.\n";

/// A lock file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Lock {
    /// Images of registries by their whole names.
    pub images: BTreeMap<String, LockedImage>,
}

/// An image of a registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockedImage {
    /// Digest of its index, or of its manifest where it has none: `sha256:…`.
    pub digest: String,
    /// What that is.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of the manifest for each platform.
    pub platforms: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawLock {
    version: u32,
    #[serde(default)]
    image: Vec<RawImage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawImage {
    name: String,
    digest: String,
    media_type: String,
    size: u64,
    #[serde(default)]
    platforms: BTreeMap<String, String>,
}

impl Lock {
    /// The image of this name.
    pub fn image(&self, name: &str) -> Option<&LockedImage> {
        self.images.get(name)
    }

    /// Reads the text of a lock file; the error is a sentence without its end.
    pub fn read(text: &str) -> Result<Self, String> {
        let raw: RawLock = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if raw.version != VERSION {
            return Err(format!("it has version {}, and this program reads version {VERSION}", raw.version));
        }
        let mut images = BTreeMap::new();
        for RawImage { name, digest, media_type, size, platforms } in raw.image {
            for digest in std::iter::once(&digest).chain(platforms.values()) {
                let hex = digest.strip_prefix("sha256:").unwrap_or("");
                if hex.len() != 64 || !hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(format!("`{}` of `{}` is no digest", digest.escape_debug(), name.escape_debug()));
                }
            }
            let told = name.escape_debug().to_string();
            if images.insert(name, LockedImage { digest, media_type, size, platforms }).is_some() {
                return Err(format!("it pins `{told}` twice"));
            }
        }
        Ok(Self { images })
    }

    /// The text of the file: the same for the same content.
    pub fn write(&self) -> String {
        let mut text = format!("{HEADER}version = {VERSION}\n");
        for (name, image) in &self.images {
            let LockedImage { digest, media_type, size, platforms } = image;
            let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "\n[[image]]\nname = {}\ndigest = {}\nmedia-type = {}\nsize = {size}\n",
                quoted(name),
                quoted(digest),
                quoted(media_type)
            );
            if !platforms.is_empty() {
                text.push_str("platforms = {");
                let each: Vec<String> = platforms
                    .iter()
                    .map(|(platform, digest)| format!(" {} = {}", quoted(platform), quoted(digest)))
                    .collect();
                text.push_str(&each.join(","));
                text.push_str(" }\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let platforms = [("linux/amd64", 'b'), ("linux/arm64", 'c')];
        let digest = |letter: char| format!("sha256:{}", letter.to_string().repeat(64));
        let image = LockedImage {
            digest: digest('a'),
            media_type: "application/vnd.oci.image.index.v1+json".into(),
            size: 1234,
            platforms: platforms.iter().map(|(name, letter)| ((*name).to_owned(), digest(*letter))).collect(),
        };
        let single = LockedImage { platforms: BTreeMap::new(), ..image.clone() };
        let images = [("registry.example/team/base:1", image), ("registry.example/a\"b", single)];
        Lock { images: images.map(|(name, image)| (name.to_owned(), image)).into() }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Lock::read(&lock().write()), Ok(lock()));
        assert_eq!(Lock::read(&Lock::default().write()), Ok(Lock::default()));
    }

    #[test]
    fn the_file_is_as_it_was() {
        let text = Lock { images: lock().images.into_iter().skip(1).collect() }.write();
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let expect = format!(
            "{HEADER}version = 1\n\n[[image]]\nname = \"registry.example/team/base:1\"\ndigest = \"{}\"\n\
             media-type = \"application/vnd.oci.image.index.v1+json\"\nsize = 1234\n\
             platforms = {{ \"linux/amd64\" = \"{}\", \"linux/arm64\" = \"{}\" }}\n",
            digest("a"),
            digest("b"),
            digest("c")
        );
        assert_eq!(text, expect);
    }

    #[test]
    fn what_is_no_lock_file_is_refused() {
        let check = |text: &str, expect: &str| {
            let told = Lock::read(text).expect_err(expect);
            assert!(told.contains(expect), "{expect}: {told}");
        };
        let image = |name: &str, digest: &str| {
            format!("[[image]]\nname = \"{name}\"\ndigest = \"{digest}\"\nmedia-type = \"m\"\nsize = 1\n")
        };
        let good = format!("sha256:{}", "a".repeat(64));
        check("", "missing field `version`");
        check("version = 2", "version 2");
        check("version = 1\nx = 1", "unknown field `x`");
        check(&format!("version = 1\n{}", image("a", "sha256:../../etc")), "is no digest");
        check(&format!("version = 1\n{}{}", image("a", &good), image("a", &good)), "pins `a` twice");
        check("version = 1\n<<<<<<< HEAD", "");
    }
}
