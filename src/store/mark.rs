//! Which results and contents a collection keeps: a walk from the most recently used result down. Changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use crate::base::digest::Digest;
use crate::base::tree::Node;
use crate::store::blobs::OnDamage;
use crate::store::content::{Key, Kind, Row};
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::results::{ROW_BYTES, ResultRow};

/// What became of the results.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Marked {
    /// Actions whose results go, in byte order.
    pub doomed: Vec<Digest>,
    /// Results over the cap that a live session holds.
    pub protected: u64,
}

/// The walk and what it has kept so far.
pub(super) struct Marking<'s> {
    store: &'s Store,
    stored: HashMap<Key, u64>,
    marked: HashSet<Key>,
    /// What each tree names, read once.
    named: BTreeMap<Digest, Option<Rc<Vec<Key>>>>,
    bytes: u64,
}

impl<'s> Marking<'s> {
    /// A walk over these contents; nothing is marked yet. `bytes` are taken by what is kept in any case.
    pub fn new(store: &'s Store, contents: &[(Key, Row)], bytes: u64) -> Self {
        let stored = contents.iter().map(|(key, row)| (*key, row.stored)).collect();
        Self { store, stored, marked: HashSet::new(), named: BTreeMap::new(), bytes }
    }

    /// Whether a kept result names this.
    pub fn is_marked(&self, key: &Key) -> bool {
        self.marked.contains(key)
    }

    /// Marks what results name, most recently used first, until `bytes_max` is reached; from there on results go, and
    /// so do those last used before `expired_before_ms`. Those used since `horizon_ms` stay in any case.
    ///
    /// `rows` are ordered by last use, newest first.
    pub fn results(
        &mut self,
        rows: &[ResultRow],
        bytes_max: u64,
        expired_before_ms: i64,
        horizon_ms: i64,
    ) -> Result<Marked, StoreError> {
        let mut marked = Marked::default();
        let mut doomed = BTreeSet::new();
        let mut is_full = false;
        for row in rows {
            let is_protected = row.last_used_ms >= horizon_ms;
            let fresh = if row.is_sound { self.fresh(row)? } else { None };
            let stored = fresh.iter().flatten().map(|key| self.stored.get(key).copied().unwrap_or(0));
            let total = stored.fold(self.bytes.saturating_add(ROW_BYTES), u64::saturating_add);
            // Once one does not fit, no older one stays, however small: least recently used means just that.
            is_full |= total > bytes_max && !is_protected;
            let is_wanted = fresh.is_some() && !is_full && row.last_used_ms >= expired_before_ms;
            if !is_wanted && !is_protected {
                doomed.insert(row.result.action);
                continue;
            }
            marked.protected += u64::from(fresh.is_some() && total > bytes_max);
            self.bytes = total;
            self.marked.extend(fresh.into_iter().flatten());
        }
        marked.doomed = doomed.into_iter().collect();
        Ok(marked)
    }

    /// What a result names and nothing kept so far does; `None` if something it names has no row.
    fn fresh(&mut self, row: &ResultRow) -> Result<Option<Vec<Key>>, StoreError> {
        let mut fresh = HashSet::new();
        let mut open = vec![Key::blob(row.result.stdout_stderr), Key::tree(row.result.outputs)];
        while let Some(key) = open.pop() {
            // What is marked is marked with everything beneath.
            if self.marked.contains(&key) || !fresh.insert(key) {
                continue;
            }
            if !self.stored.contains_key(&key) {
                return Ok(None);
            }
            if key.kind == Kind::Tree {
                let Some(named) = self.named(&key.digest)? else { return Ok(None) };
                open.extend(named.iter());
            }
        }
        Ok(Some(fresh.into_iter().collect()))
    }

    fn named(&mut self, tree: &Digest) -> Result<Option<Rc<Vec<Key>>>, StoreError> {
        if let Some(known) = self.named.get(tree) {
            return Ok(known.clone());
        }
        let named = self.store.tree_or(tree, OnDamage::Leave)?.map(|tree| {
            let keys = tree.entries.values().filter_map(|node| match node {
                Node::File { digest, .. } => Some(Key::blob(*digest)),
                Node::Dir(digest) => Some(Key::tree(*digest)),
                Node::Link { .. } => None,
            });
            Rc::new(keys.collect())
        });
        self.named.insert(*tree, named.clone());
        Ok(named)
    }
}
