//! Stopping other processes at their system calls (`ptrace(2)`), which neither std nor rustix offers. Decides nothing.
#![expect(unsafe_code, reason = "ptrace and waiting for what it stops have no safe wrapper")]

use std::io;

use rustix::process::Pid;

use crate::sandbox::trace::filter::ARCHITECTURE;

/// Where a thread stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Before a system call that its filter wants to be looked at (`SECCOMP_RET_TRACE`).
    AtCall,
    /// Behind one that was let go on with [`go_on_through_call`].
    AfterCall,
    /// Before a signal is delivered.
    AtSignal(i32),
    /// Stopped by a signal such as `SIGSTOP`, with all of its process.
    Held,
    /// Before the first instruction of a program that it has just executed; told to who watches with [`seize_with_execs`].
    AtExec,
    /// It is new, or goes on after a stop, or has started another.
    Else,
}

/// What became of a child, or of a thread that is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Became {
    /// It ended with this code.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// It stands, and goes on when it is told to.
    Stopped(Stop),
}

/// Options of whoever is watched: its children are as well, and all are killed should this process end.
const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_EXITKILL;

/// Watches a child from now on, and whatever it starts. It is not stopped.
pub fn seize(child: Pid) -> io::Result<()> {
    seize_with(child, OPTIONS)
}

/// The same; and it stops at each program that is executed.
pub fn seize_with_execs(child: Pid) -> io::Result<()> {
    seize_with(child, OPTIONS | libc::PTRACE_O_TRACEEXEC)
}

fn seize_with(child: Pid, options: libc::c_int) -> io::Result<()> {
    // SAFETY: address and data are numbers of this request; no memory is touched.
    done(unsafe { libc::ptrace(libc::PTRACE_SEIZE, child.as_raw_pid(), 0_usize, options as usize) })
}

/// Waits for nothing: tells what became of any child or watched thread, and takes note of an end. `None` if there is no news.
///
/// # Errors
/// `ECHILD` if nobody is left of whom there could be any.
pub fn next_news() -> io::Result<Option<(Pid, Became)>> {
    let mut status = 0;
    // Threads that are watched are no children, and are only told of with `__WALL`.
    // SAFETY: the status is written to a live integer.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid).map(|pid| (pid, became(status)))),
    }
}

/// The next stop of a child, its end left to [`next_news`]. `None` if it does not stand.
pub fn next_stop(child: Pid) -> Option<Stop> {
    let flags = libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
    // SAFETY: plain data for which zero is valid; the kernel writes one `siginfo_t`, of which the fields of a child are read.
    let status = unsafe {
        let mut told: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(libc::P_PID, child.as_raw_pid().cast_unsigned(), &raw mut told, flags) != 0
            || told.si_pid() == 0
        {
            return None;
        }
        told.si_status()
    };
    // Here the kernel gives what stands above the low byte in the status of `waitpid`.
    match became(status << 8 | 0x7f) {
        Became::Stopped(stop) => Some(stop),
        Became::Exited(_) | Became::Killed(_) => None,
    }
}

fn became(status: libc::c_int) -> Became {
    if libc::WIFEXITED(status) {
        return Became::Exited(libc::WEXITSTATUS(status));
    }
    if libc::WIFSIGNALED(status) {
        return Became::Killed(libc::WTERMSIG(status));
    }
    let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
    Became::Stopped(match (event, signal) {
        (libc::PTRACE_EVENT_SECCOMP, _) => Stop::AtCall,
        (libc::PTRACE_EVENT_EXEC, _) => Stop::AtExec,
        (libc::PTRACE_EVENT_STOP, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) => Stop::Held,
        (0, signal) if signal == libc::SIGTRAP | 0x80 => Stop::AfterCall,
        (0, signal) => Stop::AtSignal(signal),
        _ => Stop::Else,
    })
}

/// Lets a thread go on, with a signal to be delivered unless that is 0. Whoever was killed meanwhile need not.
pub fn go_on(thread: Pid, signal: i32) {
    // SAFETY: the data is the signal's number.
    let _ = unsafe { libc::ptrace(libc::PTRACE_CONT, thread.as_raw_pid(), 0_usize, signal as usize) };
}

/// The same to the end of the call that it stands before.
pub fn go_on_through_call(thread: Pid) {
    // SAFETY: the data is a signal's number, here of none.
    let _ = unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread.as_raw_pid(), 0_usize, 0_usize) };
}

/// Leaves a thread stopped, until `SIGCONT`.
pub fn leave_stopped(thread: Pid) {
    // SAFETY: no memory is touched.
    let _ = unsafe { libc::ptrace(libc::PTRACE_LISTEN, thread.as_raw_pid(), 0_usize, 0_usize) };
}

/// The system call that a thread stands before: its number and arguments.
pub fn call(thread: Pid) -> io::Result<(i64, [u64; 6])> {
    let told = call_info(thread)?;
    let arguments = std::array::from_fn(|at| told[4 + at]);
    Ok((told[3].cast_signed(), arguments))
}

