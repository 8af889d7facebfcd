//! The files that git neither tracked nor ignored when it was asked last, kept with all that its answer follows from. Asks nobody.
//!
//! They follow from the names in all directories that git looks into, the rules that tell what is ignored, the paths in the index, and
//! git's settings. Names and rules are claims ([`crate::workspace::census`]). Most of them are claimed of every run as well: where all
//! that one loaded is as it was, they need not be compared with the disk once more. A damaged file is none.

use std::collections::BTreeSet;
use std::path::Path;

use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;
use crate::fs::atomic::{self, Durability};
use crate::fs::look::{self, Links};
use crate::fs::ops::{self, FsError, Kind};
use crate::fs::stat::StatKey;
use crate::fs::walk;
use crate::fs::witness::{Names, Sighting, Told};
use crate::workspace::census::{Aspect, Census, Claim, Draft, Place, without_nul};
use crate::workspace::git_index::{ObjectNames, names_digest};
use crate::workspace::stat_index::is_settled;
use crate::workspace::sweep::{sweep, sweep_some};

const MAGIC: [u8; 8] = *b"dryst\0u1";

/// Name of the file in the state directory of a workspace.
const FILE: &str = "untracked";

/// Files whose content says what is ignored, wherever they lie.
const RULES: [&[u8]; 2] = [b".gitignore", b"exclude"];

/// Git's answer, and what it stands by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Untracked {
    /// Digest of git's settings, and of the variables that it was started with.
    pub settings: Digest,
    /// The index.
    pub index: Index,
    /// Claims on names and rules.
    pub census: Vec<u8>,
    /// The files, sorted, relative to the workspace.
    pub files: Vec<RelPath>,
}

impl Untracked {
    /// What is kept in a state directory. Cost: one read.
    pub fn load(state_dir: &Path) -> Option<Self> {
        Self::decode(&ops::read(&state_dir.join(FILE)).ok()?).ok()
    }

    /// Keeps it there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, state_dir: &Path) -> Result<(), FsError> {
        atomic::write(&state_dir.join(FILE), &self.encode(), Durability::Relaxed)
    }

    fn encode(&self) -> Vec<u8> {
        let Self { settings, index: Index { stat, is_settled, names }, census, files } = self;
        let StatKey { size, mtime_ns, ctime_ns, inode, device, mode } = stat;
        let mut encoder = Encoder::new();
        encoder.bytes(&MAGIC).digest(settings).bytes(census).digest(names).u8(u8::from(*is_settled));
        let (mtime, ctime) = (mtime_ns.cast_unsigned(), ctime_ns.cast_unsigned());
        for number in [*size, mtime, ctime, *inode, *device, u64::from(*mode), files.len() as u64] {
            encoder.u64(number);
        }
        files.iter().for_each(|file| {
            encoder.bytes(file.as_str().as_bytes());
        });
        encoder.into_sealed()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wrong = |what| DecodeError::Invalid { what };
        let mut decoder = Decoder::sealed(bytes)?;
        if decoder.bytes()? != MAGIC {
            return Err(wrong("header"));
        }
        let (settings, census) = (decoder.digest()?, decoder.bytes()?.to_vec());
        Census::of(&census).ok_or(wrong("census"))?;
        let (names, is_settled) = (decoder.digest()?, decoder.u8()? == 1);
        let stat = StatKey {
            size: decoder.u64()?,
            mtime_ns: decoder.u64()?.cast_signed(),
            ctime_ns: decoder.u64()?.cast_signed(),
            inode: decoder.u64()?,
            device: decoder.u64()?,
            mode: u32::try_from(decoder.u64()?).map_err(|_| wrong("mode"))?,
        };
        let path = |text: &str| RelPath::parse(text).map_err(|_| wrong("path"));
        let files = (0..decoder.u64()?).map(|_| decoder.text("path").and_then(path)).collect::<Result<_, _>>()?;
        decoder.finish()?;
        Ok(Self { settings, index: Index { stat, is_settled, names }, census, files })
    }
}

