//! Builds the view of the `namespaces` level: a fresh root on tmpfs, in which nothing lies that was not asked for.
//!
//! Runs in the init, inside its new namespaces, before anything of the command does. Two rules keep the host's files safe while
//! this process can still write to them: whatever is created is created before anything of the host is mounted around it, and
//! never through a symbolic link; and all is sealed read-only before the command starts, what it may write being opened again by name.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::base::path::RelPath;
use crate::fs::link;
use crate::fs::ops::{self, FsError};
use crate::sandbox::canary;
use crate::sandbox::crowd::{self, Counting};
use crate::sandbox::kernel::{self, Attributes, Reach};
use crate::sandbox::rootfs;
use crate::sandbox::spec::{
    Access, Content, HOST_NAME, Mount, Network, STAND_IN_DIR_MODE, STAND_IN_FILE_MODE, SandboxSpec, System, View,
    WORKSPACE_DIR, input_mode,
};
use crate::sandbox::start::{Built, Command};
use crate::sandbox::surroundings::{DirOrder, Ground, Identity, Occupant, Surroundings};
use crate::sandbox::wire::{Failure, Owner};
use crate::sandbox::writable;

/// User and group id inside, for everybody.
const ID: u32 = 1000;

/// The same where the command may change its root: what installs things expects to be root.
const ROOT_ID: u32 = 0;

/// The small files of `/etc`: the same on every machine.
pub(super) const ETC: [(&str, &str); 4] = [
    ("etc/passwd", "drystone:x:1000:1000::/homeless:/bin/sh\nnobody:x:65534:65534::/homeless:/usr/sbin/nologin\n"),
    ("etc/group", "drystone:x:1000:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost drystone\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// What of the host's `/etc` the host's programs need.
pub(super) const SYSTEM_ETC: [&str; 2] = ["etc/ld.so.cache", "etc/alternatives"];

/// What of the host's `/etc` its network needs. Certificates only: the keys beside them stay out.
pub(super) const NETWORK_ETC: [&str; 4] =
    ["etc/resolv.conf", "etc/ssl/certs", "etc/pki/tls/certs", "etc/pki/ca-trust/extracted"];

pub(super) const DEVICES: [&str; 5] = ["dev/null", "dev/zero", "dev/full", "dev/random", "dev/urandom"];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("pts/ptmx", "dev/ptmx"),
];

/// Where the workspace is mounted once more while it is built. Later `/proc` is mounted over it: that is cheaper than letting go.
const ASIDE: &str = "proc";

/// A directory in which nothing lies that is seen: what is mounted over it in the end hides what does.
const EMPTY: &str = "proc";

/// Where anybody may write what nobody keeps: directories of the root's own tmpfs, for each further one takes the kernel as long as ten
/// files. Mounted over themselves they can be written although the root cannot.
const SCRATCH: [&str; 2] = ["tmp", "dev/shm"];

const SCRATCH_MODE: u32 = 0o1777;

/// The mounts of our own that the command may write to, but for the workspace, the pseudo-terminals and `/proc`.
const WRITABLE: [&str; 2] = SCRATCH;

/// Where the workspace lies, from the root.
const WORKSPACE: &str = "workspace";

/// How the loopback interface is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loopback {
    /// In a net namespace that is new: down.
    New,
    /// In one that was made ready, or that is another's.
    Ready,
}

