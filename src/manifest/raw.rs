//! The manifest exactly as users write it. The doc comments of this file are the descriptions in the JSON Schema and in
//! `docs/manifest.md`. Every key is optional here: what is required is said, with its place, where the tables are lowered.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::manifest::raw_image::ImageTable;
use crate::manifest::value::{At, CommandText, InputsText, ItemsText, PerActionText, UnpackText};

/// A `drystone.toml`. The one with `[workspace]` is the root manifest; every other one declares the tasks of its directory.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// What holds for the whole workspace. The manifest that has it is the root. Root manifest only.
    pub workspace: Option<WorkspaceTable>,
    /// The local content store. Root manifest only.
    pub store: Option<StoreTable>,
    /// Another machine's cache. Accepted and not used by this version. Root manifest only.
    pub remote: Option<RemoteTable>,
    /// The package this manifest stands in.
    pub package: Option<PackageTable>,
    /// Tasks to build on: the same keys as a task. `[[apply]]` and `extends` name them. Root manifest only.
    pub template: Option<BTreeMap<String, TaskTable>>,
    /// Tasks for packages that need no manifest of their own. Where several give a package a task of the same name the last one
    /// holds, and the package's own manifest before all. Root manifest only.
    pub apply: Option<Vec<ApplyTable>>,
    /// Tasks that run a command.
    pub task: Option<BTreeMap<String, TaskTable>>,
    /// Tasks that fetch a file whose digest is known: the only ones with network by nature. Proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`) and certificates are those that images go by.
    pub fetch: Option<BTreeMap<String, FetchTable>>,
    /// Commands that run beside the tasks that name them under `services`: databases, servers. One starts when the first task that
    /// needs it runs and ends with the last; it makes nothing that is kept.
    pub service: Option<BTreeMap<String, ServiceTable>>,
    /// Container images, put together without a daemon and without root: the same bytes on every machine.
    pub image: Option<BTreeMap<String, ImageTable>>,
}

/// `[workspace]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Workspace", deny_unknown_fields)]
pub struct WorkspaceTable {
    /// Name of the workspace, as `${workspace.name}` gives it.
    #[schemars(extend("default" = "workspace"))]
    pub name: Option<At<String>>,
    /// Patterns of package directories. Default: every directory with a `drystone.toml` that git does not ignore. `!` takes away,
    /// also what an `[[apply]]` names; a list of nothing but `!` takes away from the default.
    pub packages: Option<Vec<At<String>>>,
    /// Whose manifests tell which package depends on which, for `^` in `needs`. Default: none, only `[package] depends`.
    pub package_graph: Option<Vec<At<EcosystemWord>>>,
    /// Branch that `--affected` compares with.
    #[schemars(extend("default" = "main"))]
    pub default_branch: Option<At<String>>,
    /// What of the machine a task sees beside its inputs. A task with a `root` sees that instead.
    #[schemars(extend("default" = "packages"))]
    pub system: Option<At<SystemWord>>,
    /// Enters the key of every task: change it to start afresh.
    pub salt: Option<At<String>>,
    /// Named pools and how many units each has. A task with `resources.pool` holds one unit while it runs.
    pub pools: Option<BTreeMap<At<String>, At<u32>>>,
}

/// An ecosystem whose manifests are read.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum EcosystemWord {
    /// `Cargo.toml`.
    Cargo,
    /// `package.json` with npm, pnpm or yarn workspaces.
    Npm,
    /// `pyproject.toml`.
    Uv,
    /// `go.mod`.
    Go,
}

/// What of the machine a task sees.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum SystemWord {
    /// `/usr` and what belongs to it, keyed as a whole by the package database.
    Packages,
    /// Declared tools only, so that unlike machines share results. Visible are, at their own paths, the file of each tool, its
    /// interpreter, the libraries that the loader finds, its installation outside of `/usr`, and of a program of a distribution with dpkg
    /// the directories of the packages built from the same source. `PATH` holds the declared tools, what their scripts name
    /// through `env`, and `sh`, which every task has. Not visible, and so to be declared, fetched, or given with `root`: programs that a
    /// tool starts (the `as` and `ld` of `gcc`), libraries it opens by itself or that only `/etc/ld.so.conf` leads to, headers, certificates, settings
    /// in `/etc`, and on other distributions all data of a tool in `/usr`.
    Tools,
}

