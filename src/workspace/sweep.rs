//! Compares a census with the disk, on all cores. Decides nothing of what a difference means.
//!
//! Where a signature is what it was and settled (no change since can have left it so), nothing is read: one `stat` per claim and one
//! `open` per directory, and nothing for links in a directory whose names are claimed and hold by its signature. Where it is not, what it stands for is read and compared, so that a file that was only touched, or
//! checked out anew, is the same.

use std::ffi::{CStr, OsStr};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::digest::Digest;
use crate::fs::digest::digest_file;
use crate::fs::look::{self, Links, Lookout};
use crate::fs::ops::{self, FsError};
use crate::fs::stat::StatKey;
use crate::fs::witness::{now_ns, unheard};
use crate::fs::{atomic, walk};
use crate::workspace::census::{Aspect, Base, Census, Claim, Role, mode_of, text_digest, without_nul};
use crate::workspace::stat_index::is_settled;

/// Directories that one thread takes at once.
const BATCH: usize = 32;

/// Beneath it, files change without their signatures telling, and signatures without their files.
const PROC: &str = "/proc/";

/// A claim that could not be taken as true by its signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct News {
    /// Its position.
    pub claim: usize,
    /// Whether it holds all the same: what it stands for was read and is as it was.
    pub holds: bool,
    /// Signature and digest as they are now, of files, links and names that are there.
    pub now: Option<(StatKey, Digest)>,
    /// Whether a change from now on cannot leave the signature as it is.
    pub is_settled: bool,
}

/// Compares every claim. `root` is the root of the workspace, without links. The news come in the order of the claims.
///
/// # Errors
/// If the root, or the root of the file system, cannot be opened.
pub fn sweep(census: Census<'_>, root: &Path) -> Result<Vec<News>, FsError> {
    sweep_telling(census, root, &|_| true, &|_| {})
}

/// The same for some of the claims. Cost: of directories without such claims nothing is looked at.
pub fn sweep_some(
    census: Census<'_>,
    root: &Path,
    is_wanted: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Vec<News>, FsError> {
    sweep_telling(census, root, is_wanted, &|_| {})
}

/// The same, which tells each piece of news as soon as it is found as well, on any thread and in no order.
pub fn sweep_telling(
    census: Census<'_>,
    root: &Path,
    is_wanted: &(dyn Fn(usize) -> bool + Sync),
    tell: &(dyn Fn(&News) + Sync),
) -> Result<Vec<News>, FsError> {
    let (workspace, machine) = (Lookout::open(root)?, Lookout::open(Path::new("/"))?);
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    let work = || {
        let mut news = Vec::new();
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= census.dir_count() {
                break;
            }
            for index in first..census.dir_count().min(first + BATCH) {
                let told = news.len();
                Visit { census, root, base: [&workspace, &machine], is_wanted }.dir(index, &mut news);
                news[told..].iter().for_each(tell);
            }
        }
        all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(news);
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(census.dir_count().div_ceil(BATCH)) {
            scope.spawn(work);
        }
        work();
    });
    let mut news = all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    news.sort_unstable_by_key(|news: &News| news.claim);
    Ok(news)
}

struct Visit<'a> {
    census: Census<'a>,
    root: &'a Path,
    /// Workspace, machine.
    base: [&'a Lookout; 2],
    is_wanted: &'a (dyn Fn(usize) -> bool + Sync),
}

impl Visit<'_> {
    fn dir(&self, index: usize, news: &mut Vec<News>) {
        let place = self.census.dir(index);
        if !(place.claims.0..place.claims.1).any(self.is_wanted) {
            return;
        }
        let (base, links) = match place.base {
            Base::Workspace => (self.base[0], Links::Refused),
            Base::Machine => (self.base[1], Links::Followed),
        };
        let opened = as_c(place.path).and_then(|path| base.open_beneath(path, links).ok());
        let mut is_untouched = false;
        for at in (place.claims.0..place.claims.1).filter(|at| (self.is_wanted)(*at)) {
            let different = News { claim: at, holds: false, now: None, is_settled: false };
            match (&opened, self.census.claim(at), as_c(self.census.name(at))) {
                // A link that nobody follows, no permission, bytes that were written wrong: nothing is known.
                (None, ..) | (_, None, _) | (_, _, None) => news.push(different),
                // A link cannot be changed, only replaced, which changes the directory.
                (
                    Some(Some(_)),
                    Some(Claim { aspect: Aspect::Link, is_there: true, is_settled: true, .. }),
                    Some(name),
                ) if is_untouched && !name.is_empty() => {}
                (Some(dir), Some(claim), Some(name)) => {
                    let path = || self.path(place.base, without_nul(place.path), name.to_bytes());
                    let found = judge(at, &claim, dir.as_ref(), name, &path);
                    is_untouched |= name.is_empty() && found.is_none() && claim.is_there && claim.is_of_names();
                    news.extend(found);
                }
            }
        }
    }

    fn path(&self, base: Base, dir: &[u8], name: &[u8]) -> PathBuf {
        let mut path = if base == Base::Workspace { self.root.to_owned() } else { PathBuf::from("/") };
        // Pushing nothing would leave a slash behind.
        for part in [dir, name].into_iter().filter(|part| !part.is_empty()) {
            path.push(OsStr::from_bytes(part));
        }
        path
    }
}

