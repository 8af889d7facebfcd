//! Trees: canonical listings of one directory each, nested by digest. Pure data; `fs` and `store` read and write them.
//!
//! Encoding `tree v1` (specified for third parties in `schema/KEY.md`): `u64` entry count, then per entry in byte order of
//! the names: name (length-prefixed), kind byte, and by kind: file and executable: 32-byte digest and `u64` size; link:
//! target (length-prefixed); directory: 32-byte tree digest. The tree digest is BLAKE3 `derive_key` over that.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;

/// Context of tree digests.
pub const TREE_CONTEXT: &str = "drystone 2026-11 tree v1";

/// What a name in a directory stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A regular file.
    File {
        /// Digest of its bytes.
        digest: Digest,
        /// Length in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link, never followed.
    Link {
        /// Its target as written.
        target: String,
    },
    /// A directory, by the digest of its own tree.
    Dir(Digest),
}

/// One directory: names in byte order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    /// The entries.
    pub entries: BTreeMap<String, Node>,
}

impl Tree {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u64(self.entries.len() as u64);
        for (name, node) in &self.entries {
            encoder.bytes(name.as_bytes());
            match node {
                Node::File { digest, size, executable } => {
                    encoder.u8(if *executable { KIND_EXECUTABLE } else { KIND_FILE }).digest(digest).u64(*size);
                }
                Node::Link { target } => {
                    encoder.u8(KIND_LINK).bytes(target.as_bytes());
                }
                Node::Dir(tree) => {
                    encoder.u8(KIND_DIR).digest(tree);
                }
            }
        }
        encoder.into_vec()
    }

    /// Reads canonical bytes; anything not canonical (order, duplicates, bad names, unknown kinds) is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let count = decoder.u64()?;
        let mut entries = BTreeMap::new();
        let mut last = String::new();
        for position in 0..count {
            let name = decoder.text("tree entry name")?;
            let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
            if !plain || (position > 0 && name <= last.as_str()) {
                return Err(DecodeError::Invalid { what: "tree entry name" });
            }
            name.clone_into(&mut last);
            let node = match decoder.u8()? {
                kind @ (KIND_FILE | KIND_EXECUTABLE) => {
                    Node::File { digest: decoder.digest()?, size: decoder.u64()?, executable: kind == KIND_EXECUTABLE }
                }
                KIND_LINK => Node::Link { target: decoder.text("link target")?.to_owned() },
                KIND_DIR => Node::Dir(decoder.digest()?),
                _ => return Err(DecodeError::Invalid { what: "tree entry kind" }),
            };
            entries.insert(name.to_owned(), node);
        }
        decoder.finish()?;
        Ok(Self { entries })
    }

    /// The tree digest.
    pub fn digest(&self) -> Digest {
        tree_digest(&self.encode())
    }
}

/// The digest of an encoded tree.
pub fn tree_digest(encoded: &[u8]) -> Digest {
    Digest::derived(TREE_CONTEXT, encoded)
}

const KIND_FILE: u8 = 0;
const KIND_EXECUTABLE: u8 = 1;
const KIND_LINK: u8 = 2;
const KIND_DIR: u8 = 3;

/// An entry of a flat listing: what lies at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A regular file.
    File {
        /// Digest of its bytes.
        digest: Digest,
        /// Length in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link with its target as written.
    Link {
        /// The target.
        target: String,
    },
    /// A directory that is listed for itself (directories of files are implied).
    Dir,
}

/// A flat listing: paths in byte order. What a person would call the files of a tree.
pub type Listing = BTreeMap<RelPath, Entry>;

/// A listing folded into nested trees.
#[derive(Clone, Debug)]
pub struct TreeSet {
    /// Digest of the outermost tree.
    pub root: Digest,
    /// Trees by digest, with their encodings; with those that are shared every tree, the root included.
    pub trees: BTreeMap<Digest, Vec<u8>>,
    /// Trees of the listing that this one was added to; not all of them need be part of it.
    pub shared: Option<Arc<TreeSet>>,
}