/// `[store]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Store", deny_unknown_fields)]
pub struct StoreTable {
    /// Size the store is kept below, such as `"20GiB"`. Default: a tenth of the disk, at most 20 GiB.
    pub max_size: Option<At<String>>,
    /// How outputs are put in the tree. Default: `"copy"`.
    pub materialize: Option<At<MaterializeWord>>,
}

/// How outputs are put in the tree.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum MaterializeWord {
    /// As files of its own (clones, where the file system can).
    Copy,
    /// As hard links to read-only files that the store keeps for it, shared by all worktrees: nothing is written but names. For outputs that
    /// nobody edits in place. An edit is refused to all but root and whoever changes the mode first; one that is made all the same shows in
    /// every worktree that has the file until its next run, which finds it, says so and puts the right content back. It never comes into a
    /// result. Files are as old as the content in the store, and have several names. Where the store lies on another file system than the
    /// tree, files are copies.
    Link,
}

/// `[remote]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Remote", deny_unknown_fields)]
pub struct RemoteTable {
    /// Address of the cache.
    pub cache: Option<At<String>>,
    /// Address of the executor.
    pub execute: Option<At<String>>,
    /// Who writes to the cache.
    #[schemars(extend("default" = "trusted"))]
    pub write: Option<At<WriteWord>>,
    /// Keys of the writers whose signed results are accepted.
    pub trust: Option<Vec<At<String>>>,
}

/// Who writes to a remote.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum WriteWord {
    /// Only CI on the default branch.
    Trusted,
    /// Everybody.
    Always,
    /// Nobody.
    Never,
}

/// `[package]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Package", deny_unknown_fields)]
pub struct PackageTable {
    /// Name of the package, as `${package.name}` gives it. Default: what its ecosystem's manifest says, else the directory's name.
    pub name: Option<At<String>>,
    /// Packages this one depends on, such as `"//libs/ui"`; `^` in `needs` follows them.
    pub depends: Option<Vec<At<String>>>,
}

/// `[[apply]]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Apply", deny_unknown_fields)]
pub struct ApplyTable {
    /// Patterns of package directories, from the root. Required.
    pub to: Option<Vec<At<String>>>,
    /// Task name = template name. Required.
    pub tasks: Option<BTreeMap<At<String>, At<String>>>,
}

