//! Fetch tasks: one file by digest, from the first url that has it, perhaps unpacked. The only tasks with network by nature.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::Digest as _;
use ureq::tls::TlsConfig;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::{Digest, Digester};
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing, fold};
use crate::engine::event::Failure;
use crate::engine::execute::{Executed, Passed};
use crate::engine::prepare::{archive_name, image_platform};
use crate::engine::session::Session;
use crate::engine::{trust, waiting};
use crate::fs::archive::ArchiveError;
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::{unpack, walk};
use crate::image::{ImageError, flatten_archive};
use crate::manifest::model::{Expected, FetchTask, Unpack};
use crate::sandbox::spec::Usage;
use crate::store::{Store, StoreError};

/// A server that says nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A file that takes longer than this is given up.
const BODY_MAX: Duration = Duration::from_secs(3600);

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No url gave the file.
    #[error("no url gave the file: {0}")]
    Unreachable(String),
    /// The bytes are not those that were expected.
    #[error("{url} has other content: expected {expected}, found {found}")]
    Mismatch {
        /// Where it came from.
        url: String,
        /// What the manifest says.
        expected: String,
        /// What was received.
        found: String,
    },
    /// Unpacking.
    #[error(transparent)]
    Unpack(#[from] ArchiveError),
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Flattening an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Listing what was unpacked.
    #[error(transparent)]
    Walk(#[from] walk::WalkError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A link whose target is not text, which no tree can hold.
    #[error("the target of the link `{0}` in it is not UTF-8")]
    LinkNotUtf8(RelPath),
    /// The run was stopped.
    #[error("cancelled")]
    Cancelled,
}

impl FetchError {
    /// Whether the disk or the store is at fault, rather than what was fetched.
    fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Fs(_) | Self::Store(_) => true,
            Self::Unpack(error) => error.is_of_the_machine(),
            Self::Image(error) => error.is_of_the_machine(),
            Self::Walk(error) => matches!(error, walk::WalkError::Fs(_)),
            Self::Unreachable(_) | Self::Mismatch { .. } | Self::LinkNotUtf8(_) | Self::Cancelled => false,
        }
    }
}

/// Fetches, checks, unpacks and stores.
pub fn execute(session: &Session<'_>, fetch: &FetchTask) -> Executed {
    let started = Instant::now();
    match fetch_listing(session, fetch) {
        Ok((listing, notes)) => {
            let trees = fold(&listing);
            if let Err(error) = session.store.put_trees(&trees) {
                return broken(FetchError::Store(error), fetch);
            }
            Executed::Passed(Passed {
                log: Vec::new(),
                outputs: trees.root,
                listing,
                duration: started.elapsed(),
                usage: Usage::default(),
                attempts: 1,
                notes,
                keyed: None,
                storable: true,
            })
        }
        Err(FetchError::Cancelled) => Executed::Cancelled { log: Vec::new() },
        Err(error) if error.is_of_the_machine() => broken(error, fetch),
        Err(error) => failed(error, started),
    }
}

fn broken(error: FetchError, fetch: &FetchTask) -> Executed {
    let problem = Diagnostic::error(format!("`{}` could not be fetched: {error}", fetch.output))
        .help("see the path and its permissions; `drystone store verify` checks the store");
    Executed::Broken { problem, refused: false }
}

fn failed(error: FetchError, started: Instant) -> Executed {
    let cause = error.to_string();
    let told = way_out(&error).map(|help| Diagnostic::error(cause.clone()).help(help));
    let failure = Failure { cause, exit: None, diagnostics: told.into_iter().collect() };
    Executed::Failed { log: Vec::new(), failure, duration: started.elapsed(), attempts: 1, left: Listing::new() }
}

/// What a person does about an image that cannot be unpacked.
fn way_out(error: &FetchError) -> Option<&'static str> {
    let FetchError::Image(error) = error else { return None };
    match error {
        ImageError::NotAnImage => Some(
            "`unpack = true` is for the archive of a file system; if the image lies deeper in the archive, drop leading \
             directories with `strip`",
        ),
        ImageError::Platform { .. } => Some("say which one is meant: `platform = \"os/architecture\"`"),
        ImageError::Several { .. } => Some("fetch an archive with one of them"),
        _ => None,
    }
}

