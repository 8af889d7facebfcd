//! The action: a task fully resolved, and the one walk over it that keys and explanations share.
//!
//! | in the key | not in the key |
//! |---|---|
//! | argv in order, exact environment, names of secrets | label, package name, tags |
//! | start directory, input tree (sources and dependency outputs) | checkout path, host name, user |
//! | tool identities, root tree or system identity, platform | jobs, timestamps, retries, timeout |
//! | isolation, network, output declarations, caches, salts | values of secrets, scratch, on-failure |
//! | labels and keys of services | how a service tells that it is ready |
//! | labels and actions of unstable tasks that it needs | those of all others: what came of them says all |
//! | the most processes, which a task can see | the most memory, which it cannot: beyond it, it has no result |

use std::collections::BTreeMap;

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::fingerprint::sink::{DigestSink, Field, FingerprintSink, RecordSink};
use crate::manifest::model::{Expected, Undeclared};
use crate::sandbox::spec::{Level, Network};

/// What an action does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Work {
    /// Runs a command line.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Fetches one file.
    Fetch {
        /// Where it may be had.
        urls: Vec<String>,
        /// What it must be.
        expect: Expected,
        /// `file`, `executable` or `unpack`, and how many components are stripped.
        placing: String,
    },
    /// Puts an image together.
    Image {
        /// What it is put together from and how, one text each.
        parts: Vec<String>,
    },
}

/// What is known of the inputs of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracing {
    /// They are declared: the input tree says all.
    No,
    /// They will be found out. A key with this is the first step of a lookup and no result's.
    Unknown,
    /// They were found out: digest of what was touched, with what was there.
    Observed(Digest),
}

/// A task fully resolved: the unit of caching.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Action {
    /// What it does.
    pub work: Work,
    /// The exact environment, less secrets.
    pub env: BTreeMap<String, String>,
    /// Names of secret variables, in byte order.
    pub secret_env: Vec<String>,
    /// Directory it starts in.
    pub directory: RelPath,
    /// Root of the input tree.
    pub inputs: Digest,
    /// Identity digest by tool name.
    pub tools: BTreeMap<String, Digest>,
    /// Identity of the visible system; `None` where none is visible.
    pub system: Option<String>,
    /// Tree that is the root file system, in place of the system.
    pub root: Option<Digest>,
    /// `linux/x86_64` and the like.
    pub platform: String,
    /// Level it runs at.
    pub isolation: Level,
    /// Network policy.
    pub network: Network,
    /// Output declarations in order, relative to the package.
    pub outputs: Vec<String>,
    /// Private directories in order, relative to the package.
    pub caches: Vec<String>,
    /// Salt of the workspace.
    pub workspace_salt: Option<String>,
    /// Salt of the task.
    pub task_salt: Option<String>,
    /// Keys of the services it uses, by label.
    pub services: BTreeMap<String, Digest>,
    /// Actions of what it needs and is known to come to different outputs, by label.
    pub unstable: BTreeMap<String, Digest>,
    /// What follows when it touches what it does not declare: one that passes although that is forbidden says more.
    pub undeclared: Undeclared,
    /// Processes it may have at once, which it can see; `None` is the default.
    pub processes: Option<u32>,
    /// Whether its inputs are those it was seen to touch; then the input tree is empty.
    pub tracing: Tracing,
}