/// `[task.NAME]` and `[template.NAME]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Task", deny_unknown_fields)]
pub struct TaskTable {
    /// What runs, in the package's directory. A string runs as `sh -euc`; an array is executed as it is. Required, here or in
    /// the template.
    pub run: Option<At<CommandText>>,
    /// The source files it reads: patterns relative to the package, `//` from the root, `!` takes away, the last match decides;
    /// `^src/**` means the files `src/**` of every package this one depends on directly, `^^src/**` of all of them,
    /// `^dev:src/**` of those it depends on for development only; or `"package"`, every file of the package that git does not ignore, less its own outputs;
    /// or `"traced"`: it sees every file of the workspace that git does not ignore, and the outputs of what it needs; what it touches of them
    /// while it runs is in its key.
    #[schemars(extend("default" = "package"))]
    pub inputs: Option<At<InputsText>>,
    /// The files and directories it makes: patterns relative to the package, inside it.
    pub outputs: Option<Vec<At<String>>>,
    /// What must have run before, and whose outputs it sees: `:name` here, `//pkg:name` there, `^name` in every package this one
    /// depends on, `^^name` in all of them transitively, `^dev:name` in those it depends on for development only. `//pkg:name[axis=value]` takes
    /// part of a matrix; `#interface` after any of them is keyed on the dependency's `interface` only.
    pub needs: Option<Vec<At<String>>>,
    /// What must be up while it runs: `:name` here, `//pkg:name` there. Their keys are part of its key, their network and the
    /// directory `/services` are shared with it. Tasks with the same services share them at the same time.
    pub services: Option<Vec<At<String>>>,
    /// Environment variables with their values.
    pub env: Option<BTreeMap<At<String>, At<String>>>,
    /// Environment variables whose value comes from outside and is part of the key. Its value is kept in the store to explain
    /// misses; use `secret-env` for secrets.
    pub pass_env: Option<Vec<At<String>>>,
    /// Environment variables whose value comes from outside, is not part of the key, and is never logged or stored: a result
    /// whose outputs hold it is not kept.
    pub secret_env: Option<Vec<At<String>>>,
    /// Programs it runs: names resolved on `PATH`, whose identity is part of the key; or tasks such as `"//:node"`, fetched or
    /// run, whose outputs are a tool and are part of the key. Such a tree is mounted read-only at `/tools/node` (`/tools/PACKAGE+node`
    /// for a task of another package than the root's), beginning at the directory that all its outputs lie in; its `bin`, or itself if
    /// it has none, comes first in `PATH`, in the order written. The program of a `run` array is always a tool.
    pub tools: Option<Vec<At<String>>>,
    /// The task whose output tree is the root file system, such as `"//:debian"`: `/usr`, `/bin`, `/etc` and all else come from it,
    /// read-only, and nothing of the machine's system is visible. Names in `tools` are looked up in it. `/dev`, `/proc`, `/tmp`,
    /// `/tools`, `/workspace` and `passwd`, `group`, `hosts` and `nsswitch.conf` of `/etc` are always drystone's own; all files belong to
    /// the one user there is, whoever owns them in an archive. Only at the `namespaces` level. An unpacked archive, an image
    /// (`unpack = "oci"`), or a directory that a task makes; if that is an OCI layout, its layers for the platform of the machine.
    pub root: Option<At<String>>,
    /// Whether it may use the network.
    #[schemars(extend("default" = false))]
    pub network: Option<At<bool>>,
    /// How far it is kept from what it did not declare.
    #[schemars(extend("default" = "auto"))]
    pub isolation: Option<At<IsolationWord>>,
    /// Longest it may run, such as `"10m"` or `"1h30m"`. Default: no end.
    pub timeout: Option<At<String>>,
    /// How often a failed run is tried again.
    #[schemars(extend("default" = 0))]
    pub retries: Option<At<u32>>,
    /// What it holds while it runs.
    pub resources: Option<ResourcesTable>,
    /// Directories of the package that are its own and are kept between its runs. They are not in the key. Inputs that
    /// changed since its last run are newer than all that is in them, others keep their times: tools that compare times are right.
    /// They are emptied when the output tree of a task in `tools` or `root` changes, and each time beside `inputs = "traced"`.
    pub caches: Option<Vec<At<String>>>,
    /// Patterns of what it may write without declaring it; thrown away. Relative to the package, `//` from the root.
    pub scratch: Option<Vec<At<String>>>,
    /// Whether results are kept; `false` always runs. `true` by default, but `false` where `network = true`: what a server
    /// answers is not in any key.
    pub cache: Option<At<bool>>,
    /// The part of the outputs that dependants with `#interface` are keyed on.
    pub interface: Option<Vec<At<String>>>,
    /// The same task as a fixer: `run --fix` applies what it changes to the tree.
    pub fix: Option<At<CommandText>>,
    /// Outputs that are also in git: a difference fails the check. They need not be listed in `outputs` as well.
    pub committed: Option<Vec<At<String>>>,
    /// Patterns of what is collected even when it fails.
    pub on_failure: Option<Vec<At<String>>>,
    /// Reports it writes, collected whether it fails or not.
    pub reports: Option<ReportsTable>,
    /// Words to select it by: `tag:slow`.
    pub tags: Option<Vec<At<String>>>,
    /// Axes and their values: one task per combination, `//apps/web:build[node=20]`; `${matrix.node}` is the value.
    pub matrix: Option<At<MatrixTable>>,
    /// Runs it in parts, each on some of its items, such as test files: `${items}` in `run` stands for them. What a part sees of the
    /// items is its own ones only, so that a changed test file runs one part again; `//pkg:name` means all parts.
    pub split: Option<SplitTable>,
    /// The template it builds on. Its own keys hold before the template's; tables are merged, lists are replaced.
    pub extends: Option<At<String>>,
    /// Enters its key: change it to run it afresh.
    pub salt: Option<At<String>>,
    /// What follows when it looks for a file of the workspace that it does not declare, or writes one.
    #[schemars(extend("default" = "warn"))]
    pub undeclared: Option<At<UndeclaredWord>>,
}

