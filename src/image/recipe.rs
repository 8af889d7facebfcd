//! What a layer holds, by path: checked as it is put together, and told apart by one digest. Reads no file.

use std::collections::BTreeMap;

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::path::RelPath;
use crate::image::assemble::FORMAT_VERSION;
use crate::image::compress::Compression;
use crate::image::error::ImageError;
use crate::image::tar_writer::{self, Access, check_epoch, check_path};

/// Context of digests of recipes.
const RECIPE_CONTEXT: &str = "drystone 2026-11 image layer recipe";

/// Longest target of a link, in bytes.
const TARGET_BYTES_MAX: usize = 4095;

/// Longest name that can be hidden, in bytes: with the mark before it, it is a name as well.
const HIDDEN_BYTES_MAX: usize = 251;

/// What lies at a path of a layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// Digest of its bytes.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// Its target as written.
        target: String,
    },
    /// Another name of a file of the same layer that is before it in byte order, with the access of that file.
    Hard {
        /// That file.
        to: RelPath,
    },
    /// Nothing: what the layers below have there is hidden.
    Whiteout,
    /// A directory of which nothing is seen that the layers below have in it.
    Opaque,
}

/// An entry of a layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// What it is.
    pub content: Content,
    /// Who may do what with it; of no meaning for [`Content::Hard`] and [`Content::Whiteout`].
    pub access: Access,
}

/// A layer before it is packed: entries by path in the image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerRecipe {
    members: BTreeMap<RelPath, Member>,
    epoch: u64,
}

/// An entry of the archive that a recipe becomes.
pub(super) struct Line<'a> {
    pub path: RelPath,
    pub access: Access,
    pub content: &'a Content,
    /// Of an opaque directory, whether it is the mark in it.
    pub is_mark: bool,
}

impl LayerRecipe {
    /// A layer without entries, all of which will have the time `epoch`, in seconds since 1970.
    pub fn new(epoch: u64) -> Result<Self, ImageError> {
        check_epoch(epoch)?;
        Ok(Self { members: BTreeMap::new(), epoch })
    }

    /// Adds an entry, or replaces the one that is there. Errors if no layer can hold it.
    pub fn put(&mut self, path: RelPath, mut member: Member) -> Result<(), ImageError> {
        let refuse = |why: &str| Err(refused(&path, why));
        check_path(&path)?;
        if path.is_root() && member.content != Content::Opaque {
            return refuse("it is the root of the image");
        }
        if let Content::Link { target } = &member.content
            && (target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains('\0'))
        {
            return refuse("it is a link to what nothing can be called");
        }
        if member.content == Content::Whiteout && path.file_name().len() > HIDDEN_BYTES_MAX {
            return refuse(&format!("a name that is hidden has at most {HIDDEN_BYTES_MAX} bytes"));
        }
        member.access = match &member.content {
            Content::Link { .. } => Access { mode: 0o777, ..member.access },
            Content::Whiteout | Content::Hard { .. } => Access::FILE,
            _ => Access { mode: member.access.mode & 0o7777, ..member.access },
        };
        self.members.insert(path, member);
        Ok(())
    }

    /// The entries, in byte order of their paths. Directories that were not put are not among them.
    pub fn members(&self) -> &BTreeMap<RelPath, Member> {
        &self.members
    }

    /// The time of all entries, in seconds since 1970.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Bytes of its files in all.
    pub fn bytes(&self) -> u64 {
        self.members.values().map(Member::bytes).sum()
    }

    /// Tells its archive apart from all others: by [`FORMAT_VERSION`], time and entries.
    ///
    /// Encoding: `u64` version, `u64` time, `u64` entries, then for each its path, kind byte (0 directory, 1 file, 2 link, 3 other
    /// name, 4 whiteout, 5 opaque), `u64` mode, owner and group, and by kind: digest and `u64` size; target; path.
    pub fn digest(&self) -> Digest {
        let mut encoder = Encoder::new();
        encoder.u64(FORMAT_VERSION.into()).u64(self.epoch).u64(self.members.len() as u64);
        for (path, Member { content, access }) in &self.members {
            encoder.bytes(path.as_str().as_bytes());
            encoder.u8(match content {
                Content::Dir => 0,
                Content::File { .. } => 1,
                Content::Link { .. } => 2,
                Content::Hard { .. } => 3,
                Content::Whiteout => 4,
                Content::Opaque => 5,
            });
            encoder.u64(access.mode.into()).u64(access.uid.into()).u64(access.gid.into());
            match content {
                Content::File { digest, size } => encoder.digest(digest).u64(*size),
                Content::Link { target } => encoder.bytes(target.as_bytes()),
                Content::Hard { to } => encoder.bytes(to.as_str().as_bytes()),
                Content::Dir | Content::Whiteout | Content::Opaque => &mut encoder,
            };
        }
        Digest::derived(RECIPE_CONTEXT, encoder.as_slice())
    }

