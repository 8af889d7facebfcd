//! Blobs read piece by piece. Decides nothing about what they hold.

use std::io::{self, Cursor, Read};

use crate::base::digest::{Digest, Digester};
use crate::fs::ops;
use crate::store::blobs::readable;
use crate::store::content::Key;
use crate::store::error::StoreError;
use crate::store::open::Store;

/// A blob being read. It ends with an error if what was read is not what its digest says: use nothing before the end.
pub struct BlobReader {
    from: From,
    digest: Digest,
    digester: Option<Digester>,
    /// Bytes of it.
    pub size: u64,
}

enum From {
    Bytes(Cursor<Vec<u8>>),
    File(Box<dyn Read + Send>),
}

impl Store {
    /// Opens a blob; `None` if it is not there. Nothing is kept in memory of what lies in a file.
    pub fn reader(&self, digest: &Digest) -> Result<Option<BlobReader>, StoreError> {
        let key = Key::blob(*digest);
        let Some(found) = self.present(&key)? else { return Ok(None) };
        if !found.is_file {
            let bytes = self.load(&key)?;
            // Digested when it was loaded.
            return Ok(bytes.map(|bytes| BlobReader {
                size: bytes.len() as u64,
                from: From::Bytes(Cursor::new(bytes)),
                digest: *digest,
                digester: None,
            }));
        }
        let file = readable(ops::open_no_follow(&self.layout.content(&key)))?;
        let opened = |file| BlobReader {
            from: From::File(Box::new(file)),
            digest: *digest,
            digester: Some(Digester::default()),
            size: found.size,
        };
        Ok(file.map(opened))
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.from {
            From::Bytes(bytes) => return bytes.read(buffer),
            From::File(file) => file.read(buffer)?,
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        match &mut self.digester {
            Some(digester) if count > 0 => {
                digester.update(&buffer[..count]);
            }
            Some(digester) => {
                if std::mem::take(digester).finish() != self.digest {
                    let cause =
                        format!("the blob {} of the store is damaged; `drystone store verify --repair`", self.digest);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, cause));
                }
                self.digester = None;
            }
            None => {}
        }
        Ok(count)
    }
}
