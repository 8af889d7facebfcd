//! Another time of day for a command: ahead by so much, or standing still. Knows nothing of files, and leaves monotonic clocks alone.
//!
//! Libraries ask the kernel without entering it, through code that it maps into every program (`vdso(7)`). So at each `execve` the entry
//! of the auxiliary vector that leads there is blanked, before the program's first instruction: whoever wants the time makes a system call
//! then. At those the program is stopped, and what the kernel has written is changed behind the call. Waits until a time of day are
//! translated back before the call.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use libc::sock_filter;
use rustix::process::Pid;

use crate::sandbox::kernel;
use crate::sandbox::ptrace::{self, Stop};
use crate::sandbox::trace::filter;
use crate::sandbox::wire::{Failure, plain};

/// The step that fails where the machine does not let the command be watched.
pub const CLOCK_STEP: &str = "giving it another clock (ptrace, seccomp)";

const NANOSECONDS: i128 = 1_000_000_000;

/// Clocks that tell the time of day.
const CLOCKS: [i32; 4] =
    [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_REALTIME_ALARM, libc::CLOCK_TAI];

/// `FUTEX_CLOCK_REALTIME` and `TIMER_ABSTIME`: flags of calls that wait until a time of day.
const FUTEX_CLOCK_REALTIME: u32 = 256;
const TIMER_ABSTIME: u32 = 1;

/// The full hour before a time: commands that begin a little apart find the same one.
const fn full_hour(time: i128) -> i128 {
    time - time.rem_euclid(3600 * NANOSECONDS)
}

/// Bytes below the stack pointer that may be in use (the red zone of x86-64), and as many as a time takes, aligned.
const BELOW_STACK: u64 = 128 + 64;

/// Entries of the auxiliary vector: its end, one that nobody reads, and where the kernel's code is.
const AT_NULL: u64 = 0;
const AT_IGNORE: u64 = 1;
const AT_SYSINFO_EHDR: u64 = 33;

/// More words than arguments, environment and auxiliary vector of any program begin with: those of two million strings.
const STACK_WORDS_MAX: u64 = 1 << 21;

/// The program for the kernel: whoever is under it stops where it asks for the time of day. Calls of other architectures pass.
fn program() -> Vec<sock_filter> {
    let trace = libc::SECCOMP_RET_TRACE;
    let mut stops = filter::if_argument(libc::SYS_clock_gettime, 0, &CLOCKS.map(i32::cast_unsigned), trace);
    stops.extend(filter::if_equal(libc::SYS_gettimeofday, trace));
    #[cfg(target_arch = "x86_64")]
    stops.extend(filter::if_equal(libc::SYS_time, trace));
    stops.extend(filter::if_set(libc::SYS_futex, 1, FUTEX_CLOCK_REALTIME, trace));
    stops.extend(filter::if_set(libc::SYS_clock_nanosleep, 1, TIMER_ABSTIME, trace));
    filter::passing_program(stops)
}

/// Puts this process, which is about to become the command, under the filter. Somebody must be watching over it.
pub fn submit() -> io::Result<()> {
    if !filter::is_supported() {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    kernel::filter(&program())
}

/// What the clock of a command tells, and where its threads are.
#[derive(Debug)]
pub struct Clock {
    ahead: i128,
    /// Where it stands, if it does.
    stands_at: Option<i128>,
    begun: HashMap<i32, Begun>,
}

/// A call that a thread is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begun {
    /// It writes seconds and nanoseconds, or microseconds, to an address.
    Writes { address: u64, units: i128 },
    /// It gives seconds, and writes them to an address unless that is 0.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "newer architectures have no such call"))]
    Gives { address: u64 },
    /// It waits until a time, whose address at this argument was another.
    Waits { at: usize, address: u64 },
}

impl Clock {
    /// Watches over a child that was not yet executed.
    pub fn new(child: Pid, ahead: Duration, stands: bool) -> Result<Self, Failure> {
        ptrace::seize_with_execs(child).map_err(|error| Failure::said(CLOCK_STEP, plain(&error)))?;
        let ahead = i128::try_from(ahead.as_nanos()).unwrap_or(0);
        Ok(Self { ahead, stands_at: stands.then(|| full_hour(now() + ahead)), begun: HashMap::new() })
    }

    /// Does what is to be done at a stop, and lets the thread go on.
    pub fn stopped(&mut self, thread: Pid, stop: Stop) {
        match stop {
            Stop::AtCall => match self.begins(thread) {
                Some(begun) => {
                    self.begun.insert(thread.as_raw_pid(), begun);
                    ptrace::go_on_through_call(thread);
                }
                None => ptrace::go_on(thread, 0),
            },
            Stop::AfterCall => {
                // Who was killed in the middle of a call has nothing of it.
                if let Some(begun) = self.begun.remove(&thread.as_raw_pid()) {
                    drop(self.ends(thread, begun));
                }
                ptrace::go_on(thread, 0);
            }
            Stop::AtExec => {
                self.begun.remove(&thread.as_raw_pid());
                // A program whose stack cannot be read was killed meanwhile.
                drop(hide_kernel_code(thread));
                ptrace::go_on(thread, 0);
            }
            Stop::AtSignal(signal) => ptrace::go_on(thread, signal),
            Stop::Held => ptrace::leave_stopped(thread),
            Stop::Else => ptrace::go_on(thread, 0),
        }
    }

