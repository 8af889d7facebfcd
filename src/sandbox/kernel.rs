//! The system calls that neither std nor rustix offers safely. All of the sandbox's `unsafe` but for that of `ptrace`; decides nothing.
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

/// Bytes of stack for whoever runs on this process's memory: only what is touched takes any.
const BORROWED_STACK_BYTES: usize = 256 * 1024;

/// Starts a process that runs `child` on this one's memory, and waits until it executes a program or ends: nothing is copied of what
/// is about to be replaced. What the child opens, closes, ignores and limits is its own; what it writes and allocates is here too.
///
/// Only for a process with one thread. `child` must not wait for this process, which does not run meanwhile, nor end by a panic.
pub fn fork_to_execute(child: &dyn Fn()) -> io::Result<Pid> {
    extern "C" fn enter(argument: *mut libc::c_void) -> libc::c_int {
        // SAFETY: it is the pointer given below, to a reference that lives there until this process has its own memory or is gone.
        let child: &&dyn Fn() = unsafe { &*argument.cast() };
        child();
        exit_now(127)
    }
    let mut stack: Vec<u8> = Vec::with_capacity(BORROWED_STACK_BYTES);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is the child's alone, grows down from an address that is 16-byte aligned (glibc aligns it) and within the
    // allocation, and both it and `child` stay until this process goes on. With CLONE_VFORK that is when the child no longer uses the
    // memory, so nobody changes it at the same time. No panic crosses `enter`: an `extern "C"` function aborts instead.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(BORROWED_STACK_BYTES).map_addr(|address| address & !15);
        libc::clone(enter, top.cast(), flags, (&raw const child).cast_mut().cast())
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid).expect("the kernel returns a positive pid_t here"))
}

/// Has this process and its children see the control groups they are in as the roots of all there are.
pub fn own_cgroup_namespace() -> io::Result<()> {
    unshare(libc::CLONE_NEWCGROUP)
}

/// Moves this process into a user namespace of its own, and into a net namespace that belongs to that. It must have one thread.
pub fn own_user_and_network() -> io::Result<()> {
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)
}

/// Moves this process into a net namespace of its own.
pub fn own_network() -> io::Result<()> {
    unshare(libc::CLONE_NEWNET)
}

fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: touches no memory, no descriptors and no file system of this process.
    if unsafe { libc::unshare(namespaces) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
    self::filter(&filter)
}

/// Puts a filter on this process and whatever it starts, for good. It must have no new privileges.
pub fn filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program points to `len` instructions that outlive the call; the kernel copies and checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A system call that waits for leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Names the question.
    pub id: u64,
    /// The thread, as this process sees it; 0 if it does not.
    pub thread: i32,
    /// The call's number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Puts a filter on this process and its descendants; gives the descriptor on which their calls are asked about.
///
/// Signals do not interrupt a call that is being looked at, where the kernel can do that (Linux 5.19).
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    for flags in [listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, listener] {
        // SAFETY: the kernel reads the program, whose length is right, and returns a new descriptor or -1.
        let descriptor =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
        if let Ok(descriptor @ 0..) = i32::try_from(descriptor) {
            // SAFETY: the kernel has just made it, close-on-exec, and nobody else has it.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            break;
        }
    }
    Err(io::Error::last_os_error())
}

/// The bytes of an anonymous file, for as long as this process lives. Nobody may change them any more.
pub fn map_for_good(file: &OwnedFd) -> io::Result<&'static [u8]> {
    let length = usize::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    if length == 0 {
        return Ok(&[]);
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_POPULATE;
    // SAFETY: the kernel chooses an address where nothing is. The mapping stays until the process ends, and is as long as the file,
    // which who made it neither shortens nor writes to again: it is sent once it is whole.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, flags, file.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(std::slice::from_raw_parts(at.cast(), length))
    }
}

/// Has whoever asks run on this processor at once, and us again when it goes on: half the cost. Older kernels do not know it.
pub fn answer_on_one_processor(listener: &OwnedFd) {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the argument is a number, no memory is touched.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
}

