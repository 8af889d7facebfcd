//! Writing to a stream that may go away: a closed pipe ends the writing quietly. Knows nothing of what is written.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::report::ink::Color;

/// Columns assumed where no terminal tells.
pub const WIDTH_DEFAULT: usize = 120;

/// What a stream takes. Decided once, by whoever reads the environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appearance {
    /// Whether colours may be written.
    pub color: Color,
    /// Whether lines may be drawn over.
    pub display: Display,
    /// Columns of a line.
    pub width: usize,
}

impl Appearance {
    /// Text without colours, one line after the other, [`WIDTH_DEFAULT`] columns.
    pub const fn plain() -> Self {
        Self { color: Color::Plain, display: Display::Lines, width: WIDTH_DEFAULT }
    }
}

/// Whether a stream can show things that change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Display {
    /// A terminal: running tasks are shown and drawn over.
    Live,
    /// A pipe, a file or a CI log: only lines that stay.
    Lines,
}

/// A stream that remembers when it can no longer be written to. Clones write to the same stream.
///
/// After the first failed write nothing more is tried: `drystone query … | head -1` ends without a word.
#[derive(Clone)]
pub struct Out(Arc<Mutex<Stream>>);

struct Stream {
    to: Box<dyn Write + Send>,
    closed: bool,
    trouble: Option<String>,
}

impl Out {
    /// Any stream.
    pub fn new(stream: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Stream { to: Box::new(stream), closed: false, trouble: None })))
    }

    /// The standard output.
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }

    /// The standard error stream.
    pub fn stderr() -> Self {
        Self::new(io::stderr())
    }

    /// Writes all of it and flushes; does nothing once the stream is closed.
    pub fn write(&self, bytes: &[u8]) {
        let mut stream = self.stream();
        if stream.closed || bytes.is_empty() {
            return;
        }
        if let Err(error) = stream.to.write_all(bytes).and_then(|()| stream.to.flush()) {
            stream.closed = true;
            if error.kind() != io::ErrorKind::BrokenPipe {
                stream.trouble = Some(error.to_string());
            }
        }
    }

    /// Writes a text and a line feed.
    pub fn line(&self, text: &str) {
        let mut line = String::with_capacity(text.len() + 1);
        line.push_str(text);
        line.push('\n');
        self.write(line.as_bytes());
    }

    /// Whether nobody reads it any more.
    pub fn is_closed(&self) -> bool {
        self.stream().closed
    }

    /// Why it was closed, if not because the reader went away: a full disk, say.
    pub fn trouble(&self) -> Option<String> {
        self.stream().trouble.clone()
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        // A panic while writing leaves nothing half changed that matters here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stream whose bytes a test reads back.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken(io::ErrorKind, Arc<Mutex<usize>>);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            *self.1.lock().unwrap() += 1;
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_remembered_and_never_an_error() {
        let check = |kind: io::ErrorKind, is_trouble: bool| {
            let writes = Arc::new(Mutex::new(0));
            let out = Out::new(Broken(kind, writes.clone()));
            assert!(!out.is_closed());
            out.line("one");
            out.line("two");
            assert!(out.is_closed());
            assert_eq!(out.trouble().is_some(), is_trouble);
            assert_eq!(*writes.lock().unwrap(), 1, "nothing is tried after the first failure");
        };
        check(io::ErrorKind::BrokenPipe, false);
        check(io::ErrorKind::StorageFull, true);
    }
}
