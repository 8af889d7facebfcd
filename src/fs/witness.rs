//! What this process looked at of the disk and was told, kept while somebody listens. Compares nothing and saves nothing.
//!
//! Whatever an answer is made of was asked of `fs::ops` or `fs::walk`, for nothing else touches the disk. So who listens while a
//! workspace is loaded and planned has all that the answer depends on, without a list that somebody must keep complete.
//! Not heard: opened directories (`fs::dir`), through which outputs are looked at, and what is inside [`unheard`].

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::base::digest::Digest;
use crate::fs::ops::Kind;
use crate::fs::stat::StatKey;

/// One look, and what it told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Where, as it was asked.
    pub path: PathBuf,
    /// What was told.
    pub told: Told,
    /// Wall clock just before, in nanoseconds since 1970.
    pub seen_ns: i64,
}

/// What a look told. `None` is anything that is no answer: nothing there, no permission, a loop of links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// Whether something lies there; links not followed.
    Presence(bool),
    /// What lies there; links not followed.
    Kind(Option<Kind>),
    /// The signature of the path itself.
    Itself(Option<StatKey>),
    /// The signature of what it leads to.
    Target(Option<StatKey>),
    /// The bytes it leads to, with the signature they had before they were read.
    Content(Option<(StatKey, Digest)>),
    /// Where a link leads.
    Link(Option<PathBuf>),
    /// The path without links.
    Real(Option<PathBuf>),
    /// Whether something is mounted right there.
    Mount(bool),
    /// The names in a directory, with the signature it had before they were listed.
    Names(Names, Option<(StatKey, Digest)>),
}

/// Which names of a directory count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    /// All of them.
    All,
    /// Those that git does not ignore, and whether the directory brings rules of its own.
    Unignored,
}

static LISTENING: AtomicBool = AtomicBool::new(false);
static HEARD: Mutex<Vec<Sighting>> = Mutex::new(Vec::new());

thread_local! {
    static DEAF: Cell<bool> = const { Cell::new(false) };
}

fn heard() -> MutexGuard<'static, Vec<Sighting>> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to keep what all threads look at, from nothing.
pub fn listen() {
    heard().clear();
    LISTENING.store(true, Ordering::SeqCst);
}

/// Ends it. Gives what was seen since, in no order; a path may come more than once.
pub fn take() -> Vec<Sighting> {
    LISTENING.store(false, Ordering::SeqCst);
    std::mem::take(&mut *heard())
}

/// Whether somebody listens to this thread. Cost: next to nothing.
pub fn is_listening() -> bool {
    LISTENING.load(Ordering::Relaxed) && !DEAF.get()
}

/// Does something that is not to be heard: whoever calls this keeps account of it.
///
/// `act` must not wait for a rayon pool: what the thread took up meanwhile would not be heard either.
pub fn unheard<T>(act: impl FnOnce() -> T) -> T {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            DEAF.set(self.0);
        }
    }
    let _back = Back(DEAF.replace(true));
    act()
}

/// Keeps whether something is mounted right at a path, for who found that out from the table of mounts: all of that changes with any mount.
pub fn note_mount(path: &Path, is_mounted: bool) {
    note(path, moment(), || Told::Mount(is_mounted));
}

/// Keeps one look; `told` is asked for only where somebody listens.
pub(super) fn note(path: &Path, seen_ns: i64, told: impl FnOnce() -> Told) {
    if is_listening() {
        let told = told();
        heard().push(Sighting { path: path.to_owned(), told, seen_ns });
    }
}

/// The wall clock in nanoseconds since 1970; 0 where nobody listens, so that nobody pays for it.
pub(super) fn moment() -> i64 {
    if is_listening() { now_ns() } else { 0 }
}

/// The wall clock in nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ops;

    /// One test: there is one listener in a process.
    #[test]
    fn what_is_looked_at_while_somebody_listens_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        ops::write(&at("file"), b"content").expect("a temporary file");
        ops::symlink("file", &at("link")).expect("a temporary link");
        listen();
        ops::exists(&at("file"));
        ops::exists(&at("none"));
        drop((ops::kind(&at("link")), ops::read(&at("link")), ops::read_link(&at("link"))));
        drop((ops::symlink_metadata(&at("none")), ops::metadata(&at("file")), ops::read_dir(dir.path())));
        drop((ops::canonical(&at("link")), ops::each_name(dir.path(), |_, _| {})));
        unheard(|| ops::exists(&at("unheard")));
        let ours = |sighting: &Sighting| sighting.path.starts_with(dir.path());
        let told: Vec<(PathBuf, Told)> =
            take().into_iter().filter(ours).map(|sighting| (sighting.path, sighting.told)).collect();
        let stat = StatKey::at(&at("file")).expect("there");
        let real = ops::canonical(&at("file")).expect("there");
        let expect = [
            (at("file"), Told::Presence(true)),
            (at("none"), Told::Presence(false)),
            (at("link"), Told::Kind(Some(Kind::Link))),
            (at("link"), Told::Content(Some((stat, Digest::of(b"content"))))),
            (at("link"), Told::Link(Some("file".into()))),
            (at("none"), Told::Itself(None)),
            (at("file"), Told::Target(Some(stat))),
        ];
        assert_eq!(told[..expect.len()], expect);
        assert!(matches!(told[expect.len()].1, Told::Names(Names::All, Some(_))), "{:?}", told[expect.len()]);
        assert_eq!(told[expect.len() + 1..], [(at("link"), Told::Real(Some(real)))]);
        ops::exists(&at("file"));
        assert!(take().iter().all(|sighting| !ours(sighting)));
    }
}
