//! `[image.NAME]` exactly as users write it. The doc comments of this file are the descriptions in the JSON Schema and in
//! `docs/manifest.md`, as those of `raw` are.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::manifest::value::{At, CommandText, OneOrMany};

/// `[image.NAME]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Image", deny_unknown_fields)]
pub struct ImageTable {
    /// What it is built on: `"scratch"`; an image of a registry by its whole name, `"registry.example/team/base:1"`, whose digest
    /// `drystone.lock` pins (`drystone lock`) unless the name ends with `@sha256:…`; a task that makes an OCI layout, `"//:base"`; or
    /// a layout or archive of the workspace, `"./base"` or `"//images/base.tar"`. Its layers are taken over byte for byte.
    #[schemars(extend("default" = "scratch"))]
    pub base: Option<At<String>>,
    /// For which platforms it is made, as `os/architecture` or `os/architecture/variant`. For several, the image is an index of one
    /// image each; `${platform.os}`, `${platform.arch}` and `${platform.variant}` then tell them apart in every other value, such as
    /// `from = ":server[arch=${platform.arch}]"`. It does not follow the machine, so that all machines make the same image.
    #[schemars(extend("default" = ["linux/amd64"]))]
    pub platforms: Option<Vec<At<String>>>,
    /// Its own layers, lowest first.
    pub layers: Option<Vec<LayerTable>>,
    /// What a container runs. Without it, that of the base.
    pub entrypoint: Option<Vec<At<String>>>,
    /// Arguments to it, or what runs where there is no `entrypoint`. That of the base is dropped where `entrypoint` is given.
    pub cmd: Option<Vec<At<String>>>,
    /// Environment variables, beside those of the base.
    pub env: Option<BTreeMap<At<String>, At<String>>>,
    /// As whom a container runs: `"65532"`, `"65532:65532"` or a name that the image knows.
    pub user: Option<At<String>>,
    /// Directory a container starts in.
    pub workdir: Option<At<String>>,
    /// Labels, beside those of the base.
    pub labels: Option<BTreeMap<At<String>, At<String>>>,
    /// Annotations of the manifest, and of the index where there are several platforms.
    pub annotations: Option<BTreeMap<At<String>, At<String>>>,
    /// Ports a container listens on, such as `"8080/tcp"`.
    pub ports: Option<Vec<At<String>>>,
    /// Directories that are no part of the image, such as `"/data"`.
    pub volumes: Option<Vec<At<String>>>,
    /// The signal that stops a container.
    pub stop_signal: Option<At<String>>,
    /// How its layers are compressed. Those of the base stay as they are.
    #[schemars(extend("default" = "gzip"))]
    pub compression: Option<At<CompressionWord>>,
    /// Seconds since 1970: the time of every file and of the image. Default: `SOURCE_DATE_EPOCH` where it is set, else 0.
    pub epoch: Option<At<u64>>,
    /// Where its OCI layout lands, inside the package. Default: a directory called as the image, with `.oci`.
    pub output: Option<At<String>>,
    /// Names to push it to, by a word for each: `drystone image push NAME --to ci`.
    pub push: Option<BTreeMap<At<String>, At<String>>>,
    /// What must have run before, beside what its layers and its base come from.
    pub needs: Option<Vec<At<String>>>,
    /// Words to select it by.
    pub tags: Option<Vec<At<String>>>,
    /// Enters its key: change it to make it afresh.
    pub salt: Option<At<String>>,
}

/// One of `layers`: `from`, `files`, `dirs` or `run`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Layer", deny_unknown_fields)]
pub struct LayerTable {
    /// The task whose outputs it holds, such as `":build"`; beside `run`, the task or tasks whose outputs the command finds in the
    /// workspace.
    pub from: Option<At<OneOrMany>>,
    /// Source files it holds: patterns relative to the package, `//` from the root, `!` takes away.
    pub files: Option<At<OneOrMany>>,
    /// Directories that are there even if nothing lies in them, such as `["/tmp"]` with `mode = "1777"`; with `owner` and `mode`.
    pub dirs: Option<Vec<At<String>>>,
    /// A command that runs with all layers below as its root file system, without network; what it changes is the layer. A string runs
    /// as `sh -euc`.
    pub run: Option<At<CommandText>>,
    /// Which part of the outputs or files: a directory, whose content then lies directly in `to`, or a file. Relative to the package
    /// that the outputs or files are of.
    pub path: Option<At<String>>,
    /// Where it lies in the image, such as `"/srv/www"`. For a single file that `path` names it is the file itself, unless it
    /// ends with `/`.
    #[schemars(extend("default" = "/"))]
    pub to: Option<At<String>>,
    /// Whose everything in it is, as numbers: `"UID"`, which stands for the group as well, or `"UID:GID"`.
    #[schemars(extend("default" = "0:0"))]
    pub owner: Option<At<String>>,
    /// Permissions of its files, or of `dirs`, as octal digits: `"0640"`. Default: 0755 of executable files, 0644 of others; 0755 of
    /// directories, which keep what they have in the layers below.
    pub mode: Option<At<String>>,
    /// Patterns of what of it is taken, relative to what becomes `to`. Default: all.
    pub include: Option<Vec<At<String>>>,
    /// Patterns of what is left out, relative to what becomes `to`.
    pub exclude: Option<Vec<At<String>>>,
    /// Most layers it may be split into, by the packages its files belong to (Debian's where the tree has its database) or by
    /// directories, so that a change moves few bytes.
    #[schemars(extend("default" = 1, "minimum" = 1, "maximum" = 100))]
    pub budget: Option<At<u32>>,
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum CompressionWord {
    /// What every tool reads.
    Gzip,
    /// Smaller and faster to unpack; tools of before 2020 do not know it.
    Zstd,
    /// Not at all.
    None,
}
