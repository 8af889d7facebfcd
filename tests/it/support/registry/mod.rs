//! A registry in this process that behaves well, or badly in a way that real ones do. Std only; shares no code with the client.

mod answers;
mod http;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use sha2::Digest as _;

pub use http::Request;

/// The digest of bytes as registries write it.
pub fn digest_of(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// How it behaves. By default as a registry of the OCI distribution specification 1.1 without any quirk.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Who may ask.
    pub auth: Auth,
    /// So many requests are answered 429.
    pub busy: usize,
    /// What `Retry-After` says then.
    pub retry_after: &'static str,
    /// The first requests with this in `METHOD path` are answered 503.
    pub stumbles_over: Option<&'static str>,
    /// How many of them.
    pub stumbles: usize,
    /// Where blobs are uploaded is somewhere else: `http://127.0.0.1:PORT`.
    pub uploads_elsewhere: Option<String>,
    /// Uploads are led on once with 307, whatever the method.
    pub leads_uploads_on: bool,
    /// It refuses manifests, and says with whose `Authorization`.
    pub echoes: bool,
    /// Whether it lists referrers and says `OCI-Subject`.
    pub referrers: bool,
    /// Most bytes of one `PATCH`; 0: it knows no `PATCH`.
    pub piece_max: usize,
    /// What it says it has after a `PATCH` is wrong.
    pub loses_pieces: bool,
    /// What it says in `Range` after a `PATCH`, whatever it has.
    pub told_range: Option<&'static str>,
    /// Most bytes of a blob in one `PUT`.
    pub whole_max: usize,
    /// What a mount is answered: 201 where it can, else this.
    pub mount_refusal: u16,
    /// Whether it mounts.
    pub mounts: bool,
    /// Whether `Location` names no host.
    pub relative: bool,
    /// Blobs are asked for there: `http://127.0.0.1:PORT`.
    pub elsewhere: Option<String>,
    /// Whoever sends `Authorization` gets 400, as from storage with signed addresses.
    pub refuses_authorization: bool,
    /// It dies when it got so many bytes of blobs, and answers nothing until [`FakeRegistry::revive`].
    pub dies_after: Option<usize>,
    /// When it got so many bytes of blobs it takes no more, and says nothing, until [`FakeRegistry::revive`].
    pub stalls_after: Option<usize>,
    /// So many answers with blobs break off in their middle.
    pub breaks_off: usize,
    /// It does not know `Range`.
    pub ignores_range: bool,
    /// What it sends is not what it should be.
    pub lie: Lie,
    /// It answers `HEAD` and `PUT` without `Docker-Content-Digest`.
    pub tells_no_digest: bool,
    /// It says nothing for ever.
    pub silent: bool,
}

/// Who may ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Auth {
    /// Everybody.
    None,
    /// Whoever has name and password.
    Basic(&'static str, &'static str),
    /// Whoever has a token.
    Token {
        /// Who gets one: `name:password`, a refresh token, or everybody (empty).
        to: &'static str,
        /// Tokens end once so many requests came with one; those given later are good for ever.
        uses: usize,
    },
}

/// What it sends instead of what it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Nothing.
    None,
    /// Blobs of the right length with another byte.
    BlobBytes,
    /// Blobs that are longer.
    LongBlobs,
    /// Manifests with another byte.
    ManifestBytes,
    /// Manifests that never end.
    EndlessManifest,
    /// A redirect to itself.
    Circle,
    /// Another digest in `Docker-Content-Digest`.
    ToldDigest,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            busy: 0,
            retry_after: "0",
            stumbles_over: None,
            stumbles: 2,
            uploads_elsewhere: None,
            leads_uploads_on: false,
            echoes: false,
            referrers: true,
            piece_max: usize::MAX,
            loses_pieces: false,
            told_range: None,
            whole_max: usize::MAX,
            mount_refusal: 202,
            mounts: true,
            relative: false,
            elsewhere: None,
            refuses_authorization: false,
            dies_after: None,
            stalls_after: None,
            breaks_off: 0,
            ignores_range: false,
            lie: Lie::None,
            tells_no_digest: false,
            silent: false,
        }
    }
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Logged {
    /// `METHOD path?query`.
    pub what: String,
    /// The status; 0 if it died.
    pub status: u16,
    /// Bytes of the body that came.
    pub bytes: usize,
}

/// A repository.
#[derive(Clone, Default, Debug)]
pub struct Repo {
    /// Blobs by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Type and bytes of manifests by digest.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// Digests by tag.
    pub tags: BTreeMap<String, String>,
}

