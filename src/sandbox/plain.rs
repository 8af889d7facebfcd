//! Builds the view of the `none` and `landlock` levels: a private copy on disk. Enforces nothing itself, so absolute paths of the
//! host work as ever unless `confine` forbids them.

use std::path::{Path, PathBuf};

use crate::fs::ops::{self, FsError, Kind};
use crate::fs::stat::StatKey;
use crate::fs::{link, walk};
use crate::sandbox::spec::{
    Content, HOME_DIR, SCRATCH_DIR, SandboxSpec, System, TOOLS_DIR, View, WORKSPACE_DIR, input_mode,
};
use crate::sandbox::start::{Built, Command};
use crate::sandbox::surroundings::Surroundings;
use crate::sandbox::wire::Failure;

/// Where the workspace is copied to, below the stage.
pub const COPY_DIR: &str = "workspace";

/// Where output trees that are tools are copied to, below the stage.
const TOOLS_COPY_DIR: &str = "tools";

/// What below the stage is the command's alone.
pub fn private_places(spec: &SandboxSpec) -> [PathBuf; 3] {
    let Places { workspace, scratch, .. } = Places::below(&spec.stage, spec);
    [workspace, scratch, spec.stage.join(TOOLS_COPY_DIR)]
}

/// Copies the view below the stage and translates the command to it.
pub fn build(spec: &SandboxSpec) -> Result<Built, Failure> {
    if matches!(spec.system, System::Tree { .. } | System::Writable(_)) {
        return Err(Failure::said("showing another root", "only the `namespaces` level can"));
    }
    // The copies must have the modes that are asked for, whatever the engine was started with.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let places = Places::below(&spec.stage, spec);
    let copied = (|| -> Result<(), CopyError> {
        ops::create_dir(&places.workspace)?;
        ops::create_dir(&places.scratch)?;
        for dir in spec.directories() {
            ops::create_dir_all(&places.workspace.join(dir.as_str()))?;
        }
        for (path, view) in &spec.view {
            place_view(&places.workspace.join(path.as_str()), view, spec.mtime_ns(path))?;
        }
        Ok(())
    })();
    copied.map_err(failed)?;
    link_mounts(spec, &places)?;
    for dir in spec.directories() {
        let place = places.workspace.join(dir.as_str());
        ops::set_times(&place, spec.mtime_ns(&dir)).map_err(|error| failed(error.into()))?;
    }
    for (inside, place) in &places.moved {
        let host = spec.mounts.iter().find(|mount| mount.inside == *inside).map(|mount| &mount.host);
        copy_dir(host.expect("it was taken from there"), place)
            .map_err(|error| Failure::said(format!("copying {}", inside.display()), error.to_string()))?;
    }
    let mut argv = spec.argv.clone();
    if let Some(program) = argv.first_mut() {
        *program = places.translate_path(program);
    }
    let env = spec.env.iter().map(|(name, value)| (name.clone(), places.translate(name, value))).collect();
    let cwd = places.workspace.join(spec.cwd.as_str());
    Ok(Built { command: Command { argv, env, cwd, around: Surroundings::default() }, workspace: None })
}

#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Walk(#[from] walk::WalkError),
}

fn failed(error: CopyError) -> Failure {
    match error {
        CopyError::Fs(error) => {
            Failure::new(format!("copying the view: {} {}", error.verb, error.path.display()), error.cause)
        }
        CopyError::Walk(error) => Failure::said("copying the view", error.to_string()),
    }
}

fn place_view(place: &Path, view: &View, mtime_ns: i64) -> Result<(), CopyError> {
    match view {
        View::File { content, executable } => place_file(place, content, input_mode(*executable), mtime_ns)?,
        View::Copy { content, executable } => place_file(place, content, link::file_mode(*executable), mtime_ns)?,
        View::Dir { host } => copy_dir(host, place)?,
        View::Link { target } => {
            ops::symlink(target, place)?;
            ops::set_times(place, mtime_ns)?;
        }
        View::Empty => {}
    }
    Ok(())
}

fn place_file(place: &Path, content: &Content, mode: u32, mtime_ns: i64) -> Result<(), FsError> {
    match content {
        Content::Bytes(bytes) => link::write_file(place, bytes, mode, mtime_ns),
        Content::Host(host) => link::copy_file_as_old(host, place, mode),
    }
}

/// Copies a directory with everything beneath; links as they are, special files not at all.
fn copy_dir(from: &Path, to: &Path) -> Result<(), CopyError> {
    ops::create_dir_all(to)?;
    let found = walk::walk_all(from)?;
    for found in &found {
        let (source, place) = (from.join(found.path.as_str()), to.join(found.path.as_str()));
        match found.kind {
            Kind::Dir => ops::create_dir_all(&place)?,
            Kind::File => {
                let executable = StatKey::at(&source)?.is_executable();
                link::copy_file_as_old(&source, &place, input_mode(executable))?;
            }
            Kind::Link => ops::symlink(&ops::read_link(&source)?.to_string_lossy(), &place)?,
            Kind::Special => {}
        }
    }
    let below = found.iter().filter(|found| matches!(found.kind, Kind::Dir | Kind::Link));
    for path in below.map(|found| found.path.as_str()).chain([""]) {
        ops::set_times(&to.join(path), StatKey::at(&from.join(path))?.mtime_ns)?;
    }
    Ok(())
}

