//! What stands between this machine and others, as the environment of the command names it. Asks nobody, and reads no environment itself.
//!
//! `HTTPS_PROXY` is for https and `HTTP_PROXY` for http, `ALL_PROXY` for what these leave open; each in capitals first. `NO_PROXY` names
//! who is asked directly: `host` (with all below it), `.host` (those below it alone), `host:port`, an address, a range of addresses
//! (`10.0.0.0/8`), or `*`, with commas between. This machine always is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ureq::{Proxy, ProxyProtocol};

use crate::registry::url::{host_of, is_loopback, port_of};

/// Most entries of a list of who is asked directly.
const DIRECT_MAX: usize = 1024;

/// What may stand between, and for whom nothing does.
#[derive(Clone, Default, Debug)]
pub struct Proxies {
    https: Option<Named>,
    http: Option<Named>,
    direct: Vec<Direct>,
}

/// What a variable names.
#[derive(Clone, Debug)]
enum Named {
    Proxy(Proxy),
    /// The variable, whose value may hold a password.
    Unspoken(&'static str),
}

/// Who is asked directly.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Direct {
    All,
    Range { start: IpAddr, bits: u32 },
    Host { name: String, port: Option<u16>, is_itself: bool },
}

impl Proxies {
    /// Those that variables name. What stands in them is first looked at when somebody is asked who is not on this machine.
    pub fn named(variables: &BTreeMap<String, String>) -> Self {
        let first = |names: [&'static str; 4]| {
            let of = |name: &&'static str| variables.get(*name).is_some_and(|text| !text.trim().is_empty());
            names.into_iter().find(of).map(|name| Named::of(name, variables[name].trim()))
        };
        let direct = ["NO_PROXY", "no_proxy"].iter().find_map(|name| variables.get(*name));
        let entries = direct.into_iter().flat_map(|text| text.split([',', ' ', '\t'])).filter(|text| !text.is_empty());
        Self {
            https: first(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            http: first(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            direct: entries.take(DIRECT_MAX).filter_map(Direct::read).collect(),
        }
    }

    /// What stands between here and a host, with its port as it stands in an address; in words what is wrong with it.
    pub fn between(&self, is_secure: bool, authority: &str) -> Result<Option<&Proxy>, String> {
        let named = if is_secure { &self.https } else { &self.http };
        let Some(named) = named else { return Ok(None) };
        let port = port_of(authority).unwrap_or(if is_secure { 443 } else { 80 });
        let host = host_of(authority).trim_end_matches('.').to_ascii_lowercase();
        if is_loopback(authority) || self.direct.iter().any(|direct| direct.is_meant(&host, port)) {
            return Ok(None);
        }
        match named {
            Named::Proxy(proxy) => Ok(Some(proxy)),
            Named::Unspoken(name) => {
                Err(format!("`{name}` names no proxy of http or https, such as `http://proxy.example:3128`"))
            }
        }
    }
}

impl Named {
    fn of(name: &'static str, text: &str) -> Self {
        match Proxy::new(text) {
            // With one of another kind (SOCKS) ureq, as it is built here, would end the process.
            Ok(proxy) if matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) => Self::Proxy(proxy),
            _ => Self::Unspoken(name),
        }
    }
}

impl Direct {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if let Some((start, bits)) = text.split_once('/') {
            let (start, bits) = (start.parse::<IpAddr>().ok()?, bits.parse::<u32>().ok()?);
            return (bits <= bits_of(start)).then_some(Self::Range { start, bits });
        }
        let (name, port) = if text.parse::<IpAddr>().is_ok() { (text, None) } else { (host_of(text), port_of(text)) };
        let below = name.strip_prefix('*').unwrap_or(name).strip_prefix('.');
        let name = below.unwrap_or(name).trim_end_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Self::Host { name, port, is_itself: below.is_none() })
    }

    fn is_meant(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Range { start, bits } => host.parse().is_ok_and(|address| is_in(address, *start, *bits)),
            Self::Host { name, port: meant, is_itself } => {
                let is_below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                meant.is_none_or(|meant| meant == port) && (is_below || (*is_itself && host == name))
            }
        }
    }
}