/// All it knows.
#[derive(Default, Debug)]
pub struct State {
    /// Its repositories.
    pub repos: BTreeMap<String, Repo>,
    /// Requests in their order.
    pub log: Vec<Logged>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// What a token is good for, and whether it was given after the others ended.
    tokens: BTreeMap<String, (Vec<String>, bool)>,
    asked: usize,
    counter: usize,
    received: usize,
    busy: usize,
    broken: usize,
    stumbled: usize,
    dead: bool,
    stalled: bool,
    lives_on: bool,
}

struct Shared {
    behaviour: Behaviour,
    address: String,
    state: Mutex<State>,
    streams: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
    turned: Condvar,
}

/// A running registry; it ends when dropped.
pub struct FakeRegistry {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl FakeRegistry {
    /// Starts one on a free port of this machine.
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared {
            behaviour,
            address,
            state: Mutex::default(),
            streams: Mutex::default(),
            over: AtomicBool::new(false),
            turned: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                if serving.over.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                serving.streams.lock().expect("no panic").push(stream.try_clone().expect("a descriptor"));
                let serving = Arc::clone(&serving);
                connections.push(std::thread::spawn(move || serving.serve(stream)));
            }
            for connection in connections {
                // A panic in it has failed the client already.
                drop(connection.join());
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Its host and port.
    pub fn host(&self) -> &str {
        &self.shared.address
    }

    /// What it knows; it waits meanwhile.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no panic")
    }

    /// It answers again; all that it got stays.
    pub fn revive(&self) {
        let mut state = self.state();
        (state.dead, state.stalled, state.lives_on) = (false, false, true);
        self.shared.turned.notify_all();
    }

    /// Waits until it takes no more.
    pub fn wait_until_stalled(&self) {
        drop(self.shared.turned.wait_while(self.state(), |state| !state.stalled).expect("no panic"));
    }

    /// How many requests had this in `METHOD path?query` and this status.
    pub fn count(&self, what: &str, status: u16) -> usize {
        self.state().log.iter().filter(|one| one.what.contains(what) && one.status == status).count()
    }

    /// Bytes of all bodies that came to where blobs are uploaded.
    pub fn uploaded(&self) -> usize {
        self.state().log.iter().filter(|one| one.what.contains("/blobs/uploads/")).map(|one| one.bytes).sum()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.shared.lock().stalled = false;
        self.shared.turned.notify_all();
        drop(TcpStream::connect(self.host()));
        for stream in self.shared.streams.lock().map(|mut streams| std::mem::take(&mut *streams)).unwrap_or_default() {
            drop(stream.shutdown(Shutdown::Both));
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Answers what comes over one connection until it ends.
    fn serve(&self, stream: TcpStream) {
        let mut reader = std::io::BufReader::new(stream.try_clone().expect("a descriptor"));
        let mut writer = stream;
        while let Some(mut request) = http::read_head(&mut reader) {
            if self.lock().dead || self.behaviour.silent {
                if self.behaviour.silent {
                    // Until the client, or the test, has had enough.
                    drop(std::io::Read::read(&mut reader, &mut [0]));
                }
                self.note(&request, 0);
                break;
            }
            let early = self.refusal(&request);
            if request.header("expect").is_some() {
                if let Some(reply) = &early {
                    self.note(&request, reply.status);
                    if reply.write(&mut writer, &request.method).is_err() {
                        break;
                    }
                    continue;
                }
                if writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
                    break;
                }
            }
            let is_upload = request.path.contains("/blobs/uploads/");
            let whole = http::read_body(&mut reader, &mut request, |bytes| is_upload && self.dies_of(bytes));
            if !whole {
                self.note(&request, 0);
                break;
            }
            let reply = early.unwrap_or_else(|| self.reply(&request));
            self.note(&request, reply.status);
            if reply.write(&mut writer, &request.method).is_err() || reply.ends {
                break;
            }
        }
        drop(writer.shutdown(Shutdown::Both));
    }

    /// Counts bytes of blobs; whether it dies of them.
    fn dies_of(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        state.received += bytes;
        let is_over = |budget: Option<usize>| budget.is_some_and(|budget| state.received > budget);
        let (dies, stalls) = (is_over(self.behaviour.dies_after), is_over(self.behaviour.stalls_after));
        state.dead |= !state.lives_on && dies;
        if stalls && !state.lives_on {
            state.stalled = true;
            self.turned.notify_all();
            drop(self.turned.wait_while(state, |state| state.stalled).expect("no panic"));
            return true;
        }
        state.dead
    }

    fn note(&self, request: &Request, status: u16) {
        let what = format!(
            "{} {}{}{}",
            request.method,
            request.path,
            if request.query.is_empty() { "" } else { "?" },
            request.query
        );
        self.lock().log.push(Logged { what, status, bytes: request.body.len() });
    }
}
