//! One question to a registry: signed, sent, redirected, asked again. Knows neither images nor what an answer means.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};
use ureq::http::header::{HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use ureq::http::{Method, Request};
use ureq::tls::TlsConfig;
use ureq::{Body, SendBody};

use crate::process::cancel::Cancel;
use crate::registry::agents::{Agents, NoAgent, distrust};
use crate::registry::auth::{Access, Authorization};
use crate::registry::challenge::challenges;
use crate::registry::error::{RegistryError, is_passing_status, quoted, told_by};
use crate::registry::proxy::Proxies;
use crate::registry::reference::Repository;
use crate::registry::upload::Known;
use crate::registry::url::{Url, is_loopback, may_be_plain};

/// Most redirects of one question.
const REDIRECTS_MAX: usize = 5;
/// Bytes read of a document that says why something was refused.
const REFUSAL_BYTES_MAX: u64 = 16 * 1024;
/// Bodies from this size on are announced before they are sent, so that a refusal costs nothing.
const ANNOUNCED_BYTES_MIN: u64 = 1024 * 1024;
/// What a client is told of the world: it reads no environment.
#[derive(Clone)]
pub struct Settings {
    /// Whose word TLS takes; asked when https is first spoken.
    pub tls: Tls,
    /// Whose word it takes of some hosts, by their name with its port; asked once for each.
    pub own_tls: Option<OwnTls>,
    /// What stands between.
    pub proxies: Proxies,
    /// `HOME`, `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR`, and `PATH` for programs that keep credentials.
    pub variables: BTreeMap<String, String>,
    /// What we call ourselves.
    pub user_agent: String,
    /// Hosts (with their ports) that are spoken to in plain http. This machine always is.
    pub insecure: BTreeSet<String>,
    /// Ends every question and every wait.
    pub cancel: Cancel,
    /// How long is waited.
    pub patience: Patience,
    /// Told before each wait why and how long, on whatever thread waits.
    pub on_wait: Option<OnWait>,
}

/// Whose word TLS takes. To know that costs more than a question to this machine.
pub type Tls = Arc<dyn Fn() -> TlsConfig + Send + Sync>;

/// Whose word TLS takes of one host; `None` where it is as for all.
pub type OwnTls = Arc<dyn Fn(&str) -> Option<TlsConfig> + Send + Sync>;

/// What is told of a wait.
pub type OnWait = Arc<dyn Fn(&RegistryError, Duration) + Send + Sync>;

/// How long is waited, and how often something is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// How often something is tried that may go well the next time; 1 at least.
    pub attempts: u32,
    /// The wait before the second time; each later one doubles.
    pub first_wait: Duration,
    /// No wait is longer, whatever a registry wants.
    pub wait_max: Duration,
    /// A server that says nothing for this long is given up.
    pub silence_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(500),
            wait_max: Duration::from_secs(60),
            silence_max: Duration::from_secs(120),
        }
    }
}

/// Speaks with registries. Shared by threads; keeps connections and tokens for as long as it lives.
pub struct Client {
    settings: Settings,
    agents: Arc<Agents>,
    /// Which servers of this machine speak https, and which do not.
    secure: Mutex<BTreeMap<String, bool>>,
    pub(super) access: Access,
    pub(super) known: Known,
    done: Cancel,
    watch: Option<JoinHandle<()>>,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub method: Method,
    pub url: Url,
    /// Whose host is asked; what lies elsewhere gets no `Authorization`.
    pub repository: &'a Repository,
    /// In words, for errors: `the manifest v1 of demo/app`.
    pub asked: String,
    /// What a token must allow, as `repository:demo/app:pull`; sorted.
    pub scopes: Vec<String>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Sent<'a>,
}

/// A stream that can be had again.
pub(super) type Open<'a> = &'a (dyn Fn() -> Result<Box<dyn Read + Send + 'a>, RegistryError> + Sync);

/// What is sent along.
pub(super) enum Sent<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Stream { open: Open<'a>, length: u64 },
}

/// What came back.
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Who answered, after all redirects.
    pub url: Url,
    asked: String,
    /// What was sent along.
    shown: Option<Authorization>,
    body: Body,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.done.cancel();
        if let Some(watch) = self.watch.take() {
            // It only waits; a panic of it was reported by the panic hook.
            drop(watch.join());
        }
    }
}

