//! A file being written piece by piece, and put in its place whole. Decides nothing about what is in it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::fs::atomic::temporary_beside;
use crate::fs::ops::{self, FsError};

/// Bytes written at once.
const WRITE_BYTES: usize = 1 << 20;

/// A file that has no name of its own yet. Dropped before [`OutFile::place`], nothing of it stays.
#[derive(Debug)]
pub struct OutFile {
    out: Option<BufWriter<Whole>>,
    temporary: PathBuf,
    to: PathBuf,
}

#[derive(Debug)]
struct Whole {
    file: File,
    path: PathBuf,
}

impl OutFile {
    /// Begins a file that will be at `to`, where one may be until then.
    pub fn create(to: &Path, mode: u32) -> Result<Self, FsError> {
        let temporary = temporary_beside(to);
        let file = ops::create_new(&temporary, mode)?;
        let whole = Whole { file, path: temporary.clone() };
        Ok(Self { out: Some(BufWriter::with_capacity(WRITE_BYTES, whole)), temporary, to: to.to_owned() })
    }

    /// Puts the file in its place.
    pub fn place(mut self) -> Result<(), FsError> {
        if let Some(mut out) = self.out.take() {
            let flushed = out.flush().map_err(|cause| FsError::new("write", &self.to, cause));
            let placed = flushed.and_then(|()| ops::rename(&self.temporary, &self.to));
            if placed.is_err() {
                // The first error is the one worth telling.
                drop(ops::remove_file(&self.temporary));
            }
            return placed;
        }
        Ok(())
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            // Without what is still in memory, which nobody wants any more.
            drop(out.into_parts());
            drop(ops::remove_file(&self.temporary));
        }
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Some(out) => out.write(bytes),
            None => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        ops::write_all(&self.file, &self.path, bytes).map_err(|error| error.cause)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let to = dir.path().join("out");
        let mut file = OutFile::create(&to, 0o644).expect("it is begun");
        file.write_all(b"half").expect("it is written");
        drop(file);
        assert_eq!(ops::read_dir(dir.path()).expect("it is listed").len(), 0);
        let mut file = OutFile::create(&to, 0o644).expect("it is begun");
        file.write_all(b"whole").expect("it is written");
        file.place().expect("it is placed");
        assert_eq!(ops::read(&to).expect("it is there"), b"whole");
        assert_eq!(ops::read_dir(dir.path()).expect("it is listed").len(), 1);
    }
}
