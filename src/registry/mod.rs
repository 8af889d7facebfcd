//! Layer 4: registries that speak the OCI distribution protocol. Knows no task and no manifest of a workspace.
//!
//! | file | owns |
//! |---|---|
//! | `reference` | names: host, repository, tag, digest |
//! | `url` | addresses, what a `Location` means, and where plain http is allowed |
//! | `credentials` | who we are, from the files and programs of Docker and Podman |
//! | `challenge` | the grammar of `WWW-Authenticate` |
//! | `auth` | tokens: asked for, kept, renewed |
//! | `proxy` | what stands between this machine and others |
//! | `agents` | connections: through which proxy, and whose word TLS takes |
//! | `client` | one question to a registry: signed, redirected, repeated |
//! | `documents` | manifests and indexes: asked for, looked at, put |
//! | `source` | where what is pushed comes from: a layout, or another repository |
//! | `upload` | one blob into one repository |
//! | `push` | an image into a repository, children first and tags last |
//! | `download` | one blob into a file, resumed where it broke off |
//! | `pull` | an image out of a repository, into a layout |
//! | `referrers` | what points at an image: listed, and kept in the fallback tag |
//! | `promote` | an image with its referrers from one repository to another, by digest |
//! | `tagged` | which tags were given from here |
//! | `workers` | several transfers at a time |
//!
//! Laws: nothing is sent or kept whose bytes are not its digest; a name never points at what is not whole; `Authorization` goes to
//! the host it is meant for and to no other; no secret is printed; every wait ends when the run is cancelled. The environment is not read
//! here: what matters of it is in [`Settings`].
//!
//! Source of the protocol: the OCI distribution specification 1.1; of tokens: "Token Authentication Specification" of the
//! distribution project; of credentials: `config.json` of Docker and containers-auth.json(5).

mod agents;
mod auth;
mod challenge;
mod client;
mod credentials;
mod documents;
mod download;
mod error;
#[cfg(test)]
#[path = "../../tests/it/support/registry/mod.rs"]
mod fake;
mod promote;
mod proxy;
mod pull;
mod push;
mod reference;
mod referrers;
mod source;
pub mod tagged;
#[cfg(test)]
mod tests;
mod upload;
mod url;
mod workers;

pub use agents::distrust;
pub use client::{Client, OnWait, OwnTls, Patience, Settings, Tls};
pub use documents::{Content, Document};
pub use download::discard;
pub use error::RegistryError;
pub use promote::{PromoteOptions, Promoted, promote};
pub use proxy::Proxies;
pub use pull::{PullEvent, Pulled, Wanted, pull, resolve};
pub use push::{PushEvent, PushOptions, Pushed, Tally, push};
pub use reference::{Reference, Repository, is_tag};
pub use referrers::{attach, referrers};
pub use url::Url;