/// An index that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Index {
    /// The signature it had.
    stat: StatKey,
    /// Whether a change since cannot have left the signature as it was.
    is_settled: bool,
    /// Which paths it names.
    pub names: Digest,
}

impl Index {
    /// Reads an index, if it is not the one that was read before. `None` if it is not there or not to be read.
    pub fn read(file: &Path, objects: ObjectNames, seen_ns: i64, before: Option<&Index>) -> Option<Self> {
        let stat = look::stat(file, Links::Followed)?;
        if let Some(before) = before.filter(|before| before.is_settled && before.stat == stat) {
            return Some(*before);
        }
        let names = names_digest(&ops::read(file).ok()?, objects)?;
        Some(Self { stat, is_settled: is_settled(&stat, seen_ns), names })
    }

    /// Whether it is still what lies there, as far as the signature tells.
    pub fn is_at(&self, file: &Path) -> bool {
        look::stat(file, Links::Followed) == Some(self.stat)
    }
}

/// Whether all claims of a census hold, by those of another one that hold, and by a look at what these do not claim.
///
/// `kept` is what is kept of a run, of which the structure was found to be as it was. Cost: one pass over both, and one `stat` for each
/// claim that only the first one has.
pub fn holds(census: Census<'_>, kept: Census<'_>, root: &Path) -> bool {
    // In order: claims lie in the order of their directories.
    let mut left = Vec::new();
    for index in 0..census.dir_count() {
        let place = census.dir(index);
        let known = kept.place(place.base, without_nul(place.path));
        for at in place.claims.0..place.claims.1 {
            let Some(claim) = census.claim(at) else { return false };
            let alike = known.and_then(|known| same(kept, known, census.name(at), claim.aspect));
            match alike {
                Some(alike) if (alike.is_there, alike.digest) == (claim.is_there, claim.digest) => {}
                Some(_) => return false,
                None => left.push(at),
            }
        }
    }
    if left.is_empty() {
        return true;
    }
    let news = sweep_some(census, root, &|at| left.binary_search(&at).is_ok());
    news.is_ok_and(|news| news.iter().all(|news| news.holds))
}

/// The claim of a place on the same aspect of a name, if it is one on what the workspace is.
fn same(census: Census<'_>, place: Place<'_>, name: &[u8], aspect: Aspect) -> Option<Claim> {
    let mut named = (place.claims.0..place.claims.1)
        .skip_while(|at| census.name(*at) < name)
        .take_while(|at| census.name(*at) == name)
        .filter(|at| census.is_structure(*at));
    named.find_map(|at| census.claim(at).filter(|claim| claim.aspect == aspect))
}

