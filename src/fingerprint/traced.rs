//! What a traced task touched, with what was there: the part of its key that others have as their input tree. Observes nothing.
//!
//! Specified in `schema/KEY.md`, section `traced`. Modification times are not part of it, as they are of no key.

use std::collections::BTreeMap;

use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;
use crate::sandbox::spec::Touch;

/// Context of digests of observations. It changes with every change of the encoding's meaning.
pub const TRACED_CONTEXT: &str = "drystone 2026-11 traced v1";

/// Context of digests of paths alone; they are never part of a key.
const PATHS_CONTEXT: &str = "drystone 2026-11 traced paths v1";

/// How closely a path was looked at; being there, its kind, and the target of a link always count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Depth {
    /// The content of a file; else only its size, and whether it is executable.
    pub content: bool,
    /// The names in a directory.
    pub names: bool,
    /// Whether it could be written, made or removed: it was tried.
    pub writes: bool,
}

impl Depth {
    /// What of the path can have mattered to a command that did this with it.
    pub fn of(touch: Touch) -> Self {
        let content = touch.has(Touch::READ) || touch.has(Touch::EXECUTED);
        Self { content, names: touch.has(Touch::LISTED), writes: touch.has(Touch::WRITTEN) }
    }

    fn code(self) -> u8 {
        u8::from(self.content) | u8::from(self.names) << 1 | u8::from(self.writes) << 2
    }

    fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            0..8 => Ok(Self { content: code & 1 != 0, names: code & 2 != 0, writes: code & 4 != 0 }),
            _ => Err(DecodeError::Invalid { what: "depth" }),
        }
    }
}

/// What kind of thing a name in a directory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Named {
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// A directory.
    Dir,
}

impl Named {
    fn code(self) -> u8 {
        match self {
            Self::File => 0,
            Self::Link => 2,
            Self::Dir => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            0 => Ok(Self::File),
            2 => Ok(Self::Link),
            3 => Ok(Self::Dir),
            _ => Err(DecodeError::Invalid { what: "kind" }),
        }
    }
}

/// What was at a path, as far as it was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Nothing.
    Absent,
    /// A file of which no more was asked.
    File {
        /// Length in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A file that was read.
    Content {
        /// Digest of its bytes.
        digest: Digest,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A directory.
    Dir,
    /// A directory whose names were read.
    Names(BTreeMap<String, Named>),
    /// A symbolic link.
    Link {
        /// Its target as written.
        target: String,
    },
    /// Nothing, for what it would lie in is no directory: one finds that out, or is led elsewhere.
    Barred {
        /// What is in the way.
        by: Named,
    },
    /// This, in a directory that is shown whole, where nothing can be written; only where that was tried.
    Shut(Box<Seen>),
}

impl Seen {
    /// What is there, whether it can be written or not.
    pub fn there(&self) -> &Self {
        match self {
            Self::Shut(inner) => inner.there(),
            other => other,
        }
    }

    fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::Absent => {
                encoder.u8(0);
            }
            Self::File { size, executable } => {
                encoder.u8(1).u8(u8::from(*executable)).u64(*size);
            }
            Self::Content { digest, executable } => {
                encoder.u8(2).u8(u8::from(*executable)).digest(digest);
            }
            Self::Dir => {
                encoder.u8(3);
            }
            Self::Names(names) => {
                encoder.u8(4).u64(names.len() as u64);
                for (name, kind) in names {
                    encoder.bytes(name.as_bytes()).u8(kind.code());
                }
            }
            Self::Link { target } => {
                encoder.u8(5).bytes(target.as_bytes());
            }
            Self::Barred { by } => {
                encoder.u8(6).u8(by.code());
            }
            Self::Shut(inner) => {
                encoder.u8(7);
                inner.encode(encoder);
            }
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        const SHUT: u8 = 7;
        let kind = decoder.u8()?;
        let (is_shut, kind) = if kind == SHUT { (true, decoder.u8()?) } else { (false, kind) };
        let seen = match kind {
            0 => Self::Absent,
            1 => Self::File { executable: decoder.u8()? == 1, size: decoder.u64()? },
            2 => Self::Content { executable: decoder.u8()? == 1, digest: decoder.digest()? },
            3 => Self::Dir,
            4 => Self::Names(names(decoder)?),
            5 => Self::Link { target: decoder.text("target")?.to_owned() },
            6 => Self::Barred { by: Named::from_code(decoder.u8()?)? },
            _ => return Err(DecodeError::Invalid { what: "kind" }),
        };
        Ok(if is_shut { Self::Shut(Box::new(seen)) } else { seen })
    }
}