/// What the call has given that a thread stands behind; an error is negative, as in the kernel.
pub fn result(thread: Pid) -> io::Result<i64> {
    Ok(call_info(thread)?[3].cast_signed())
}

/// Where the stack of a thread that stands ends.
pub fn stack_pointer(thread: Pid) -> io::Result<u64> {
    Ok(call_info(thread)?[2])
}

/// Whether a thread that stands runs a program of this architecture.
pub fn is_native(thread: Pid) -> io::Result<bool> {
    Ok((call_info(thread)?[0] >> 32) as u32 == ARCHITECTURE)
}

/// `PTRACE_GET_SYSCALL_INFO` (Linux 5.3): after three words of the thread's state, number and arguments, or the result.
fn call_info(thread: Pid) -> io::Result<[u64; 11]> {
    const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
    let mut told = [0_u64; 11];
    // SAFETY: the kernel writes at most as many bytes as it is told there are.
    done(unsafe { libc::ptrace(GET_SYSCALL_INFO as _, thread.as_raw_pid(), size_of_val(&told), told.as_mut_ptr()) })?;
    Ok(told)
}

/// How many registers a thread has, in which a call has its arguments, and its result (`user_regs_struct` of the architecture).
#[cfg(target_arch = "x86_64")]
const REGISTERS: (usize, [usize; 6], usize) = (27, [14, 13, 12, 7, 9, 8], 10);
#[cfg(target_arch = "aarch64")]
const REGISTERS: (usize, [usize; 6], usize) = (34, [0, 1, 2, 3, 4, 5], 0);
/// None is known; there is no filter either that would stop anybody.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const REGISTERS: (usize, [usize; 6], usize) = (64, [0; 6], 0);

/// Sets arguments of a call that a thread stands before; behind it, what the thread finds there afterwards.
pub fn set_arguments(thread: Pid, arguments: &[(usize, u64)]) -> io::Result<()> {
    set_registers(thread, arguments.iter().map(|(argument, value)| (REGISTERS.1[*argument], *value)))
}

/// Sets what the call has given that a thread stands behind.
pub fn set_result(thread: Pid, value: i64) -> io::Result<()> {
    set_registers(thread, [(REGISTERS.2, value.cast_unsigned())])
}

fn set_registers(thread: Pid, values: impl IntoIterator<Item = (usize, u64)>) -> io::Result<()> {
    const GENERAL: usize = 1;
    let mut registers = [0_u64; REGISTERS.0];
    let mut whole = libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of_val(&registers) };
    // SAFETY: the kernel writes no more than the length says.
    done(unsafe { libc::ptrace(libc::PTRACE_GETREGSET, thread.as_raw_pid(), GENERAL, &raw mut whole) })?;
    for (register, value) in values {
        registers[register] = value;
    }
    whole.iov_base = registers.as_mut_ptr().cast();
    // SAFETY: the length is what the kernel wrote, the structure and what it leads to live for the call.
    done(unsafe { libc::ptrace(libc::PTRACE_SETREGSET, thread.as_raw_pid(), GENERAL, &raw mut whole) })
}

/// Writes into the memory of a thread; what it may not write itself is an error.
pub fn write_memory(thread: Pid, address: u64, bytes: &[u8]) -> io::Result<()> {
    let ours = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let Ok(address) = usize::try_from(address) else { return Err(io::Error::from_raw_os_error(libc::EFAULT)) };
    let theirs = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: bytes.len() };
    // SAFETY: ours is only read, and of that length; theirs is checked by the kernel in the other process.
    let count = unsafe { libc::process_vm_writev(thread.as_raw_pid(), &raw const ours, 1, &raw const theirs, 1, 0) };
    match usize::try_from(count) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_where_a_thread_stands() {
        let stopped = |event: i32, signal: i32| event << 16 | signal << 8 | 0x7f;
        for (status, expect) in [
            (0x0300, Became::Exited(3)),
            (9, Became::Killed(9)),
            (stopped(7, libc::SIGTRAP), Became::Stopped(Stop::AtCall)),
            (stopped(0, libc::SIGTRAP | 0x80), Became::Stopped(Stop::AfterCall)),
            (stopped(0, libc::SIGTRAP), Became::Stopped(Stop::AtSignal(libc::SIGTRAP))),
            (stopped(0, libc::SIGSTOP), Became::Stopped(Stop::AtSignal(libc::SIGSTOP))),
            (stopped(128, libc::SIGSTOP), Became::Stopped(Stop::Held)),
            (stopped(128, libc::SIGTRAP), Became::Stopped(Stop::Else)),
            (stopped(1, libc::SIGTRAP), Became::Stopped(Stop::Else)),
            (stopped(4, libc::SIGTRAP), Became::Stopped(Stop::AtExec)),
        ] {
            assert_eq!(became(status), expect, "{status:x}");
        }
    }
}
