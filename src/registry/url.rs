//! Addresses of http and https: read, joined with a `Location`, compared by who is asked. Knows no name is looked up.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// Longest address followed, in bytes. Signed addresses of storage have some 2,000.
const URL_BYTES_MAX: usize = 16 * 1024;

/// An absolute address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Url {
    is_secure: bool,
    authority: String,
    /// Path and query, from `/` on.
    rest: String,
}

impl Url {
    /// The address of a path on a host.
    pub fn new(is_secure: bool, authority: &str, rest: String) -> Self {
        Self { is_secure, authority: authority.to_ascii_lowercase(), rest }
    }

    /// Reads an absolute address; in words what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.split('#').next().unwrap_or_default();
        if text.len() > URL_BYTES_MAX {
            return Err("the address is too long");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the address has characters that no address has");
        }
        let (scheme, behind) = text.split_once("://").ok_or("the address is not absolute")?;
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("the address is neither of http nor of https"),
        };
        let end = behind.find(['/', '?']).unwrap_or(behind.len());
        let (authority, rest) = behind.split_at(end);
        if authority.is_empty() || authority.contains('@') {
            return Err("the address has no host, or names a user");
        }
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        Ok(Self::new(is_secure, authority, rest))
    }

    /// What a `Location` means that came from here.
    pub fn join(&self, location: &str) -> Result<Self, &'static str> {
        let location = location.trim();
        let scheme = if self.is_secure { "https" } else { "http" };
        let authority = &self.authority;
        let path = self.rest.split('?').next().unwrap_or("/");
        if location.contains("://") && !location.starts_with(['/', '?']) {
            Self::parse(location)
        } else if let Some(behind) = location.strip_prefix("//") {
            Self::parse(&format!("{scheme}://{behind}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{authority}{location}"))
        } else if location.starts_with('?') {
            Self::parse(&format!("{scheme}://{authority}{path}{location}"))
        } else {
            let dir = &path[..=path.rfind('/').unwrap_or(0)];
            Self::parse(&format!("{scheme}://{authority}{dir}{location}"))
        }
    }

    /// The same with one more parameter; those it has stay.
    pub fn with_query(&self, name: &str, value: &str) -> Self {
        let joint = match self.rest.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some((_, query)) if query.ends_with('&') => "",
            Some(_) => "&",
        };
        Self { rest: format!("{}{joint}{name}={}", self.rest, encoded(value)), ..self.clone() }
    }

    /// The same of https.
    pub fn secured(&self) -> Self {
        Self { is_secure: true, ..self.clone() }
    }

    /// Whether it is of https.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Host and port, as they stand.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether both ask the same server in the same way.
    pub fn is_same_server(&self, other: &Self) -> bool {
        let port = |url: &Self| match url.authority.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) => {
                (host.to_owned(), port.to_owned())
            }
            _ => (url.authority.clone(), if url.is_secure { "443" } else { "80" }.to_owned()),
        };
        self.is_secure == other.is_secure && port(self) == port(other)
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.rest)
    }
}

/// A value for a query or a form: everything but letters, digits and `-._~` escaped.
pub fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Whether a host is this machine: what is sent there passes no wire.
pub fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether plain http may be spoken with a host.
pub fn may_be_plain(authority: &str, insecure: &BTreeSet<String>) -> bool {
    is_loopback(authority) || insecure.contains(authority)
}

/// The host without its port and brackets.
pub fn host_of(authority: &str) -> &str {
    if let Some((address, _)) = authority.strip_prefix('[').and_then(|behind| behind.split_once(']')) {
        return address;
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// The port behind a host, if it has one.
pub fn port_of(authority: &str) -> Option<u16> {
    let behind = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
    behind.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_means_what_a_browser_would_make_of_it() {
        let base = Url::parse("https://r.example/v2/a/blobs/uploads/7?x=1").expect("an address");
        let check = |location: &str, expect: &str| {
            assert_eq!(base.join(location).expect(location).to_string(), expect, "{location}");
        };
        check("https://s.example:8443/u?k=v#part", "https://s.example:8443/u?k=v");
        check("/v2/u/9?state=a%2Fb", "https://r.example/v2/u/9?state=a%2Fb");
        check("/u?next=http://other.example/", "https://r.example/u?next=http://other.example/");
        check("9", "https://r.example/v2/a/blobs/uploads/9");
        check("?y=2", "https://r.example/v2/a/blobs/uploads/7?y=2");
        check("//s.example", "https://s.example/");
        for wrong in ["ftp://s.example/", "https://user@s.example/", "https:///x", "/a b", "/a\r\nX: y", "/\u{e9}"] {
            assert!(base.join(wrong).is_err(), "{wrong}");
        }
        assert!(base.join(&"x".repeat(URL_BYTES_MAX)).is_err());
    }

    #[test]
    fn a_digest_is_added_to_the_query_that_is_there() {
        let check = |url: &str, expect: &str| {
            let with = Url::parse(url).expect("an address").with_query("digest", "sha256:ab");
            assert_eq!(with.to_string(), expect);
        };
        check("http://localhost:5000/u", "http://localhost:5000/u?digest=sha256%3Aab");
        check("http://localhost:5000/u?_state=x%3D", "http://localhost:5000/u?_state=x%3D&digest=sha256%3Aab");
        check("http://localhost:5000/u?", "http://localhost:5000/u?digest=sha256%3Aab");
    }

    #[test]
    fn only_this_machine_and_named_hosts_are_spoken_to_in_the_clear() {
        let insecure = BTreeSet::from(["r.example:5000".to_owned()]);
        for plain in ["127.0.0.1:5000", "127.9.9.9", "localhost", "localhost:80", "[::1]:5000", "r.example:5000"] {
            assert!(may_be_plain(plain, &insecure), "{plain}");
        }
        for secure in ["r.example", "128.0.0.1:5000", "localhost.example", "127.0.0.1.example", "[::2]:5000"] {
            assert!(!may_be_plain(secure, &insecure), "{secure}");
        }
    }

    #[test]
    fn a_port_that_goes_without_saying_makes_no_other_server() {
        let url = |text: &str| Url::parse(text).expect("an address");
        assert!(url("https://R.example/a").is_same_server(&url("https://r.example:443/b")));
        assert!(!url("https://r.example/a").is_same_server(&url("https://r.example:8443/a")));
        assert!(!url("https://r.example:80/a").is_same_server(&url("http://r.example:80/a")));
        assert!(!url("https://r.example/a").is_same_server(&url("https://r.example.other/a")));
    }
}
