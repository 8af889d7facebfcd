//! Trees in the store: putting, reading, flattening, and the closure of what a tree names. Knows no results.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::digest::Digest;
use crate::base::limits::{LISTING_ENTRIES_MAX, TREE_DEPTH_MAX};
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing, Node, Tree, TreeSet};
use crate::store::blobs::{OnDamage, Present};
use crate::store::content::{Key, Kind};
use crate::store::error::StoreError;
use crate::store::open::Store;

/// Everything a tree names, directly or not; includes the tree itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Closure {
    /// Trees.
    pub trees: BTreeSet<Digest>,
    /// Blobs with their sizes.
    pub blobs: BTreeMap<Digest, u64>,
}

impl Store {
    /// Stores every tree of a set. The blobs they name are put before.
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`] for a tree that is not what it is named by, before anything is stored.
    pub fn put_trees(&self, set: &TreeSet) -> Result<(), StoreError> {
        let session = self.session()?;
        for (digest, encoded) in set.all() {
            if Kind::Tree.digest(encoded) != *digest {
                return Err(StoreError::WrongDigest { named: digest.to_hex() });
            }
        }
        let pass = session.gate.enter()?;
        let mut batch = self.batch();
        for (digest, encoded) in set.all() {
            batch.put(session, Key::tree(*digest), encoded, &pass)?;
        }
        drop(pass);
        batch.finish()
    }

    /// Reads one tree; `None` if it is not there, was damaged, or is not canonical.
    pub fn tree(&self, digest: &Digest) -> Result<Option<Tree>, StoreError> {
        self.tree_or(digest, OnDamage::Drop)
    }

    /// As [`Store::tree`].
    pub(super) fn tree_or(&self, digest: &Digest, on_damage: OnDamage) -> Result<Option<Tree>, StoreError> {
        let Some(encoded) = self.load_or(&Key::tree(*digest), on_damage)? else { return Ok(None) };
        Ok(Tree::decode(&encoded).ok())
    }

    /// Flattens a tree; `None` unless all its trees are there. Blobs are not looked at.
    ///
    /// Trees nested deeper than [`TREE_DEPTH_MAX`] or with more than [`LISTING_ENTRIES_MAX`] entries count as absent:
    /// no honest task makes them. Cost: one read per different tree.
    pub fn listing(&self, root: &Digest) -> Result<Option<Listing>, StoreError> {
        let mut flattening = Flattening { store: self, trees: BTreeMap::new(), listing: Listing::new() };
        let whole = flattening.descend(root, &RelPath::root(), 0)?;
        Ok(whole.then_some(flattening.listing))
    }

    /// Collects what a tree names; `None` unless all its trees are there.
    pub(super) fn closure(&self, root: &Digest, on_damage: OnDamage) -> Result<Option<Closure>, StoreError> {
        let mut closure = Closure::default();
        let mut open = vec![*root];
        while let Some(digest) = open.pop() {
            if !closure.trees.insert(digest) {
                continue;
            }
            let Some(tree) = self.tree_or(&digest, on_damage)? else { return Ok(None) };
            for node in tree.entries.into_values() {
                match node {
                    Node::File { digest, size, .. } => {
                        // Two sizes for one digest: at least one of them is a lie.
                        if closure.blobs.insert(digest, size).is_some_and(|earlier| earlier != size) {
                            return Ok(None);
                        }
                    }
                    Node::Dir(digest) => open.push(digest),
                    Node::Link { .. } => {}
                }
            }
        }
        Ok(Some(closure))
    }

    /// Whether every blob of a closure is there with its size. Cost: one row and at most one `stat` per blob.
    pub(super) fn has_blobs(&self, closure: &Closure) -> Result<bool, StoreError> {
        let is_there = |size: u64, found: Option<Present>| found.is_some_and(|found| found.size == size);
        // One lock, and one look whether another process wrote, for all of them.
        let unseen = self.database.read("look for content", |connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut unseen = Vec::new();
            for (digest, size) in &closure.blobs {
                if !is_there(*size, self.present_in(&transaction, &Key::blob(*digest))?) {
                    unseen.push((*digest, *size));
                }
            }
            transaction.commit().map(|()| unseen)
        })?;
        // What left the queue meanwhile was committed after the transaction began, and is not in it.
        for (digest, size) in unseen {
            if !is_there(size, self.present(&Key::blob(digest))?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Flattening<'s> {
    store: &'s Store,
    trees: BTreeMap<Digest, Tree>,
    listing: Listing,
}

impl Flattening<'_> {
    fn descend(&mut self, digest: &Digest, at: &RelPath, depth: usize) -> Result<bool, StoreError> {
        if depth > TREE_DEPTH_MAX {
            return Ok(false);
        }
        if !self.trees.contains_key(digest) {
            let Some(tree) = self.store.tree(digest)? else { return Ok(false) };
            self.trees.insert(*digest, tree);
        }
        let tree = self.trees[digest].clone();
        if tree.entries.is_empty() && !at.is_root() {
            return Ok(self.add(at.clone(), Entry::Dir));
        }
        for (name, node) in tree.entries {
            let path = at.child(&name);
            let whole = match node {
                Node::File { digest, size, executable } => self.add(path, Entry::File { digest, size, executable }),
                Node::Link { target } => self.add(path, Entry::Link { target }),
                Node::Dir(digest) => self.descend(&digest, &path, depth + 1)?,
            };
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add(&mut self, path: RelPath, entry: Entry) -> bool {
        self.listing.insert(path, entry);
        self.listing.len() <= LISTING_ENTRIES_MAX
    }
}
