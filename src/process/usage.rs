//! What finished children used. Knows no limits and takes no measures.
#![expect(unsafe_code, reason = "getrusage has no safe wrapper")]

/// What a command and everything it started used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// User and system time, in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident set of one process, in KiB. Never less than the few MiB of the process that started it.
    pub max_rss_kib: u64,
}

/// The sum over all children this process has waited for, and over those they have waited for.
pub fn of_children() -> Usage {
    // SAFETY: `rusage` is plain data for which zero is valid; getrusage fills it, and cannot fail with this argument.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let us = |time: libc::timeval| time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_usec.unsigned_abs();
    Usage {
        cpu_ms: (us(usage.ru_utime) + us(usage.ru_stime)).div_ceil(1000),
        max_rss_kib: usage.ru_maxrss.unsigned_abs(),
    }
}