/// Paths with how closely they were looked at.
pub type Paths = BTreeMap<RelPath, Depth>;

/// The same with what was there.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Observed {
    /// By path relative to the workspace.
    pub paths: BTreeMap<RelPath, (Depth, Seen)>,
}

impl Observed {
    /// As bytes: the material of the digest in the key.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u64(self.paths.len() as u64);
        for (path, (depth, seen)) in &self.paths {
            encoder.bytes(path.as_str().as_bytes()).u8(depth.code());
            seen.encode(&mut encoder);
        }
        encoder.into_vec()
    }

    /// Reads it back.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let mut paths = BTreeMap::new();
        for _ in 0..decoder.u64()? {
            let path = RelPath::parse(decoder.text("path")?).map_err(|_| DecodeError::Invalid { what: "path" })?;
            let depth = Depth::from_code(decoder.u8()?)?;
            let seen = Seen::decode(&mut decoder)?;
            paths.insert(path, (depth, seen));
        }
        decoder.finish()?;
        Ok(Self { paths })
    }

    /// The digest that is in the key.
    pub fn digest(&self) -> Digest {
        Digest::derived(TRACED_CONTEXT, &self.encode())
    }

    /// The paths alone.
    pub fn path_set(&self) -> Paths {
        self.paths.iter().map(|(path, (depth, _))| (path.clone(), *depth)).collect()
    }

    /// Digest of the paths alone: equal for two states of one set.
    pub fn paths_digest(&self) -> Digest {
        let mut encoder = Encoder::new();
        for (path, (depth, _)) in &self.paths {
            encoder.bytes(path.as_str().as_bytes()).u8(depth.code());
        }
        Digest::derived(PATHS_CONTEXT, encoder.as_slice())
    }

    /// The paths at which two states differ, in byte order, each with what became of it.
    pub fn differences<'a>(&'a self, now: &'a Observed) -> Vec<(&'a RelPath, String)> {
        let mut found = Vec::new();
        for (path, (_, was)) in &self.paths {
            if let Some((_, is)) = now.paths.get(path)
                && was != is
            {
                found.push((path, change(was, is)));
            }
        }
        found
    }
}

fn names(decoder: &mut Decoder<'_>) -> Result<BTreeMap<String, Named>, DecodeError> {
    let mut names = BTreeMap::new();
    for _ in 0..decoder.u64()? {
        let name = decoder.text("name")?.to_owned();
        names.insert(name, Named::from_code(decoder.u8()?)?);
    }
    Ok(names)
}