impl Action {
    /// Walks every field in the order of the format.
    pub fn visit(&self, sink: &mut dyn FingerprintSink) {
        // Taken apart without `..`: a new field does not compile until it is either visited or refused here.
        let Action {
            work,
            env,
            secret_env,
            directory,
            inputs,
            tools,
            system,
            root,
            platform,
            isolation,
            network,
            outputs,
            caches,
            workspace_salt,
            task_salt,
            services,
            unstable,
            undeclared,
            processes,
            tracing,
        } = self;
        match work {
            Work::Run { argv } => {
                sink.one(Field::Kind, Some(b"run"));
                sink.list(Field::Command, &texts(argv));
            }
            Work::Fetch { urls, expect, placing } => {
                sink.one(Field::Kind, Some(b"fetch"));
                sink.list(Field::Urls, &texts(urls));
                let (function, bytes): (&[u8], &[u8]) = match expect {
                    Expected::Blake3(digest) => (b"blake3", digest.as_bytes()),
                    Expected::Sha256(bytes) => (b"sha256", bytes),
                };
                sink.list(Field::Fetch, &[function, bytes, placing.as_bytes()]);
            }
            Work::Image { parts } => {
                sink.one(Field::Kind, Some(b"image"));
                sink.list(Field::Image, &texts(parts));
            }
        }
        let env: Vec<(&[u8], &[u8])> = env.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        sink.map(Field::Env, &env);
        sink.list(Field::SecretEnv, &texts(secret_env));
        sink.one(Field::Directory, Some(directory.as_str().as_bytes()));
        sink.one(Field::Inputs, Some(inputs.as_bytes()));
        let tools: Vec<(&[u8], &[u8])> =
            tools.iter().map(|(name, digest)| (name.as_bytes(), digest.as_bytes().as_slice())).collect();
        sink.map(Field::Tools, &tools);
        sink.one(Field::System, system.as_ref().map(String::as_bytes));
        sink.one(Field::Platform, Some(platform.as_bytes()));
        sink.one(Field::Isolation, Some(isolation.word().as_bytes()));
        let network: &[u8] = match network {
            // What else is in a pod is a field of its own.
            Network::Loopback | Network::Pod => b"loopback",
            Network::Host => b"host",
        };
        sink.one(Field::Network, Some(network));
        sink.list(Field::Outputs, &texts(outputs));
        sink.list(Field::Caches, &texts(caches));
        let salts = [("task", task_salt), ("workspace", workspace_salt)];
        let salts: Vec<(&[u8], &[u8])> = salts
            .iter()
            .filter_map(|(name, salt)| salt.as_ref().map(|salt| (name.as_bytes(), salt.as_bytes())))
            .collect();
        sink.map(Field::Salt, &salts);
        // Not in the stream where there are none: so the keys of such tasks are what they were before there were services.
        if !services.is_empty() {
            let services: Vec<(&[u8], &[u8])> =
                services.iter().map(|(label, key)| (label.as_bytes(), key.as_bytes().as_slice())).collect();
            sink.map(Field::Services, &services);
        }
        // Left out rather than absent: keys of tasks without it are what they were before there was such a field.
        if let Some(root) = root {
            sink.one(Field::Root, Some(root.as_bytes()));
        }
        match tracing {
            Tracing::No => {}
            Tracing::Unknown => sink.one(Field::Traced, None),
            Tracing::Observed(digest) => sink.one(Field::Traced, Some(digest.as_bytes())),
        }
        if *undeclared == Undeclared::Error {
            sink.one(Field::Undeclared, Some(b"error"));
        }
        if let Some(processes) = processes {
            sink.one(Field::Processes, Some(processes.to_string().as_bytes()));
        }
        // Not in the stream where nothing is: the key of a task that needs what is reproducible knows of this nothing.
        if !unstable.is_empty() {
            let unstable: Vec<(&[u8], &[u8])> =
                unstable.iter().map(|(label, key)| (label.as_bytes(), key.as_bytes().as_slice())).collect();
            sink.map(Field::Unstable, &unstable);
        }
    }

    /// Digest and stream in one walk.
    pub fn key(&self) -> (Digest, Vec<u8>) {
        let mut sink = DigestSink::default();
        self.visit(&mut sink);
        (sink.digest(), sink.into_stream())
    }

    /// The readable fields.
    pub fn record(&self) -> RecordSink {
        let mut sink = RecordSink::default();
        self.visit(&mut sink);
        sink
    }
}

