//! Root file systems other than the host's: a tree in its place, or nothing but links to what is mounted. Part of building the view.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;

use crate::fs::ops::{self, FsError, Kind};
use crate::sandbox::namespaces::{ETC, bind_dir, bind_file, make_dir, make_dirs, make_link};
use crate::sandbox::spec::Mount;
use crate::sandbox::wire::Failure;

/// What every view has of its own, whatever a tree holds there. `/homeless` is to be absent.
const OURS: [&str; 8] = ["dev", "etc", "homeless", "proc", "services", "tmp", "tools", "workspace"];

/// Of the host's `/etc`, what its network needs: everything else is the tree's.
pub(super) const NETWORK_ETC: [&str; 1] = ["etc/resolv.conf"];

/// Shows a tree as the root: each entry on top by itself, since the new root must hold directories that a tree need not have.
///
/// Links become links here: their targets mean something only once this root is the root, so nothing of the host is ever reached
/// through them. The tree is not changed by anyone meanwhile.
pub(super) fn show_tree(tree: &Path) -> Result<(), Failure> {
    show_entries(tree, Path::new(""), &|name| OURS.iter().any(|ours| name == *ours))?;
    let etc = tree.join("etc");
    if ops::symlink_metadata(&etc).is_ok_and(|meta| meta.is_dir()) {
        let ours =
            |name: &OsStr| ETC.iter().map(|(path, _)| *path).chain(NETWORK_ETC).any(|path| is_in_etc(path, name));
        show_entries(&etc, Path::new("etc"), &ours)?;
    }
    Ok(())
}

fn is_in_etc(path: &str, name: &OsStr) -> bool {
    Path::new(path).file_name() == Some(name)
}

fn show_entries(dir: &Path, below: &Path, is_ours: &dyn Fn(&OsStr) -> bool) -> Result<(), Failure> {
    let failed = |error: FsError| Failure::new(format!("showing {} as the root", error.path.display()), error.cause);
    for entry in ops::read_dir(dir).map_err(failed)?.into_iter().filter(|entry| !is_ours(&entry.name)) {
        let (host, inside) = (dir.join(&entry.name), below.join(&entry.name));
        match entry.kind {
            Kind::Dir => {
                make_dir(&inside)?;
                bind_dir(&host, &inside)?;
            }
            Kind::File => bind_file(&host, &inside)?,
            Kind::Link => make_link(ops::read_link(&host).map_err(failed)?, &inside)?,
            Kind::Special => {}
        }
    }
    Ok(())
}

/// Makes the links through which programs name what is mounted, but for those that lie in a mount and so are there.
pub(super) fn make_links(links: &BTreeMap<PathBuf, PathBuf>, mounts: &[Mount]) -> Result<(), Failure> {
    for (at, target) in links {
        let Ok(inside) = at.strip_prefix("/") else { continue };
        if mounts.iter().any(|mount| at.starts_with(&mount.inside)) {
            continue;
        }
        make_dirs(inside.parent().unwrap_or(Path::new("")))?;
        match rustix::fs::symlinkat(target.as_path(), CWD, inside) {
            // A mount needed a directory of that name.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Failure::new(format!("creating {}", at.display()), error)),
        }
    }
    Ok(())
}
