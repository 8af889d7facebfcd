//! One file by digest from the first address that has it: attempts, pauses, and going on where a connection broke off. Knows no store.
//!
//! Whatever the servers say, the bytes that are handed over have the expected digest, taken of the whole at the end. So what is
//! there may be carried on from any address; where the sum then is wrong, it is fetched once more from the start before anyone
//! is blamed.

use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::Digest as _;
use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::TlsConfig;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::{Digest, Digester};
use crate::base::limits::FETCH_BYTES_MAX;
use crate::engine::fetch::FetchError;
use crate::engine::fetch::answer::{self, Answer};
use crate::engine::fetch::part::Part;
use crate::engine::waiting;
use crate::fs::ops::{self, FsError};
use crate::manifest::model::Expected;
use crate::process::cancel::Cancel;
use crate::registry::{Proxies, Url, distrust};

/// Most redirects of one request.
const REDIRECTS_MAX: usize = 10;
const BUFFER_BYTES: usize = 128 * 1024;

/// What is borne before an address is given up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest that a server may say nothing.
    pub silence_max: Duration,
    /// Longest for one address, all attempts and pauses together.
    pub whole_max: Duration,
    /// Attempts that came to nothing, one after the other.
    pub attempts_max: u32,
    /// Pause before the second attempt; doubled before each one after that.
    pub pause: Duration,
    /// Longest pause that a server may ask for.
    pub retry_after_max: Duration,
    /// An attempt that got so many bytes came to something.
    pub progress_bytes_min: u64,
}

impl Patience {
    /// That of every run.
    pub const USUAL: Self = Self {
        silence_max: Duration::from_secs(60),
        whole_max: Duration::from_secs(3600),
        attempts_max: 4,
        pause: Duration::from_millis(500),
        retry_after_max: Duration::from_secs(60),
        progress_bytes_min: 1024 * 1024,
    };
}

/// Whether an address is on this machine.
pub fn is_local(url: &str) -> bool {
    url.starts_with("file://")
}

/// Fetches one file.
pub struct Download<'a> {
    /// Where it may be had.
    urls: &'a [String],
    expect: Expected,
    agent: ureq::Agent,
    proxies: Proxies,
    patience: Patience,
    cancel: &'a Cancel,
}

/// What became of one attempt.
enum Attempt {
    /// The file is there as far as the server is concerned.
    Complete,
    /// Not yet.
    Again { cause: String, after: Option<Duration> },
    /// Not from here.
    Never(String),
}

/// Why there is no answer.
struct Unanswered {
    cause: String,
    may_pass: bool,
}

/// Why not all of a file came.
enum Stopped {
    /// In words.
    BrokenOff(String),
    /// It has more bytes than any file may have.
    TooLarge,
}

impl Stopped {
    fn cause(self) -> String {
        match self {
            Self::BrokenOff(cause) => cause,
            Self::TooLarge => answer::too_large(),
        }
    }
}

/// All that an address has, as it says, is there; `carried_on` if the first bytes are from before.
struct Arrived {
    carried_on: bool,
}