impl Client {
    /// Makes one; asks nobody yet. Fails only when the process or the system is out of descriptors or threads.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let agents = Arc::new(Agents::default());
        let done = Cancel::new()?;
        let watched = (settings.cancel.clone(), done.clone(), Arc::clone(&agents));
        let watch = std::thread::Builder::new().name("registry".into()).spawn(move || {
            let (cancel, done, agents) = watched;
            if came_first(&cancel, &done) {
                agents.shut_down();
            }
        })?;
        Ok(Self {
            settings,
            agents,
            secure: Mutex::default(),
            access: Access::default(),
            known: Known::default(),
            done,
            watch: Some(watch),
        })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The address of a path of the protocol, behind `/v2/`.
    pub(super) fn url(&self, repository: &Repository, path: &str) -> Url {
        let server = repository.server();
        let is_secure = !may_be_plain(server, &self.settings.insecure) || self.is_secure(server) == Some(true);
        Url::new(is_secure, server, format!("/v2/{}/{path}", repository.name))
    }

    /// Whether a server of this machine speaks https, as far as that is known.
    fn is_secure(&self, server: &str) -> Option<bool> {
        self.secure.lock().unwrap_or_else(PoisonError::into_inner).get(server).copied()
    }

    /// Learns of a server of this machine, which is asked in plain http, that it wants https: those that do answer 400. Whether it does.
    fn turns_out_secure(&self, question: &Question<'_>, status: u16) -> bool {
        let server = question.repository.server();
        if !is_loopback(server) || self.is_secure(server).is_some() {
            return false;
        }
        let is_secure = status == 400
            && match self.send(question, &question.url.secured(), None, true) {
                Ok(_) | Err(RegistryError::Untrusted { .. }) => true,
                Err(_) => false,
            };
        self.secure.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned(), is_secure);
        is_secure
    }

    /// An error if the run was stopped.
    pub(super) fn go_on(&self) -> Result<(), RegistryError> {
        if self.settings.cancel.is_cancelled() { Err(RegistryError::Cancelled) } else { Ok(()) }
    }

    /// Asks until there is an answer that is no passing trouble.
    pub(super) fn ask(&self, question: &Question<'_>) -> Result<Answer, RegistryError> {
        self.patiently(|| self.ask_once(question))
    }

    /// Does something again, after a while, as long as what went wrong may pass.
    pub(super) fn patiently<T>(&self, mut work: impl FnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut attempt = 1;
        loop {
            match work() {
                Err(error) if error.is_passing() && attempt < self.settings.patience.attempts => {
                    self.pause(attempt, &error)?;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Waits before the next attempt, as long as the registry wants or twice as long as before, with a random part: those who
    /// were refused together shall not come back together.
    pub(super) fn pause(&self, attempt: u32, error: &RegistryError) -> Result<(), RegistryError> {
        let patience = &self.settings.patience;
        let doubled = patience.first_wait.saturating_mul(1 << (attempt - 1).min(16));
        let random = RandomState::new().hash_one(attempt) % 512;
        let wait = match error.retry_after() {
            Some(wanted) => wanted.max(patience.first_wait / 8),
            None => doubled / 2 + doubled.saturating_mul(u32::try_from(random).unwrap_or(0)) / 1024,
        };
        let wait = wait.min(patience.wait_max);
        if let Some(tell) = &self.settings.on_wait {
            tell(error, wait);
        }
        if self.settings.cancel.wait(wait) { Err(RegistryError::Cancelled) } else { Ok(()) }
    }

    /// Asks once: follows redirects, and answers one challenge. Trouble that may pass is an error, any other answer is one.
    pub(super) fn ask_once(&self, question: &Question<'_>) -> Result<Answer, RegistryError> {
        let mut home = self.url(question.repository, "");
        // What was learned after it was made counts.
        let is_home = home.is_secure() && home.authority() == question.url.authority();
        let mut url = if is_home { question.url.secured() } else { question.url.clone() };
        let (mut is_renewed, mut is_asked, mut redirects, mut announce) = (false, false, 0, true);
        loop {
            let is_home = url.is_same_server(&home);
            let authorization = if is_home { self.authorization(question)? } else { None };
            let answer = self.send(question, &url, authorization.as_ref(), announce)?;
            if is_home && !url.is_secure() && self.turns_out_secure(question, answer.status) {
                (home, url) = (home.secured(), question.url.secured());
                continue;
            }
            match answer.status {
                // Once to learn what is wanted, and once because what was given is no longer taken.
                401 if is_home && !(if authorization.is_some() { is_renewed } else { is_asked }) => {
                    (is_renewed, is_asked) = (is_renewed || authorization.is_some(), true);
                    let told = answer.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
                    if !self.renew(question, &challenges(told), authorization.as_ref())? {
                        return Err(answer.refusal());
                    }
                }
                // What is sent is sent again where the last two lead; the others would make another question of it.
                301 | 302 | 303 | 307 | 308
                    if answer.status > 303 || [Method::GET, Method::HEAD].contains(&question.method) =>
                {
                    redirects += 1;
                    if redirects > REDIRECTS_MAX {
                        return Err(answer.wrong(format!("it led on more than {REDIRECTS_MAX} times")));
                    }
                    url = answer.location()?;
                }
                // A proxy on the way does not know of announcements.
                417 if announce => announce = false,
                status if is_passing_status(status) => return Err(answer.refusal()),
                _ => return Ok(answer),
            }
        }
    }

    /// Sends one request and reads the head of its answer.
    pub(super) fn send(
        &self,
        question: &Question<'_>,
        url: &Url,
        authorization: Option<&Authorization>,
        announce: bool,
    ) -> Result<Answer, RegistryError> {
        self.go_on()?;
        let unreachable = |cause: String, may_pass: bool| {
            if self.settings.cancel.is_cancelled() {
                return RegistryError::Cancelled;
            }
            let (host, asked) = (url.authority().to_owned(), question.asked.clone());
            RegistryError::Unreachable { host, asked, cause, may_pass }
        };
        let untrusted = |cause: String| RegistryError::Untrusted {
            host: url.authority().to_owned(),
            asked: question.asked.clone(),
            cause,
        };
        let wrong = |cause: &str| RegistryError::Wrong {
            host: url.authority().to_owned(),
            asked: question.asked.clone(),
            cause: cause.to_owned(),
        };
        if !url.is_secure() && !may_be_plain(url.authority(), &self.settings.insecure) {
            return Err(wrong("the answer lies at an address of plain http, which is not trusted"));
        }
        let mut request = Request::builder().method(question.method.clone()).uri(url.to_string());
        for (name, value) in &question.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization.header());
        }
        let agent = self.agents.of(url, &self.settings).map_err(|none| match none {
            NoAgent::Over => RegistryError::Cancelled,
            NoAgent::Proxy(cause) => unreachable(cause, false),
        })?;
        let impossible = |_| wrong("it cannot be asked over http");
        let sent = match &question.body {
            Sent::Nothing => agent.run(request.body(()).map_err(impossible)?),
            Sent::Bytes(bytes) => agent.run(request.body(*bytes).map_err(impossible)?),
            Sent::Stream { open, length } => {
                request = request.header("Content-Length", *length);
                if announce && *length >= ANNOUNCED_BYTES_MIN {
                    request = request.header("Expect", "100-continue");
                }
                let mut stream = open()?;
                agent.run(request.body(SendBody::from_reader(&mut stream)).map_err(impossible)?)
            }
        };
        // The words of an error may hold the address, and a signed one is a secret.
        let response = sent.map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => unreachable("the address is none".into(), false),
            ureq::Error::Io(error) if distrust(&error, url.authority()).is_some() => {
                untrusted(distrust(&error, url.authority()).unwrap_or_default())
            }
            ureq::Error::ConnectProxyFailed(reason) => {
                // Whoever is refused by it now is refused by it later.
                let stays = reason.contains("responded 4");
                unreachable(format!("the proxy does not lead there: {}", quoted(&reason)), !stays)
            }
            other => unreachable(quoted(&other.to_string()), may_pass(&other)),
        })?;
        let (parts, body) = response.into_parts();
        let (status, headers, asked) = (parts.status.as_u16(), parts.headers, question.asked.clone());
        Ok(Answer { status, headers, url: url.clone(), asked, shown: authorization.cloned(), body })
    }
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where `Location` leads; never from https to http.
    pub fn location(&self) -> Result<Url, RegistryError> {
        let Some(location) = self.headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
            return Err(self.wrong("it does not say where to go on".into()));
        };
        let url = self.url.join(location).map_err(|cause| self.wrong(cause.into()))?;
        if self.url.is_secure() && !url.is_secure() {
            return Err(self.wrong("it leads from https to http".into()));
        }
        Ok(url)
    }

    /// What comes of the body.
    pub fn stream(self) -> impl Read + Send + use<> {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// The whole body, if it is not longer than this. A body that breaks off may come whole the next time.
    pub fn document(self, bytes_max: u64) -> Result<Vec<u8>, RegistryError> {
        let (host, asked) = (self.url.authority().to_owned(), self.asked.clone());
        let mut bytes = Vec::new();
        let read = self.stream().take(bytes_max + 1).read_to_end(&mut bytes);
        if let Err(error) = read {
            let cause = quoted(&error.to_string());
            return Err(RegistryError::Unreachable { host, asked, cause, may_pass: true });
        }
        if bytes.len() as u64 > bytes_max {
            return Err(RegistryError::Wrong { host, asked, cause: format!("it is larger than {bytes_max} bytes") });
        }
        Ok(bytes)
    }

    /// The answer as an error that is not about its status.
    pub fn wrong(&self, cause: String) -> RegistryError {
        RegistryError::Wrong { host: self.url.authority().to_owned(), asked: self.asked.clone(), cause }
    }

    /// The answer as the error that its status is.
    pub fn refusal(self) -> RegistryError {
        let (status, host, asked) = (self.status, self.url.authority().to_owned(), self.asked.clone());
        let retry_after = self.header(RETRY_AFTER.as_str()).and_then(|text| retry_after(text, SystemTime::now()));
        let mut bytes = Vec::new();
        let shown = self.shown.clone();
        // What cannot be read says nothing.
        drop(self.stream().take(REFUSAL_BYTES_MAX).read_to_end(&mut bytes));
        let told = told_by(&bytes, |words| match &shown {
            Some(shown) => shown.hidden_in(words),
            None => words.to_owned(),
        });
        RegistryError::Refused { host, asked, status, told, retry_after }
    }
}