fn change(was: &Seen, is: &Seen) -> String {
    match (was, is) {
        (Seen::Shut(was), Seen::Shut(is)) => change(was, is),
        (was, Seen::Shut(is)) if was == &**is => "can no longer be written".into(),
        (Seen::Shut(was), is) if &**was == is => "can be written now".into(),
        (Seen::Shut(_), _) | (_, Seen::Shut(_)) => change(was.there(), is.there()),
        (_, Seen::Barred { by: Named::Link }) => "lies behind a link".into(),
        (_, Seen::Barred { .. }) => "lies beneath a file".into(),
        (Seen::Barred { .. }, Seen::Absent) => "lies in no file or link any more".into(),
        (Seen::Absent | Seen::Barred { .. }, _) => "added".into(),
        (_, Seen::Absent) => "removed".into(),
        (Seen::Content { digest: was, executable: could }, Seen::Content { digest: is, executable: can })
            if was == is && could != can =>
        {
            if *can {
                "became executable".into()
            } else {
                "is no longer executable".into()
            }
        }
        (Seen::Names(was), Seen::Names(is)) => {
            let added = is.keys().find(|name| !was.contains_key(*name)).map(|name| format!("`{name}` is new in it"));
            let gone =
                || was.keys().find(|name| !is.contains_key(*name)).map(|name| format!("`{name}` is gone from it"));
            added.or_else(gone).unwrap_or_else(|| "holds something of another kind".into())
        }
        (Seen::Link { target: was }, Seen::Link { target: is }) => format!("links to {is:?}, before to {was:?}"),
        (Seen::File { .. } | Seen::Content { .. }, Seen::File { .. } | Seen::Content { .. }) => "changed".into(),
        _ => "changed its kind".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    fn sample() -> Observed {
        let content = Depth { content: true, ..Depth::default() };
        let names = Depth { names: true, ..Depth::default() };
        let looked = Depth::default();
        let tried = Depth { writes: true, ..Depth::default() };
        let listed = BTreeMap::from([("a".into(), Named::File), ("b".into(), Named::Link), ("c".into(), Named::Dir)]);
        Observed {
            paths: BTreeMap::from([
                (path("a"), (content, Seen::Content { digest: Digest::of(b"1"), executable: true })),
                (path("b"), (looked, Seen::File { size: 7, executable: false })),
                (path("c"), (content, Seen::Absent)),
                (path("d"), (looked, Seen::Dir)),
                (path("e"), (names, Seen::Names(listed))),
                (path("f"), (looked, Seen::Link { target: "../x".into() })),
                (path("g"), (looked, Seen::Barred { by: Named::Link })),
                (path("h"), (tried, Seen::Shut(Box::new(Seen::Absent)))),
            ]),
        }
    }

    #[test]
    fn an_observation_reads_back_as_it_was_written() {
        let bytes = sample().encode();
        assert_eq!(Observed::decode(&bytes), Ok(sample()));
        for end in 0..bytes.len() {
            assert!(Observed::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    /// Fails when the encoding changes. Then the context and `schema/KEY.md` change as well, and CHANGELOG says so.
    #[test]
    fn golden_vectors_hold() {
        assert_eq!(sample().digest().to_hex(), GOLDEN_DIGEST, "encoding: {:02x?}", sample().encode());
    }

    const GOLDEN_DIGEST: &str = "ff2b53fdcfa5eec7cf11e662ebd1ef74c483ed884121c44e1a90806fc26300e7";

    #[test]
    fn every_difference_changes_the_digest_and_is_told_by_its_path() {
        let check = |at: &str, seen: Seen, expect: &str| {
            let mut other = sample();
            let depth = other.paths[&path(at)].0;
            other.paths.insert(path(at), (depth, seen));
            assert_ne!(other.digest(), sample().digest(), "{at}");
            assert_eq!(other.paths_digest(), sample().paths_digest(), "{at}");
            let told: Vec<String> =
                sample().differences(&other).into_iter().map(|(path, change)| format!("{path} {change}")).collect();
            assert_eq!(told, [expect]);
        };
        check("a", Seen::Content { digest: Digest::of(b"2"), executable: true }, "a changed");
        check("a", Seen::Content { digest: Digest::of(b"1"), executable: false }, "a is no longer executable");
        check("a", Seen::Absent, "a removed");
        check("b", Seen::File { size: 8, executable: false }, "b changed");
        check("c", Seen::Barred { by: Named::File }, "c lies beneath a file");
        check("c", Seen::Barred { by: Named::Link }, "c lies behind a link");
        check("g", Seen::Absent, "g lies in no file or link any more");
        check("h", Seen::Absent, "h can be written now");
        check("h", Seen::Shut(Box::new(Seen::Dir)), "h added");
        check("a", Seen::Shut(Box::new(sample().paths[&path("a")].1.clone())), "a can no longer be written");
        check("c", Seen::Content { digest: Digest::of(b""), executable: false }, "c added");
        check("d", Seen::File { size: 0, executable: false }, "d changed its kind");
        check("e", Seen::Names(BTreeMap::from([("a".into(), Named::File)])), "e `b` is gone from it");
        check("f", Seen::Link { target: "y".into() }, "f links to \"y\", before to \"../x\"");
        let mut closer = sample();
        closer.paths.insert(path("d"), (Depth { names: true, ..Depth::default() }, Seen::Dir));
        assert_ne!(closer.digest(), sample().digest());
        assert_ne!(closer.paths_digest(), sample().paths_digest());
    }
}