    /// Tells its packed layer apart from all others.
    pub fn packed_digest(&self, compression: Compression) -> Digest {
        let mut encoder = Encoder::new();
        encoder.digest(&self.digest()).bytes(compression.id().as_bytes());
        Digest::derived("drystone 2026-11 image packed layer", encoder.as_slice())
    }

    /// Every entry of the archive by its name there: with the directories that were not put. Errors if entries contradict each other.
    pub(super) fn lines(&self) -> Result<BTreeMap<String, Line<'_>>, ImageError> {
        let mut lines = BTreeMap::new();
        for (path, Member { content, access }) in &self.members {
            let mut above = path.parent();
            while let Some(dir) = above.filter(|dir| !dir.is_root()) {
                match self.members.get(&dir).map(|member| &member.content) {
                    // What is put is put with its own directories.
                    Some(Content::Dir | Content::Opaque) => break,
                    Some(_) => return Err(refused(path, &format!("`{dir}` is to be no directory"))),
                    None if lines.contains_key(dir.as_str()) => break,
                    None => {}
                }
                above = dir.parent();
                lines.insert(dir.as_str().to_owned(), Line::of(dir, Access::DIR, &Content::Dir));
            }
            let access = match content {
                Content::Hard { to } => self.hard_access(path, to)?,
                _ => *access,
            };
            if *content == Content::Opaque {
                let name = tar_writer::archive_name(path, &tar_writer::Kind::Opaque);
                lines.insert(name, Line { is_mark: true, ..Line::of(path.clone(), Access::FILE, content) });
                if path.is_root() {
                    continue;
                }
            }
            let name = match content {
                Content::Whiteout => tar_writer::archive_name(path, &tar_writer::Kind::Whiteout),
                _ => path.as_str().to_owned(),
            };
            lines.insert(name, Line::of(path.clone(), access, content));
        }
        Ok(lines)
    }

    fn hard_access(&self, path: &RelPath, to: &RelPath) -> Result<Access, ImageError> {
        match self.members.get(to) {
            Some(Member { content: Content::File { .. }, access }) if to < path => Ok(*access),
            Some(Member { content: Content::File { .. }, .. }) => Err(refused(
                path,
                &format!("it is another name of `{to}`, which comes after it; let that be the other name"),
            )),
            _ => Err(refused(path, &format!("it is another name of `{to}`, which is no file of the layer"))),
        }
    }
}

impl Line<'_> {
    fn of(path: RelPath, access: Access, content: &Content) -> Line<'_> {
        Line { path, access, content, is_mark: false }
    }
}

impl Member {
    /// A directory with the usual access.
    pub fn dir() -> Self {
        Self { content: Content::Dir, access: Access::DIR }
    }

    /// A file with the usual access of a file or a program, owned by root.
    pub fn file(digest: Digest, size: u64, executable: bool) -> Self {
        let access = if executable { Access::PROGRAM } else { Access::FILE };
        Self { content: Content::File { digest, size }, access }
    }

    /// A symbolic link owned by root.
    pub fn link(target: &str) -> Self {
        Self { content: Content::Link { target: target.to_owned() }, access: Access { mode: 0o777, uid: 0, gid: 0 } }
    }

    /// What hides a path of the layers below.
    pub fn whiteout() -> Self {
        Self { content: Content::Whiteout, access: Access::FILE }
    }

    /// Bytes of it that are in no header.
    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::File { size, .. } => *size,
            _ => 0,
        }
    }
}

