//! The system call filter of an observed command, as a program for the kernel. Which calls matter is `calls`' to say.

use libc::sock_filter;

use crate::sandbox::trace::calls;

/// `AUDIT_ARCH_*` of this architecture (`linux/audit.h`).
#[cfg(target_arch = "x86_64")]
pub const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub const ARCHITECTURE: u32 = 0xc000_00b7;
/// None has this: every call fails, and the caller does not get so far (see [`is_supported`]).
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const ARCHITECTURE: u32 = 0;

/// Numbers from here up are those of x32 programs, which no table has.
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`; arguments are 64 bits wide, of which the lower half comes first.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;
const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Whether the calls of this architecture are known.
pub const fn is_supported() -> bool {
    ARCHITECTURE != 0
}

/// The program: what is denied or foreign does not exist, what is observed is asked about, the rest passes.
pub fn program() -> Vec<sock_filter> {
    let observed = calls::all().flat_map(|call| match call.number {
        libc::SYS_seccomp => new_listener(),
        number => if_equal(number, NOTIFY).to_vec(),
    });
    program_of(&calls::DENIED, observed)
}

/// A program in which calls that are denied, or another architecture's, do not exist, some get these verdicts, and the rest passes.
pub fn program_of(denied: &[i64], verdicts: impl IntoIterator<Item = sock_filter>) -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE_AT)];
    program.extend(unless_equal(ARCHITECTURE, NO_SUCH_CALL));
    program.push(load(NUMBER_AT));
    if cfg!(target_arch = "x86_64") {
        program.extend([jump(libc::BPF_JGE, X32_BIT, 0, 1), give(NO_SUCH_CALL)]);
    }
    program.extend(denied.iter().flat_map(|number| if_equal(*number, NO_SUCH_CALL)));
    program.extend(verdicts);
    program.push(give(ALLOW));
    program
}

/// A program in which some calls get these verdicts, and the rest passes, another architecture's too.
pub fn passing_program(verdicts: impl IntoIterator<Item = sock_filter>) -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE_AT)];
    program.extend(unless_equal(ARCHITECTURE, ALLOW));
    program.push(load(NUMBER_AT));
    program.extend(verdicts);
    program.push(give(ALLOW));
    program
}

/// A verdict on one call where the lower half of an argument is one of these; else it passes.
pub fn if_argument(number: i64, argument: usize, values: &[u32], verdict: u32) -> Vec<sock_filter> {
    let compared = values.iter().flat_map(|value| [jump(libc::BPF_JEQ, *value, 0, 1), give(verdict)]);
    let mut steps = vec![load(ARGUMENTS_AT + 8 * argument as u32)];
    steps.extend(compared);
    steps.push(give(ALLOW));
    let beyond = u8::try_from(steps.len()).expect("a handful of values");
    steps.insert(0, jump(libc::BPF_JEQ, number as u32, 0, beyond));
    steps
}

/// Of `seccomp` only what asks for a listener of its own matters: there can be one, and it is ours.
fn new_listener() -> Vec<sock_filter> {
    let flag = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    if_set(libc::SYS_seccomp, 1, flag, NOTIFY).to_vec()
}

/// A verdict on one call where bits of an argument are set; else it passes.
pub fn if_set(number: i64, argument: usize, bits: u32, verdict: u32) -> [sock_filter; 5] {
    [
        jump(libc::BPF_JEQ, number as u32, 0, 4),
        load(ARGUMENTS_AT + 8 * argument as u32),
        jump(libc::BPF_JSET, bits, 0, 1),
        give(verdict),
        give(ALLOW),
    ]
}

/// A verdict on one call.
pub fn if_equal(number: i64, verdict: u32) -> [sock_filter; 2] {
    [jump(libc::BPF_JEQ, number as u32, 0, 1), give(verdict)]
}

fn unless_equal(value: u32, verdict: u32) -> [sock_filter; 2] {
    [jump(libc::BPF_JEQ, value, 1, 0), give(verdict)]
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

fn jump(test: u32, value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt, jf, k: value }
}

fn give(verdict: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: verdict }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn verdict(architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = number.to_le_bytes().to_vec();
        data.extend(architecture.to_le_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let (program, mut at, mut held) = (program(), 0, 0);
        loop {
            let step = program[at];
            at += 1;
            let (code, value) = (u32::from(step.code), step.k);
            let taken = match code & 0xf0 {
                _ if code & 0x07 == libc::BPF_RET => return value,
                _ if code & 0x07 == libc::BPF_LD => {
                    let offset = value as usize;
                    held = u32::from_le_bytes(data[offset..offset + 4].try_into().expect("four bytes"));
                    continue;
                }
                test if test == libc::BPF_JEQ => held == value,
                test if test == libc::BPF_JGE => held >= value,
                test if test == libc::BPF_JSET => held & value != 0,
                other => panic!("{other:x} is not a test"),
            };
            at += usize::from(if taken { step.jt } else { step.jf });
        }
    }

    #[test]
    fn the_filter_asks_about_what_touches_paths_and_nothing_else() {
        let check = |number: i64, arguments: [u64; 6], expect: u32| {
            assert_eq!(verdict(ARCHITECTURE, number as u32, arguments), expect, "{number} {arguments:?}");
        };
        for call in calls::all().filter(|call| call.number != libc::SYS_seccomp) {
            check(call.number, [0; 6], NOTIFY);
        }
        for number in calls::DENIED {
            check(number, [0; 6], NO_SUCH_CALL);
        }
        check(libc::SYS_read, [0; 6], ALLOW);
        check(libc::SYS_seccomp, [1, 0, 0, 0, 0, 0], ALLOW);
        check(libc::SYS_seccomp, [1, 8, 0, 0, 0, 0], NOTIFY);
        check(libc::SYS_seccomp, [1, 1 | 8, 0, 0, 0, 0], NOTIFY);
        assert_eq!(verdict(0x4000_0003, 5, [0; 6]), NO_SUCH_CALL, "a 32-bit program");
        assert!(program().len() < 4096);
    }
}
