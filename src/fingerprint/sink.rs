//! The two readers of an action: one digests it, one records it for people. Both see the same visit.
//!
//! Stream (specified in `schema/KEY.md`): per field a `u16` tag and a shape byte; 0 absent; 1 one byte string; 2 a `u64` count
//! and that many byte strings; 3 a `u64` count and that many pairs of byte strings in byte order of the first.

use crate::base::digest::Digest;
use crate::base::encode::{DecodeError, Decoder, Encoder};

/// Context of action digests. It changes with every change of the stream's meaning.
pub const ACTION_CONTEXT: &str = "drystone 2026-11 action v1";

/// The named fields of a fingerprint. The numbers are part of the format and never used again for something else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum Field {
    /// `run`, `fetch` or `image`.
    Kind = 1,
    /// Program and arguments in order.
    Command = 2,
    /// Variable names and values, exact.
    Env = 3,
    /// Names of variables whose values are secret.
    SecretEnv = 4,
    /// Directory it starts in, relative to the workspace.
    Directory = 5,
    /// Digest of the input tree: source files and outputs of dependencies at their workspace paths.
    Inputs = 6,
    /// Tool names and identity digests.
    Tools = 7,
    /// Identity of the visible system.
    System = 8,
    /// Operating system and machine architecture.
    Platform = 9,
    /// Isolation level.
    Isolation = 10,
    /// `loopback` or `host`.
    Network = 11,
    /// Output declarations in order, relative to the package.
    Outputs = 12,
    /// Private directories in order, relative to the package.
    Caches = 13,
    /// Workspace and task salts; absent ones are left out by name.
    Salt = 14,
    /// A fetch: urls in order.
    Urls = 15,
    /// A fetch: the expected digest and how the file is placed.
    Fetch = 16,
    /// Labels and keys of services; left out where there are none.
    Services = 17,
    /// Digest of the tree that is the root file system; not in the stream where there is none.
    Root = 18,
    /// Digest of what a traced task was seen to touch; not in the stream of any other.
    Traced = 19,
    /// `error`; not in the stream where undeclared access is only told.
    Undeclared = 21,
    /// Processes it may have at once; not in the stream with the default.
    Processes = 22,
    /// An image: what it is put together from and how.
    Image = 23,
    /// Labels and actions of unstable tasks that it needs; left out where there are none.
    Unstable = 24,
}

impl Field {
    const ALL: [Field; 23] = [
        Field::Kind,
        Field::Command,
        Field::Env,
        Field::SecretEnv,
        Field::Directory,
        Field::Inputs,
        Field::Tools,
        Field::System,
        Field::Platform,
        Field::Isolation,
        Field::Network,
        Field::Outputs,
        Field::Caches,
        Field::Salt,
        Field::Urls,
        Field::Fetch,
        Field::Services,
        Field::Root,
        Field::Traced,
        Field::Undeclared,
        Field::Processes,
        Field::Image,
        Field::Unstable,
    ];

    /// The word in miss reasons and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Field::Kind => "kind",
            Field::Command => "command",
            Field::Env => "env",
            Field::SecretEnv => "secret-env",
            Field::Directory => "directory",
            Field::Inputs => "input",
            Field::Tools => "tool",
            Field::System => "system",
            Field::Platform => "platform",
            Field::Isolation => "isolation",
            Field::Network => "network",
            Field::Outputs => "outputs",
            Field::Caches => "caches",
            Field::Salt => "salt",
            Field::Urls => "urls",
            Field::Fetch => "fetch",
            Field::Services => "service",
            Field::Root => "root",
            Field::Traced => "traced",
            Field::Undeclared => "undeclared",
            Field::Processes => "processes",
            Field::Image => "image",
            Field::Unstable => "unstable",
        }
    }

    fn from_tag(tag: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|field| *field as u16 == tag)
    }
}

/// Reads an action as it is visited. The first seam: digest and explanation cannot drift apart.
pub trait FingerprintSink {
    /// A field with one value, or with none.
    fn one(&mut self, field: Field, value: Option<&[u8]>);
    /// A field with an ordered list.
    fn list(&mut self, field: Field, values: &[&[u8]]);
    /// A field with names and values, in byte order of the names.
    fn map(&mut self, field: Field, pairs: &[(&[u8], &[u8])]);
}

