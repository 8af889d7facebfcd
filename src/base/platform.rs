//! Platforms as images name them: `os/architecture` and, where there are several, `/variant`. Does no I/O.

use std::fmt;

/// A platform in the words of Go (`linux/amd64`, `linux/arm/v7`), normalized: other words for the same compare equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Platform {
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub architecture: String,
    /// Variant; `None` for the usual one (`v8` of arm64, `v1` of amd64), but `v7` of arm.
    pub variant: Option<String>,
}

crate::base::compact::compact_struct!(Platform { os, architecture, variant });

impl Platform {
    /// Parses `os/architecture[/variant]`. Anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next());
        let is_word = |word: &str| {
            let fine = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'.' | b'_' | b'-');
            !word.is_empty() && word.len() <= 64 && word.bytes().all(fine)
        };
        let fine = parts.next().is_none() && [Some(os), Some(architecture), variant].into_iter().flatten().all(is_word);
        fine.then(|| Self::new(os, architecture, variant))
    }

    /// Normalizes its parts.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let lower = |word: &str| word.to_ascii_lowercase();
        let variant = variant.filter(|variant| !variant.is_empty()).map(lower);
        let (architecture, variant) = match (lower(architecture).as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64".to_owned(), None),
            ("x86_64" | "x86-64", _) => ("amd64".to_owned(), variant),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64".to_owned(), None),
            ("aarch64", _) => ("arm64".to_owned(), variant),
            ("armhf", _) => ("arm".to_owned(), Some("v7".to_owned())),
            ("armel", _) => ("arm".to_owned(), Some("v6".to_owned())),
            ("arm", None) => ("arm".to_owned(), Some("v7".to_owned())),
            ("arm", Some("5" | "6" | "7" | "8")) => ("arm".to_owned(), variant.map(|number| format!("v{number}"))),
            ("i386" | "x86", _) => ("386".to_owned(), variant),
            (other, _) => (other.to_owned(), variant),
        };
        Self { os: lower(os), architecture, variant }
    }

    /// That of this machine.
    pub fn host() -> Self {
        let little = cfg!(target_endian = "little");
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if little => "ppc64le",
            "powerpc64" => "ppc64",
            "mips64" if little => "mips64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, None)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_for_the_same_platform_compare_equal() {
        let check = |text: &str, expect: &str| {
            assert_eq!(Platform::parse(text).map(|platform| platform.to_string()).as_deref(), Some(expect), "{text}");
        };
        check("linux/amd64", "linux/amd64");
        check("Linux/x86_64", "linux/amd64");
        check("linux/amd64/v1", "linux/amd64");
        check("linux/amd64/v3", "linux/amd64/v3");
        check("linux/aarch64", "linux/arm64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm64/v9", "linux/arm64/v9");
        check("linux/armhf", "linux/arm/v7");
        check("linux/arm/7", "linux/arm/v7");
        check("linux/arm", "linux/arm/v7");
        check("linux/i386", "linux/386");
        check("windows/amd64", "windows/amd64");
        for wrong in ["", "linux", "linux/", "/amd64", "linux/amd64/", "a/b/c/d", "linux/am d64", "linux/amd64\n"] {
            assert_eq!(Platform::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Platform::parse(&Platform::host().to_string()), Some(Platform::host()));
    }
}