impl<'a> Download<'a> {
    /// A download with the certificates of `tls` through what stands between.
    pub fn new(
        urls: &'a [String],
        expect: Expected,
        (tls, proxies): (&TlsConfig, &Proxies),
        patience: Patience,
        cancel: &'a Cancel,
    ) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(patience.silence_max))
            .timeout_per_read(Some(patience.silence_max))
            .timeout_recv_body(Some(patience.whole_max))
            // Their headers tell what to do.
            .http_status_as_error(false)
            // They are followed here: where one leads, another proxy may stand between, or none.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("drystone/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.clone());
        let (agent, proxies) = (config.build().new_agent(), proxies.clone());
        Self { urls, expect, agent, proxies, patience, cancel }
    }

    /// Puts the file at `to`, from the first address that has it. What goes wrong on the way is told even so: a mirror with other content
    /// is one to know of.
    ///
    /// # Errors
    /// A wrong digest is told if no later address is right. What is there of the file stays for the next run, unless it is known to be wrong
    /// or the disk is full.
    pub fn fetch(&self, mut part: Part, to: &Path) -> Result<Vec<Diagnostic>, FetchError> {
        match self.try_all(&mut part) {
            Ok(notes) => {
                part.finish(to)?;
                Ok(notes)
            }
            Err(error) => {
                let is_full = matches!(&error, FetchError::Fs(error) if error.is_shortage());
                if part.have() == 0 || is_full {
                    part.forget()?;
                }
                Err(error)
            }
        }
    }

    fn try_all(&self, part: &mut Part) -> Result<Vec<Diagnostic>, FetchError> {
        let (mut problems, mut mismatches) = (Vec::new(), Vec::new());
        for url in self.urls {
            match self.try_one(url, part)? {
                Ok(None) => return Ok(mismatches.iter().map(note).collect()),
                Ok(Some(mismatch)) => mismatches.push(mismatch),
                Err(cause) => problems.push(format!("{url}: {cause}")),
            }
        }
        let kept = part.have();
        Err(mismatches.pop().unwrap_or(FetchError::Unreachable { problems: problems.join("; "), kept }))
    }

    /// The file from one address: `None` if it is right; or in words why there is none.
    fn try_one(&self, url: &str, part: &mut Part) -> Result<Result<Option<FetchError>, String>, FetchError> {
        loop {
            let arrived = match self.arrive(url, part)? {
                Ok(arrived) => arrived,
                Err(cause) => return Ok(Err(cause)),
            };
            let found = self.digest(part.path())?;
            if found == self.expect {
                return Ok(Ok(None));
            }
            part.begin(url, None)?;
            if !arrived.carried_on {
                let expected = self.expect;
                return Ok(Ok(Some(FetchError::Mismatch { url: url.to_owned(), expected, found })));
            }
        }
    }

    /// Attempts until all is there, or it is no use.
    fn arrive(&self, url: &str, part: &mut Part) -> Result<Result<Arrived, String>, FetchError> {
        let until = Instant::now() + self.patience.whole_max;
        let (mut in_vain, mut pause) = (0, self.patience.pause);
        let mut carried_on = part.have() > 0;
        loop {
            let before = part.have();
            let attempt = match url.strip_prefix("file://") {
                Some(path) => self.copy(url, Path::new(path), part)?,
                None => self.attempt(url, part, until)?,
            };
            let (cause, after) = match attempt {
                Attempt::Complete => return Ok(Ok(Arrived { carried_on })),
                Attempt::Never(cause) => return Ok(Err(cause)),
                Attempt::Again { cause, after } => (cause, after),
            };
            carried_on = part.have() > 0;
            if part.have().saturating_sub(before) >= self.patience.progress_bytes_min {
                (in_vain, pause) = (0, self.patience.pause);
            } else {
                in_vain += 1;
            }
            let wait = after.unwrap_or(pause);
            if wait > self.patience.retry_after_max {
                return Ok(Err(format!("{cause}, and asks to come back in {} s", wait.as_secs())));
            }
            if in_vain >= self.patience.attempts_max || Instant::now() + wait >= until {
                return Ok(Err(cause));
            }
            if !waiting::pause(self.cancel, wait) {
                return Err(FetchError::Cancelled);
            }
            pause *= 2;
        }
    }

    fn copy(&self, url: &str, path: &Path, part: &mut Part) -> Result<Attempt, FetchError> {
        let mut file = match ops::open(path) {
            Ok(file) => file,
            Err(error) => return Ok(Attempt::Never(error.to_string())),
        };
        part.begin(url, None)?;
        let until = Instant::now() + self.patience.whole_max;
        let Err(stopped) = self.append(&mut file, None, part, until)? else { return Ok(Attempt::Complete) };
        // Nothing is carried on that is read as fast again.
        part.begin(url, None)?;
        Ok(Attempt::Never(stopped.cause()))
    }

    /// Asks for what is missing, once.
    fn attempt(&self, url: &str, part: &mut Part, until: Instant) -> Result<Attempt, FetchError> {
        self.go_on()?;
        let mut response = match self.ask(url, part) {
            Ok(response) => response,
            Err(Unanswered { cause, may_pass: true }) => return Ok(Attempt::Again { cause, after: None }),
            Err(Unanswered { cause, may_pass: false }) => return Ok(Attempt::Never(cause)),
        };
        let length = match answer::read(response.status(), response.headers(), part.have()) {
            Answer::Whole { length, validator } => {
                part.begin(url, validator.as_deref())?;
                length
            }
            Answer::Rest { length } => Some(length),
            Answer::Complete => return Ok(Attempt::Complete),
            Answer::StartOver(cause) => {
                part.begin(url, None)?;
                return Ok(Attempt::Again { cause, after: Some(Duration::ZERO) });
            }
            Answer::Later { cause, after } => return Ok(Attempt::Again { cause, after }),
            Answer::No(cause) => return Ok(Attempt::Never(cause)),
        };
        Ok(match self.append(&mut response.body_mut().as_reader(), length, part, until)? {
            Ok(()) => Attempt::Complete,
            Err(stopped @ Stopped::TooLarge) => {
                part.begin(url, None)?;
                Attempt::Never(stopped.cause())
            }
            Err(stopped) => Attempt::Again { cause: stopped.cause(), after: None },
        })
    }

    /// Sends one request, wherever it leads.
    fn ask(&self, url: &str, part: &Part) -> Result<Response<Body>, Unanswered> {
        let never = |cause: &str| Unanswered { cause: cause.to_owned(), may_pass: false };
        let mut at = Url::parse(&escaped(url)).map_err(never)?;
        for _ in 0..=REDIRECTS_MAX {
            let between = self.proxies.between(at.is_secure(), at.authority());
            let proxy = between.map_err(|cause| never(&cause))?.cloned();
            let mut request = self.agent.get(at.to_string()).config().proxy(proxy).build();
            if part.have() > 0 {
                request = request.header(header::RANGE, format!("bytes={}-", part.have()));
                if let Some(validator) = part.validator(url) {
                    request = request.header(header::IF_RANGE, validator);
                }
            }
            let sent = request.call();
            let response = sent.map_err(|error| Unanswered { cause: told(&error, &at), may_pass: may_pass(&error) })?;
            let Some(location) = led_to(response.status(), response.headers()) else { return Ok(response) };
            // Where it leads may hold what is for nobody to read.
            at = location.and_then(|to| at.join(to).ok()).ok_or_else(|| never("it redirects to what is no address"))?;
        }
        Err(never("it redirects too often"))
    }

    /// Adds what comes to what is there; or why not all of `length` came. An error if the disk does not take it.
    fn append(
        &self,
        from: &mut dyn Read,
        length: Option<u64>,
        part: &mut Part,
        until: Instant,
    ) -> Result<Result<(), Stopped>, FetchError> {
        let end = length.map(|length| part.have().saturating_add(length));
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            self.go_on()?;
            let count = match from.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(Stopped::BrokenOff(error.to_string()))),
            };
            let have = part.have() + count as u64;
            if have > FETCH_BYTES_MAX {
                return Ok(Err(Stopped::TooLarge));
            }
            if count == 0 {
                let missing = end.filter(|end| have < *end);
                let told = |end| Stopped::BrokenOff(format!("the connection broke off after {have} of {end} bytes"));
                return Ok(missing.map_or(Ok(()), |end| Err(told(end))));
            }
            part.append(&buffer[..count])?;
            if Instant::now() > until {
                let seconds = self.patience.whole_max.as_secs();
                return Ok(Err(Stopped::BrokenOff(format!("it took longer than {seconds} s"))));
            }
        }
    }

    /// The digest that the file has, by the function of the expected one.
    fn digest(&self, path: &Path) -> Result<Expected, FetchError> {
        let file = ops::open_no_follow(path)?;
        let mut blake3 = Digester::default();
        let mut sha256 = sha2::Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            self.go_on()?;
            let count = ops::read_some(&file, &mut buffer).map_err(|error| FsError::new("read", path, error))?;
            let bytes = &buffer[..count];
            match self.expect {
                Expected::Blake3(_) if count == 0 => return Ok(Expected::Blake3(blake3.finish())),
                Expected::Sha256(_) if count == 0 => return Ok(Expected::Sha256(sha256.finalize().into())),
                Expected::Blake3(_) => blake3.update(bytes),
                Expected::Sha256(_) => sha256.update(bytes),
            }
        }
    }

    fn go_on(&self) -> Result<(), FetchError> {
        if self.cancel.is_cancelled() { Err(FetchError::Cancelled) } else { Ok(()) }
    }
}

