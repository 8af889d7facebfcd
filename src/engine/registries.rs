//! Registries as a run and the commands about images speak with them: whose certificates count, who we are. Knows no protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use ureq::{Proxy, ProxyProtocol};

use crate::base::platform::Platform;
use crate::engine::image_base::BaseError;
use crate::engine::session::Session;
use crate::engine::{trust, waiting};
use crate::image::BlobDigest;
use crate::process::cancel::Cancel;
use crate::registry::{Client, OnWait, Patience, Reference, Settings, Wanted, pull as pull_image};

/// Hosts that are spoken to without TLS, besides this machine: names with their ports, with commas between.
const INSECURE_VARIABLE: &str = "DRYSTONE_INSECURE_REGISTRIES";

/// What may stand between, by the first of these that names one (in the order of ureq, which fetches go by).
const PROXY_VARIABLES: [&str; 6] = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// Hosts that are asked directly all the same: `host`, `.domain`, `*.domain` or `*`, with commas between.
const DIRECT_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// A client for the environment that a command was started in.
/// Waits for a registry are told to `on_wait`.
///
/// # Errors
/// If the system has no descriptor or thread left.
pub fn client(variables: &BTreeMap<String, String>, cancel: &Cancel, on_wait: Option<OnWait>) -> io::Result<Client> {
    let settings = Settings {
        tls: trust::roots(variables),
        proxy: proxy(variables),
        variables: variables.clone(),
        user_agent: concat!("drystone/", env!("CARGO_PKG_VERSION")).to_owned(),
        insecure: insecure(variables),
        cancel: cancel.clone(),
        patience: Patience::default(),
        on_wait,
    };
    Client::new(settings)
}

/// The hosts of the variable, in lower case as those of names are.
fn insecure(variables: &BTreeMap<String, String>) -> BTreeSet<String> {
    let hosts = variables.get(INSECURE_VARIABLE).into_iter().flat_map(|hosts| hosts.split(','));
    hosts.map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty()).collect()
}

/// The proxy that variables name. One of a kind that is not spoken (SOCKS) is none: with it the client would end the process.
fn proxy(variables: &BTreeMap<String, String>) -> Option<Proxy> {
    let named = PROXY_VARIABLES.iter().filter_map(|name| variables.get(*name));
    let mut proxies = named.filter_map(|text| Proxy::new(text).ok());
    let proxy = proxies.find(|proxy| matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https))?;
    let Some(direct) = DIRECT_VARIABLES.iter().find_map(|name| variables.get(*name)) else { return Some(proxy) };
    let mut built = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(name) = proxy.username() {
        built = built.username(name);
    }
    if let Some(password) = proxy.password() {
        built = built.password(password);
    }
    direct.split(',').fold(built, |built, host| built.no_proxy(host.trim())).build().ok()
}

/// Pulls the image of this digest for a platform into a new directory, as a layout.
pub fn pull(
    session: &Session<'_>,
    name: &str,
    digest: &BlobDigest,
    platform: &Platform,
    to: &Path,
) -> Result<(), BaseError> {
    let client = client(&session.ambient.variables, &session.cancel, None).map_err(BaseError::Client)?;
    let mut reference = Reference::parse(name)?;
    reference.digest = Some(digest.clone());
    // In a cache of the store: what arrived of it serves the next run, and goes as caches do.
    let name = format!("pull {digest} {platform}");
    let cache = waiting::cache_dir(session, name)?.ok_or(BaseError::Cancelled)?;
    let wanted = Wanted::Only(vec![platform.clone()]);
    pull_image(&client, &reference, &wanted, to, cache.path(), &mut |_| {})?;
    Ok(cache.remove()?)
}

#[cfg(test)]
mod tests {
    use ureq::http::Uri;

    use super::*;

    fn variables(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_proxy_is_what_the_given_variables_name() {
        let check = |all: &[(&str, &str)], expect: Option<(&str, u16)>| {
            let found = proxy(&variables(all));
            assert_eq!(found.as_ref().map(|proxy| (proxy.host(), proxy.port())), expect, "{all:?}");
        };
        check(&[], None);
        check(&[("PROXY", "http://p.example:1")], None);
        check(&[("https_proxy", "http://p.example:3128")], Some(("p.example", 3128)));
        check(&[("HTTP_PROXY", "p.example")], Some(("p.example", 80)));
        check(&[("HTTPS_PROXY", "http://p.example:1"), ("ALL_PROXY", "https://q.example")], Some(("q.example", 443)));
        check(&[("ALL_PROXY", "socks5://s.example"), ("HTTPS_PROXY", "http://p.example:1")], Some(("p.example", 1)));
        check(&[("HTTPS_PROXY", "")], None);
        check(&[("HTTPS_PROXY", "http://[::1]:8"), ("NO_PROXY", "x.example")], Some(("[::1]", 8)));
    }

    #[test]
    fn hosts_may_be_asked_directly_and_names_and_passwords_stay() {
        let all = [("HTTPS_PROXY", "http://ann:p%40ss@p.example:8080"), ("no_proxy", "a.example, .b.example")];
        let proxy = proxy(&variables(&all)).expect("a proxy");
        assert_eq!((proxy.username(), proxy.password(), proxy.port()), (Some("ann"), Some("p@ss"), 8080));
        let check = |url: &'static str, expect: bool| assert_eq!(proxy.is_no_proxy(&Uri::from_static(url)), expect);
        check("https://a.example/v2/", true);
        check("https://x.b.example/v2/", true);
        check("https://b.example/v2/", false);
        check("https://c.example/v2/", false);
    }

    #[test]
    fn hosts_without_tls_are_compared_in_lower_case() {
        let found = insecure(&variables(&[(INSECURE_VARIABLE, " Registry.Example:5000,,[::1]:5000 ")]));
        assert_eq!(found, BTreeSet::from(["registry.example:5000".to_owned(), "[::1]:5000".to_owned()]));
    }
}
