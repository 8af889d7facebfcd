//! What an audit found, as plain data. Rebuilds nothing, compares nothing, prints nothing.

use crate::audit::causes::Cause;
use crate::base::digest::Digest;
use crate::sandbox::surroundings::Dimension;

/// How alike the builds of a task are: the worst that holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// All builds have the same bytes.
    Identical,
    /// What is in compressed files is the same, the compressed bytes are not.
    IdenticalUncompressed,
    /// The same once the normalizers that are named were applied.
    Equivalent,
    /// It could not be found out: a rebuild failed, or the budget was used up.
    Inconclusive,
    /// Anything else.
    Different,
}

impl Verdict {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Identical => "identical",
            Verdict::IdenticalUncompressed => "identical-uncompressed",
            Verdict::Equivalent => "equivalent",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Different => "different",
        }
    }
}

/// How sure it is that a cause is the cause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Certainty {
    /// What a file looks like speaks for it.
    Suspected,
    /// A marker that was planted was found, or the difference came and went with one variation, or a header field says it.
    Proven,
}

impl Certainty {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Certainty::Suspected => "suspected",
            Certainty::Proven => "proven",
        }
    }
}

/// Where a difference lies: a file of the outputs, and on the way down what is in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Site {
    /// Path relative to the package of the task, or in an image.
    pub file: String,
    /// Members from the outside in: entries of archives by their paths, `(gzip)` for what is in a compressed file, `.debug_str` for a
    /// section of an ELF file, `IHDR` for a chunk, `$.a.b` for a field of a document. Bytes that are no text are escaped.
    pub members: Vec<String>,
}

/// Bytes of both sides around a difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Where they begin in the innermost member, in bytes.
    pub offset: u64,
    /// Of the first side; at most [`EVIDENCE_BYTES_MAX`].
    pub a: Vec<u8>,
    /// Of the second side.
    pub b: Vec<u8>,
}

/// Most bytes of one side that are told.
pub const EVIDENCE_BYTES_MAX: usize = 64;

/// One difference between two builds of a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Where.
    pub site: Site,
    /// What differs, in one line.
    pub what: String,
    /// Why.
    pub cause: &'static Cause,
    /// How sure that is.
    pub certainty: Certainty,
    /// What was varied when it appeared, where that is proven.
    pub dimension: Option<Dimension>,
    /// The bytes.
    pub evidence: Option<Evidence>,
    /// Where it follows from another difference (a digest of a file that differs): that one's site. Then it counts for nothing of its own.
    pub consequence_of: Option<Site>,
    /// Which two builds were compared, by position in [`TaskAudit::builds`].
    pub between: (usize, usize),
}

/// How a build ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With these outputs.
    Built {
        /// Tree digest of them.
        outputs: Digest,
    },
    /// The command failed.
    Failed {
        /// How, in a sentence.
        how: String,
    },
}

/// One build of a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Build {
    /// What was varied; nothing for a plain build. The first build is the recorded result.
    pub varied: Vec<Dimension>,
    /// What was held fast instead, to see whether a difference goes away.
    pub pinned: Vec<Dimension>,
    /// How it ended.
    pub ending: Ending,
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// Whether a variation had an effect in the sandbox of the task, as a canary there told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The canary saw both values.
    Effective {
        /// What it saw in a plain build.
        first: String,
        /// What it saw in the varied one.
        second: String,
    },
    /// It saw the same in both, or the variation cannot be made here: the dimension is not tested.
    None {
        /// Why.
        why: String,
    },
}

/// What came of varying one dimension.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It had no effect, so nothing follows.
    NotTested,
    /// Nothing differed with it.
    Same,
    /// With it alone, the outputs differ.
    Differs,
    /// With it alone, the command fails.
    Fails {
        /// How.
        how: String,
    },
    /// All together differed, and the budget was used up before it was its turn, or what differs anyway hides it.
    Unknown {
        /// Why.
        why: String,
    },
}

/// One dimension of one task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Varied {
    /// Which.
    pub dimension: Dimension,
    /// Whether it took hold.
    pub effect: Effect,
    /// What came of it.
    pub outcome: Outcome,
}

/// What was found of one task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskAudit {
    /// Its label.
    pub label: String,
    /// Its action.
    pub action: Digest,
    /// Tree digest of the recorded outputs.
    pub outputs: Option<Digest>,
    /// The level it was built at, as a word.
    pub isolation: String,
    /// How alike its builds are.
    pub verdict: Verdict,
    /// Whether plain builds differ among themselves already.
    pub is_unstable: bool,
    /// All builds, the recorded result first.
    pub builds: Vec<Build>,
    /// Every dimension.
    pub varied: Vec<Varied>,
    /// What differs, in the order of sites.
    pub differences: Vec<Difference>,
    /// How many more differences there are that are not told.
    pub untold: u64,
    /// Normalizers after which the builds are the same; of [`Verdict::Equivalent`] alone.
    pub normalizers: Vec<&'static str>,
    /// Things worth saying, a sentence each: why it is inconclusive, what could not be looked into.
    pub notes: Vec<String>,
}

/// The machine of an audit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Architecture, as `x86_64`.
    pub architecture: String,
    /// Model of the processor.
    pub processor: String,
    /// How many processors there are.
    pub cpus: u32,
    /// Name of the distribution with its version.
    pub system: String,
    /// Kind of the file system of the store.
    pub file_system: String,
    /// Digest that stands for the machine without naming it.
    pub id: String,
}

/// An audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Audit {
    /// Its number: random, 16 hexadecimal digits.
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Where.
    pub machine: Machine,
    /// What was to be varied.
    pub asked: Vec<Dimension>,
    /// The tasks, in the order of their labels.
    pub tasks: Vec<TaskAudit>,
    /// Tasks that were selected and not audited, with why not: services, fetches, tasks that failed.
    pub left_out: Vec<(String, String)>,
}

impl Audit {
    /// The worst verdict of all; [`Verdict::Identical`] if no task was audited.
    pub fn verdict(&self) -> Verdict {
        self.tasks.iter().map(|task| task.verdict).max().unwrap_or(Verdict::Identical)
    }
}