fn note(mismatch: &FetchError) -> Diagnostic {
    Diagnostic::warning(mismatch.to_string()).help("take the address out, if it does not have the file any more")
}

/// A digest as the manifest has it: `sha256 = "…"`.
pub fn as_written(expect: &Expected) -> String {
    match expect {
        Expected::Blake3(digest) => format!("blake3 = \"{digest}\""),
        Expected::Sha256(bytes) => format!("sha256 = \"{}\"", Digest::from_bytes(*bytes)),
    }
}

/// Whether the same request may do better in a moment. A name that does not resolve and a port nobody listens at will not.
fn may_pass(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut
        ),
        ureq::Error::Timeout(during) => !matches!(during, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        _ => false,
    }
}

/// An error in words.
fn told(error: &ureq::Error, at: &Url) -> String {
    match error {
        ureq::Error::BadUri(_) => "it leads to what is no address".into(),
        ureq::Error::Io(error) => distrust(error, at.authority()).unwrap_or_else(|| error.to_string()),
        error => error.to_string(),
    }
}

/// Where an answer leads: `Some(None)` if it does not say.
fn led_to(status: StatusCode, headers: &HeaderMap) -> Option<Option<&str>> {
    let is_led_on = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    is_led_on.then(|| headers.get(header::LOCATION).and_then(|value| value.to_str().ok()))
}

/// An address in ASCII alone, as servers want it.
fn escaped(url: &str) -> String {
    let mut out = String::new();
    for byte in url.bytes() {
        if byte.is_ascii() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