impl TreeSet {
    /// The encoding of a tree.
    pub fn get(&self, digest: &Digest) -> Option<&[u8]> {
        let own = self.trees.get(digest).map(Vec::as_slice);
        own.or_else(|| self.shared.as_ref()?.get(digest))
    }

    /// Every tree by digest, those that are shared last.
    pub fn all(&self) -> impl Iterator<Item = (&Digest, &Vec<u8>)> {
        // What is shared was folded by itself, so it shares nothing.
        self.trees.iter().chain(self.shared.iter().flat_map(|shared| shared.trees.iter()))
    }
}

/// Folds a listing into trees. A path below another path's file or link is a bug of the caller.
///
/// Cost: one encoding per directory.
pub fn fold(listing: &Listing) -> TreeSet {
    let mut trees = BTreeMap::new();
    let root = Folder::of(listing).finish(None, &mut trees);
    TreeSet { root, trees, shared: None }
}

/// A listing that was folded once, to fold others on top of it.
#[derive(Debug)]
pub struct Folded {
    root: Directory,
    set: Arc<TreeSet>,
}

/// A tree with those of its directories.
#[derive(Debug)]
struct Directory {
    tree: Tree,
    dirs: BTreeMap<String, Directory>,
}

impl Folded {
    /// Folds a listing, as [`fold`] does.
    pub fn of(listing: &Listing) -> Self {
        let mut trees = BTreeMap::new();
        let (root, digest) = Folder::of(listing).keep(&mut trees);
        Self { root, set: Arc::new(TreeSet { root: digest, trees, shared: None }) }
    }

    /// The trees of this listing and another one together, the same as [`fold`] of both. No path may be in both of them.
    ///
    /// Cost: one encoding per directory above a path of the other one.
    pub fn with(&self, other: &Listing) -> TreeSet {
        let mut trees = BTreeMap::new();
        let root = Folder::of(other).finish(Some(&self.root), &mut trees);
        TreeSet { root, trees, shared: Some(Arc::clone(&self.set)) }
    }
}

#[derive(Default)]
struct Folder {
    dirs: BTreeMap<String, Folder>,
    leaves: BTreeMap<String, Node>,
}

impl Folder {
    fn of(listing: &Listing) -> Self {
        let mut root = Self::default();
        for (path, entry) in listing {
            root.insert(path, entry);
        }
        root
    }

    fn insert(&mut self, path: &RelPath, entry: &Entry) {
        let mut here = self;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let leaf = match entry {
                Entry::File { digest, size, executable } if last => {
                    Node::File { digest: *digest, size: *size, executable: *executable }
                }
                Entry::Link { target } if last => Node::Link { target: target.clone() },
                _ => {
                    if !here.dirs.contains_key(part) {
                        here.dirs.insert(part.to_owned(), Folder::default());
                    }
                    here = here.dirs.get_mut(part).expect("inserted just above");
                    continue;
                }
            };
            here.leaves.insert(part.to_owned(), leaf);
        }
    }

    /// Encodes what is here on top of what lies below; gives the digest.
    fn finish(self, below: Option<&Directory>, trees: &mut BTreeMap<Digest, Vec<u8>>) -> Digest {
        let mut tree = below.map(|below| below.tree.clone()).unwrap_or_default();
        for (name, leaf) in self.leaves {
            let earlier = tree.entries.insert(name, leaf);
            assert!(earlier.is_none(), "BUG: a path is in two listings that are folded together: {earlier:?}");
        }
        for (name, folder) in self.dirs {
            let inside = below.and_then(|below| below.dirs.get(&name));
            let digest = folder.finish(inside, trees);
            let earlier = tree.entries.insert(name, Node::Dir(digest));
            let is_directory = matches!(earlier, None | Some(Node::Dir(_)));
            assert!(is_directory, "BUG: a listing has a file and a directory of one name: {earlier:?}");
        }
        encode(&tree, trees)
    }

    /// Encodes what is here and keeps it.
    fn keep(self, trees: &mut BTreeMap<Digest, Vec<u8>>) -> (Directory, Digest) {
        let mut tree = Tree { entries: self.leaves };
        let mut dirs = BTreeMap::new();
        for (name, folder) in self.dirs {
            let (directory, digest) = folder.keep(trees);
            let earlier = tree.entries.insert(name.clone(), Node::Dir(digest));
            assert!(earlier.is_none(), "BUG: a listing has a file and a directory of one name: {earlier:?}");
            dirs.insert(name, directory);
        }
        let digest = encode(&tree, trees);
        (Directory { tree, dirs }, digest)
    }
}