const ABSENT: u8 = 0;
const ONE: u8 = 1;
const LIST: u8 = 2;
const MAP: u8 = 3;

/// Writes the canonical stream and digests it.
#[derive(Default)]
pub struct DigestSink {
    encoder: Encoder,
}

impl DigestSink {
    /// The action digest.
    pub fn digest(&self) -> Digest {
        Digest::derived(ACTION_CONTEXT, self.encoder.as_slice())
    }

    /// The stream itself: what is stored, so that anyone can recompute the digest and explain it.
    pub fn into_stream(self) -> Vec<u8> {
        self.encoder.into_vec()
    }
}

impl FingerprintSink for DigestSink {
    fn one(&mut self, field: Field, value: Option<&[u8]>) {
        self.encoder.u16(field as u16);
        match value {
            None => self.encoder.u8(ABSENT),
            Some(value) => self.encoder.u8(ONE).bytes(value),
        };
    }

    fn list(&mut self, field: Field, values: &[&[u8]]) {
        self.encoder.u16(field as u16).u8(LIST).u64(values.len() as u64);
        for value in values {
            self.encoder.bytes(value);
        }
    }

    fn map(&mut self, field: Field, pairs: &[(&[u8], &[u8])]) {
        assert!(pairs.is_sorted_by(|one, other| one.0 < other.0), "BUG: {field:?} is not sorted: {pairs:?}");
        self.encoder.u16(field as u16).u8(MAP).u64(pairs.len() as u64);
        for (name, value) in pairs {
            self.encoder.bytes(name).bytes(value);
        }
    }
}

/// The content of one recorded field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing.
    Absent,
    /// One value.
    One(Vec<u8>),
    /// Values in order.
    List(Vec<Vec<u8>>),
    /// Names and values.
    Map(Vec<(Vec<u8>, Vec<u8>)>),
}

/// Keeps every field readable, for explanations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecordSink {
    /// Fields in the order visited.
    pub fields: Vec<(Field, Content)>,
}

impl RecordSink {
    /// Reads a stored stream. Streams come from disk or elsewhere and may be anything.
    pub fn decode(stream: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(stream);
        let mut fields = Vec::new();
        while decoder.remaining() > 0 {
            let field = Field::from_tag(decoder.u16()?).ok_or(DecodeError::Invalid { what: "field tag" })?;
            let content = match decoder.u8()? {
                ABSENT => Content::Absent,
                ONE => Content::One(decoder.bytes()?.to_vec()),
                LIST => {
                    let count = decoder.u64()?;
                    let values: Result<_, _> = (0..count).map(|_| decoder.bytes().map(<[u8]>::to_vec)).collect();
                    Content::List(values?)
                }
                MAP => {
                    let count = decoder.u64()?;
                    let pairs: Result<_, DecodeError> =
                        (0..count).map(|_| Ok((decoder.bytes()?.to_vec(), decoder.bytes()?.to_vec()))).collect();
                    Content::Map(pairs?)
                }
                _ => return Err(DecodeError::Invalid { what: "field shape" }),
            };
            fields.push((field, content));
        }
        Ok(Self { fields })
    }

    /// The content of a field; absent if it was not visited.
    pub fn get(&self, field: Field) -> &Content {
        self.fields.iter().find(|(name, _)| *name == field).map_or(&Content::Absent, |(_, content)| content)
    }
}

impl FingerprintSink for RecordSink {
    fn one(&mut self, field: Field, value: Option<&[u8]>) {
        self.fields.push((field, value.map_or(Content::Absent, |value| Content::One(value.to_vec()))));
    }

    fn list(&mut self, field: Field, values: &[&[u8]]) {
        self.fields.push((field, Content::List(values.iter().map(|value| value.to_vec()).collect())));
    }

    fn map(&mut self, field: Field, pairs: &[(&[u8], &[u8])]) {
        let owned = pairs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        self.fields.push((field, Content::Map(owned)));
    }
}
