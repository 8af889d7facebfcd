//! Makes single entries of outputs where nothing is yet, as copies or as links to files of the store, and takes the signatures of files.
//! Knows not what becomes of them.

use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::engine::materialize::MaterializeError;
use crate::fs::digest::digest_open;
use crate::fs::dir::Dir;
use crate::fs::grain::Grain;
use crate::fs::link::file_mode;
use crate::fs::ops;
use crate::fs::stat::StatKey;
use crate::manifest::model::Materialize;
use crate::store::{Ahead, Linked, Store, StoreError};

/// Makes entries of one listing.
pub struct Staging<'a> {
    store: &'a Arc<Store>,
    grain: &'a Grain,
    materialize: Materialize,
    ahead: Ahead<'a>,
}

impl<'a> Staging<'a> {
    /// For these entries, about in this order.
    pub fn new<'e>(
        store: &'a Arc<Store>,
        grain: &'a Grain,
        materialize: Materialize,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> Self {
        let files = entries.filter_map(|entry| match entry {
            Entry::File { digest, size, .. } if materialize == Materialize::Copy => Some((*digest, *size)),
            _ => None,
        });
        Self { store, grain, materialize, ahead: Ahead::new(store, files.collect()) }
    }

    /// Makes one entry; of a file, gives the signature it has now if that may be believed from now on.
    ///
    /// It may: the content was digested as it was read, nobody else knows the name that it has until all of it is in its place, and the
    /// signature is not left as it is by any change that comes later.
    pub fn make(
        &mut self,
        (dir, name): (&Dir, &str),
        path: &RelPath,
        entry: &Entry,
    ) -> Result<Option<StatKey>, MaterializeError> {
        match entry {
            Entry::Dir => dir.create_dir(name)?,
            Entry::Link { target } => dir.symlink(target, name)?,
            Entry::File { digest, size, executable } => {
                return match self.file((dir, name), digest, *size, *executable)? {
                    Made::Gone => Err(MaterializeError::Vanished(path.clone())),
                    Made::Plain => Ok(None),
                    Made::Signed(stat) => Ok(Some(stat)),
                };
            }
        }
        Ok(None)
    }

    fn file(
        &mut self,
        (dir, name): (&Dir, &str),
        digest: &Digest,
        size: u64,
        executable: bool,
    ) -> Result<Made, StoreError> {
        if self.materialize == Materialize::Link {
            match self.store.link_to((digest, size, executable), (dir, name.as_ref()))? {
                Linked::Done(stat) => return Ok(self.signed((dir, name), stat)),
                Linked::Gone => return Ok(Made::Gone),
                Linked::Apart => {}
            }
        }
        let Some(bytes) = self.ahead.get(digest)?.filter(|bytes| bytes.len() as u64 == size) else {
            let is_there = self.store.write_to(digest, size, (dir, name.as_ref()), executable)?;
            let stat = if is_there { dir.stat(name).ok() } else { return Ok(Made::Gone) };
            return Ok(stat.map_or(Made::Plain, |stat| self.signed((dir, name), stat)));
        };
        let (file, path) = (dir.create_new(name, file_mode(executable))?, dir.at(name));
        if let Err(error) = ops::write_all(&file, &path, bytes) {
            // The first error is the one worth telling.
            drop(dir.remove_file(name));
            return Err(error.into());
        }
        Ok(file.metadata().map_or(Made::Plain, |meta| self.signed((dir, name), StatKey::of(&meta))))
    }

    /// With a signature, where that may be believed. Trying it changes it: that of the first file on a file system is not told.
    fn signed(&self, (dir, name): (&Dir, &str), stat: StatKey) -> Made {
        match self.grain.known(stat.device) {
            Some(true) => Made::Signed(stat),
            Some(false) => Made::Plain,
            None => {
                if let Ok((file, stat)) = dir.open_file(name) {
                    self.grain.try_out(&file, &dir.at(name), &stat);
                }
                Made::Plain
            }
        }
    }

    /// The signature of a file that came to its place by its own name, which changed its times: what lies there is read once more.
    ///
    /// The signature is taken first, so that it is not that of anything written there since. `None` if it may not be believed.
    pub fn signature(&self, (dir, name): (&Dir, &str), entry: &Entry) -> Option<StatKey> {
        let Entry::File { digest, size, .. } = entry else { return None };
        let (file, stat) = dir.open_file(name).ok()?;
        let is_known = self.grain.known(stat.device) == Some(true) && stat.size == *size;
        (is_known && digest_open(&file, &dir.at(name)).is_ok_and(|(found, _)| found == *digest)).then_some(stat)
    }
}

/// What became of a file.
enum Made {
    /// The store does not have the content.
    Gone,
    /// It is there.
    Plain,
    /// It is there, with a signature that may be believed.
    Signed(StatKey),
}
