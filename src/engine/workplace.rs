//! Where a command's sandbox is laid out: over a mount point that all share, in memory, or on the store's disk. Lays nothing out.

use std::path::{Path, PathBuf};

use crate::engine::session::Session;
use crate::sandbox::spec::{Content, Level, SandboxSpec, View, WORKSPACE_DIR};
use crate::store::{Stage, StoreError};

/// A place for one command, its own until dropped.
pub enum Place {
    /// Nothing is ever written there: each command mounts its root over it, where only it sees that.
    MountPoint(PathBuf),
    /// On the disk.
    Disk(Stage),
    /// In memory.
    Memory(Stage),
}

impl Place {
    /// The cheapest place that will do for a command.
    ///
    /// In memory go private copies of what is in memory already, and so is at most [`VIEW_BYTES_MAX`]. Not those of a task whose
    /// memory is limited, for what it wrote would count.
    ///
    /// [`VIEW_BYTES_MAX`]: crate::base::limits::VIEW_BYTES_MAX
    pub fn of(session: &Session<'_>, level: Level, spec: &SandboxSpec) -> Result<Self, StoreError> {
        match level {
            Level::Namespaces => session.store.mount_point().map(Place::MountPoint),
            Level::None | Level::Landlock => {
                let memory = is_light(spec).then(|| session.store.stage_in_memory()).flatten();
                memory.map_or_else(|| Self::on_disk(session), |stage| Ok(Place::Memory(stage)))
            }
        }
    }

    /// A place on the disk, whatever the level.
    pub fn on_disk(session: &Session<'_>) -> Result<Self, StoreError> {
        session.store.stage().map(Place::Disk)
    }

    /// The directory; absolute, empty at first.
    pub fn path(&self) -> &Path {
        match self {
            Place::MountPoint(path) => path,
            Place::Disk(stage) | Place::Memory(stage) => stage.path(),
        }
    }
}

/// Whether all that is to be copied is given as bytes.
fn is_light(spec: &SandboxSpec) -> bool {
    let is_large = |view: &View| match view {
        View::File { content, .. } | View::Copy { content, .. } => matches!(content, Content::Host(_)),
        View::Dir { .. } => true,
        View::Link { .. } | View::Empty => false,
    };
    let copies_mounts =
        spec.mounts.iter().any(|mount| mount.inside != mount.host && !mount.inside.starts_with(WORKSPACE_DIR));
    spec.limits.memory_bytes.is_none() && !copies_mounts && !spec.view.values().any(is_large)
}