/// What came of waiting for a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// There is one.
    Asked(Asked),
    /// There was one, and whoever asked no longer does: it was killed, or a signal ended its call.
    Withdrawn,
    /// A signal of our own came first.
    Interrupted,
}

/// Takes the next question; waits for it if there is none.
pub fn next_asked(listener: &OwnedFd) -> io::Result<Next> {
    // Zero is required, and a kernel that writes more than this knows that we know less.
    // SAFETY: plain data for which zero is valid.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `seccomp_notif`; the request number holds its size.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(Next::Withdrawn),
            Some(libc::EINTR) => Ok(Next::Interrupted),
            _ => Err(error),
        };
    }
    Ok(Next::Asked(Asked {
        id: asked.id,
        thread: asked.pid.cast_signed(),
        number: asked.data.nr.into(),
        arguments: asked.data.args,
    }))
}

/// Has every wait of this process that a signal can interrupt end soon, and again until [`stop_interrupting`].
pub fn interrupt_every(interval: std::time::Duration) -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let interval = libc::timeval { tv_sec: 0, tv_usec: interval.subsec_micros().into() };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the handler does nothing; without SA_RESTART it ends what waits. Both structures are plain data, live for the calls.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends [`interrupt_every`].
pub fn stop_interrupting() {
    // SAFETY: zero is a timer that is off; plain data.
    unsafe {
        let off: libc::itimerval = std::mem::zeroed();
        libc::setitimer(libc::ITIMER_REAL, &raw const off, std::ptr::null_mut());
        libc::signal(libc::SIGALRM, libc::SIG_IGN);
    }
}

/// Lets go of every descriptor and waits to be killed.
pub fn idle() -> ! {
    loop {
        // SAFETY: nothing of this process is used any more; pause has no preconditions.
        unsafe {
            libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
            libc::pause();
        }
    }
}

/// Waits for a child of this process to end.
pub fn wait_for(pid: Pid) {
    // SAFETY: a null status is not written.
    while unsafe { libc::waitpid(pid.as_raw_nonzero().get(), std::ptr::null_mut(), 0) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// Whether the thread still waits for the answer: what was read from it until now was its own.
pub fn still_asks(listener: &OwnedFd, asked: &Asked) -> bool {
    loop {
        // SAFETY: the kernel reads one `u64`.
        let result =
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const asked.id) };
        if result == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return result == 0;
        }
    }
}

/// Lets the call go on as if nobody had asked. Whoever has ended meanwhile needs no answer.
pub fn let_go_on(listener: &OwnedFd, asked: &Asked) {
    // SAFETY: plain data for which zero is valid; the kernel reads one `seccomp_notif_resp`.
    unsafe {
        let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
        answer.id = asked.id;
        answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
    }
}

/// Reads memory of another process; gives how much, which is less where a page is missing.
pub fn read_memory(thread: i32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let ours = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let Ok(address) = usize::try_from(address) else { return Err(io::Error::from_raw_os_error(libc::EFAULT)) };
    let theirs = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: into.len() };
    // SAFETY: ours is a live buffer of that length; theirs is checked by the kernel in the other process.
    let count = unsafe { libc::process_vm_readv(thread, &raw const ours, 1, &raw const theirs, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rustix::process::{Resource, Rlimit, WaitOptions};

    use super::*;

    #[test]
    fn what_runs_on_this_memory_writes_here_and_limits_only_itself() {
        let before = rustix::process::getrlimit(Resource::Core);
        let (written, is_here) = (Cell::new(0), Cell::new(true));
        let own = std::process::id();
        let pid = fork_to_execute(&|| {
            written.set(7);
            is_here.set(std::process::id() == own);
            let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        });
        let pid = pid.expect("it starts");
        assert_eq!((written.get(), is_here.get()), (7, false), "it has run before this process went on");
        let (_, status) =
            rustix::process::waitpid(Some(pid), WaitOptions::empty()).expect("a child").expect("it has ended");
        assert_eq!(status.exit_status(), Some(127), "a program that was not executed is not found");
        assert_eq!(rustix::process::getrlimit(Resource::Core), before);
    }
}
