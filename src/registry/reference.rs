//! Names of images in registries: `host[:port]/repository[:tag][@digest]`. Asks nobody.
//!
//! The host is always written: which one a short name means differs from tool to tool and from machine to machine.

use std::fmt;

use crate::image::BlobDigest;
use crate::registry::error::{RegistryError, quoted};

/// Docker's own registry, by the name that people write. Cut in two: nothing else here prefers a registry.
const HUB: &str = concat!("docker", ".io");
/// Where it answers.
const HUB_SERVER: &str = concat!("registry-1.docker", ".io");
/// Longest repository, in bytes (distribution specification: 255 with the host, by most registries).
const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest host with its port, in bytes.
const HOST_BYTES_MAX: usize = 255;
/// Longest tag, in bytes.
const TAG_BYTES_MAX: usize = 128;

/// A repository of a registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Repository {
    /// Host and port, in lower case.
    pub host: String,
    /// Name there.
    pub name: String,
}

/// A name of an image.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reference {
    /// Where it lies.
    pub repository: Repository,
    /// Its tag.
    pub tag: Option<String>,
    /// Its digest. Where there is one, the tag says nothing.
    pub digest: Option<BlobDigest>,
}

impl Repository {
    /// Parses `host[:port]/name`.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let reference = Reference::parse(text)?;
        if reference.tag.is_some() || reference.digest.is_some() {
            return Err(refused(text, "a repository is meant: leave tag and digest out"));
        }
        Ok(reference.repository)
    }

    /// Host and port that are asked.
    pub fn server(&self) -> &str {
        if self.host == HUB { HUB_SERVER } else { &self.host }
    }
}

impl Reference {
    /// Parses a name. Neither tag nor digest means the tag `latest`, as [`Reference::wanted`] has it.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let (before, digest) = match text.split_once('@') {
            None => (text, None),
            Some((before, digest)) => {
                let digest = BlobDigest::parse(digest).map_err(|error| refused(text, &error.to_string()))?;
                (before, Some(digest))
            }
        };
        let (host, path) = match before.split_once('/') {
            Some((host, path)) if is_host(host) => (host.to_ascii_lowercase(), path),
            _ => return Err(refused(text, &host_is_missing(before))),
        };
        let (name, tag) = match path.rsplit_once(':') {
            None => (path, None),
            Some((name, tag)) => (name, Some(tag.to_owned())),
        };
        if let Some(tag) = &tag
            && !is_tag(tag)
        {
            return Err(refused(text, "a tag has up to 128 letters, digits, `.`, `_` and `-`"));
        }
        if name.len() > REPOSITORY_BYTES_MAX || !name.split('/').all(is_component) {
            let cause = "a repository has lower-case letters and digits, with `.`, `_`, `__` or `-` between them, \
                         in parts separated by `/`";
            return Err(refused(text, cause));
        }
        let is_short = host == HUB && !name.contains('/');
        let name = if is_short { format!("library/{name}") } else { name.to_owned() };
        Ok(Self { repository: Repository { host, name }, tag, digest })
    }

    /// What is asked for: the digest, else the tag, else `latest`.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether text is a tag.
pub fn is_tag(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    starts_well && text.len() <= TAG_BYTES_MAX && text.bytes().all(fine)
}

fn refused(text: &str, cause: &str) -> RegistryError {
    RegistryError::Reference { text: quoted(text), cause: cause.to_owned() }
}

fn host_is_missing(text: &str) -> String {
    let is_name = text.split(['/', ':']).all(|part| !part.is_empty()) && !text.is_empty();
    if !is_name {
        return "it starts with a host, as `registry.example/team/app:v1`".into();
    }
    let library = if text.contains('/') { "" } else { "library/" };
    format!(
        "it does not say its host (one with a dot or a port, or `localhost`); write it out, as `{HUB}/{library}{}`",
        quoted(text)
    )
}

/// Whether the part before the first `/` is a host: it has a dot or a port, or is `localhost`.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|behind| behind.split_once(']')) {
        Some((address, behind)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (None, behind.strip_prefix(':')),
        Some(_) => return false,
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let port_is_fine = port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
    let Some(host) = host else { return port_is_fine };
    let letters = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let says_so = host.contains('.') || port.is_some() || host.eq_ignore_ascii_case("localhost");
    says_so && text.len() <= HOST_BYTES_MAX && port_is_fine && host.split('.').all(letters)
}

/// One part of a repository (distribution specification, `<name>`).
fn is_component(text: &str) -> bool {
    let mut rest = text;
    loop {
        let word = rest.find(|letter: char| !matches!(letter, 'a'..='z' | '0'..='9')).unwrap_or(rest.len());
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let dashes = rest.len() - rest.trim_start_matches('-').len();
        rest = match rest.strip_prefix("__").or_else(|| rest.strip_prefix(['.', '_'])) {
            Some(behind) => behind,
            None if dashes > 0 => &rest[dashes..],
            None => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let hex = "a".repeat(64);
        let check = |text: &str, host: &str, name: &str, tag: Option<&str>, digest: bool| {
            let read = Reference::parse(text).expect(text);
            assert_eq!((read.repository.host.as_str(), read.repository.name.as_str()), (host, name), "{text}");
            assert_eq!((read.tag.as_deref(), read.digest.is_some()), (tag, digest), "{text}");
        };
        check("registry.example/app", "registry.example", "app", None, false);
        check("Registry.Example:5000/a/b-c__d.e:v1", "registry.example:5000", "a/b-c__d.e", Some("v1"), false);
        check("localhost/app:_x", "localhost", "app", Some("_x"), false);
        check("[::1]:5000/app", "[::1]:5000", "app", None, false);
        check(&format!("127.0.0.1:80/a@sha256:{hex}"), "127.0.0.1:80", "a", None, true);
        check(&format!("r.example/a:v1@sha256:{hex}"), "r.example", "a", Some("v1"), true);
        check(&format!("{HUB}/debian:12"), HUB, "library/debian", Some("12"), false);
        assert_eq!(Reference::parse(&format!("{HUB}/a/b")).expect("a name").repository.server(), HUB_SERVER);
        assert_eq!(Reference::parse("r.example/a").expect("a name").wanted(), "latest");
    }

    #[test]
    fn a_name_without_its_host_is_refused_with_the_whole_one() {
        let check = |text: &str, expect: &str| {
            let told = Reference::parse(text).expect_err(text).to_string();
            assert!(told.contains(expect), "{text}: {told}");
        };
        check("debian:12", &format!("`{HUB}/library/debian:12`"));
        check("team/app", &format!("`{HUB}/team/app`"));
        check("", "starts with a host");
        check("/app", "starts with a host");
        check("r.example/App", "lower-case");
        check("r.example/a//b", "lower-case");
        check("r.example/a/../b", "lower-case");
        check("r.example/a:", "a tag has");
        check("r.example/a:-x", "a tag has");
        check("r.example/a@sha256:12", "no digest");
        check("r.example:99999/a", "does not say its host");
        check("https://r.example/a", "starts with a host");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in "[a-z]{1,5}(\\.[a-z]{1,3}){1,2}(:[1-9][0-9]{0,3})?/[a-z0-9]{1,4}([._-][a-z0-9]{1,3}){0,2}(/[a-z]{1,3})?(:[A-Za-z0-9_][A-Za-z0-9._-]{0,5})?") {
            prop_assert_eq!(Reference::parse(&text).expect("a name").to_string(), text);
        }

        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,80}") {
            if let Ok(read) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&read.to_string()).expect("its own words"), read);
            }
        }
    }
}
