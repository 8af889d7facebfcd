//! A root that the command may change: what was there stays as it is, and what is written lands in a directory of the host. Part of
//! building the view; says what of such a root is ours, and so no change of the command's.
//!
//! An overlay is mounted inside the user namespace of the command, which takes no privilege (Linux 5.11, `userxattr`). Places are named
//! by descriptors, so no character of a path means anything to the kernel, and no path of the host shows in `/proc/self/mountinfo`.

use std::fmt::Display;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::thread::CapabilitySet;

use crate::base::path::RelPath;
use crate::fs::dir::{Beneath, Dir};
use crate::fs::ops::{self, FsError};
use crate::fs::overlay;
use crate::sandbox::namespaces::{self, failed, fill_dev, make_dir, make_scratch, mount_fs, tmpfs_at};
use crate::sandbox::spec::{Layers, Mount, WORKSPACE_DIR, WritableRoot};
use crate::sandbox::wire::Failure;

/// The step that fails where the kernel refuses an overlay: a copy does as well.
pub const OVERLAY_STEP: &str = "laying a writable layer over the root (overlayfs)";

/// Directories at the top that are not the tree's: mounted over, of the kernel, or a home that nothing is to be kept in.
const COVERED: [&str; 6] = ["dev", "homeless", "proc", "sys", "tmp", "workspace"];

/// Those that something is mounted on.
const PLACES: [&str; 4] = ["dev", "proc", "tmp", "workspace"];

/// Files of `/etc` that are made where the tree lacks them, with mode 0644, and not laid over: the command may change them.
pub const LAID: [(&str, &str); 4] = [
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost drystone\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/homeless:/usr/sbin/nologin\n"),
];

/// The directory that they are in.
pub const LAID_IN: &str = "etc";

/// What root may do in it: with files, with processes of its own, and with its own directories. Not with the capabilities of files, of
/// which no layer would tell: who installs a program with one makes it set-user-id where that fails.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SYS_CHROOT);

/// Whether what lies at a path is not the tree's while a command runs in it: what is there before stays as it is, and what the command
/// leaves there is lost. These are `/dev`, `/proc`, `/sys`, `/tmp`, `/workspace` and `/homeless`. `/run` and `/var/tmp` are the tree's.
pub fn is_covered(path: &RelPath) -> bool {
    path.components().next().is_some_and(|first| COVERED.contains(&first))
}

/// Mounts the root on the stage, makes it the current directory, and makes in it what every view has.
pub(super) fn enter(stage: &Path, root: &WritableRoot, mounts: &[Mount]) -> Result<(), Failure> {
    if let Some(mount) = mounts.iter().find(|mount| !mount.inside.starts_with(WORKSPACE_DIR)) {
        let step = format!("mounting {} at {}", mount.host.display(), mount.inside.display());
        return Err(Failure::said(step, "with a root that can be written, only in the workspace"));
    }
    match &root.layers {
        Layers::Overlay { lower, upper, work } => lay_over(stage, [lower, upper, work])?,
        Layers::Copy { root } => namespaces::bind(root, stage)?,
    }
    namespaces::enter(stage)?;
    set_modes(root).map_err(failed)?;
    for place in PLACES.map(Path::new) {
        clear(place)?;
    }
    for (place, mode) in [("dev", "0755"), ("tmp", "1777"), ("workspace", "0755")] {
        tmpfs_at(Path::new(place), &format!("mode={mode}"))?;
    }
    for dir in ["dev/shm", "dev/pts"].map(Path::new) {
        make_dir(dir)?;
    }
    make_scratch(Path::new("dev/shm"))?;
    fill_dev()?;
    lay_files().map_err(failed)
}

