//! How things are called in bills of materials: package URLs, UUIDs, times, licences, places. Decides nothing about what is told.

use sha2::{Digest as _, Sha256};

pub use crate::base::time::rfc3339;
use crate::image::BlobDigest;

/// Texts of UUIDs are digested with this before them, so that nobody else's are the same.
const UUID_SPACE: &str = "https://drystone.dev/uuid/v1\0";

/// A UUID that follows from a kind of thing and bytes, in the form of version 8 of RFC 9562 (section 5.8: bytes of our own making): the first
/// 122 bits of a SHA-256.
pub fn uuid(kind: &str, of: &[u8]) -> String {
    let mut bytes: [u8; 32] = Sha256::digest([UUID_SPACE.as_bytes(), kind.as_bytes(), b"\0", of].concat()).into();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Text as a part of a package URL (purl specification, "Character encoding"): what is not allowed as `%XX`.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The package URL of an image: `pkg:oci/web@sha256:…?repository_url=registry.example/acme/web`.
pub fn image_purl(name: &str, digest: &BlobDigest) -> String {
    let repository = without_tag(name);
    let last = repository.rsplit('/').next().unwrap_or(repository).to_lowercase();
    let mut purl = format!("pkg:oci/{}@{}", percent_encoded(&last), percent_encoded(&digest.to_string()));
    if repository.contains('/') {
        let parts: Vec<_> = repository.split('/').map(percent_encoded).collect();
        purl.push_str(&format!("?repository_url={}", parts.join("/")));
    }
    purl
}

/// A reference of an image without its tag and digest.
pub fn without_tag(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// A place on the web as it may be told to everyone: without user and password. `None` for what is no such place, or would have to
/// be written otherwise.
pub fn public_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(host_end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte));
    let fine = ["https", "http"].contains(&scheme) && is_host && path.bytes().all(is_fine);
    fine.then(|| format!("{scheme}://{host}{path}"))
}

/// A URI without the user and password that its authority may have; `git@` of ssh is neither.
pub fn without_user(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) if !scheme.ends_with("ssh") || user.contains(':') => format!("{scheme}://{host}{path}"),
        _ => uri.to_owned(),
    }
}

/// Identifiers of the SPDX licence list that are known here: those that packages mostly have.
const LICENCES: [&str; 62] = [
    "0BSD",
    "AFL-2.1",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSD-4-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDDL-1.0",
    "EPL-1.0",
    "EPL-2.0",
    "EUPL-1.2",
    "FTL",
    "GFDL-1.3-only",
    "GFDL-1.3-or-later",
    "GPL-1.0-or-later",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ICU",
    "IJG",
    "ISC",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "LPPL-1.3c",
    "Libpng",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-1.1",
    "MPL-2.0",
    "MS-PL",
    "NCSA",
    "OFL-1.1",
    "OpenSSL",
    "PHP-3.01",
    "PSF-2.0",
    "PostgreSQL",
    "Ruby",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Vim",
    "WTFPL",
    "X11",
    "Zlib",
];

/// A licence as an SPDX expression, if every identifier in it is known here: `MIT`, `MIT AND (Apache-2.0 OR ISC)`.
pub fn licence_expression(text: &str) -> Option<String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut depth = 0_u32;
    // Whether a licence must come next, rather than what joins two.
    let mut wanted = true;
    let mut written = String::new();
    for word in spaced.split_ascii_whitespace() {
        match (word, wanted) {
            ("(", true) => depth += 1,
            (")", false) => depth = depth.checked_sub(1)?,
            ("AND" | "OR", false) => wanted = true,
            (word, true) if LICENCES.contains(&word) => wanted = false,
            _ => return None,
        }
        if !written.is_empty() && word != ")" && !written.ends_with('(') {
            written.push(' ');
        }
        written.push_str(word);
    }
    (depth == 0 && !wanted).then_some(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let check = |seconds: u64, expect: &str| assert_eq!(rfc3339(seconds), expect, "{seconds}");
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_700_000_000, "2023-11-14T22:13:20Z");
        check(4_107_542_399, "2100-02-28T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        check(u64::MAX, "9999-12-31T23:59:59Z");
    }

    #[test]
    fn uuids_follow_from_what_they_name() {
        let one = uuid("sbom", b"sha256:00");
        assert_eq!((one.len(), &one[14..15]), (36, "8"));
        assert!(["8", "9", "a", "b"].contains(&&one[19..20]), "{one}");
        assert_ne!(one, uuid("sbom", b"sha256:01"));
        assert_ne!(one, uuid("other", b"sha256:00"));
    }

    #[test]
    fn images_have_package_urls() {
        let digest = BlobDigest::of(b"");
        let hex = digest.hex();
        let check = |name: &str, expect: String| assert_eq!(image_purl(name, &digest), expect);
        check("web", format!("pkg:oci/web@sha256:{hex}"));
        let repository = "registry.example:5000/acme/Web";
        check(&format!("{repository}:v1"), format!("pkg:oci/web@sha256:{hex}?repository_url={repository}"));
        check(&format!("{repository}@{digest}"), format!("pkg:oci/web@sha256:{hex}?repository_url={repository}"));
        check(repository, format!("pkg:oci/web@sha256:{hex}?repository_url={repository}"));
    }

    #[test]
    fn no_password_is_told() {
        let check = |url: &str, expect: Option<&str>| assert_eq!(public_url(url).as_deref(), expect, "{url}");
        check("https://a.example/x?y=1", Some("https://a.example/x?y=1"));
        check("https://ann:secret@a.example:8443/x", Some("https://a.example:8443/x"));
        check("https://ann:se@cret@a.example", Some("https://a.example"));
        check("https://a.example/@scope/x", Some("https://a.example/@scope/x"));
        for bad in
            ["", "x", "file:///etc/passwd", "https://", "https://a b/", "https://a.example/x y", "ssh://a.example"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn only_licences_that_are_known_make_an_expression() {
        let check =
            |text: &str, expect: Option<&str>| assert_eq!(licence_expression(text).as_deref(), expect, "{text}");
        check("MIT", Some("MIT"));
        check(" MIT  OR Apache-2.0 ", Some("MIT OR Apache-2.0"));
        check("(MIT OR ISC) AND (Zlib)", Some("(MIT OR ISC) AND (Zlib)"));
        for bad in ["", "MIT OR", "MIT ISC", "(MIT", "MIT)", "mit", "AND", "GPL", "()", "MIT WITH x"] {
            check(bad, None);
        }
        assert!(LICENCES.is_sorted());
    }
}
