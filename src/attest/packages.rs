//! What the databases of package managers say is installed: Debian's and Alpine's. Takes text that nobody checked; never fails.

use crate::attest::model::{Component, ComponentKind};
use crate::attest::names::percent_encoded;

/// Most packages told of one database; a full desktop has about 3,000.
const PACKAGES_MAX: usize = 100_000;

/// Longest name, version or licence taken, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// The packages of `var/lib/dpkg/status`, or of one file in `var/lib/dpkg/status.d`, in the order of their names. Those that are
/// not installed, and what is no package, are left out. `distribution` is the `ID` of `etc/os-release`: `debian`, `ubuntu`.
pub fn debian_packages(status: &[u8], distribution: &str) -> Vec<Component> {
    let mut found = Vec::new();
    for fields in stanzas(status, |line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim()))
    }) {
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
        // `want flag status`; files of `status.d` have none, as all of them are installed.
        let installed =
            field("status").is_none_or(|status| status.split_ascii_whitespace().nth(2) == Some("installed"));
        let (Some(name), Some(version)) = (field("package"), field("version")) else { continue };
        if installed && is_package_name(name) && is_version(version) {
            let kind = ComponentKind::DebianPackage;
            found.push(package(kind, "deb", distribution, name, version, field("architecture")));
        }
    }
    sorted(found)
}

/// The packages of `lib/apk/db/installed`, in the order of their names.
pub fn alpine_packages(installed: &[u8]) -> Vec<Component> {
    let mut found = Vec::new();
    for fields in stanzas(installed, |line| {
        let (name, value) = line.split_once(':')?;
        // Lower case is something else there: `p:` is what a package provides.
        (name.len() == 1).then(|| (name.to_owned(), value.trim()))
    }) {
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
        let (Some(name), Some(version)) = (field("P"), field("V")) else { continue };
        if is_package_name(name) && is_version(version) {
            let mut found_one = package(ComponentKind::AlpinePackage, "apk", "alpine", name, version, field("A"));
            let licence = field("L").filter(|licence| !licence.is_empty() && licence.len() <= TEXT_BYTES_MAX);
            found_one.licence = licence.map(str::to_owned);
            found.push(found_one);
        }
    }
    sorted(found)
}

/// Blocks of lines between empty ones, as the fields that `field` makes of their lines. Lines that go on an earlier one are left out.
fn stanzas<'a>(
    text: &'a [u8],
    field: impl Fn(&'a str) -> Option<(String, &'a str)>,
) -> impl Iterator<Item = Vec<(String, &'a str)>> {
    let mut lines = text.split(|byte| *byte == b'\n').peekable();
    std::iter::from_fn(move || {
        lines.peek()?;
        let mut fields = Vec::new();
        for line in lines.by_ref() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
                break;
            }
            // A line that is not UTF-8 holds no name and no version; descriptions of old packages are such.
            let Ok(line) = std::str::from_utf8(line) else { continue };
            if !line.starts_with([' ', '\t']) {
                fields.extend(field(line));
            }
        }
        Some(fields)
    })
    .take(PACKAGES_MAX)
}

/// Debian policy, section 5.6.7; Alpine allows `_` and capitals as well.
fn is_package_name(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
    name.len() <= TEXT_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(fine)
}

fn is_version(version: &str) -> bool {
    !version.is_empty() && version.len() <= TEXT_BYTES_MAX && version.bytes().all(|byte| byte.is_ascii_graphic())
}

fn package(
    kind: ComponentKind,
    type_word: &str,
    distribution: &str,
    name: &str,
    version: &str,
    architecture: Option<&str>,
) -> Component {
    let space = percent_encoded(&distribution.to_ascii_lowercase());
    let (encoded_name, encoded_version) = (percent_encoded(&name.to_ascii_lowercase()), percent_encoded(version));
    let mut purl = format!("pkg:{type_word}/{space}/{encoded_name}@{encoded_version}");
    if let Some(architecture) = architecture.filter(|architecture| is_package_name(architecture)) {
        purl.push_str(&format!("?arch={}", percent_encoded(architecture)));
    }
    Component { version: Some(version.to_owned()), purl: Some(purl), ..Component::new(kind, name) }
}

fn sorted(mut components: Vec<Component>) -> Vec<Component> {
    components.sort();
    components.dedup();
    components
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(components: &[Component]) -> Vec<String> {
        components.iter().map(|one| one.purl.clone().expect("packages have one")).collect()
    }

    #[test]
    fn what_dpkg_has_installed_is_told() {
        let status = b"Package: libstdc++6\nStatus: install ok installed\nPriority: optional\nArchitecture: amd64\n\
            Source: gcc-12\nVersion: 12.2.0-14+deb12u1\nDescription: GNU Standard C++ Library\n Package: not-me\n .\n more\n\n\
            Package: attr\r\nStatus: install ok installed\r\nArchitecture: all\r\nVersion: 1:2.5.1~4\r\n\r\n\n\n\
            Package: removed\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
            Package: half\nStatus: install ok half-installed\nVersion: 1\n\n\
            Package: no-version\nStatus: install ok installed\n\n\
            Package: ../evil\nVersion: 1\n\nPackage: bad\nVersion: 1 2\n\nno field at all\n\xff\xfe: x\n\n\
            package: last\nVERSION: 3\nMaintainer: J\xf6rg";
        let expect = [
            "pkg:deb/debian/attr@1:2.5.1~4?arch=all",
            "pkg:deb/debian/last@3",
            "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64",
        ];
        assert_eq!(told(&debian_packages(status, "debian")), expect);
        let of_one_file = b"Package: base-files\nArchitecture: arm64\nVersion: 12.4\n";
        assert_eq!(told(&debian_packages(of_one_file, "Ubuntu")), ["pkg:deb/ubuntu/base-files@12.4?arch=arm64"]);
        for nothing in [&b""[..], b"\n\n\n", b":", b"Package", b"Package:\nVersion:\n", &[0xff; 1000]] {
            assert_eq!(debian_packages(nothing, "debian"), []);
        }
    }

    #[test]
    fn what_apk_has_installed_is_told() {
        let installed =
            b"C:Q1abc\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\np:so:libc.musl\nF:lib\nR:ld-musl\n\nP:zlib\nV:1.3\n\nV:1\n";
        let found = alpine_packages(installed);
        assert_eq!(told(&found), ["pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64", "pkg:apk/alpine/zlib@1.3"]);
        assert_eq!(found[0].licence.as_deref(), Some("MIT"));
    }

    #[test]
    fn a_database_without_end_is_cut() {
        let many = "Package: a\nVersion: 1\n\n".repeat(PACKAGES_MAX + 10);
        assert_eq!(debian_packages(many.as_bytes(), "debian").len(), 1);
    }
}