/// What was fetched, in the store, and what of it was left out.
fn fetch_listing(session: &Session<'_>, fetch: &FetchTask) -> Result<(Listing, Vec<Diagnostic>), FetchError> {
    let stage = session.store.stage()?;
    let file = stage.path().join("download");
    let unpacked = stage.path().join("unpacked");
    let (wanted, to, into) = (fetch.clone(), file.clone(), unpacked.clone());
    let tls = trust::roots(&session.ambient.variables);
    let arrive = move || {
        download(&wanted, &to, &agent(&tls, SILENCE_MAX))?;
        if wanted.unpack == Unpack::ByName {
            ops::create_dir(&into)?;
            unpack::unpack(&to, archive_name(&wanted), wanted.strip, &into)?;
        }
        Ok::<_, FetchError>(())
    };
    waiting::unless_cancelled(&session.cancel, arrive).ok_or(FetchError::Cancelled)??;
    match fetch.unpack {
        Unpack::No => {
            let (digest, size) = session.store.put_file(&file)?;
            let entry = Entry::File { digest, size, executable: fetch.executable };
            Ok((Listing::from([(fetch.output.clone(), entry)]), Vec::new()))
        }
        Unpack::ByName => Ok((stored(&unpacked, &fetch.output, &session.store)?, Vec::new())),
        Unpack::Image => {
            let scratch = stage.path().join("image");
            ops::create_dir(&scratch)?;
            let (strip, platform, output) = (fetch.strip, image_platform(fetch), fetch.output.clone());
            let store = Arc::clone(&session.store);
            let flatten = move || {
                let image = flatten_archive(&file, strip, &platform, &scratch, FETCH_BYTES_MAX)?;
                Ok::<_, ImageError>((image.store(&store, &output)?, image.left_out(output.as_str())))
            };
            let made = waiting::unless_cancelled(&session.cancel, flatten).ok_or(FetchError::Cancelled)?;
            Ok(made?)
        }
    }
}

/// Stores everything below a directory, listed under `output`.
fn stored(dir: &Path, output: &RelPath, store: &Store) -> Result<Listing, FetchError> {
    let mut listing = Listing::from([(output.clone(), Entry::Dir)]);
    for found in walk::walk_all(dir)? {
        let disk = dir.join(found.path.as_str());
        let entry = match found.kind {
            Kind::Dir | Kind::Special => Entry::Dir,
            Kind::Link => {
                let target = ops::read_link(&disk)?.into_os_string().into_string();
                Entry::Link { target: target.map_err(|_| FetchError::LinkNotUtf8(found.path.clone()))? }
            }
            Kind::File => {
                let mode = std::os::unix::fs::PermissionsExt::mode(&ops::symlink_metadata(&disk)?.permissions());
                let (digest, size) = store.put_file(&disk)?;
                Entry::File { digest, size, executable: mode & 0o100 != 0 }
            }
        };
        listing.insert(output.join(&found.path), entry);
    }
    let parents: std::collections::BTreeSet<RelPath> = listing.keys().filter_map(RelPath::parent).collect();
    listing.retain(|path, entry| *entry != Entry::Dir || !parents.contains(path));
    Ok(listing)
}

/// Tries each url in turn until one gives the expected bytes. A wrong digest is not tried again elsewhere silently: it is told
/// if no later url is right.
fn download(fetch: &FetchTask, to: &Path, agent: &ureq::Agent) -> Result<(), FetchError> {
    let mut problems = Vec::new();
    let mut mismatch = None;
    for url in &fetch.urls {
        match receive(url, to, agent)? {
            Ok(received) if received.is(&fetch.expect) => return Ok(()),
            Ok(received) => {
                let (expected, found) = received.against(&fetch.expect);
                mismatch = Some(FetchError::Mismatch { url: url.clone(), expected, found });
            }
            Err(cause) => problems.push(format!("{url}: {cause}")),
        }
        ops::remove_file(to)?;
    }
    Err(mismatch.unwrap_or_else(|| FetchError::Unreachable(problems.join("; "))))
}

