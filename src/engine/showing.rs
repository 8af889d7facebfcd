//! Puts the inputs of one task into a view, each in the cheapest form that shows nothing but content, kind and executable bit.
//! Decides nothing about which directories are whole.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::digest::Digest;
use crate::base::limits::{VIEW_BYTES_MAX, VIEW_FILE_BYTES_MAX};
use crate::base::path::RelPath;
use crate::base::tree::{Entry, Listing};
use crate::engine::ages::Ages;
use crate::engine::contents::Contents;
use crate::engine::restore::RestoreError;
use crate::engine::shape::Whole;
use crate::fs::link;
use crate::fs::ops;
use crate::sandbox::spec::{Content, MTIME_NS, View, input_mode};
use crate::store::{Keep, Stage, Wanted};

/// A view that grows.
pub struct Showing<'a> {
    contents: Contents<'a>,
    ages: Option<&'a Ages>,
    is_secret: &'a dyn Fn(&Digest) -> bool,
    view: BTreeMap<RelPath, View>,
    /// What the command's memory may still take.
    bytes_left: u64,
    loose: Option<Stage>,
    loose_files: usize,
    changed: Vec<RelPath>,
}

impl<'a> Showing<'a> {
    /// An empty one. With `ages`, files have theirs; of what `is_secret` no copy stays.
    pub fn new(contents: Contents<'a>, ages: Option<&'a Ages>, is_secret: &'a dyn Fn(&Digest) -> bool) -> Self {
        Self {
            contents,
            ages,
            is_secret,
            view: BTreeMap::new(),
            bytes_left: VIEW_BYTES_MAX,
            loose: None,
            loose_files: 0,
            changed: Vec::new(),
        }
    }

    /// The view; copies that it shows besides; and the files that are no longer what was digested.
    pub fn finish(self) -> (BTreeMap<RelPath, View>, Option<Stage>, Vec<RelPath>) {
        (self.view, self.loose, self.changed)
    }

    /// Adds a file: small ones as bytes, large ones as copies kept in the store.
    fn add_file(&mut self, path: &RelPath, digest: &Digest, size: u64, executable: bool) -> Result<(), RestoreError> {
        let content = if size <= VIEW_FILE_BYTES_MAX && size <= self.bytes_left {
            self.bytes_left -= size;
            self.contents.bytes(path, digest, size)?.map(|bytes| Content::Bytes(bytes.into()))
        } else if (self.is_secret)(digest) {
            let to = self.aside()?;
            let is_whole = self.contents.copy(path, digest, size, &to)?;
            is_whole.then(|| self.as_seen(path, executable, to)).transpose()?
        } else {
            let alone = Listing::from([(RelPath::root(), Entry::File { digest: *digest, size, executable })]);
            self.keep(path, &alone)?.map(Content::Host)
        };
        let content = match content {
            Some(content) => content,
            None => self.as_it_is(path, executable)?,
        };
        self.view.insert(path.clone(), View::File { content, executable });
        Ok(())
    }

    /// Adds an input.
    fn add_entry(&mut self, path: &RelPath, entry: &Entry) -> Result<(), RestoreError> {
        match entry {
            Entry::File { digest, size, executable } => self.add_file(path, digest, *size, *executable)?,
            Entry::Link { target } => drop(self.view.insert(path.clone(), View::Link { target: target.clone() })),
            Entry::Dir => drop(self.view.insert(path.clone(), View::Empty)),
        }
        Ok(())
    }

    /// Adds all inputs; directories in which something changed file by file, even if they are to be whole.
    pub fn add_all(&mut self, listing: &Listing, whole: &Whole) -> Result<(), RestoreError> {
        let mut inside: BTreeMap<RelPath, Listing> = BTreeMap::new();
        for (path, entry) in listing {
            match whole.dir_of(path) {
                Some(dir) => {
                    let below = path.strip_prefix(&dir).unwrap_or_default();
                    inside.entry(dir).or_default().insert(below, entry.clone());
                }
                None => self.add_entry(path, entry)?,
            }
        }
        for (dir, listing) in inside {
            match self.keep(&dir, &listing)? {
                Some(host) => drop(self.view.insert(dir, View::Dir { host })),
                None => listing.iter().try_for_each(|(path, entry)| self.add_entry(&dir.join(path), entry))?,
            }
        }
        Ok(())
    }

    /// Keeps what lies at a path, with paths relative to it; `None` if something is no longer what was digested, or a secret.
    fn keep(&self, at: &RelPath, listing: &Listing) -> Result<Option<PathBuf>, RestoreError> {
        let is_secret = |entry: &Entry| matches!(entry, Entry::File { digest, .. } if (self.is_secret)(digest));
        if listing.values().any(is_secret) {
            return Ok(None);
        }
        let mtime_ns = |path: &RelPath| self.mtime_ns(&at.join(path));
        let keep = Keep { listing, modes: [input_mode(false), input_mode(true)], mtime_ns: &mtime_ns };
        let fill = &mut |wanted: &[Wanted<'_>]| {
            for file in wanted {
                if !self.contents.copy(&at.join(file.path), &file.digest, file.size, &file.to)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        self.contents.store.keep(&keep, fill)
    }

    fn mtime_ns(&self, path: &RelPath) -> i64 {
        self.ages.map_or(MTIME_NS, |ages| ages.of(path))
    }

    /// Copies a file that changed since it was digested: the command sees what it is now, and its result is not stored.
    fn as_it_is(&mut self, path: &RelPath, executable: bool) -> Result<Content, RestoreError> {
        self.changed.push(path.clone());
        let to = self.aside()?;
        link::copy_file_as_old(&self.contents.root.join(path.as_str()), &to, input_mode(executable))?;
        self.as_seen(path, executable, to)
    }

    /// A name for a copy that goes when the command has ended.
    fn aside(&mut self) -> Result<PathBuf, RestoreError> {
        let stage = match &mut self.loose {
            Some(stage) => stage,
            none => none.insert(self.contents.store.stage()?),
        };
        self.loose_files += 1;
        Ok(stage.path().join(self.loose_files.to_string()))
    }

    fn as_seen(&self, path: &RelPath, executable: bool, copy: PathBuf) -> Result<Content, RestoreError> {
        ops::set_mode(&copy, input_mode(executable))?;
        ops::set_times(&copy, self.mtime_ns(path))?;
        Ok(Content::Host(copy))
    }
}