fn as_c(text: &[u8]) -> Option<&CStr> {
    CStr::from_bytes_with_nul(text).ok()
}

/// What is new of a claim; nothing if it holds by its signature.
fn judge(at: usize, claim: &Claim, dir: Option<&Lookout>, name: &CStr, path: &dyn Fn() -> PathBuf) -> Option<News> {
    let plain = |holds: bool| (!holds).then_some(News { claim: at, holds, now: None, is_settled: false });
    let links = match claim.aspect {
        Aspect::Target | Aspect::Content => Links::Followed,
        _ => Links::Refused,
    };
    let stat = || dir.and_then(|dir| dir.stat(name, links));
    match claim.aspect {
        Aspect::Presence => plain(stat().is_some() == claim.is_there),
        Aspect::Mount => plain(dir.is_some_and(|dir| dir.is_mount(name)) == claim.is_there),
        Aspect::Kind => {
            let kind = stat().map_or(0, |stat| mode_of(ops::Kind::of_mode(stat.mode)));
            plain(kind == claim.stat.mode)
        }
        Aspect::Link => {
            let target = unheard(|| ops::read_link(&path())).ok();
            plain(target.is_some() == claim.is_there && text_digest(target.as_deref()) == claim.digest)
        }
        Aspect::Real => {
            let real = unheard(|| ops::canonical(&path())).ok();
            plain(real.is_some() == claim.is_there && text_digest(real.as_deref()) == claim.digest)
        }
        Aspect::Itself | Aspect::Target => plain(match stat() {
            None => !claim.is_there,
            Some(now) if now.is_dir() => claim.is_there && is_same_dir(&now, &claim.stat),
            Some(now) => claim.is_there && claim.is_settled && now == claim.stat,
        }),
        Aspect::Content | Aspect::AllNames | Aspect::UnignoredNames | Aspect::File | Aspect::FileLink => {
            let seen_ns = now_ns();
            let Some(now) = stat() else { return plain(!claim.is_there) };
            if claim.is_there && claim.is_settled && now == claim.stat && !is_unsteady(claim, path) {
                return None;
            }
            let digest = unheard(|| read(claim, &path()));
            let is_kept = !matches!(claim.aspect, Aspect::File) || now.is_executable() == claim.stat.is_executable();
            let holds = claim.is_there && digest == Some(claim.digest) && is_kept;
            if holds && is_unsteady(claim, path) {
                return None;
            }
            let is_settled = is_settled(&now, seen_ns);
            Some(News { claim: at, holds, now: digest.map(|digest| (now, digest)), is_settled })
        }
    }
}

/// Whether it is the same directory; what lies in it is another claim.
fn is_same_dir(one: &StatKey, other: &StatKey) -> bool {
    (one.inode, one.device, one.mode) == (other.inode, other.device, other.mode)
}

fn is_unsteady(claim: &Claim, path: &dyn Fn() -> PathBuf) -> bool {
    claim.aspect == Aspect::Content && path().starts_with(PROC)
}

/// Reads what a claim stands for.
fn read(claim: &Claim, path: &Path) -> Option<Digest> {
    match claim.aspect {
        Aspect::Content => ops::read(path).ok().map(|bytes| Digest::of(&bytes)),
        Aspect::File => digest_file(path).ok().map(|(digest, _)| digest),
        Aspect::FileLink => ops::read_link(path).ok().map(|target| text_digest(Some(&target))),
        Aspect::UnignoredNames => walk::unignored_names(path).ok(),
        Aspect::AllNames => names(path, claim.role).ok(),
        _ => None,
    }
}

/// The names in a directory; among outputs without what is on its way there.
pub fn names(dir: &Path, role: Role) -> Result<Digest, FsError> {
    let mut entries = ops::read_dir(dir)?;
    if matches!(role, Role::Output(_)) {
        entries.retain(|entry| !entry.name.to_str().is_some_and(atomic::is_temporary));
    }
    Ok(ops::digest_of_names(&entries))
}