/// Claims the names in every directory in which git can find a file that it does not ignore, and the rules of what it ignores.
///
/// What is claimed of a run is taken over from that. `None` if there is another repository in the workspace, which git looks at otherwise
/// than at a directory, if git found a file that a walk does not find, or if a directory has changed since `since_ns`. Cost: one walk
/// of the tree, and one `stat` for each directory.
pub fn claims(kept: Census<'_>, root: &Path, untracked: &[RelPath], since_ns: i64) -> Option<Vec<u8>> {
    let mut surveys = walk::surveys(root, &[RelPath::root()], |_, _| false);
    let survey = surveys.pop().filter(|survey| survey.troubles.is_empty())?;
    let of_kind = |is_wanted: fn(Kind) -> bool| survey.found.iter().filter(move |found| is_wanted(found.kind));
    let files: BTreeSet<&RelPath> = of_kind(|kind| kind != Kind::Dir).map(|found| &found.path).collect();
    if untracked.iter().any(|file| !files.contains(file)) {
        return None;
    }
    let mut draft = Draft::new(root);
    for at in 0..kept.len() {
        if kept.is_structure(at) && RULES.contains(&without_nul(kept.name(at))) {
            draft.add_again(kept, at, kept.claim(at)?);
        }
    }
    let top = RelPath::root();
    for dir in of_kind(|kind| kind == Kind::Dir).map(|found| &found.path).chain([&top]) {
        let path = if dir.is_root() { root.to_owned() } else { root.join(dir.as_str()) };
        let stat = look::stat(&path, Links::Refused).filter(|stat| stat.is_dir() && is_settled(stat, since_ns))?;
        if !dir.is_root() && look::stat(&path.join(".git"), Links::Refused).is_some() {
            return None;
        }
        match kept.names_in(dir) {
            Some(at) => {
                draft.add_again(kept, at, kept.claim(at).filter(|claim| claim.is_there)?);
            }
            None => {
                let told = Told::Names(Names::Unignored, Some((stat, walk::unignored_names(&path).ok()?)));
                draft.add_sighting(&Sighting { path: path.clone(), told, seen_ns: since_ns });
                let rules = path.join(".gitignore");
                if let Some(stat) = look::stat(&rules, Links::Followed) {
                    let told = Told::Content(Some((stat, Digest::of(&ops::read(&rules).ok()?))));
                    draft.add_sighting(&Sighting { path: rules, told, seen_ns: since_ns });
                }
            }
        }
    }
    let bytes = draft.finish()?.0;
    // What was taken over was compared before git was asked.
    let news = sweep(Census::of(&bytes)?, root).ok()?;
    news.iter().all(|news| news.holds).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    #[test]
    fn what_is_kept_is_read_back_and_damage_is_not_believed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("index");
        ops::write(&file, b"an index").expect("a temporary file");
        let stat = look::stat(&file, Links::Refused).expect("there");
        let index = Index { stat, is_settled: true, names: Digest::of(b"names") };
        let census = Draft::new(dir.path()).finish().expect("small").0;
        let kept = Untracked { settings: Digest::of(b"all"), index, census, files: vec![path("a"), path("b/c d")] };
        assert_eq!(Untracked::load(dir.path()), None);
        kept.save(dir.path()).expect("it can be written");
        assert_eq!(Untracked::load(dir.path()), Some(kept.clone()));
        let good = kept.encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Untracked::decode(&bad).is_err(), "byte {at}");
            assert!(Untracked::decode(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn an_index_is_read_again_unless_its_signature_says_enough() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("index");
        let (later, objects) = (i64::MAX, ObjectNames::Short);
        assert_eq!(Index::read(&file, objects, later, None), None);
        let empty = [&b"DIRC\0\0\0\x02\0\0\0\0"[..], &[0; 20]].concat();
        ops::write(&file, &empty).expect("a temporary file");
        let read = Index::read(&file, objects, later, None).expect("whole");
        assert!(read.is_at(&file));
        let known = Index { names: Digest::of(b"known"), ..read };
        assert_eq!(Index::read(&file, objects, later, Some(&known)), Some(known));
        let fresh = Index { is_settled: false, ..known };
        assert_eq!(Index::read(&file, objects, later, Some(&fresh)), Some(read));
        assert!(!Index::read(&file, objects, 0, None).expect("whole").is_settled);
        ops::write(&file, &[&empty[..12], b"TREE\0\0\0\0", &[0; 20]].concat()).expect("a temporary file");
        assert!(!read.is_at(&file));
        assert_eq!(Index::read(&file, objects, later, Some(&known)).map(|index| index.names), Some(read.names));
    }

    struct Scene {
        _dir: tempfile::TempDir,
        root: PathBuf,
    }

    const ALL: [&str; 3] = ["", "src", "src/deep"];

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let root = ops::canonical(dir.path()).expect("there");
            let scene = Self { _dir: dir, root };
            for name in ["src/a", "src/deep/b", "dist/c"] {
                scene.write(name, "");
            }
            scene.write(".gitignore", "dist\n");
            scene
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.root.join(name);
            ops::create_dir_all(path.parent().expect("below")).expect("made");
            ops::write(&path, text.as_bytes()).expect("a temporary file");
        }

        fn at(&self, dir: &str) -> PathBuf {
            if dir.is_empty() { self.root.clone() } else { self.root.join(dir) }
        }

        /// What a run would have claimed that looked at these directories.
        fn kept(&self, dirs: &[&str]) -> Vec<u8> {
            let mut draft = Draft::new(&self.root);
            let mut add = |path: PathBuf, told: Told| draft.add_sighting(&Sighting { path, told, seen_ns: 0 });
            for dir in dirs {
                let path = self.at(dir);
                let digest = walk::unignored_names(&path).expect("readable");
                let stat = StatKey::at(&path).expect("there");
                add(path, Told::Names(Names::Unignored, Some((stat, digest))));
            }
            let rules = self.root.join(".gitignore");
            let told = (StatKey::at(&rules).expect("there"), Digest::of(&ops::read(&rules).expect("readable")));
            add(rules, Told::Content(Some(told)));
            draft.finish().expect("small").0
        }

        fn claims(&self, kept: &[u8], untracked: &[&str], since_ns: i64) -> Option<Vec<u8>> {
            let untracked: Vec<RelPath> = untracked.iter().map(|file| path(file)).collect();
            claims(Census::of(kept).expect("whole"), &self.root, &untracked, since_ns)
        }

        fn holds(&self, claims: &[u8], kept: &[u8]) -> bool {
            holds(Census::of(claims).expect("whole"), Census::of(kept).expect("whole"), &self.root)
        }
    }

    #[test]
    fn an_answer_is_kept_only_where_a_walk_finds_what_git_did_and_nothing_moves() {
        let scene = Scene::new();
        let kept = scene.kept(&ALL);
        assert!(scene.claims(&kept, &["src/a"], i64::MAX).is_some());
        assert_eq!(scene.claims(&kept, &["dist/c"], i64::MAX), None, "git ignores less than a walk");
        assert_eq!(scene.claims(&kept, &["src/a"], 0), None, "a directory changed since");
        scene.write("src/.git/HEAD", "");
        assert_eq!(scene.claims(&kept, &[], i64::MAX), None, "another repository");
    }

    #[test]
    fn whatever_may_bring_another_file_is_seen_whoever_claimed_it() {
        let changes = [
            ("nothing", "dist/more", "", true),
            ("a file", "src/new", "", false),
            ("a file below", "src/deep/new", "", false),
            ("a directory", "other/new", "", false),
            ("rules", ".gitignore", "dist\nsrc/a\n", false),
            ("rules of a directory", "src/deep/.gitignore", "b\n", false),
        ];
        for (what, file, text, expect) in changes {
            // All, some and none of the directories claimed by a run: before the change, and after it.
            for dirs in [&ALL[..], &ALL[..1], &["src"], &[]] {
                for dirs_then in [&ALL[..], &["src/deep"], &[]] {
                    let scene = Scene::new();
                    let claims = scene.claims(&scene.kept(dirs), &[], i64::MAX).expect("nothing moves");
                    assert!(scene.holds(&claims, &scene.kept(dirs_then)), "{what}: before");
                    scene.write(file, text);
                    let found = scene.holds(&claims, &scene.kept(dirs_then));
                    assert_eq!(found, expect, "{what}: {dirs:?}, then {dirs_then:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_run_claimed_and_is_no_longer_so_is_not_taken_over() {
        let scene = Scene::new();
        let kept = scene.kept(&ALL);
        scene.write("src/new", "");
        assert_eq!(scene.claims(&kept, &[], i64::MAX), None, "names");
        let kept = scene.kept(&ALL);
        scene.write(".gitignore", "# other rules\n");
        assert_eq!(scene.claims(&kept, &[], i64::MAX), None, "rules");
    }

    #[test]
    fn rules_of_a_directory_that_no_run_looked_at_count() {
        let scene = Scene::new();
        scene.write("src/deep/.gitignore", "none\n");
        let kept = scene.kept(&[]);
        let claims = scene.claims(&kept, &[], i64::MAX).expect("nothing moves");
        assert!(scene.holds(&claims, &kept));
        scene.write("src/deep/.gitignore", "b\n");
        assert!(!scene.holds(&claims, &kept));
    }
}