fn lay_over(stage: &Path, places: [&Path; 3]) -> Result<(), Failure> {
    let refused = |what: &dyn Display| Failure::said(OVERLAY_STEP, what.to_string());
    let [_, upper, _] = places;
    if !overlay::can_be_marked(upper) {
        return Err(refused(&format_args!("the file system of {} keeps no marks", upper.display())));
    }
    let open = |place: &Path| -> Result<OwnedFd, Failure> {
        rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Failure::new(format!("opening {}", place.display()), error))
    };
    let [lower, upper, work] = [open(places[0])?, open(places[1])?, open(places[2])?];
    // Else a file that is copied up is another one by its numbers, and its owner would be lost.
    let file_system = |place: &OwnedFd| rustix::fs::fstat(place).map(|meta| meta.st_dev).ok();
    if file_system(&lower) != file_system(&upper) {
        return Err(refused(&"the tree and what is written lie on different file systems"));
    }
    let at = |place: &OwnedFd| format!("/proc/self/fd/{}", place.as_raw_fd());
    // Nothing is kept of it after a crash, so it need not be synced whenever a program asks for that.
    let options = format!("lowerdir={},upperdir={},workdir={},userxattr,volatile", at(&lower), at(&upper), at(&work));
    mount_fs("overlay", stage, MountFlags::NOSUID | MountFlags::NODEV, Some(&options))
        .map_err(|failure| Failure { step: OVERLAY_STEP.into(), ..failure })
}

/// The caller owns everything in the tree, and nobody else is there yet.
fn set_modes(root: &WritableRoot) -> Result<(), FsError> {
    let top = Dir::open(Path::new("."))?;
    let mut beneath = Beneath::new(&top);
    for (path, mode) in &root.modes {
        // The root of a tree has no name in it.
        if let Some(above) = path.parent() {
            beneath.open(&above)?.set_mode(path.file_name(), *mode)?;
        }
    }
    Ok(())
}

/// Makes a directory to mount something on. What a tree has instead goes: through a link, the mount would lie elsewhere.
fn clear(place: &Path) -> Result<(), Failure> {
    match ops::symlink_metadata(place) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => rustix::fs::unlinkat(CWD, place, rustix::fs::AtFlags::empty())
            .map_err(|error| Failure::new(format!("clearing /{}", place.display()), error))?,
        Err(_) => {}
    }
    make_dir(place)
}

/// Makes the small files that are not there, unless the directory they belong in is none.
fn lay_files() -> Result<(), FsError> {
    let etc = Path::new(LAID_IN);
    match ops::symlink_metadata(etc) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Ok(()),
        Err(_) => ops::create_dir(etc)?,
    }
    for (path, text) in LAID {
        let path = Path::new(path);
        // In whatever form it is there, it is the tree's.
        if !ops::exists(path) {
            ops::write_all(&ops::create_new(path, 0o644)?, path, text.as_bytes())?;
        }
    }
    Ok(())
}

/// Leaves whatever is executed from now on without the powers of root over anything but files and its own processes.
///
/// That is what makes mounts stay: user 0 of the namespace that owns them could take them away.
pub(super) fn give_up_all_but_files() -> Result<(), Failure> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        // The kernel knows no more of them.
        if rustix::thread::capability_is_in_bounding_set(capability).is_err() {
            break;
        }
        rustix::thread::remove_capability_from_bounding_set(capability)
            .map_err(|error| Failure::new("giving up privileges", error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::spec::HOME_DIR;

    #[test]
    fn what_is_ours_is_told_by_the_first_name() {
        let check = |path: &str, expect: bool| {
            assert_eq!(is_covered(&RelPath::parse(path).expect("a good path")), expect, "{path}");
        };
        for covered in ["dev", "dev/null", "proc/1/mem", "tmp/x", "workspace/a/b", "homeless/.cache", "sys"] {
            check(covered, true);
        }
        for own in ["", "device", "run/lock", "var/tmp/x", "usr/dev", "tools/x", "etc/passwd"] {
            check(own, false);
        }
        assert_eq!(HOME_DIR, "/homeless", "what is kept in a home is covered");
    }
}
