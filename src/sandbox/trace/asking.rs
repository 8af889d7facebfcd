//! What `/proc` and its arguments tell of a thread that asks. Follows no path.

use std::path::Path;

use crate::fs::ops;
use crate::sandbox::kernel::Asked;

/// Where `/proc` has the directory, or file, that an argument of the thread's call stands for.
pub fn opened_at(asked: &Asked, argument: Option<usize>) -> String {
    // Descriptors are 32 bits wide; what stands above them means nothing.
    let descriptor = argument.map(|argument| asked.arguments[argument] as i32);
    match descriptor.filter(|descriptor| *descriptor != libc::AT_FDCWD) {
        Some(descriptor) => format!("/proc/{}/fd/{descriptor}", asked.thread),
        None => format!("/proc/{}/cwd", asked.thread),
    }
}

/// Whether the thread may use the memory at an address: then the kernel reads it for the thread, whether we can or not.
pub fn is_mapped(thread: i32, address: u64) -> bool {
    let maps = ops::read(Path::new(&format!("/proc/{thread}/maps"))).unwrap_or_default();
    maps.split(|byte| *byte == b'\n').any(|line| {
        let mut words = line.split(|byte| *byte == b' ').map(String::from_utf8_lossy);
        let (range, rights) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let bound = |text: &str| u64::from_str_radix(text, 16).ok();
        let within = range.split_once('-').is_some_and(|(start, end)| {
            bound(start).is_some_and(|start| start <= address) && bound(end).is_some_and(|end| address < end)
        });
        within && !rights.starts_with("---")
    })
}

/// The process of a thread: its number is that of its first thread.
pub fn process_of(thread: i32) -> i32 {
    let status = ops::read_text(Path::new(&format!("/proc/{thread}/status"))).unwrap_or_default();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    process.and_then(|process| process.trim().parse().ok()).unwrap_or(thread)
}

/// The path in the address of a local socket.
pub fn path_in_address(address: &[u8]) -> Option<&[u8]> {
    let (family, path) = address.split_at_checked(size_of::<libc::sa_family_t>())?;
    let is_local = *family == (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes();
    // A name that begins with a zero is in no directory.
    path.split(|byte| *byte == 0).next().filter(|path| is_local && !path.is_empty())
}
