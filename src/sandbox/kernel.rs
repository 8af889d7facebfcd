//! The system calls that neither std nor rustix offers safely. All of the sandbox's `unsafe`; decides nothing.
#![expect(unsafe_code, reason = "clone, execve, signal masks and mount attributes have no safe wrapper")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

/// Which side of a fork this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The new process.
    Child,
    /// The one that called, with the new process's id as seen here.
    Parent(Pid),
}

fn side(pid: libc::c_long) -> io::Result<Side> {
    match pid {
        0 => Ok(Side::Child),
        pid if pid > 0 => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            Ok(Side::Parent(pid.expect("the kernel returns a positive pid_t here")))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Forks into new namespaces (`CLONE_NEW*` of `clone(2)`; 0 is a plain fork without glibc's fork handlers).
///
/// Only for a process with one thread: the child then has every lock free and may run any code.
pub fn clone_into(namespaces: libc::c_int) -> io::Result<Side> {
    let flags = libc::c_long::from(namespaces) | libc::c_long::from(libc::SIGCHLD);
    // SAFETY: a null stack means the child runs on a copy of this one, as after fork; no memory is shared, and the
    // launcher has one thread, so nothing in the copy is locked or half changed.
    side(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })
}

/// Forks. Only for a process with one thread, as [`clone_into`].
pub fn fork() -> io::Result<Side> {
    // SAFETY: one thread, so the child's copy of the heap is consistent.
    side(libc::c_long::from(unsafe { libc::fork() }))
}

/// Ends this process at once: no destructors, no exit handlers of the parent's copy.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Replaces this process; returns only the reason why it could not.
pub fn execute(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    }
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer, and the strings they point to outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Highest signal number of Linux, and the bytes of a set of them.
const SIGNAL_MAX: libc::c_int = 64;
const SIGNAL_SET_BYTES: usize = 8;

/// Ignores a signal.
pub fn ignore(signal: libc::c_int) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives every signal its default disposition and unblocks all: neither is reset by `execve`.
pub fn reset_signals() {
    // Past glibc, which refuses the two signals it keeps for itself (32 and 33): they are inherited like any other.
    // Zero is SIG_DFL with no flags, no restorer and an empty mask on every architecture.
    let default = [0_u64; 4];
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: the kernel reads one sigaction, at most 32 bytes long, and runs no code of ours; KILL and STOP are refused
        // and need no setting.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGNAL_SET_BYTES,
            );
        }
    }
    // SAFETY: the set is initialized by sigemptyset before it is read.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// A descriptor that becomes readable when a child changes state. Blocks SIGCHLD, which it replaces.
pub fn child_events() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialized by sigemptyset before it is read; signalfd returns a new descriptor that
    // nobody else owns, or -1.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut children = std::mem::zeroed();
        libc::sigemptyset(&raw mut children);
        libc::sigaddset(&raw mut children, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const children, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &raw const children, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

/// Signals every process this one may signal, but for itself. Only for pid 1 of a pid namespace.
pub fn signal_namespace(signal: libc::c_int) {
    assert_eq!(std::process::id(), 1, "BUG: signalling everybody from outside a pid namespace");
    // SAFETY: `kill` touches no memory; the assertion above confines it to the namespace.
    unsafe { libc::kill(-1, signal) };
}

/// Marks every descriptor from `first` upwards to be closed by `execve`.
pub fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: changes flags only; no descriptor is closed while something here owns it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Of `mount_setattr(2)`; the same on every architecture.
const AT_RECURSIVE: libc::c_int = 0x8000;

/// Mount attributes, as in `mount_setattr(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes(u64);

impl Attributes {
    /// None.
    pub const NONE: Self = Self(0);
    /// Nothing can be written.
    pub const READ_ONLY: Self = Self(0x1);
    /// Nothing can be written, and set-user-id bits mean nothing.
    pub const READ_ONLY_NO_SETUID: Self = Self(0x1 | 0x2);
}

/// How far a mount change reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// This mount.
    One,
    /// And every mount beneath.
    Recursive,
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets and clears attributes of the mount at `path`. Attributes that are locked by the host stay as they are.
pub fn change_mount(path: &CStr, reach: Reach, set: Attributes, clear: Attributes) -> io::Result<()> {
    let flags = match reach {
        Reach::One => 0,
        Reach::Recursive => AT_RECURSIVE,
    };
    let attributes = MountAttr { set: set.0, clear: clear.0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is terminated, and the structure has the layout and size that are passed (version 0).
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings the loopback interface of this network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain data for which zero is valid; the name is shorter than the field and stays terminated;
    // the ioctl reads one `ifreq` and the descriptor is open.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
            *slot = byte.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a process may not even ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// Rings of `io_uring(7)`, whose operations no filter sees.
    Rings,
    /// Those, and sockets of every family; pairs of connected ones stay possible.
    SocketsAndRings,
}

#[cfg(target_arch = "x86_64")]
const NATIVE_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCHITECTURE: u32 = 0xc000_00b7;

/// Where `struct seccomp_data` has the system call's number and the architecture.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
/// On x86-64, numbers from here on are those of the x32 interface.
const X32_BIT: u32 = 0x4000_0000;

/// Refuses system calls for this process and whatever it starts, for good. It must have no new privileges.
///
/// Calls of another architecture's interface are refused as unknown: their numbers mean something else.
pub fn deny(denied: Denied) -> io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_K | code) as u16,
        jt,
        jf,
        k,
    };
    let load = |at: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    let answer = |value: u32| statement(libc::BPF_RET | libc::BPF_K, value);
    let refuse = |errno: libc::c_int| answer(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned());
    let mut filter = vec![
        load(ARCHITECTURE_AT),
        jump(libc::BPF_JEQ, NATIVE_ARCHITECTURE, 1, 0),
        refuse(libc::ENOSYS),
        load(NUMBER_AT),
        jump(libc::BPF_JGE, X32_BIT, 0, 1),
        refuse(libc::ENOSYS),
    ];
    let mut refused = vec![
        (libc::SYS_io_uring_setup, libc::ENOSYS),
        (libc::SYS_io_uring_enter, libc::ENOSYS),
        (libc::SYS_io_uring_register, libc::ENOSYS),
    ];
    if denied == Denied::SocketsAndRings {
        refused.push((libc::SYS_socket, libc::EACCES));
    }
    for (number, errno) in refused {
        filter.push(jump(libc::BPF_JEQ, number as u32, 0, 1));
        filter.push(refuse(errno));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to `len` instructions that outlive the call; the kernel copies and checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