/// Whether trouble with the network may be gone a moment later.
fn may_pass(error: &ureq::Error) -> bool {
    match error {
        // What TLS finds wrong with a certificate comes as data that is not valid.
        ureq::Error::Io(cause) => cause.kind() != io::ErrorKind::InvalidData,
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled => true,
        ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

/// Waits for either; whether the first came.
fn came_first(cancel: &Cancel, done: &Cancel) -> bool {
    loop {
        let mut either = [
            PollFd::from_borrowed_fd(cancel.event(), PollFlags::IN),
            PollFd::from_borrowed_fd(done.event(), PollFlags::IN),
        ];
        match poll(&mut either, None) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return cancel.is_cancelled(),
        }
    }
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(http_date(text)?).saturating_sub(now))
}

/// Seconds since 1970 of a date as `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that is still sent.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let parts: Vec<&str> = date.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second, "GMT"] = parts[..] else { return None };
    let number = |text: &str, max: u64| text.parse::<u64>().ok().filter(|number| *number <= max);
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year) = (number(day, 31)?, number(year, 9999).filter(|year| *year >= 1970)?);
    // Years begin in March, so that the day that comes and goes is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day.checked_sub(1)?;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + number(hour, 23)? * 3600 + number(minute, 59)? * 60 + number(second, 60)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(retry_after(text, now), expect.map(Duration::from_secs), "{text}");
        };
        check("0", Some(0));
        check(" 120 ", Some(120));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(7));
        check("Sun, 06 Nov 1994 08:49:00 GMT", Some(0));
        check("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400 - 784_111_770));
        for wrong in ["", "-1", "soon", "Sun, 06 Nov 1994", "Sun, 0 Nov 1994 08:49:37 GMT", "x, 1 Foo 2000 0:0:0 GMT"] {
            check(wrong, None);
        }
    }
}
