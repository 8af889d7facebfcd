//! `[image.NAME]` validated: what an image is put together from. Knows no bytes and no digests.

use std::collections::BTreeMap;

use crate::base::compact::{Compact, Reader, Writer, compact_struct, compact_words};
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::span::{Place, Placed};
use crate::manifest::glob::PatternList;
use crate::manifest::model::{Command, Need};

/// An image for one platform or several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageRecipe {
    /// `output`: the directory of its layout, relative to the package.
    pub output: RelPath,
    /// For each of its platforms what it is there, in the order of [`Platform`]; at least one.
    pub platforms: Vec<PlatformRecipe>,
    /// `compression`.
    pub compression: Compression,
    /// `epoch`, in seconds since 1970.
    pub epoch: Option<u64>,
    /// `annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `push`: names by the word for each.
    pub push: BTreeMap<String, Placed<String>>,
}

/// What an image is on one platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlatformRecipe {
    /// The platform.
    pub platform: Platform,
    /// `base`.
    pub base: Placed<Base>,
    /// `layers`, lowest first.
    pub layers: Vec<DeclaredLayer>,
    /// `entrypoint`.
    pub entrypoint: Option<Vec<String>>,
    /// `cmd`.
    pub cmd: Option<Vec<String>>,
    /// `env`.
    pub env: BTreeMap<String, String>,
    /// `user`.
    pub user: Option<String>,
    /// `workdir`.
    pub workdir: Option<String>,
    /// `labels`.
    pub labels: BTreeMap<String, String>,
    /// `ports`.
    pub ports: Vec<String>,
    /// `volumes`.
    pub volumes: Vec<String>,
    /// `stop-signal`.
    pub stop_signal: Option<String>,
}

/// What an image is built on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An image of a registry, by the name in `drystone.lock` or by digest.
    Registry(String),
    /// The layout that a task makes.
    Task(Need),
    /// A layout or an archive of one in the workspace, relative to its root.
    Files(RelPath),
}

/// One layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeclaredLayer {
    /// Where it is written.
    pub place: Place,
    /// What it holds.
    pub source: LayerSource,
    /// `path`: what of it becomes `to`; the root for all.
    pub path: RelPath,
    /// `to`, without the leading slash.
    pub to: RelPath,
    /// Whether `to` is a directory that a single file is put into.
    pub into: bool,
    /// `owner`: user and group.
    pub owner: (u32, u32),
    /// `mode` of its files.
    pub mode: Option<u32>,
    /// `include` and `exclude`, relative to what becomes `to`; empty for all.
    pub only: PatternList,
    /// `budget`.
    pub budget: u32,
}

/// What a layer holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LayerSource {
    /// The outputs of a task.
    Task(Need),
    /// Source files, workspace-relative.
    Files(PatternList),
    /// Directories, without the leading slash.
    Dirs(Vec<RelPath>),
    /// What a command changes.
    Step {
        /// The command.
        command: Command,
        /// Tasks whose outputs it finds in the workspace.
        from: Vec<Need>,
    },
}

/// How layers are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// Not at all.
    None,
}

impl ImageRecipe {
    /// Whether a command runs for one of its layers.
    pub fn has_steps(&self) -> bool {
        let is_step = |layer: &DeclaredLayer| matches!(layer.source, LayerSource::Step { .. });
        self.platforms.iter().any(|one| one.layers.iter().any(is_step))
    }

    /// In a few words: its platforms and how many layers of its own each has.
    pub fn about(&self) -> String {
        let platforms: Vec<String> = self.platforms.iter().map(|one| one.platform.to_string()).collect();
        let layers = self.platforms.first().map_or(0, |one| one.layers.len());
        format!("{}, {layers} layer{}", platforms.join(" "), if layers == 1 { "" } else { "s" })
    }

    /// The images of registries that it is built on, each with where it is written.
    pub fn bases(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.platforms.iter().filter_map(|one| match &one.base.value {
            Base::Registry(name) => Some((name.as_str(), &one.base.place)),
            Base::Scratch | Base::Task(_) | Base::Files(_) => None,
        })
    }
}

compact_struct!(ImageRecipe { output, platforms, compression, epoch, annotations, push });
compact_struct!(PlatformRecipe {
    platform,
    base,
    layers,
    entrypoint,
    cmd,
    env,
    user,
    workdir,
    labels,
    ports,
    volumes,
    stop_signal,
});
compact_struct!(DeclaredLayer { place, source, path, to, into, owner, mode, only, budget });
compact_words!(Compression { Gzip = 0, Zstd = 1, None = 2 });

impl Compact for Base {
    fn put(&self, writer: &mut Writer) {
        match self {
            Base::Scratch => writer.byte(0),
            Base::Registry(name) => {
                writer.byte(1);
                name.put(writer);
            }
            Base::Task(need) => {
                writer.byte(2);
                need.put(writer);
            }
            Base::Files(path) => {
                writer.byte(3);
                path.put(writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => Base::Scratch,
            1 => Base::Registry(Compact::take(reader)?),
            2 => Base::Task(Compact::take(reader)?),
            3 => Base::Files(Compact::take(reader)?),
            _ => return None,
        })
    }
}

impl Compact for LayerSource {
    fn put(&self, writer: &mut Writer) {
        match self {
            LayerSource::Task(need) => {
                writer.byte(0);
                need.put(writer);
            }
            LayerSource::Files(list) => {
                writer.byte(1);
                list.put(writer);
            }
            LayerSource::Step { command, from } => {
                writer.byte(2);
                command.put(writer);
                from.put(writer);
            }
            LayerSource::Dirs(dirs) => {
                writer.byte(3);
                dirs.put(writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => LayerSource::Task(Compact::take(reader)?),
            1 => LayerSource::Files(Compact::take(reader)?),
            2 => LayerSource::Step { command: Command::take(reader)?, from: Compact::take(reader)? },
            3 => LayerSource::Dirs(Compact::take(reader)?),
            _ => return None,
        })
    }
}