struct Received {
    blake3: Digest,
    sha256: [u8; 32],
}

impl Received {
    fn is(&self, expect: &Expected) -> bool {
        match expect {
            Expected::Blake3(digest) => *digest == self.blake3,
            Expected::Sha256(bytes) => *bytes == self.sha256,
        }
    }

    fn against(&self, expect: &Expected) -> (String, String) {
        match expect {
            Expected::Blake3(digest) => (format!("blake3 {digest}"), format!("blake3 {}", self.blake3)),
            Expected::Sha256(bytes) => {
                let hex = |bytes: [u8; 32]| Digest::from_bytes(bytes).to_hex();
                (format!("sha256 {}", hex(*bytes)), format!("sha256 {}", hex(self.sha256)))
            }
        }
    }
}

fn agent(tls: &TlsConfig, silence_max: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(silence_max))
        .timeout_per_read(Some(silence_max))
        .timeout_recv_body(Some(BODY_MAX))
        .user_agent(concat!("drystone/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.clone());
    config.build().new_agent()
}

/// What an address gave, or in words why it gave nothing; an error if it could not be written.
fn receive(url: &str, to: &Path, agent: &ureq::Agent) -> Result<Result<Received, String>, FsError> {
    if let Some(path) = url.strip_prefix("file://") {
        return match ops::open(Path::new(path)) {
            Ok(mut file) => copy(&mut file, to),
            Err(error) => Ok(Err(error.to_string())),
        };
    }
    match agent.get(url).call() {
        Ok(mut response) => copy(&mut response.body_mut().as_reader(), to),
        Err(error) => Ok(Err(error.to_string())),
    }
}

fn copy(from: &mut dyn Read, to: &Path) -> Result<Result<Received, String>, FsError> {
    let file = ops::create_new(to, 0o644)?;
    let mut blake3 = Digester::default();
    let mut sha256 = sha2::Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut total: u64 = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(error.to_string())),
        };
        total += count as u64;
        if total > FETCH_BYTES_MAX {
            return Ok(Err(format!("it is larger than {FETCH_BYTES_MAX} bytes")));
        }
        blake3.update(&buffer[..count]);
        sha256.update(&buffer[..count]);
        ops::write_all(&file, to, &buffer[..count])?;
    }
    Ok(Ok(Received { blake3: blake3.finish(), sha256: sha256.finalize().into() }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    /// What one connection to a server gives that says `reply`, and goes on when the client has gone if it is to be silent.
    fn received(reply: &'static [u8], silence_max: Duration) -> (Result<Received, String>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/a.tar.gz", listener.local_addr().expect("an address"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.push(byte[0]);
            }
            stream.write_all(reply).expect("the client listens");
            // Until the client has had enough.
            let _ = stream.read(&mut [0]);
            request
        });
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("download");
        let tls = trust::roots(&std::collections::BTreeMap::new());
        let given = receive(&url, &file, &agent(&tls, silence_max)).expect("the disk takes it");
        let bytes = ops::read(&file).unwrap_or_default();
        let request = server.join().expect("it ends");
        assert!(!String::from_utf8_lossy(&request).to_ascii_lowercase().contains("accept-encoding: gzip"));
        (given, bytes)
    }

    #[test]
    fn a_server_that_falls_silent_in_the_middle_is_given_up() {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        let (given, _) = received(reply, Duration::from_millis(200));
        assert!(given.is_err());
    }

    #[test]
    fn what_a_server_calls_an_encoding_is_kept_as_it_came() {
        // A gzip file with nothing in it, as some servers send each `.tar.gz`.
        let reply = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\nContent-Length: 20\r\n\r\n\
            \x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
        let (given, bytes) = received(reply, SILENCE_MAX);
        assert_eq!(bytes.len(), 20);
        assert!(given.is_ok_and(|received| received.is(&Expected::Blake3(Digest::of(&bytes)))));
    }
}