fn bits_of(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_in(address: IpAddr, start: IpAddr, bits: u32) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let shift = bits_of(start) - bits;
    let head = |address: IpAddr| number(address).checked_shr(shift).unwrap_or(0);
    address.is_ipv4() == start.is_ipv4() && head(address) == head(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(all: &[(&str, &str)]) -> Proxies {
        Proxies::named(&all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn each_scheme_has_its_own_proxy_and_what_is_left_open_the_one_for_all() {
        let check = |all: &[(&str, &str)], https: Option<(&str, u16)>, http: Option<(&str, u16)>| {
            let found = named(all);
            for (is_secure, expect) in [(true, https), (false, http)] {
                let proxy = found.between(is_secure, "r.example").expect("one of http");
                assert_eq!(proxy.map(|proxy| (proxy.host(), proxy.port())), expect, "{all:?} {is_secure}");
            }
        };
        let (p, q) = (Some(("p.example", 3128)), Some(("q.example", 443)));
        check(&[], None, None);
        check(&[("PROXY", "http://p.example:3128")], None, None);
        check(&[("https_proxy", "http://p.example:3128")], p, None);
        check(&[("HTTP_PROXY", "p.example:3128"), ("HTTPS_PROXY", "")], None, p);
        check(&[("HTTPS_PROXY", "http://p.example:3128"), ("ALL_PROXY", "https://q.example")], p, q);
        check(&[("all_proxy", " http://p.example:3128 ")], p, p);
        check(&[("https_proxy", "https://q.example"), ("HTTPS_PROXY", "http://p.example:3128")], p, None);
    }

    #[test]
    fn names_and_passwords_of_a_proxy_stay_and_are_told_nobody() {
        let found = named(&[("HTTPS_PROXY", "http://ann:p%40ss@p.example:8080")]);
        let proxy = found.between(true, "r.example").expect("one of http").expect("one");
        assert_eq!((proxy.username(), proxy.password(), proxy.port()), (Some("ann"), Some("p@ss"), 8080));
        assert!(!format!("{found:?}").contains("ss@"), "{found:?}");
        for unspoken in ["socks5://ann:hush@s.example:1080", "ftp://ann:hush@x", "://"] {
            let found = named(&[("HTTPS_PROXY", unspoken), ("NO_PROXY", "a.example")]);
            let told = found.between(true, "r.example").expect_err("none that is spoken");
            assert!(told.contains("`HTTPS_PROXY`") && !told.contains("hush"), "{told}");
            assert!(!format!("{found:?}").contains("hush"));
            // Whoever needs none is not kept by it.
            for direct in ["a.example:5000", "127.0.0.1:5000", "localhost"] {
                assert!(found.between(true, direct).expect("none").is_none(), "{direct}");
            }
            assert!(found.between(false, "r.example").expect("none").is_none());
        }
    }

    #[test]
    fn hosts_that_are_named_are_asked_directly() {
        let check = |direct: &str, host: &str, expect: bool| {
            let found = named(&[("HTTPS_PROXY", "http://p.example:1"), ("no_proxy", direct)]);
            let is_direct = found.between(true, host).expect("one of http").is_none();
            assert_eq!(is_direct, expect, "{direct}: {host}");
        };
        check("a.example", "a.example", true);
        check("a.example", "X.A.example:5000", true);
        check("a.example", "xa.example", false);
        check("A.Example.", "a.example", true);
        for below in [".a.example", "*.a.example"] {
            check(below, "a.example", false);
            check(below, "x.a.example", true);
        }
        check("b.example, a.example", "a.example", true);
        check("a.example:5000", "a.example:5000", true);
        check("a.example:5000", "a.example", false);
        check("a.example:443", "a.example", true);
        check("*", "a.example", true);
        check("10.0.0.0/8", "10.9.8.7:5000", true);
        check("10.0.0.0/8", "11.9.8.7", false);
        check("10.0.0.0/8", "10.example", false);
        check("0.0.0.0/0", "11.9.8.7", true);
        check("10.1.2.3", "10.1.2.3:5000", true);
        check("fd00::/8", "[fd12::1]:5000", true);
        check("::/0", "[fd12::1]", true);
        check("fd12::1", "[fd12::1]:5000", true);
        check("[fd12::1]:5000", "[fd12::1]:5000", true);
        for nonsense in ["", ",", "10.0.0.0/33", "x/8", ".", "*."] {
            check(nonsense, "a.example", false);
        }
        check("", "127.0.0.1:5000", true);
        check("", "[::1]:5000", true);
    }
}