/// Builds everything and enters it. The init's namespaces must be new and its own, but for the one of the network.
pub fn build(spec: &SandboxSpec, owner: Owner, counting: Counting, loopback: Loopback) -> Result<Built, Failure> {
    // Directories have the modes that are asked for, whatever the engine was started with.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let root = if let System::Writable(root) = &spec.system { Some(root) } else { None };
    let around = spec.surroundings.as_deref().cloned().unwrap_or_default();
    let identity = around.identity.as_ref().filter(|_| root.is_none());
    let id = if root.is_some() { ROOT_ID } else { ID };
    map_ids(owner, identity.map_or((id, id), |identity| (identity.uid, identity.gid)))?;
    name_host(&around)?;
    if loopback == Loopback::New {
        kernel::loopback_up().map_err(|error| Failure::new("bringing up the loopback interface", error))?;
    }
    // Only paths below the new root are relative from here on.
    detach_mounts()?;
    let disk = if around.ground == Ground::Disk { Some(disk_places(&spec.stage)?) } else { None };
    let place = if root.is_some() { PathBuf::from(WORKSPACE) } else { below_root(&around.workspace_dir)? };
    if let Some(root) = root {
        writable::enter(&spec.stage, root, &spec.mounts)?;
    } else {
        enter_new_root(&spec.stage)?;
        lay_foundation(&place)?;
        match &spec.system {
            System::Host => mount_system()?,
            System::Tree { host } => rootfs::show_tree(host)?,
            System::Nothing { .. } | System::Writable(_) => {}
        }
        write_etc(spec, &around)?;
    }
    if let Some(disk) = disk {
        lay_on_disk(disk, &place)?;
    }
    let workspace = hold_workspace(&place)?;
    let (outside, inside): (Vec<_>, Vec<_>) =
        spec.mounts.iter().partition(|mount| !mount.inside.starts_with(WORKSPACE_DIR));
    let inside: Vec<Mount> = inside.into_iter().map(|mount| moved(mount, &place)).collect();
    let inside: Vec<&Mount> = inside.iter().collect();
    let writable = mount_outside(&outside, spec)?;
    if let System::Nothing { links } = &spec.system {
        rootfs::make_links(links, &spec.mounts)?;
    }
    build_workspace(spec, &inside, &place, around.dir_order)?;
    seal(&place)?;
    if root.is_some() {
        make_writable(Path::new("."))?;
    }
    for mount in inside.iter().copied().chain(writable) {
        bind_mount(mount)?;
    }
    mount_proc(if counting == Counting::Here { Some(spec.limits.processes) } else { None })?;
    leave_old_root()?;
    rustix::thread::set_no_new_privs(true).map_err(|error| Failure::new("giving up privileges", error))?;
    let cwd = match root {
        Some(root) => {
            writable::give_up_all_but_files()?;
            root.directory.clone()
        }
        None => Path::new("/").join(&place).join(spec.cwd.as_str()),
    };
    let argv = match around.occupant {
        Occupant::Command => spec.argv.clone(),
        Occupant::Canary => vec![canary::PROGRAM.into(), canary::ARGUMENT.into()],
    };
    let command = Command { argv, env: spec.env.clone(), cwd, around };
    Ok(Built { command, workspace: Some(workspace) })
}

/// Makes the caller the user and group of these numbers inside, whoever it is, so that the view is the same for everybody.
fn map_ids(owner: Owner, (uid, gid): (u32, u32)) -> Result<(), Failure> {
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {} 1", owner.uid)),
        ("/proc/self/gid_map", format!("{gid} {} 1", owner.gid)),
    ];
    for (file, text) in maps {
        ops::write(Path::new(file), text.as_bytes())
            .map_err(|error| Failure::new(format!("mapping its user through {file}"), error.cause))?;
    }
    Ok(())
}

fn name_host(around: &Surroundings) -> Result<(), Failure> {
    // What Linux itself starts with.
    let domain = around.domain_name.as_deref().unwrap_or("(none)");
    rustix::system::sethostname(around.host_name.as_bytes())
        .and_then(|()| rustix::system::setdomainname(domain.as_bytes()))
        .map_err(|error| Failure::new("setting its host name", error))
}

/// Without this the host would see our mounts where its root is shared, as systemd has it.
fn detach_mounts() -> Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|error| Failure::new("detaching its mounts", error))
}

/// Mounts the new root on the stage, which is empty, and makes it the current directory.
fn enter_new_root(stage: &Path) -> Result<(), Failure> {
    tmpfs_at(stage, "mode=0755")?;
    enter(stage)
}

pub(super) fn enter(root: &Path) -> Result<(), Failure> {
    rustix::process::chdir(root).map_err(|error| Failure::new("entering its root", error))
}

pub(super) fn tmpfs_at(place: &Path, options: &str) -> Result<(), Failure> {
    mount_fs("tmpfs", place, MountFlags::NOSUID | MountFlags::NODEV, Some(options))
}

pub(super) fn mount_fs(
    kind: &str,
    place: impl AsRef<Path>,
    flags: MountFlags,
    options: Option<&str>,
) -> Result<(), Failure> {
    let place = place.as_ref();
    let options = options.map(|options| CString::new(options).expect("our own options hold no NUL"));
    rustix::mount::mount(kind, place, kind, flags, options.as_deref())
        .map_err(|error| Failure::new(format!("mounting {kind} on {}", shown(place)), error))
}

/// The path as the command knows it.
fn shown(place: &Path) -> String {
    if place.is_absolute() { place.display().to_string() } else { format!("/{}", place.display()) }
}