/// The names in a directory of outputs, with the signature it had before and whether that is settled. `None` if it is no directory.
pub fn look_at_names(dir: &Path) -> Option<(StatKey, Digest, bool)> {
    let seen_ns = now_ns();
    let stat = look::stat(dir, Links::Refused).filter(StatKey::is_dir)?;
    let digest = unheard(|| names(dir, Role::Output(0))).ok()?;
    Some((stat, digest, is_settled(&stat, seen_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::path::RelPath;
    use crate::base::tree::Entry;
    use crate::fs::witness::{Names, Sighting, Told};
    use crate::workspace::census::Draft;

    const LATER_NS: i64 = 10_000_000_000;

    struct Scene {
        _dir: tempfile::TempDir,
        root: PathBuf,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let root = ops::canonical(dir.path()).expect("it is there");
            for (name, text) in [("src/a", "one"), ("src/b", "two"), ("manifest", "text"), (".gitignore", "dist\n")] {
                let path = root.join(name);
                ops::create_dir_all(path.parent().expect("beneath the root")).expect("a temporary directory");
                ops::write(&path, text.as_bytes()).expect("a temporary file");
            }
            ops::symlink("a", &root.join("src/link")).expect("a temporary link");
            Self { _dir: dir, root }
        }

        fn stat(&self, name: &str) -> StatKey {
            StatKey::at(&self.root.join(name)).expect("there")
        }

        /// Every aspect, once; as if it had been seen long after it changed.
        fn census(&self) -> Vec<u8> {
            let mut draft = Draft::new(&self.root);
            let content = self.stat("manifest");
            let told = [
                ("manifest", Told::Presence(true)),
                ("none", Told::Presence(false)),
                ("none/deep", Told::Kind(None)),
                ("src", Told::Kind(Some(ops::Kind::Dir))),
                ("src/link", Told::Link(Some("a".into()))),
                ("src/link", Told::Real(Some(self.root.join("src/a")))),
                ("src/link", Told::Itself(Some(self.stat("src/link")))),
                ("src/link", Told::Target(Some(self.stat("src/a")))),
                ("manifest", Told::Content(Some((content, Digest::of(b"text"))))),
            ];
            for (name, told) in told {
                let seen_ns = content.ctime_ns + LATER_NS;
                draft.add_sighting(&Sighting { path: self.root.join(name), told, seen_ns });
            }
            for (dir, which) in [("", Names::Unignored), ("src", Names::All)] {
                let path = if dir.is_empty() { self.root.clone() } else { self.root.join(dir) };
                let digest = match which {
                    Names::All => names(&path, Role::Structure),
                    Names::Unignored => walk::unignored_names(&path),
                };
                let told = Told::Names(which, Some((StatKey::at(&path).expect("there"), digest.expect("readable"))));
                draft.add_sighting(&Sighting { path, told, seen_ns: content.ctime_ns + LATER_NS });
            }
            let file = Entry::File { digest: Digest::of(b"two"), size: 3, executable: false };
            let path = RelPath::parse("src/b").expect("a good path");
            draft.add_entry(&path, &file, self.stat("src/b"), Role::Source, true);
            draft.finish().expect("small").0
        }

        fn news(&self, bytes: &[u8]) -> Vec<(Aspect, bool)> {
            let census = Census::of(bytes).expect("whole");
            let news = sweep(census, &self.root).expect("it can be opened");
            news.iter().map(|news| (census.claim(news.claim).expect("written right").aspect, news.holds)).collect()
        }
    }

    #[test]
    fn what_is_as_it_was_is_no_news() {
        let scene = Scene::new();
        assert_eq!(scene.news(&scene.census()), []);
    }

    #[test]
    fn whatever_changes_is_news_of_what_it_concerns() {
        type Change = fn(&Scene);
        type Case = (&'static str, Change, &'static [(Aspect, bool)]);
        let put = |scene: &Scene, name: &str, text: &str| {
            let path = scene.root.join(name);
            ops::remove_file(&path).expect("it can go");
            ops::write(&path, text.as_bytes()).expect("a temporary file");
        };
        let cases: [Case; 6] = [
            (
                "a source",
                |scene| ops::write(&scene.root.join("src/b"), b"ten").expect("written"),
                &[(Aspect::File, false)],
            ),
            (
                "what is ignored",
                |scene| ops::write(&scene.root.join("dist"), b"").expect("written"),
                &[(Aspect::UnignoredNames, true)],
            ),
            (
                "a new file",
                |scene| ops::write(&scene.root.join("src/c"), b"").expect("written"),
                &[(Aspect::AllNames, false)],
            ),
            (
                "a mode",
                |scene| ops::set_mode(&scene.root.join("src/b"), 0o755).expect("changed"),
                &[(Aspect::File, false)],
            ),
            (
                "a manifest",
                |scene| ops::write(&scene.root.join("manifest"), b"other").expect("written"),
                &[(Aspect::Content, false)],
            ),
            (
                "what was not there",
                |scene| ops::create_dir_all(&scene.root.join("none/deep")).expect("made"),
                &[(Aspect::UnignoredNames, false), (Aspect::Presence, false), (Aspect::Kind, false)],
            ),
        ];
        for (what, change, expect) in cases {
            let scene = Scene::new();
            let census = scene.census();
            change(&scene);
            assert_eq!(scene.news(&census), expect, "{what}");
        }
        let scene = Scene::new();
        let census = scene.census();
        put(&scene, "src/b", "two");
        assert_eq!(
            scene.news(&census),
            [(Aspect::AllNames, true), (Aspect::File, true)],
            "made anew with the same bytes"
        );
        ops::rename(&scene.root.join("src"), &scene.root.join("dist")).expect("moved");
        ops::symlink("dist", &scene.root.join("src")).expect("a temporary link");
        let news = scene.news(&census);
        assert!(
            news.contains(&(Aspect::File, false)) && news.contains(&(Aspect::Kind, false)),
            "behind a link: {news:?}"
        );
    }

    #[test]
    fn news_are_told_when_they_are_found_and_all_of_them() {
        let scene = Scene::new();
        let census = scene.census();
        ops::write(&scene.root.join("src/b"), b"ten").expect("written");
        ops::write(&scene.root.join("dist"), b"").expect("written");
        let census = Census::of(&census).expect("whole");
        let told = Mutex::new(Vec::new());
        let news = sweep_telling(census, &scene.root, &|_| true, &|news| told.lock().expect("unpoisoned").push(*news));
        let mut told = told.into_inner().expect("unpoisoned");
        told.sort_unstable_by_key(|news| news.claim);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(news.expect("it can be opened"), told);
    }

    #[test]
    fn a_link_is_read_where_its_directory_was_touched_or_may_have_been() {
        let scene = Scene::new();
        let (dir, link) = (scene.root.join("src"), scene.root.join("src/link"));
        let stat = scene.stat("src");
        let after = stat.ctime_ns + LATER_NS;
        let census = |names_ns: i64, link_ns: i64, target: &str| {
            let digest = names(&dir, Role::Structure).expect("readable");
            let told = Told::Names(Names::All, Some((stat, digest)));
            let mut draft = Draft::new(&scene.root);
            draft.add_sighting(&Sighting { path: dir.clone(), told, seen_ns: names_ns });
            draft.add_sighting(&Sighting {
                path: link.clone(),
                told: Told::Link(Some(target.into())),
                seen_ns: link_ns,
            });
            draft.finish().expect("small").0
        };
        assert_eq!(scene.news(&census(after, after + 1, "elsewhere")), [], "not read: nothing can have changed");
        assert_eq!(
            scene.news(&census(after, after, "elsewhere")),
            [(Aspect::Link, false)],
            "seen with the names, or before"
        );
        let unsettled = [(Aspect::AllNames, true), (Aspect::Link, false)];
        assert_eq!(scene.news(&census(stat.ctime_ns, after, "elsewhere")), unsettled, "changed as it was looked at");
        let before = census(after, after + 1, "a");
        ops::remove_file(&link).expect("it can go");
        ops::symlink("b", &link).expect("a temporary link");
        assert_eq!(scene.news(&before), [(Aspect::AllNames, true), (Aspect::Link, false)], "another link of that name");
    }

    #[test]
    fn an_unsettled_signature_is_not_believed() {
        let scene = Scene::new();
        let path = RelPath::parse("src/b").expect("a good path");
        for (claimed, holds) in [(&b"two"[..], true), (b"ten", false)] {
            let mut draft = Draft::new(&scene.root);
            let file = Entry::File { digest: Digest::of(claimed), size: 3, executable: false };
            draft.add_entry(&path, &file, scene.stat("src/b"), Role::Source, false);
            assert_eq!(scene.news(&draft.finish().expect("small").0), [(Aspect::File, holds)]);
        }
    }

    #[test]
    fn whatever_the_bytes_are_they_are_read_without_harm() {
        let scene = Scene::new();
        let good = scene.census();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            if let Some(census) = Census::of(&bad) {
                sweep(census, &scene.root).expect("it can be opened");
            }
            assert!(Census::of(&good[..at]).is_none(), "cut at {at}");
        }
    }
}
