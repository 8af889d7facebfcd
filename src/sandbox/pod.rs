//! A pod: a user and a net namespace that several sandboxes share, and nothing else. Knows not who is in it.
//!
//! An ordinary user may join a net namespace only from the user namespace that owns it, so a pod is both. Whoever is in it joins the
//! two and then makes all its other namespaces, a user namespace among them, beneath: there it has no power over the pod.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::fs::ops;
use crate::sandbox::kernel::{self, Side};
use crate::sandbox::wire::{self, Failure, Owner, Report, Status};

/// What a pod is made of.
pub(super) const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER | libc::CLONE_NEWNET;

/// The namespaces of a pod; they live as long as somebody holds them or is in them.
#[derive(Debug)]
pub(super) struct PodEnds {
    /// The user namespace.
    pub(super) user: OwnedFd,
    /// The net namespace, which belongs to it.
    pub(super) net: OwnedFd,
}

/// A pod, as the engine holds it: gone with its last clone, once nobody is in it.
#[derive(Clone, Debug)]
pub struct Pod(Arc<PodEnds>);

impl Pod {
    pub(super) fn new(user: OwnedFd, net: OwnedFd) -> Self {
        Self(Arc::new(PodEnds { user, net }))
    }

    /// In the order of [`PodEnds`].
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.0.user.as_fd(), self.0.net.as_fd()]
    }
}

/// Readies a new pod, hands it to the engine, and ends this process, its first: the engine's hold keeps it.
pub(super) fn found(control: &OwnedFd, owner: Owner) -> ! {
    let (report, ends) = match ready(owner) {
        Ok(ends) => (Report::nothing_of(Status::Code(0)), Some(ends)),
        Err(failure) => (Report::Failed(failure), None),
    };
    let descriptors: Vec<BorrowedFd<'_>> = ends.iter().flat_map(|ends| [ends.user.as_fd(), ends.net.as_fd()]).collect();
    // If the engine is gone there is nobody left to tell.
    drop(wire::send(control, &report.encode(), &descriptors));
    kernel::exit_now(0)
}

fn ready(owner: Owner) -> Result<PodEnds, Failure> {
    keep_ids(owner)?;
    kernel::loopback_up().map_err(|error| Failure::new("bringing up the loopback interface of a pod", error))?;
    let open = |name: &str| {
        let file = ops::open(&Path::new("/proc/self/ns").join(name));
        file.map(OwnedFd::from).map_err(|error| Failure::new("keeping hold of a pod", error.cause))
    };
    Ok(PodEnds { user: open("user")?, net: open("net")? })
}

/// Has the ids in a new user namespace stay what they are: who is in it maps them once more, beneath.
pub(super) fn keep_ids(owner: Owner) -> Result<(), Failure> {
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{0} {0} 1", owner.uid)),
        ("/proc/self/gid_map", format!("{0} {0} 1", owner.gid)),
    ];
    for (file, text) in maps {
        ops::write(Path::new(file), text.as_bytes())
            .map_err(|error| Failure::new(format!("mapping the owner of a network through {file}"), error.cause))?;
    }
    Ok(())
}

/// As [`kernel::clone_into`], with the new process in the pod and its own namespaces beneath. Leaves the caller where it is.
pub(super) fn clone_beneath(ends: &PodEnds, namespaces: libc::c_int) -> io::Result<Side> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Who joins a user namespace cannot leave it: a process in between does, and is gone at once.
    if let Side::Parent(pid) = kernel::clone_into(0)? {
        drop(writer);
        let mut refused = [0; 4];
        return match rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut refused))? {
            0 => Ok(Side::Parent(pid)),
            _ => Err(io::Error::from_raw_os_error(i32::from_le_bytes(refused))),
        };
    }
    drop(reader);
    let joined = move_into_link_name_space(ends.user.as_fd(), Some(LinkNameSpaceType::User))
        .and_then(|()| move_into_link_name_space(ends.net.as_fd(), Some(LinkNameSpaceType::Network)))
        .map_err(io::Error::from);
    // Its parent is the launcher, as that of every init.
    match joined.and_then(|()| kernel::clone_into(namespaces | libc::CLONE_PARENT)) {
        Ok(Side::Child) => Ok(Side::Child),
        Ok(Side::Parent(_)) => kernel::exit_now(0),
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(libc::EIO);
            // Should the launcher be gone, nobody is left to tell.
            let _ = rustix::io::write(&writer, &number.to_le_bytes());
            kernel::exit_now(1)
        }
    }
}
