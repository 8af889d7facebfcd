//! Fetch tasks: one file by digest, from the first url that has it, perhaps unpacked. The only tasks with network by nature.

mod answer;
mod download;
mod part;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::path::RelPath;
use crate::base::span::Place;
use crate::base::time::human_bytes;
use crate::base::tree::{Entry, Listing, fold};
use crate::engine::event::Failure;
use crate::engine::execute::{Executed, Passed};
use crate::engine::fetch::download::{Download, Patience, as_written, is_local};
use crate::engine::fetch::part::Part;
use crate::engine::prepare::{archive_name, image_platform};
use crate::engine::session::{Reach, Session};
use crate::engine::{trust, waiting};
use crate::fs::archive::ArchiveError;
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::{unpack, walk};
use crate::image::{ImageError, flatten_archive};
use crate::manifest::model::{Expected, FetchTask, Unpack};
use crate::registry::Proxies;
use crate::sandbox::spec::Usage;
use crate::store::{Store, StoreError};

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No url gave the file.
    #[error("no url gave the file: {problems}")]
    Unreachable {
        /// Each url and why.
        problems: String,
        /// Bytes of it that the next run goes on from.
        kept: u64,
    },
    /// The bytes are not those that were expected.
    #[error("{url} has other content: expected {}, found {}", as_written(expected), as_written(found))]
    Mismatch {
        /// Where it came from.
        url: String,
        /// What the manifest says.
        expected: Expected,
        /// What was received.
        found: Expected,
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
            Self::Unreachable { .. } | Self::Mismatch { .. } | Self::LinkNotUtf8(_) | Self::Cancelled => false,
        }
    }
}

/// Fetches, checks, unpacks and stores.
pub fn execute(session: &Session<'_>, task: TaskId, fetch: &FetchTask) -> Executed {
    let started = Instant::now();
    let place = &session.workspace.tasks[task].place;
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
        Err(error) => failed(&error, place, started),
    }
}

fn broken(error: FetchError, fetch: &FetchTask) -> Executed {
    let problem = Diagnostic::error(format!("`{}` could not be fetched: {error}", fetch.output))
        .help("see the path and its permissions; `drystone store verify` checks the store");
    Executed::Broken { problem, refused: false }
}

fn failed(error: &FetchError, place: &Place, started: Instant) -> Executed {
    let cause = error.to_string();
    let told = way_out(error).map(|help| Diagnostic::error(cause.clone()).at(place, "declared here").help(help));
    let failure = Failure { cause, exit: None, diagnostics: told.into_iter().collect() };
    Executed::Failed { log: Vec::new(), failure, duration: started.elapsed(), attempts: 1, left: Listing::new() }
}

/// What a person does about it.
fn way_out(error: &FetchError) -> Option<String> {
    let way_out = match error {
        FetchError::Mismatch { found, .. } => {
            let found = as_written(found);
            return Some(format!("if what is there now is what you want, write `{found}`"));
        }
        FetchError::Unreachable { kept, .. } if *kept > 0 => {
            return Some(format!("{} of it are kept: the next run goes on from there", human_bytes(*kept)));
        }
        FetchError::Unreachable { problems, .. } if problems.contains("its certificate is signed by nobody") => {
            "if it is yours, name a file with the certificate of the authority that signed for it in `SSL_CERT_FILE`"
        }
        FetchError::Unreachable { .. } => {
            "see whether this machine reaches the addresses, or add another one to `urls`"
        }
        FetchError::Image(ImageError::NotAnImage) => {
            "`unpack = true` is for the archive of a file system; if the image lies deeper in the archive, drop leading directories with \
             `strip`"
        }
        FetchError::Image(ImageError::Platform { .. }) => "say which one is meant: `platform = \"os/architecture\"`",
        FetchError::Image(ImageError::Several { .. }) => "fetch an archive with one of them",
        _ => return None,
    };
    Some(way_out.to_owned())
}

/// The addresses of a fetch that needs the network; `None` if one of them is on this machine.
pub fn out_of_reach(fetch: &FetchTask) -> Option<String> {
    let is_far = !fetch.urls.iter().any(|url| is_local(url));
    is_far.then(|| fetch.urls.join(", "))
}

/// What was fetched, in the store, and what of it was left out.
fn fetch_listing(session: &Session<'_>, fetch: &FetchTask) -> Result<(Listing, Vec<Diagnostic>), FetchError> {
    let stage = session.store.stage()?;
    let file = stage.path().join("download");
    let unpacked = stage.path().join("unpacked");
    let dir = waiting::cache_dir(session, part::cache_name(&fetch.expect))?.ok_or(FetchError::Cancelled)?;
    let (mut wanted, to, into) = (fetch.clone(), file.clone(), unpacked.clone());
    let name = archive_name(fetch).to_owned();
    if session.options.reach == Reach::Offline {
        wanted.urls.retain(|url| is_local(url));
    }
    let variables = &session.ambient.variables;
    let (tls, proxies) = (trust::roots(variables), Proxies::named(variables));
    let cancel = session.cancel.clone();
    let arrive = move || {
        let download = Download::new(&wanted.urls, wanted.expect, (&tls, &proxies), Patience::USUAL, &cancel);
        let notes = download.fetch(Part::open(dir)?, &to)?;
        if wanted.unpack == Unpack::ByName {
            ops::create_dir(&into)?;
            unpack::unpack(&to, &name, wanted.strip, &into)?;
        }
        Ok::<_, FetchError>(notes)
    };
    let notes = waiting::unless_cancelled(&session.cancel, arrive).ok_or(FetchError::Cancelled)??;
    match fetch.unpack {
        Unpack::No => {
            let (digest, size) = session.store.put_file(&file)?;
            let entry = Entry::File { digest, size, executable: fetch.executable };
            Ok((Listing::from([(fetch.output.clone(), entry)]), notes))
        }
        Unpack::ByName => Ok((stored(&unpacked, &fetch.output, &session.store)?, notes)),
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
            let (listing, left_out) = made?;
            Ok((listing, [notes, left_out].concat()))
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