/// What follows when a task touches what it does not declare.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum UndeclaredWord {
    /// It is told. A task that failed within seconds is run once more under observation to find out what it missed.
    Warn,
    /// The task always runs under observation, and fails.
    Error,
}

/// `matrix` of a task: axes and their values.
pub type MatrixTable = BTreeMap<At<String>, At<Vec<At<String>>>>;

/// How far a task is kept from what it did not declare.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum IsolationWord {
    /// The best the machine allows, never none; the result says which.
    Auto,
    /// What is not declared does not exist (Linux namespaces).
    Namespaces,
    /// What is not declared cannot be read (Landlock).
    Landlock,
    /// Nothing is enforced.
    None,
}

/// A signal that asks a service to end.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum SignalWord {
    /// What most programs take for a request to end.
    SigTerm,
    /// As Ctrl-C.
    SigInt,
    /// Often a graceful or a hasty end.
    SigQuit,
    /// As a closed terminal.
    SigHup,
    /// What the program takes it for.
    SigUsr1,
    /// What the program takes it for.
    SigUsr2,
    /// What the program takes it for.
    SigWinch,
    /// At once, without a word.
    SigKill,
}

/// `resources` of a task.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Resources", deny_unknown_fields)]
pub struct ResourcesTable {
    /// Job slots.
    #[schemars(extend("default" = 1, "minimum" = 1))]
    pub cpu: Option<At<u32>>,
    /// Most memory it may use at once with all it starts, such as `"2GiB"`, and what is set aside for it. Beyond it, it is killed.
    /// Default: what earlier runs used is set aside, and nothing limits it.
    pub memory: Option<At<String>>,
    /// Most processes and threads it may have at once. Beyond it, it is killed. Part of the key, for a task can see it.
    #[schemars(extend("default" = 4096, "minimum" = 8))]
    pub processes: Option<At<u32>>,
    /// A pool of `[workspace] pools`, one unit of which it holds.
    pub pool: Option<At<String>>,
    /// Whether nothing else may run beside it.
    #[schemars(extend("default" = false))]
    pub exclusive: Option<At<bool>>,
}

/// `reports` of a task.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Reports", deny_unknown_fields)]
pub struct ReportsTable {
    /// Patterns of JUnit XML files.
    pub junit: Option<Vec<At<String>>>,
    /// Patterns of coverage files.
    pub coverage: Option<Vec<At<String>>>,
}

/// `split` of a task.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Split", deny_unknown_fields)]
pub struct SplitTable {
    /// Which files are items: a pattern or several, relative to the package; `!` takes away. What git ignores is none. Required.
    pub items: Option<At<ItemsText>>,
    /// About how many items one action runs. Above 1, an item belongs to the part that the digest of its path says: a new item
    /// changes one part and no other, until their number doubles. `"auto"` aims at half a minute an action.
    #[schemars(extend("default" = 1))]
    pub per_action: Option<At<PerActionText>>,
}