/// Caches become links into the copy; tool roots lie on the host where they should.
fn link_mounts(spec: &SandboxSpec, places: &Places) -> Result<(), Failure> {
    for mount in &spec.mounts {
        let step = || format!("showing {} at {}", mount.host.display(), mount.inside.display());
        match mount.inside.strip_prefix(WORKSPACE_DIR) {
            Ok(inside) => {
                let place = places.workspace.join(inside);
                let target = mount.host.to_str().ok_or_else(|| Failure::said(step(), "the path is not UTF-8"))?;
                place
                    .parent()
                    .map_or(Ok(()), ops::create_dir_all)
                    .and_then(|()| ops::symlink(target, &place))
                    .map_err(|error| Failure::new(step(), error.cause))?;
            }
            Err(_) if mount.inside == mount.host || places.moved.iter().any(|(inside, _)| *inside == mount.inside) => {}
            Err(_) => return Err(Failure::said(step(), "only the `namespaces` level can show a path as another")),
        }
    }
    Ok(())
}

/// What the fixed directories of the other levels are on this one's disk.
struct Places {
    workspace: PathBuf,
    scratch: PathBuf,
    home: PathBuf,
    /// Host paths that mean themselves even if they lie beneath one of the fixed directories.
    fixed: Vec<PathBuf>,
    /// Output trees of tasks, which have a fixed place inside: a private copy each, since nothing keeps a command from
    /// changing them.
    moved: Vec<(PathBuf, PathBuf)>,
}

impl Places {
    fn below(stage: &Path, spec: &SandboxSpec) -> Self {
        Self {
            workspace: stage.join(COPY_DIR),
            scratch: stage.join("tmp"),
            // Never made: nothing is read from it or kept in it.
            home: stage.join("homeless"),
            fixed: spec
                .mounts
                .iter()
                .filter(|mount| mount.inside == mount.host)
                .map(|mount| mount.host.clone())
                .collect(),
            moved: spec
                .mounts
                .iter()
                .filter(|mount| mount.inside != mount.host)
                .filter_map(|mount| Some((mount, mount.inside.strip_prefix(TOOLS_DIR).ok()?)))
                .map(|(mount, below)| (mount.inside.clone(), stage.join(TOOLS_COPY_DIR).join(below)))
                .collect(),
        }
    }

    /// Translates a variable's value: each path of a `:`-separated list.
    fn translate(&self, name: &str, value: &str) -> String {
        // The scratch directory is `/tmp`, beneath which a machine keeps much else: in lists only the workspace is meant.
        if name != "PATH" && !value.contains(':') {
            return self.translate_path(value);
        }
        let ours = |part: &str| [WORKSPACE_DIR, TOOLS_DIR].iter().any(|dir| Path::new(part).starts_with(dir));
        let parts = value.split(':').map(|part| match ours(part) {
            true => self.translate_path(part),
            false => part.to_owned(),
        });
        parts.collect::<Vec<_>>().join(":")
    }

    /// Translates a text that is a path at or beneath one of the fixed directories; leaves any other as it is.
    fn translate_path(&self, text: &str) -> String {
        let path = Path::new(text);
        if self.fixed.iter().any(|fixed| path.starts_with(fixed)) {
            return text.to_owned();
        }
        let places = [(WORKSPACE_DIR, &self.workspace), (SCRATCH_DIR, &self.scratch), (HOME_DIR, &self.home)];
        let moved = self.moved.iter().map(|(inside, place)| (inside.as_path(), place));
        for (inside, place) in places.into_iter().map(|(inside, place)| (Path::new(inside), place)).chain(moved) {
            if let Ok(below) = path.strip_prefix(inside) {
                let place = if below.as_os_str().is_empty() { place.clone() } else { place.join(below) };
                return place.to_string_lossy().into_owned();
            }
        }
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::path::RelPath;
    use crate::sandbox::spec::{Access, Limits, Mount, Network};

    #[test]
    fn values_that_name_the_fixed_directories_follow_the_copy() {
        let spec = SandboxSpec {
            argv: Vec::new(),
            env: BTreeMap::new(),
            cwd: RelPath::root(),
            view: BTreeMap::new(),
            mtimes: BTreeMap::new(),
            system: System::Host,
            mounts: [("/tmp/node", "/tmp/node"), ("/store/deno", "/tools/deno")]
                .map(|(host, inside)| Mount { host: host.into(), inside: inside.into(), access: Access::ReadOnly })
                .into(),
            network: Network::Loopback,
            timeout: None,
            stop_signal: rustix::process::Signal::TERM,
            stage: "/s".into(),
            observe: false,
            limits: Limits::default(),
            surroundings: None,
        };
        let places = Places::below(&spec.stage, &spec);
        let check = |name: &str, value: &str, expect: &str| assert_eq!(places.translate(name, value), expect, "{name}");
        check("TMPDIR", "/tmp", "/s/tmp");
        check("HOME", "/homeless", "/s/homeless");
        check("PYC", "/tmp/pyc", "/s/tmp/pyc");
        check("NODE", "/tmp/node/bin", "/tmp/node/bin");
        check("PATH", "/workspace/bin:/tmp/x:/usr/bin", "/s/workspace/bin:/tmp/x:/usr/bin");
        check("PATH", "/tools/deno/bin:/tools/other:/bin", "/s/tools/deno/bin:/tools/other:/bin");
        check("OTHER", "/tmpfoo", "/tmpfoo");
        check("TEXT", "see /tmp", "see /tmp");
    }
}
