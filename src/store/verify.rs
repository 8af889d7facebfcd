//! Checking a whole store: the database, every byte of every content, every reference. Repairs by dropping what is bad.

use std::collections::{BTreeMap, BTreeSet};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rusqlite::Connection;

use crate::base::digest::Digest;
use crate::base::tree::Tree;
use crate::fs::digest::{Threads, digest_file_with};
use crate::fs::ops;
use crate::store::blobs::{OnDamage, readable};
use crate::store::content::{self, Key, Kind, Row};
use crate::store::error::StoreError;
use crate::store::gc;
use crate::store::locks::{Closed, wait_exclusive};
use crate::store::open::Store;
use crate::store::packs::Opened;
use crate::store::results::{self, ActionResult};
use crate::store::writer::Job;

/// Whether verification only tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerifyMode {
    /// Tell what is bad.
    Report,
    /// Drop it.
    Repair,
}

/// How to verify.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VerifyOptions {
    /// Whether to drop what is bad.
    pub mode: VerifyMode,
}

/// What was found. Empty lists: the store is sound.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Blobs and trees digested.
    pub contents: u64,
    /// Bytes digested.
    pub bytes: u64,
    /// Results followed.
    pub results: u64,
    /// What SQLite says of its file, one line each.
    pub database: Vec<String>,
    /// Blobs that are missing or not what their name says.
    pub damaged_blobs: Vec<Digest>,
    /// Trees that are missing, not what their name says, or not canonical.
    pub damaged_trees: Vec<Digest>,
    /// Names of files and directories kept to be shown to commands that are not what their names say.
    pub damaged_kept: Vec<String>,
    /// Paths in the store of files that outputs may be links to and that are not what their names say.
    pub damaged_links: Vec<String>,
    /// Actions whose results are damaged themselves or name something that is missing.
    pub dangling: Vec<Digest>,
    /// Files in `blobs/` and `trees/` that no row knows: left by crashes, harmless.
    pub orphans: Vec<Digest>,
    /// Whether all of this was dropped.
    pub repaired: bool,
}

impl VerifyReport {
    /// Whether nothing is wrong. Orphans are not wrong.
    pub fn is_sound(&self) -> bool {
        self.database.is_empty()
            && self.damaged_blobs.is_empty()
            && self.damaged_trees.is_empty()
            && self.damaged_kept.is_empty()
            && self.damaged_links.is_empty()
            && self.dangling.is_empty()
    }
}

impl Store {
    /// Reads and digests everything. Cost: one read of the whole store on the calling rayon pool.
    ///
    /// With [`VerifyMode::Repair`] what is bad is dropped, and a database that SQLite finds broken is rebuilt from the files.
    pub fn verify(&self, options: VerifyOptions) -> Result<VerifyReport, StoreError> {
        let _alone = match self.writable() {
            Some(_) => Some(wait_exclusive(&self.layout.lock("gc"))?),
            None => None,
        };
        self.settle()?;
        let mut report = VerifyReport::default();
        let generation = self.database.generation();
        report.database = self.database.read("check the database", integrity)?;
        if options.mode == VerifyMode::Repair && !report.database.is_empty() {
            self.session()?;
            self.database.replace(generation, &report.database[0])?;
        }
        let contents = self.database.read("list content", gc::all_contents)?;
        let bad = self.digest_all(&contents, &mut report)?;
        if options.mode == VerifyMode::Repair {
            for key in &bad {
                if self.is_still_bad(key)? {
                    self.drop_damaged(key)?;
                }
            }
            self.settle()?;
        }
        self.follow_results(&bad, options.mode, &mut report)?;
        report.damaged_kept = self.damaged_kept()?;
        report.damaged_links = self.damaged_links()?;
        if options.mode == VerifyMode::Repair {
            report.damaged_kept.iter().try_for_each(|name| self.drop_kept(name))?;
            report.damaged_links.iter().try_for_each(|name| self.drop_damaged_link(name))?;
        }
        let closed = self.close_gate()?;
        let contents = self.database.read("list content", gc::all_contents)?;
        for (key, _) in self.orphans(&contents)? {
            report.orphans.push(key.digest);
            if options.mode == VerifyMode::Repair {
                ops::remove_file(&self.layout.content(&key))?;
            }
        }
        drop(closed);
        if options.mode == VerifyMode::Repair {
            self.database.write("recount", &mut None, gc::recount)?;
            report.repaired = true;
        }
        Ok(report)
    }

    fn close_gate(&self) -> Result<Option<Closed>, StoreError> {
        match self.writable() {
            Some(session) => Ok(Some(session.gate.close()?)),
            None => Ok(None),
        }
    }