fn encode(tree: &Tree, trees: &mut BTreeMap<Digest, Vec<u8>>) -> Digest {
    let encoded = tree.encode();
    let digest = tree_digest(&encoded);
    trees.entry(digest).or_insert(encoded);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Entry {
        Entry::File { digest: Digest::of(text.as_bytes()), size: text.len() as u64, executable: false }
    }

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    #[test]
    fn encoding_round_trips_and_is_canonical() {
        let mut tree = Tree::default();
        tree.entries.insert("a".into(), Node::File { digest: Digest::of(b"1"), size: 1, executable: true });
        tree.entries.insert("b".into(), Node::Link { target: "../x".into() });
        tree.entries.insert("c".into(), Node::Dir(Digest::of(b"")));
        let bytes = tree.encode();
        assert_eq!(Tree::decode(&bytes), Ok(tree));
        for end in 0..bytes.len() {
            assert!(Tree::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0"] {
            let mut encoder = Encoder::new();
            encoder.u64(1).bytes(name.as_bytes()).u8(KIND_LINK).bytes(b"t");
            assert!(Tree::decode(encoder.as_slice()).is_err(), "{name:?}");
        }
        let mut twice = Encoder::new();
        twice.u64(2).bytes(b"a").u8(KIND_LINK).bytes(b"t").bytes(b"a").u8(KIND_LINK).bytes(b"t");
        assert!(Tree::decode(twice.as_slice()).is_err());
    }

    #[test]
    fn an_empty_directory_changes_the_digest() {
        let mut listing = Listing::new();
        listing.insert(path("src/a"), file("a"));
        let before = fold(&listing).root;
        listing.insert(path("src/empty"), Entry::Dir);
        assert_ne!(fold(&listing).root, before);
    }

    #[test]
    fn swapped_contents_and_renames_change_the_digest() {
        let of =
            |pairs: &[(&str, &str)]| fold(&pairs.iter().map(|(name, text)| (path(name), file(text))).collect()).root;
        assert_ne!(of(&[("a", "1"), ("b", "2")]), of(&[("a", "2"), ("b", "1")]));
        assert_ne!(of(&[("a", "1")]), of(&[("b", "1")]));
        assert_ne!(of(&[("a/b", "1")]), of(&[("ab", "1")]));
    }

    proptest::proptest! {
        #[test]
        fn a_listing_on_top_of_another_folds_as_both_at_once(
            names in proptest::collection::btree_map("[ab]/[ab]/[abc]|[cd]/[ab]|[xyz]", proptest::bool::ANY, 0..30),
            empty in proptest::collection::btree_set("[ab]/[ab]|[cd]|e|e/f", 0..5),
        ) {
            let mut parts = [Listing::new(), Listing::new()];
            for (name, part) in &names {
                parts[usize::from(*part)].insert(path(name), file(name));
            }
            for name in &empty {
                parts[0].insert(path(name), Entry::Dir);
            }
            let both: Listing = parts.iter().flatten().map(|(path, entry)| (path.clone(), entry.clone())).collect();
            let (whole, shared) = (fold(&both), Folded::of(&parts[0]));
            let set = shared.with(&parts[1]);
            proptest::prop_assert_eq!(set.root, whole.root);
            for (digest, encoded) in &whole.trees {
                proptest::prop_assert_eq!(set.get(digest), Some(encoded.as_slice()));
            }
            proptest::prop_assert!(set.all().all(|(digest, encoded)| tree_digest(encoded) == *digest));
        }
    }
}
