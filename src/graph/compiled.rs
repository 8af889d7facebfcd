//! A workspace with its graph, compiled to one file. Knows nothing of what the file was made of.

use std::path::Path;

use crate::base::digest::Digest;
use crate::graph::task_graph::TaskGraph;
use crate::workspace::compiled::{self, FsError};
use crate::workspace::model::Workspace;

/// Writes both, for [`open`] with the same `made_of`: a digest of all that loading looked at.
///
/// # Errors
/// If the file cannot be written.
pub fn write(file: &Path, made_of: &Digest, workspace: &Workspace, graph: &TaskGraph) -> Result<(), FsError> {
    compiled::write(file, made_of, workspace, &graph.to_bytes())
}

/// Whether a file is one that [`open`] would take, as far as its beginning tells. Cost: one small read.
pub fn is_of(file: &Path, made_of: &Digest) -> bool {
    compiled::is_of(file, made_of)
}

/// Opens both for the workspace in `root`; `None` if they are not there, damaged, of another program or made of something else.
///
/// Cost: one read of the file and its checksum, and a little for each package; tasks and edges are read when they are asked for.
pub fn open(file: &Path, root: &Path, made_of: &Digest) -> Option<(Workspace, TaskGraph)> {
    let (workspace, graph) = compiled::open(file, root, made_of)?;
    let graph = TaskGraph::of_bytes(&graph, workspace.tasks.len())?;
    Some((workspace, graph))
}