    fn digest_all(&self, contents: &[(Key, Row)], report: &mut VerifyReport) -> Result<Vec<Key>, StoreError> {
        report.contents = contents.len() as u64;
        report.bytes = contents.iter().fold(0, |bytes, (_, row)| bytes.saturating_add(row.size));
        // What shares a pack is looked at together: each is unpacked once.
        let mut packed: BTreeMap<i64, Vec<&(Key, Row)>> = BTreeMap::new();
        let mut groups: Vec<Vec<&(Key, Row)>> = Vec::new();
        for content in contents {
            match content.1.pack() {
                Some(body) => packed.entry(body).or_default().push(content),
                None => groups.push(vec![content]),
            }
        }
        groups.extend(packed.into_values());
        let verdicts: Vec<Vec<Key>> = groups
            .par_iter()
            .map(|group| {
                let sound = self.are_sound(group)?;
                let unsound = group.iter().zip(sound).filter(|(_, sound)| !sound).map(|((key, _), _)| *key);
                let mut bad = Vec::new();
                for key in unsound {
                    if self.is_still_bad(&key)? {
                        bad.push(key);
                    }
                }
                Ok(bad)
            })
            .collect::<Result<_, StoreError>>()?;
        let mut bad: Vec<Key> = verdicts.into_iter().flatten().collect();
        bad.sort();
        for key in &bad {
            match key.kind {
                Kind::Blob => report.damaged_blobs.push(key.digest),
                Kind::Tree => report.damaged_trees.push(key.digest),
            }
        }
        Ok(bad)
    }

    /// Whether contents of one pack, or one content, are what their names say.
    fn are_sound(&self, group: &[&(Key, Row)]) -> Result<Vec<bool>, StoreError> {
        if let [(key, row)] = group
            && row.is_file()
        {
            let path = self.layout.content(key);
            if key.kind == Kind::Blob {
                let file = readable(digest_file_with(&path, Threads::Pool))?;
                return Ok(vec![file == Some((key.digest, row.size))]);
            }
            return Ok(vec![readable(ops::read(&path))?.is_some_and(|bytes| is_content(key, row, &bytes))]);
        }
        self.database.read("read content", |connection| {
            // One state of the database for all of them.
            let transaction = connection.unchecked_transaction()?;
            let mut opened = Opened::default();
            let sound = |(key, row): &&(Key, Row)| {
                let bytes = content::inline_bytes_with(&transaction, key, &mut opened)?;
                Ok(bytes.is_some_and(|bytes| is_content(key, row, &bytes)))
            };
            group.iter().map(sound).collect()
        })
    }

    /// Whether content that was found bad is there and bad: another process may have dropped it or put it anew.
    fn is_still_bad(&self, key: &Key) -> Result<bool, StoreError> {
        let row = self.database.read("look for content", |connection| content::find(connection, key))?;
        match row {
            None => Ok(false),
            Some(row) => Ok(self.are_sound(&[&(*key, row)])? != [true]),
        }
    }

    /// Reads content and drops it if it is damaged.
    pub fn recheck(&self, blobs: impl IntoIterator<Item = Digest>) -> Result<(), StoreError> {
        self.settle()?;
        for key in blobs.into_iter().map(Key::blob) {
            if self.is_still_bad(&key)? {
                self.drop_damaged(&key)?;
            }
        }
        Ok(())
    }

    fn follow_results(&self, bad: &[Key], mode: VerifyMode, report: &mut VerifyReport) -> Result<(), StoreError> {
        let rows = self.database.read("list results", results::all)?;
        report.results = rows.len() as u64;
        let bad: BTreeSet<&Key> = bad.iter().collect();
        for row in rows {
            if row.is_sound && self.names_only_good(&row.result, &bad)? {
                continue;
            }
            // Another process may have forgotten it since, with what it named.
            if self.find_result(&row.result.action)?.is_none_or(|now| now.result != row.result) {
                continue;
            }
            report.dangling.push(row.result.action);
            if mode == VerifyMode::Repair {
                let (action, outputs) = (row.result.action, row.result.outputs);
                self.session()?.queue.push(Job::Forget { action, outputs }, None)?;
            }
        }
        report.dangling.sort();
        self.settle()
    }

    fn names_only_good(&self, result: &ActionResult, bad: &BTreeSet<&Key>) -> Result<bool, StoreError> {
        let log = Key::blob(result.stdout_stderr);
        let Some(closure) = self.closure(&result.outputs, OnDamage::Leave)? else { return Ok(false) };
        let named = closure.blobs.keys().map(|digest| Key::blob(*digest));
        Ok(self.present(&log)?.is_some()
            && self.has_blobs(&closure)?
            && named.chain([log]).all(|key| !bad.contains(&key)))
    }
}

fn is_content(key: &Key, row: &Row, bytes: &[u8]) -> bool {
    bytes.len() as u64 == row.size
        && key.kind.digest(bytes) == key.digest
        && (key.kind == Kind::Blob || Tree::decode(bytes).is_ok())
}

fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}