/// Makes what every view has: the workspace, scratch and devices.
fn lay_foundation(place: &Path) -> Result<(), Failure> {
    for dir in ["tmp", "proc", "etc", "dev", "dev/shm", "dev/pts"] {
        make_dir(Path::new(dir))?;
    }
    for scratch in SCRATCH.map(Path::new) {
        make_scratch(scratch)?;
    }
    // It may lie below one of those.
    make_dirs(place)?;
    tmpfs_at(place, "mode=0755")?;
    fill_dev()
}

/// Lets anybody write in a directory although what it lies in will be sealed.
pub(super) fn make_scratch(dir: &Path) -> Result<(), Failure> {
    ops::set_mode(dir, SCRATCH_MODE).map_err(failed)?;
    bind(dir, dir)
}

/// Makes what is in `/dev` but for the shared memory.
pub(super) fn fill_dev() -> Result<(), Failure> {
    mount_fs("devpts", "dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, Some("newinstance,ptmxmode=0666,mode=620"))?;
    for device in DEVICES {
        bind_file(&Path::new("/").join(device), Path::new(device))?;
    }
    for (target, link) in DEVICE_LINKS {
        make_link(target, Path::new(link))?;
    }
    Ok(())
}

/// The workspace as it will be left behind.
fn hold_workspace(place: &Path) -> Result<OwnedFd, Failure> {
    // A second mount of the same tmpfs, without the inputs that will be mounted into the first: the engine reads only
    // what the command wrote, and whether these namespaces are gone already makes no difference to it.
    rustix::mount::open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .map_err(|error| Failure::new(format!("keeping hold of {}", shown(place)), error))
}

/// A mount in the workspace, wherever that lies.
fn moved(mount: &Mount, place: &Path) -> Mount {
    let below = mount.inside.strip_prefix(WORKSPACE_DIR).expect("only those in the workspace move");
    let top = Path::new("/").join(place);
    let inside = if below.as_os_str().is_empty() { top } else { top.join(below) };
    Mount { inside, ..mount.clone() }
}

/// Directories of the stage that stand for workspace and `/tmp`, as they can be mounted once the stage is out of sight.
fn disk_places(stage: &Path) -> Result<[OwnedFd; 2], Failure> {
    let make = |name: &str, mode: u32| {
        let dir = stage.join(name);
        ops::create_dir(&dir).and_then(|()| ops::set_mode(&dir, mode)).map_err(failed)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        rustix::mount::open_tree(CWD, &dir, flags)
            .map_err(|error| Failure::new(format!("keeping hold of {}", dir.display()), error))
    };
    Ok([make("workspace", 0o755)?, make("tmp", SCRATCH_MODE)?])
}

/// Lays workspace and `/tmp` over those in memory.
fn lay_on_disk([workspace, scratch]: [OwnedFd; 2], place: &Path) -> Result<(), Failure> {
    // The outer one first.
    for (from, to) in [(&scratch, Path::new("tmp")), (&workspace, place)] {
        // A workspace below `/tmp` is out of sight by now.
        make_dirs(to)?;
        rustix::mount::move_mount(from, "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|error| Failure::new(format!("mounting the disk on {}", shown(to)), error))?;
    }
    Ok(())
}

/// Shows the host's programs, read-only, less `/usr/local`.
fn mount_system() -> Result<(), Failure> {
    if ops::exists(Path::new("/usr")) {
        make_dir(Path::new("usr"))?;
        bind_dir(Path::new("/usr"), Path::new("usr"))?;
        // A link leads out of `/usr`, to where nothing is in here.
        if ops::symlink_metadata(Path::new("/usr/local")).is_ok_and(|meta| meta.is_dir()) {
            bind(Path::new(EMPTY), Path::new("usr/local"))?;
        }
    }
    for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
        let host = Path::new("/").join(name);
        match ops::read_link(&host) {
            Ok(target) => make_link(target.as_os_str(), Path::new(name))?,
            Err(_) if ops::exists(&host) => {
                make_dir(Path::new(name))?;
                bind_dir(&host, Path::new(name))?;
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn write_etc(spec: &SandboxSpec, around: &Surroundings) -> Result<(), Failure> {
    for (path, text) in ETC {
        ops::write(Path::new(path), etc_text(path, text, around).as_bytes())
            .map_err(|error| Failure::new(format!("writing /{path}"), error.cause))?;
    }
    let system: &[&str] = if spec.system == System::Host { &SYSTEM_ETC } else { &[] };
    let network: &[&str] = match (spec.network, &spec.system) {
        (Network::Loopback | Network::Pod, _) => &[],
        (Network::Host, System::Tree { .. } | System::Writable(_)) => &rootfs::NETWORK_ETC,
        (Network::Host, System::Host | System::Nothing { .. }) => &NETWORK_ETC,
    };
    for path in system.iter().chain(network) {
        let (host, inside) = (Path::new("/").join(path), Path::new(path));
        match ops::metadata(&host) {
            Ok(meta) if meta.is_dir() => {
                make_dirs(inside)?;
                bind_dir(&host, inside)?;
            }
            Ok(_) => bind_file(&host, inside)?,
            Err(_) => {}
        }
    }
    Ok(())
}

/// A small file of `/etc` as it names who and where this is.
fn etc_text(path: &str, text: &str, around: &Surroundings) -> String {
    let line = text.split_once('\n').map_or("", |(first, _)| first);
    match (path, &around.identity) {
        ("etc/hosts", _) => text.replace(HOST_NAME, &around.host_name),
        ("etc/passwd", Some(Identity { user, uid, gid, .. })) => {
            text.replacen(line, &format!("{user}:x:{uid}:{gid}::/homeless:/bin/sh"), 1)
        }
        ("etc/group", Some(Identity { group, gid, .. })) => text.replacen(line, &format!("{group}:x:{gid}:"), 1),
        _ => text.to_owned(),
    }
}

/// Mounts tool roots; returns the writable mounts, whose places are made but which must wait for the seal.
fn mount_outside<'a>(mounts: &[&'a Mount], spec: &SandboxSpec) -> Result<Vec<&'a Mount>, Failure> {
    let mut sorted = mounts.to_vec();
    // Outer ones first, whatever order they came in.
    sorted.sort_by(|one, other| one.inside.cmp(&other.inside));
    let mut writable = Vec::new();
    for mount in sorted {
        let inside = relative(mount)?;
        let in_system = spec.system == System::Host && inside.starts_with("usr") && !inside.starts_with("usr/local");
        if in_system && mount.host == mount.inside && mount.access == Access::ReadOnly {
            // Visible there already.
            continue;
        }
        make_place(mount, &inside)?;
        match mount.access {
            Access::ReadOnly => bind_mount(mount)?,
            Access::ReadWrite => writable.push(mount),
        }
    }
    Ok(writable)
}

/// Where a mount goes, from the new root.
fn relative(mount: &Mount) -> Result<PathBuf, Failure> {
    below_root(&mount.inside).map_err(|failure| Failure {
        step: format!("mounting {} at {}", mount.host.display(), mount.inside.display()),
        ..failure
    })
}

fn below_root(path: impl AsRef<Path>) -> Result<PathBuf, Failure> {
    let path = path.as_ref();
    let relative = path.strip_prefix("/").ok().filter(|path| {
        path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
    });
    relative.map(Path::to_owned).ok_or_else(|| {
        let step = format!("showing the workspace at {}", path.display());
        Failure::said(step, "not an absolute path below the root without `..`")
    })
}

fn make_place(mount: &Mount, inside: &Path) -> Result<(), Failure> {
    match ops::metadata(&mount.host) {
        Ok(meta) if meta.is_dir() => make_dirs(inside),
        Ok(_) => {
            make_dirs(inside.parent().unwrap_or(Path::new("")))?;
            make_file(inside)
        }
        Err(error) => Err(Failure::new(format!("mounting {} at {}", mount.host.display(), shown(inside)), error.cause)),
    }
}

fn bind_mount(mount: &Mount) -> Result<(), Failure> {
    let inside = relative(mount)?;
    match mount.access {
        Access::ReadOnly => bind_dir(&mount.host, &inside),
        Access::ReadWrite => bind_recursive(&mount.host, &inside),
    }
}

/// Lays the declared view out below `/workspace`.
fn build_workspace(spec: &SandboxSpec, mounts: &[&Mount], workspace: &Path, order: DirOrder) -> Result<(), Failure> {
    // A second mount of the same tmpfs, to mount files from: the kernel looks at all that is mounted in the one it takes a file from.
    if spec.view.values().any(|view| matches!(view, View::File { content: Content::Bytes(_), .. })) {
        bind(workspace, Path::new(ASIDE))?;
    }
    let dirs = spec.directories();
    let dirs_to_make = dirs.iter().filter(|dir| !dir.is_root()).map(|dir| (depth(dir), Entry::Dir(dir)));
    let is_link = |view: &View| matches!(view, View::Link { .. });
    let files =
        spec.view.iter().filter(|(_, view)| !is_link(view)).map(|(path, view)| (depth(path), Entry::Of(path, view)));
    let places = mounts.iter().map(|mount| {
        let below = mount.inside.components().count() - workspace.components().count() - 1;
        (below, Entry::Place(mount))
    });
    let links =
        spec.view.iter().filter(|(_, view)| is_link(view)).map(|(path, view)| (depth(path), Entry::Of(path, view)));
    // Parents first, and links last: none is there yet that something could go through.
    let mut entries: Vec<(usize, Entry<'_>)> = dirs_to_make.chain(files).chain(places).chain(links).collect();
    if order == DirOrder::Reversed {
        // What is beneath a link finds it in the place of the directory, which then cannot be made.
        entries.reverse();
        entries.sort_by_key(|(depth, _)| *depth);
    }
    for (_, entry) in entries {
        make_entry(spec, workspace, entry)?;
    }
    // Nothing is created any more that would touch these.
    for dir in &dirs {
        ops::set_times(&workspace.join(dir.as_str()), spec.mtime_ns(dir)).map_err(failed)?;
    }
    for (path, view) in &spec.view {
        if let View::Dir { host } = view {
            bind_dir(host, &workspace.join(path.as_str()))?;
        }
    }
    Ok(())
}

/// Something to be made in the workspace.
#[derive(Clone, Copy)]
enum Entry<'a> {
    Dir(&'a RelPath),
    Of(&'a RelPath, &'a View),
    /// What something is mounted on.
    Place(&'a Mount),
}

fn depth(path: &RelPath) -> usize {
    path.components().count()
}

fn make_entry(spec: &SandboxSpec, workspace: &Path, entry: Entry<'_>) -> Result<(), Failure> {
    let (path, view) = match entry {
        // It may be shown whole, with something beneath.
        Entry::Dir(path) if matches!(spec.view.get(path), Some(View::Dir { .. })) => {
            return make_dirs(&workspace.join(path.as_str()));
        }
        Entry::Dir(path) => return make_dir(&workspace.join(path.as_str())),
        Entry::Place(mount) => return make_place(mount, &relative(mount)?),
        Entry::Of(path, view) => (path, view),
    };
    let place = workspace.join(path.as_str());
    match view {
        View::File { content: Content::Host(host), .. } => bind_file(host, &place)?,
        View::File { content: Content::Bytes(bytes), executable } => {
            write_file(&place, bytes, input_mode(*executable), spec.mtime_ns(path))?;
            // Mounted over itself it is read-only once sealed, and neither removed nor renamed, in a directory that can be written.
            bind(&Path::new(ASIDE).join(path.as_str()), &place)?;
        }
        View::Copy { content: Content::Host(host), executable } => {
            link::copy_file_as_old(host, &place, link::file_mode(*executable)).map_err(failed)?;
        }
        View::Copy { content: Content::Bytes(bytes), executable } => {
            write_file(&place, bytes, link::file_mode(*executable), spec.mtime_ns(path))?;
        }
        View::Dir { .. } => {
            make_dirs(&place)?;
            ops::set_mode(&place, STAND_IN_DIR_MODE).map_err(failed)?;
        }
        View::Link { target } => {
            make_link(target, &place)?;
            ops::set_times(&place, spec.mtime_ns(path)).map_err(failed)?;
        }
        View::Empty => {}
    }
    Ok(())
}

pub(super) fn failed(error: FsError) -> Failure {
    Failure::new(error.to_string(), error.cause)
}

fn write_file(place: &Path, bytes: &[u8], mode: u32, mtime_ns: i64) -> Result<(), Failure> {
    link::write_file(place, bytes, mode, mtime_ns)
        .map_err(|error| Failure::new(format!("creating {}", shown(place)), error.cause))
}

/// Makes every mount read-only, then those writable again that are ours to give.
fn seal(place: &Path) -> Result<(), Failure> {
    kernel::change_mount(c".", Reach::Recursive, Attributes::READ_ONLY_NO_SETUID, Attributes::NONE)
        .map_err(|error| Failure::new("making its root read-only", error))?;
    WRITABLE.into_iter().map(Path::new).chain([place]).try_for_each(make_writable)
}

fn make_writable(place: &Path) -> Result<(), Failure> {
    let name = CString::new(place.as_os_str().as_bytes()).expect("our own paths hold no NUL");
    kernel::change_mount(&name, Reach::One, Attributes::NONE, Attributes::READ_ONLY)
        .map_err(|error| Failure::new(format!("making {} writable", shown(place)), error))
}

/// Settings and controls of the whole machine: whoever is root on the host may write them from any namespace.
const PROC_READ_ONLY: [&str; 5] = ["proc/sys", "proc/sysrq-trigger", "proc/irq", "proc/bus", "proc/fs"];

/// What tells of the machine what no program needs, or gives its memory and keys away.
const PROC_HIDDEN: [&str; 7] = [
    "proc/sys/kernel/random/boot_id",
    "proc/kcore",
    "proc/keys",
    "proc/key-users",
    "proc/kmsg",
    "proc/timer_list",
    "proc/sched_debug",
];

/// Shows the processes of these namespaces, and of the machine no more than may be read.
fn mount_proc(processes: Option<u32>) -> Result<(), Failure> {
    mount_fs("proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    if let Some(processes) = processes {
        crowd::set_pid_max(processes);
    }
    // Which of them there are depends on the kernel.
    for place in PROC_HIDDEN.map(Path::new) {
        match rustix::mount::mount_bind("dev/null", place) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(Failure::new(format!("hiding {}", shown(place)), error)),
        }
    }
    for place in PROC_READ_ONLY.map(Path::new) {
        match bind_dir(place, place) {
            Err(failure) if failure.errno == Errno::NOENT.raw_os_error() => {}
            bound => bound?,
        }
    }
    Ok(())
}

/// Makes the current directory the root and lets go of the host's.
fn leave_old_root() -> Result<(), Failure> {
    // The old root ends up on top of the new one, where it can be let go without a directory for it
    // (`pivot_root(2)`, "pivot_root(".", ".")").
    rustix::process::pivot_root(".", ".")
        .and_then(|()| rustix::mount::unmount(".", UnmountFlags::DETACH))
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|error| Failure::new("changing its root", error))
}

pub(super) fn bind_dir(host: &Path, inside: &Path) -> Result<(), Failure> {
    bind_recursive(host, inside)?;
    let place = CString::new(inside.as_os_str().as_bytes()).expect("the mount before would have failed");
    kernel::change_mount(&place, Reach::Recursive, Attributes::READ_ONLY, Attributes::NONE)
        .map_err(|error| Failure::new(format!("making {} read-only", shown(inside)), error))
}

fn bind_recursive(host: &Path, inside: &Path) -> Result<(), Failure> {
    rustix::mount::mount_bind_recursive(host, inside)
        .map_err(|error| Failure::new(format!("mounting {} at {}", host.display(), shown(inside)), error))
}

/// Shows one file. Read-only only once sealed: one call for all of them is cheaper than one for each.
pub(super) fn bind_file(host: &Path, inside: &Path) -> Result<(), Failure> {
    make_file(inside)?;
    bind(host, inside)
}

pub(super) fn bind(host: &Path, inside: &Path) -> Result<(), Failure> {
    rustix::mount::mount_bind(host, inside)
        .map_err(|error| Failure::new(format!("mounting {} at {}", host.display(), shown(inside)), error))
}

fn make_file(path: &Path) -> Result<(), Failure> {
    rustix::fs::mknodat(CWD, path, FileType::RegularFile, Mode::from_raw_mode(STAND_IN_FILE_MODE), 0)
        .map_err(|error| Failure::new(format!("creating {}", shown(path)), error))
}

pub(super) fn make_dir(path: &Path) -> Result<(), Failure> {
    rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755))
        .map_err(|error| Failure::new(format!("creating {}", shown(path)), error))
}

pub(super) fn make_link(target: impl AsRef<OsStr>, at: &Path) -> Result<(), Failure> {
    rustix::fs::symlinkat(target.as_ref(), CWD, at)
        .map_err(|error| Failure::new(format!("creating {}", shown(at)), error))
}

/// Creates a directory with its parents, component by component, never through a link: a link made by whoever wrote the view must
/// not make us create anything on the host.
pub(super) fn make_dirs(path: &Path) -> Result<(), Failure> {
    let failed = |error: Errno| match error {
        Errno::ROFS => {
            Failure::said(format!("creating {}", shown(path)), "it lies in a directory that is mounted whole")
        }
        error => Failure::new(format!("creating {}", shown(path)), error),
    };
    let mut dir: Option<OwnedFd> = None;
    for part in path.components() {
        let at = dir.as_ref().map_or(CWD, AsFd::as_fd);
        match rustix::fs::mkdirat(at, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = Some(rustix::fs::openat(at, part.as_os_str(), flags, Mode::empty()).map_err(failed)?);
    }
    Ok(())
}