/// `[fetch.NAME]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Fetch", deny_unknown_fields)]
pub struct FetchTable {
    /// Where the file is. This or `urls` is required.
    pub url: Option<At<String>>,
    /// Where the file may be had; tried in order. An address without name and password, for it is stored and shown. Answers that may
    /// pass (408, 429, 5xx, a connection that breaks off) are asked again, for as long as the server says, and what is there by then is
    /// carried on from where it ends, also by the next run. Other addresses make another key, though the digest stays: so an
    /// address that was changed is known to have the file.
    pub urls: Option<Vec<At<String>>>,
    /// SHA-256 of the file, 64 hexadecimal digits. This or `blake3` is required.
    pub sha256: Option<At<String>>,
    /// BLAKE3 of the file, 64 hexadecimal digits.
    pub blake3: Option<At<String>>,
    /// Whether it is unpacked: `true` and `"auto"` go by the ending, `.tar`, `.tar.gz`, `.tgz`, `.tar.xz`, `.tar.zst`, `.zip` or `.deb`,
    /// whose data it is then. Refused is an archive with names that are absolute, hold `..`, lie behind a link of its own, or are not UTF-8.
    /// Devices in a top directory `dev` are left out, any others refused; owners and set-user-id bits are not kept. `"oci"`, whatever
    /// the ending: it is the archive of an image, an OCI layout or what `docker save` writes, plain or compressed, and what lands is
    /// the file system that its layers make. Devices are then left out, and environment and command of the image mean nothing.
    #[schemars(extend("default" = false))]
    pub unpack: Option<At<UnpackText>>,
    /// For which platform, with `unpack = "oci"`: `os/architecture` or `os/architecture/variant`, such as `"linux/arm64"`. Default:
    /// that of the machine.
    pub platform: Option<At<String>>,
    /// Leading directories dropped when unpacking; of an image, those of the archive it lies in.
    #[schemars(extend("default" = 0))]
    pub strip: Option<At<u32>>,
    /// Where it lands, inside the package. Default: the file name in the address; when unpacked, a directory named as the task.
    pub output: Option<At<String>>,
    /// Whether the file is made executable.
    #[schemars(extend("default" = false))]
    pub executable: Option<At<bool>>,
    /// Words to select it by.
    pub tags: Option<Vec<At<String>>>,
}

/// `[service.NAME]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Service", deny_unknown_fields)]
pub struct ServiceTable {
    /// What runs, in the package's directory, as `run` of a task. It stays in the foreground; what it writes is thrown away. Required.
    pub run: Option<At<CommandText>>,
    /// What tells that it can be used: `port`, `http`, `log` or `run`. Required.
    pub ready: Option<At<ReadyTable>>,
    /// Longest it may take to become ready.
    #[schemars(extend("default" = "60s"))]
    pub timeout: Option<At<String>>,
    /// The signal that asks it to end, sent to all its processes: `"SIGINT"` is what PostgreSQL calls a fast shutdown. What still runs
    /// two seconds later is killed.
    #[schemars(extend("default" = "SIGTERM"))]
    pub stop_signal: Option<At<SignalWord>>,
    /// The source files it reads, as those of a task.
    #[schemars(extend("default" = "package"))]
    pub inputs: Option<At<InputsText>>,
    /// What must have run before, and whose outputs it sees, as for a task.
    pub needs: Option<Vec<At<String>>>,
    /// Services that must be up before it starts.
    pub services: Option<Vec<At<String>>>,
    /// Environment variables with their values.
    pub env: Option<BTreeMap<At<String>, At<String>>>,
    /// Environment variables whose value comes from outside and is part of the key.
    pub pass_env: Option<Vec<At<String>>>,
    /// Environment variables whose value comes from outside, is not part of the key, and is never logged or stored.
    pub secret_env: Option<Vec<At<String>>>,
    /// Programs it runs, as those of a task.
    pub tools: Option<Vec<At<String>>>,
    /// What it runs in instead of the machine's system, as for a task.
    pub root: Option<At<String>>,
    /// Whether it may use the network. Whoever uses it must say the same.
    #[schemars(extend("default" = false))]
    pub network: Option<At<bool>>,
    /// How far it is kept from what it did not declare. Whoever uses it must be kept as far.
    #[schemars(extend("default" = "auto"))]
    pub isolation: Option<At<IsolationWord>>,
    /// Words to select it by.
    pub tags: Option<Vec<At<String>>>,
    /// Enters its key: change it to run its users afresh.
    pub salt: Option<At<String>>,
}

/// `ready` of a service: exactly one of its keys.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Ready", deny_unknown_fields)]
pub struct ReadyTable {
    /// Ready when this TCP port of the loopback interface takes connections.
    #[schemars(extend("minimum" = 1, "maximum" = 65535))]
    pub port: Option<At<u32>>,
    /// Ready when this address answers with a status from 200 to 399: `"http://127.0.0.1:8080/health"`.
    pub http: Option<At<String>>,
    /// Ready when a line it prints holds this text.
    pub log: Option<At<String>>,
    /// Ready when this command, run where the service runs, exits with 0. A string runs as `sh -euc`.
    pub run: Option<At<CommandText>>,
}