fn refused(path: &RelPath, why: &str) -> ImageError {
    ImageError::Entry { path: path.as_str().escape_debug().to_string(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a path")
    }

    fn recipe(members: &[(&str, Member)]) -> Result<LayerRecipe, ImageError> {
        let mut recipe = LayerRecipe::new(0).expect("a time");
        for (at, member) in members {
            recipe.put(path(at), member.clone())?;
        }
        recipe.lines()?;
        Ok(recipe)
    }

    fn file() -> Member {
        Member::file(Digest::of(b"x"), 1, false)
    }

    fn of(content: Content) -> Member {
        Member { content, access: Access::DIR }
    }

    #[test]
    fn every_directory_is_there_once_and_before_what_is_in_it() {
        let recipe = recipe(&[
            ("a/b/c", file()),
            ("a-b", file()),
            ("a/b", Member { access: Access { mode: 0o1777, uid: 1, gid: 2 }, ..Member::dir() }),
            ("o/p", of(Content::Opaque)),
            ("o/p/q/r", file()),
            ("w/x", Member::whiteout()),
            ("", of(Content::Opaque)),
        ]);
        let recipe = recipe.expect("a good layer");
        let lines = recipe.lines().expect("a good layer");
        let told: Vec<String> = lines.iter().map(|(name, line)| format!("{name} {:o}", line.access.mode)).collect();
        assert_eq!(
            told,
            [
                ".wh..wh..opq 644",
                "a 755",
                "a-b 644",
                "a/b 1777",
                "a/b/c 644",
                "o 755",
                "o/p 755",
                "o/p/.wh..wh..opq 644",
                "o/p/q 755",
                "o/p/q/r 644",
                "w 755",
                "w/.wh.x 644"
            ]
        );
    }

    #[test]
    fn what_no_layer_can_hold_is_refused() {
        let check = |members: &[(&str, Member)], expect: &str| {
            let told = recipe(members).expect_err(expect).to_string();
            assert!(told.contains(expect), "{expect}: {told}");
        };
        check(&[("a", file()), ("a/b", file())], "`a` is to be no directory");
        check(&[("a", Member::whiteout()), ("a/b/c", file())], "`a` is to be no directory");
        check(&[("a", Member::link("b")), ("a/b", file())], "`a` is to be no directory");
        check(&[("a/.wh.b", file())], "begin with `.wh.`");
        check(&[(".wh..wh..opq", Member::dir())], "begin with `.wh.`");
        check(&[(".wh.a/b", file())], "begin with `.wh.`");
        check(&[("", Member::dir())], "the root of the image");
        check(&[("l", Member::link(""))], "what nothing can be called");
        check(&[("l", Member::link("a\0"))], "what nothing can be called");
        check(&[(&"x".repeat(256), file())], "longer than 255 bytes");
        check(&[(&"x".repeat(252), Member::whiteout())], "at most 251 bytes");
        check(&[(&"x/".repeat(2100), file())], "longer than 4095 bytes");
        let hard = |to: &str| of(Content::Hard { to: path(to) });
        check(&[("b", hard("a"))], "which is no file of the layer");
        check(&[("a", Member::dir()), ("b", hard("a"))], "which is no file of the layer");
        check(&[("b", file()), ("a", hard("b"))], "which comes after it");
        assert!(LayerRecipe::new(tar_writer::EPOCH_MAX).is_ok());
        assert!(LayerRecipe::new(tar_writer::EPOCH_MAX + 1).is_err());
    }

    #[test]
    fn whatever_changes_a_byte_changes_the_digest_and_nothing_else_does() {
        let base = [("a", file()), ("d", Member::dir()), ("l", Member::link("a"))];
        let digest = |members: &[(&str, Member)]| recipe(members).expect("a good layer").digest();
        let expected = digest(&base);
        assert_eq!(expected.to_hex(), "ec3afbe709d3ae61a70b790a5074365fe3fede1a9bff89010e21f5beba7b190a");
        let mut other = base.clone();
        other.reverse();
        other[0].1.access.mode = 0o755; // Of a link.
        other[1].1.access.mode |= 0o40000;
        assert_eq!(digest(&other), expected);
        let mut seen = vec![expected];
        let mut change = |at: usize, member: Member| {
            let mut other = base.clone();
            other[at].1 = member;
            seen.push(digest(&other));
        };
        change(0, Member::file(Digest::of(b"y"), 1, false));
        change(0, Member::file(Digest::of(b"x"), 2, false));
        change(0, Member::file(Digest::of(b"x"), 1, true));
        change(0, Member { access: Access { uid: 1, ..Access::FILE }, ..file() });
        change(0, Member { access: Access { gid: 1, ..Access::FILE }, ..file() });
        change(1, of(Content::Opaque));
        change(1, Member::whiteout());
        change(1, of(Content::Hard { to: path("a") }));
        change(2, Member::link("d"));
        let later = LayerRecipe { epoch: 1, ..recipe(&base).expect("a good layer") };
        seen.push(later.digest());
        seen.extend(Compression::ALL.map(|compression| later.packed_digest(compression)));
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