fn texts(values: &[String]) -> Vec<&[u8]> {
    values.iter().map(String::as_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> Action {
        Action {
            work: Work::Run { argv: vec!["cc".into(), "-c".into(), "a.c".into()] },
            env: BTreeMap::from([("LANG".into(), "C.UTF-8".into()), ("MODE".into(), String::new())]),
            secret_env: vec!["TOKEN".into()],
            directory: RelPath::parse("libs/ui").expect("a good path"),
            inputs: Digest::of(b"inputs"),
            tools: BTreeMap::from([("cc".into(), Digest::of(b"cc"))]),
            system: Some("dpkg 00".into()),
            root: None,
            platform: "linux/x86_64".into(),
            isolation: Level::Namespaces,
            network: Network::Loopback,
            outputs: vec!["a.o".into()],
            caches: vec![".cache".into()],
            workspace_salt: None,
            task_salt: Some("1".into()),
            services: BTreeMap::new(),
            unstable: BTreeMap::new(),
            undeclared: Undeclared::Warn,
            processes: None,
            tracing: Tracing::No,
        }
    }

    fn variations() -> Vec<(&'static str, Action)> {
        let vary = |change: &dyn Fn(&mut Action)| {
            let mut action = sample();
            change(&mut action);
            action
        };
        let argv = |words: &[&str]| Work::Run { argv: words.iter().map(|word| (*word).to_owned()).collect() };
        vec![
            ("argument order", vary(&|a| a.work = argv(&["cc", "a.c", "-c"]))),
            ("argument split", vary(&|a| a.work = argv(&["cc", "-c a.c"]))),
            ("argument added", vary(&|a| a.work = argv(&["cc", "-c", "a.c", ""]))),
            ("unset against empty variable", vary(&|a| drop(a.env.remove("MODE")))),
            ("variable value", vary(&|a| drop(a.env.insert("MODE".into(), "x".into())))),
            ("an unstable task", vary(&|a| a.unstable = BTreeMap::from([("//:gen".into(), Digest::of(b"one"))]))),
            ("another action of it", vary(&|a| a.unstable = BTreeMap::from([("//:gen".into(), Digest::of(b"two"))]))),
            ("variable name", vary(&|a| drop(a.env.insert("MODE2".into(), String::new())))),
            ("secret name", vary(&|a| a.secret_env.clear())),
            ("directory", vary(&|a| a.directory = RelPath::root())),
            ("inputs", vary(&|a| a.inputs = Digest::of(b"other"))),
            ("tool identity", vary(&|a| a.tools = BTreeMap::from([("cc".into(), Digest::of(b"cc2"))]))),
            ("tool name", vary(&|a| a.tools = BTreeMap::from([("gcc".into(), Digest::of(b"cc"))]))),
            ("system", vary(&|a| a.system = None)),
            ("root", vary(&|a| a.root = Some(Digest::of(b"tree")))),
            ("root tree", vary(&|a| a.root = Some(Digest::of(b"other tree")))),
            ("platform", vary(&|a| a.platform = "linux/aarch64".into())),
            ("isolation", vary(&|a| a.isolation = Level::None)),
            ("network", vary(&|a| a.network = Network::Host)),
            ("outputs", vary(&|a| a.outputs.push("b.o".into()))),
            ("caches", vary(&|a| a.caches.clear())),
            ("task salt", vary(&|a| a.task_salt = None)),
            (
                "service",
                vary(&|a| {
                    a.services.insert("//:db".into(), Digest::of(b"db"));
                }),
            ),
            (
                "service key",
                vary(&|a| {
                    a.services.insert("//:db".into(), Digest::of(b"db2"));
                }),
            ),
            (
                "service label",
                vary(&|a| {
                    a.services.insert("//:db2".into(), Digest::of(b"db"));
                }),
            ),
            ("workspace salt", vary(&|a| a.workspace_salt = Some(String::new()))),
            ("traced and not known yet", vary(&|a| a.tracing = Tracing::Unknown)),
            ("traced", vary(&|a| a.tracing = Tracing::Observed(Digest::of(b"seen")))),
            ("undeclared", vary(&|a| a.undeclared = Undeclared::Error)),
            ("processes", vary(&|a| a.processes = Some(64))),
            ("more processes", vary(&|a| a.processes = Some(65))),
            (
                "work",
                vary(&|a| {
                    a.work = Work::Fetch { urls: vec![], expect: Expected::Sha256([0; 32]), placing: "file 0".into() };
                }),
            ),
        ]
    }

    #[test]
    fn any_change_of_any_field_changes_the_digest() {
        let mut seen = BTreeMap::from([(sample().key().0, "the sample")]);
        for (name, action) in variations() {
            if let Some(other) = seen.insert(action.key().0, name) {
                panic!("{name} has the digest of {other}");
            }
        }
    }

    #[test]
    fn the_recorded_fields_are_those_that_were_digested() {
        for (name, action) in variations() {
            let (_, stream) = action.key();
            assert_eq!(RecordSink::decode(&stream).as_ref(), Ok(&action.record()), "{name}");
        }
    }

    #[test]
    fn truncated_streams_are_refused_or_shorter_but_never_panic() {
        let (_, stream) = sample().key();
        for end in 0..stream.len() {
            if let Ok(record) = RecordSink::decode(&stream[..end]) {
                assert!(record.fields.len() < sample().record().fields.len());
            }
        }
    }

    /// Fails when the encoding changes. Then `ACTION_CONTEXT` and `schema/KEY.md` change as well, and CHANGELOG says so.
    #[test]
    fn golden_vectors_hold() {
        let (digest, stream) = sample().key();
        assert_eq!(digest.to_hex(), GOLDEN_DIGEST, "stream: {stream:02x?}");
    }

    const GOLDEN_DIGEST: &str = "2aec6ea1d921dc762fd30889761e02ce7f47aa224b888790aedbb2e7e9b3f7cf";
}
