//! Registries as a run and the commands about images speak with them: whose certificates count, who we are. Knows no protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::base::platform::Platform;
use crate::engine::image_base::BaseError;
use crate::engine::session::Session;
use crate::engine::{trust, waiting};
use crate::image::BlobDigest;
use crate::process::cancel::Cancel;
use crate::registry::{Client, OnWait, OwnTls, Patience, Proxies, Reference, Settings, Wanted, pull as pull_image};

/// Hosts that are spoken to without TLS, besides this machine: names with their ports, with commas between.
const INSECURE_VARIABLE: &str = "DRYSTONE_INSECURE_REGISTRIES";

/// A client for the environment that a command was started in.
/// Waits for a registry are told to `on_wait`.
///
/// # Errors
/// If the system has no descriptor or thread left.
pub fn client(variables: &BTreeMap<String, String>, cancel: &Cancel, on_wait: Option<OnWait>) -> io::Result<Client> {
    let known = variables.clone();
    let settings = Settings {
        tls: Arc::new(move || trust::roots(&known)),
        own_tls: Some(own_tls(variables)),
        proxies: Proxies::named(variables),
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

/// Whose word TLS takes of a registry, where files of the machine say so.
fn own_tls(variables: &BTreeMap<String, String>) -> OwnTls {
    let variables = variables.clone();
    Arc::new(move |host| trust::of_registry(&variables, host))
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
    use super::*;

    fn variables(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn hosts_without_tls_are_compared_in_lower_case() {
        let found = insecure(&variables(&[(INSECURE_VARIABLE, " Registry.Example:5000,,[::1]:5000 ")]));
        assert_eq!(found, BTreeSet::from(["registry.example:5000".to_owned(), "[::1]:5000".to_owned()]));
    }
}
