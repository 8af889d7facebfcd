//! Who speaks http: one agent for each way to a host, which is a proxy or none, and whose word TLS takes. Knows no registry.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::tls::TlsConfig;
use ureq::{Agent, Proxy};

use crate::registry::client::Settings;
use crate::registry::url::{Url, host_of};

/// How long an announcement is waited for: servers that do not know of it say nothing.
const ANNOUNCEMENT_WAIT: Duration = Duration::from_secs(1);
/// How long a whole body may take.
const BODY_MAX: Duration = Duration::from_secs(3600);
/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Connections kept for one host.
const IDLE_MAX: usize = 8;

/// All agents of a client. They keep connections for as long as it lives.
#[derive(Default)]
pub(super) struct Agents(Mutex<Made>);

#[derive(Default)]
struct Made {
    is_over: bool,
    agents: BTreeMap<Way, Agent>,
    /// Whose word is taken in general, once that was asked.
    tls: Option<TlsConfig>,
    /// What is known of hosts that have certificates of their own.
    own: BTreeMap<String, Option<TlsConfig>>,
}

/// What tells ways apart.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    is_secure: bool,
    /// The host that has certificates of its own.
    own: Option<String>,
    proxy: Option<String>,
}

/// Why there is no agent.
pub(super) enum NoAgent {
    /// They were shut down.
    Over,
    /// What stands between is not spoken with, in words.
    Proxy(String),
}

impl Agents {
    /// The agent for an address.
    pub fn of(&self, url: &Url, settings: &Settings) -> Result<Agent, NoAgent> {
        let host = url.authority();
        let proxy = settings.proxies.between(url.is_secure(), host).map_err(NoAgent::Proxy)?;
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_over {
            return Err(NoAgent::Over);
        }
        let is_secure = url.is_secure();
        let own = match &settings.own_tls {
            Some(look) if is_secure => made.own.entry(host.to_owned()).or_insert_with(|| look(host)).clone(),
            _ => None,
        };
        let proxied = proxy.map(|proxy| proxy.uri().to_string());
        let way = Way { is_secure, own: own.is_some().then(|| host.to_owned()), proxy: proxied };
        if let Some(agent) = made.agents.get(&way) {
            return Ok(agent.clone());
        }
        let tls = match own {
            Some(own) => own,
            None if is_secure => made.tls.get_or_insert_with(|| (settings.tls)()).clone(),
            None => TlsConfig::default(),
        };
        let agent = agent(settings, tls, proxy.cloned());
        made.agents.insert(way, agent.clone());
        Ok(agent)
    }

    /// Ends what they do, and all that they would do later.
    pub fn shut_down(&self) {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.is_over = true;
        std::mem::take(&mut made.agents).into_values().for_each(Agent::shutdown);
    }
}

fn agent(settings: &Settings, tls: TlsConfig, proxy: Option<Proxy>) -> Agent {
    let silence = Some(settings.patience.silence_max);
    let config = Agent::config_builder()
        .timeout_connect(Some(CONNECT_MAX.min(settings.patience.silence_max)))
        .timeout_await_100(Some(ANNOUNCEMENT_WAIT))
        .timeout_recv_response(silence)
        .timeout_per_read(silence)
        .timeout_per_write(silence)
        .timeout_recv_body(Some(BODY_MAX))
        .http_status_as_error(false)
        // Redirects are followed here, where it is known who may see what.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections_per_host(IDLE_MAX)
        .user_agent(&settings.user_agent)
        .proxy(proxy)
        .tls_config(tls);
    config.build().new_agent()
}

/// What TLS says of a certificate that it does not take, in words; `None` for any other trouble.
pub fn distrust(error: &std::io::Error, host: &str) -> Option<String> {
    let told = error.to_string();
    let (_, reason) = told.split_once("invalid peer certificate: ")?;
    let is = |word: &str| reason.starts_with(word);
    Some(if is("UnknownIssuer") {
        "its certificate is signed by nobody who is trusted here".into()
    } else if is("NotValidForName") || reason.contains("not valid for") {
        format!("its certificate is not for `{}`", host_of(host))
    } else if is("Expired") || reason.contains("expired") {
        "its certificate is out of date, or the clock of this machine is wrong".into()
    } else if is("NotValidYet") || reason.contains("not valid yet") {
        "its certificate is not valid yet, or the clock of this machine is wrong".into()
    } else if reason.contains("CaUsedAsEndEntity") {
        "its certificate is one of an authority (`CA:TRUE`), which no server may have".into()
    } else {
        format!("its certificate is wrong: {}", crate::registry::error::quoted(reason))
    })
}