    /// Forgets a thread that is no more.
    pub fn ended(&mut self, thread: Pid) {
        self.begun.remove(&thread.as_raw_pid());
    }

    fn begins(&self, thread: Pid) -> Option<Begun> {
        let (number, arguments) = ptrace::call(thread).ok()?;
        match number {
            libc::SYS_clock_gettime => Some(Begun::Writes { address: arguments[1], units: NANOSECONDS }),
            libc::SYS_gettimeofday if arguments[0] != 0 => {
                Some(Begun::Writes { address: arguments[0], units: 1_000_000 })
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_time => Some(Begun::Gives { address: arguments[0] }),
            libc::SYS_futex => self.waits(thread, 3, arguments[3]),
            libc::SYS_clock_nanosleep if CLOCKS.contains(&(arguments[0] as i32)) => self.waits(thread, 2, arguments[2]),
            _ => None,
        }
    }

    /// Has a call wait until the time of the machine that is meant, which is written where the thread has nothing.
    fn waits(&self, thread: Pid, at: usize, address: u64) -> Option<Begun> {
        if address == 0 {
            return None;
        }
        let until = read_time(thread, address, NANOSECONDS).ok()?;
        let real = now();
        let until = (until - self.shown(real) + real).max(0);
        let place = ptrace::stack_pointer(thread).ok()?.wrapping_sub(BELOW_STACK) & !15;
        write_time(thread, place, until, NANOSECONDS).ok()?;
        ptrace::set_arguments(thread, &[(at, place)]).ok()?;
        Some(Begun::Waits { at, address })
    }

    fn ends(&self, thread: Pid, begun: Begun) -> io::Result<()> {
        let result = ptrace::result(thread)?;
        match begun {
            // The registers of arguments are the program's own again behind the call.
            Begun::Waits { at, address } => ptrace::set_arguments(thread, &[(at, address)]),
            Begun::Writes { address, units } if result == 0 => {
                let shown = self.shown(read_time(thread, address, units)?);
                write_time(thread, address, shown, units)
            }
            Begun::Gives { address } if result >= 0 => {
                let seconds = self.shown(i128::from(result) * NANOSECONDS) / NANOSECONDS;
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                ptrace::set_result(thread, seconds)?;
                if address == 0 { Ok(()) } else { ptrace::write_memory(thread, address, &seconds.to_ne_bytes()) }
            }
            Begun::Writes { .. } | Begun::Gives { .. } => Ok(()),
        }
    }

    /// What the command is told, in nanoseconds since 1970, when it is that time.
    fn shown(&self, real: i128) -> i128 {
        self.stands_at.unwrap_or(real + self.ahead)
    }
}

fn now() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    i128::from(now.tv_sec) * NANOSECONDS + i128::from(now.tv_nsec)
}

/// Reads seconds and so many parts of one, in nanoseconds.
fn read_time(thread: Pid, address: u64, units: i128) -> io::Result<i128> {
    let word = |at: u64| read_word(thread, address.wrapping_add(at)).map(|word| i128::from(word.cast_signed()));
    Ok(word(0)? * NANOSECONDS + word(8)? * (NANOSECONDS / units))
}

fn write_time(thread: Pid, address: u64, time: i128, units: i128) -> io::Result<()> {
    let part = |value: i128| i64::try_from(value).unwrap_or(i64::MAX).to_ne_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&part(time.div_euclid(NANOSECONDS)));
    bytes[8..].copy_from_slice(&part(time.rem_euclid(NANOSECONDS) / (NANOSECONDS / units)));
    ptrace::write_memory(thread, address, &bytes)
}

fn read_word(thread: Pid, address: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    match kernel::read_memory(thread.as_raw_pid(), address, &mut bytes)? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

/// Blanks the entry of a new program's auxiliary vector that leads to the kernel's code: on its stack lie the number of arguments, those,
/// a null, the environment, a null, and the vector, which ends with a null.
fn hide_kernel_code(thread: Pid) -> io::Result<()> {
    if !ptrace::is_native(thread)? {
        return Ok(());
    }
    let stack = ptrace::stack_pointer(thread)?;
    let word = |at: u64| read_word(thread, stack.wrapping_add(at * 8));
    let too_long = || io::Error::from_raw_os_error(libc::E2BIG);
    let mut at = word(0)?.checked_add(2).filter(|at| *at < STACK_WORDS_MAX).ok_or_else(too_long)?;
    while word(at)? != 0 {
        at += 1;
        if at >= STACK_WORDS_MAX {
            return Err(too_long());
        }
    }
    at += 1;
    loop {
        match word(at)? {
            AT_NULL => return Ok(()),
            AT_SYSINFO_EHDR => {
                return ptrace::write_memory(thread, stack.wrapping_add(at * 8), &AT_IGNORE.to_ne_bytes());
            }
            _ => at += 2,
        }
        if at >= STACK_WORDS_MAX {
            return Err(too_long());
        }
    }
}
