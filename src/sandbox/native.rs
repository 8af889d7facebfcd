//! What the C library and the kernel tell this process of its locale, its time and its addresses. For a canary; decides nothing.
#![expect(unsafe_code, reason = "locales, time zones and personality have no safe wrapper")]

use std::ffi::CStr;
use std::io;

/// Flags of `personality(2)`.
const ADDR_NO_RANDOMIZE: libc::c_ulong = 0x004_0000;
const UNAME26: libc::c_ulong = 0x002_0000;
const UNCHANGED: libc::c_ulong = 0xffff_ffff;

/// Sets how this process, and what it executes, is treated: whether addresses are the same each time, and the kernel tells an old release.
pub fn set_personality(fixed_addresses: bool, old_kernel: bool) -> io::Result<()> {
    if !fixed_addresses && !old_kernel {
        return Ok(());
    }
    let mut flags = personality(UNCHANGED)?;
    for (is_set, flag) in [(fixed_addresses, ADDR_NO_RANDOMIZE), (old_kernel, UNAME26)] {
        flags |= if is_set { flag } else { 0 };
    }
    personality(flags).map(drop)
}

/// Whether addresses are the same each time.
pub fn has_fixed_addresses() -> bool {
    personality(UNCHANGED).is_ok_and(|flags| flags & ADDR_NO_RANDOMIZE != 0)
}

fn personality(flags: libc::c_ulong) -> io::Result<libc::c_ulong> {
    // SAFETY: the argument is a number; no memory is touched.
    let before = unsafe { libc::personality(flags) };
    libc::c_ulong::try_from(before).map_err(|_| io::Error::last_os_error())
}

/// The time of day, in nanoseconds since 1970.
pub fn nanoseconds() -> i128 {
    // SAFETY: plain data for which zero is valid, written by the call.
    unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
        i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
    }
}

/// Seconds that local time is ahead of UTC, as the C library finds it.
pub fn zone_offset() -> i64 {
    // A fixed moment: summer time and another clock make no difference.
    let moment: libc::time_t = 0;
    // SAFETY: one thread; both structures live for the call, and zero is valid for the one that is written.
    unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        libc::localtime_r(&raw const moment, &raw mut local);
        local.tm_gmtoff
    }
}

/// What the locale of the environment makes of characters, a month and an order; `None` if the C library cannot set it.
pub fn locale() -> Option<(String, String, bool)> {
    // SAFETY: one thread; the strings are terminated, and what is returned is copied before the next call.
    unsafe {
        if libc::setlocale(libc::LC_ALL, c"".as_ptr()).is_null() {
            return None;
        }
        let told = |item| CStr::from_ptr(libc::nl_langinfo(item)).to_string_lossy().into_owned();
        let sorts_by_letter = libc::strcoll(c"a".as_ptr(), c"B".as_ptr()) < 0;
        Some((told(libc::CODESET), told(libc::MON_5), sorts_by_letter))
    }
}
