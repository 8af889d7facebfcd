//! Follows a path as the kernel will, link by link, and tells which places in the workspace it leads through.
//!
//! The supervisor is in the command's own mount namespace, so what it finds is what the command finds, unless the command changes it
//! at that very moment: only its own files can change so, the inputs are read-only.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::base::path::RelPath;
use crate::fs::ops;
use crate::sandbox::spec::WORKSPACE_DIR;
use crate::sandbox::trace::asking::process_of;

/// Links followed in one path before the kernel gives up (`MAXSYMLINKS`).
pub(in crate::sandbox) const LINKS_MAX: usize = 40;

/// Where the paths of the system begin: read-only, the same for every task, and keyed by themselves.
const SYSTEM: [&[u8]; 7] = [b"/usr/", b"/lib/", b"/lib64/", b"/lib32/", b"/bin/", b"/sbin/", b"/etc/"];

/// Where a path led.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resolved {
    /// Links in the workspace that were followed.
    pub links: Vec<Vec<u8>>,
    /// Places in the workspace that had to be directories, since `..` led out of them again.
    pub left: Vec<Vec<u8>>,
    /// Where it ended; `None` if that is of no interest or nowhere.
    pub end: Option<End>,
}

/// The end of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Absolute and without links but for a last one that was not followed.
    pub place: Vec<u8>,
    /// Whether something is there.
    pub there: bool,
    /// Where `/proc` has it open, if it was reached by that: it may have no name any more, or never have had one.
    pub opened: Option<Vec<u8>>,
}

/// The last place of a path, and whether a link there is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last {
    /// It is.
    Follow,
    /// It stands for itself.
    Keep,
}

/// Whether a path means the system's files and cannot lead anywhere else.
pub fn is_of_system(path: &[u8]) -> bool {
    SYSTEM.iter().any(|dir| path.starts_with(dir)) && !path.split(|byte| *byte == b'/').any(|part| part == b"..")
}

/// The path below the workspace, as bytes.
pub fn in_workspace(place: &[u8]) -> Option<&[u8]> {
    match place.strip_prefix(WORKSPACE_DIR.as_bytes()) {
        Some(b"") => Some(b""),
        Some(rest) => rest.strip_prefix(b"/"),
        None => None,
    }
}

/// A place below the workspace as a path; `Err` if it is one that no path can be.
pub fn relative(place: &[u8]) -> Option<Result<RelPath, ()>> {
    in_workspace(place).map(|path| RelPath::parse_bytes(path).map_err(|_| ()))
}

/// Follows `path` from `base`, an absolute directory without links, on behalf of the thread `thread`.
pub fn resolve(base: &[u8], path: &[u8], last: Last, thread: i32) -> Resolved {
    let mut resolved = Resolved::default();
    let mut current = if path.starts_with(b"/") { Vec::new() } else { strip_root(base).to_vec() };
    // Parts still to go, the next one last.
    let mut parts = Vec::new();
    push_parts(&mut parts, path);
    let trailing_slash = path.ends_with(b"/") || path.ends_with(b"/.");
    let mut followed = 0;
    let mut opened = None;
    while let Some(part) = parts.pop() {
        opened = None;
        match part.as_slice() {
            b".." => {
                if in_workspace(&current).is_some() {
                    resolved.left.push(current.clone());
                }
                let end = current.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                current.truncate(end);
                continue;
            }
            // `/proc/self` is whoever asks: that is not us.
            b"self" if current == b"/proc" => {
                current.extend(format!("/{}", process_of(thread)).as_bytes());
                continue;
            }
            b"thread-self" if current == b"/proc" => {
                current.extend(format!("/{}/task/{thread}", process_of(thread)).as_bytes());
                continue;
            }
            _ => {}
        }
        let mut next = current.clone();
        next.push(b'/');
        next.extend(&part);
        let keep = parts.is_empty() && last == Last::Keep && !trailing_slash;
        let link = ops::read_link(Path::new(OsStr::from_bytes(&next)));
        match link {
            Ok(_) if keep => {
                resolved.end = Some(End { place: next, there: true, opened: None });
                return resolved;
            }
            Ok(target) => {
                followed += 1;
                if followed > LINKS_MAX {
                    return resolved;
                }
                if current.starts_with(b"/proc/") {
                    // The text is where it leads, if it leads to a path at all.
                    let Some(place) = place_behind(&next, target.as_os_str().as_bytes()) else { return resolved };
                    current = strip_root(&place).to_vec();
                    opened = Some(next);
                    continue;
                }
                if in_workspace(&next).is_some() {
                    resolved.links.push(next);
                }
                let target = target.as_os_str().as_bytes();
                if target.starts_with(b"/") {
                    current.clear();
                }
                push_parts(&mut parts, target);
            }
            // Not a link: something else is there.
            Err(error) if error.cause.raw_os_error() == Some(libc::EINVAL) => current = next,
            Err(error) if matches!(error.cause.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                // What was meant, where that can be told: it is not there, as little as what it lies in.
                if !parts.iter().any(|part| part == b"..") {
                    for part in parts.iter().rev() {
                        next.push(b'/');
                        next.extend(part);
                    }
                }
                resolved.end = Some(End { place: next, there: false, opened: None });
                return resolved;
            }
            // Too long, or too many links, for the kernel too.
            Err(error) if matches!(error.cause.raw_os_error(), Some(libc::ENAMETOOLONG | libc::ELOOP)) => {
                return resolved;
            }
            // There, for all that can be told.
            Err(_) => current = next,
        }
    }
    if current.is_empty() {
        current.push(b'/');
    }
    resolved.end = Some(End { place: current, there: true, opened });
    resolved
}

/// The place that a link of `/proc` to an open file or directory tells; `None` if that has no path.
///
/// Of what was removed, where it was: `..` leads out of it as before.
pub fn place_behind(link: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    if !text.starts_with(b"/") {
        return None;
    }
    let Some(former) = text.strip_suffix(b" (deleted)") else { return Some(text.to_vec()) };
    let path = |bytes| Path::new(OsStr::from_bytes(bytes));
    let meant = ops::metadata(path(link)).ok().map(|meta| (meta.dev(), meta.ino()));
    let named = ops::symlink_metadata(path(text)).ok().map(|meta| (meta.dev(), meta.ino()));
    let is_its_name = meant.is_some() && meant == named;
    Some(if is_its_name { text } else { former }.to_vec())
}

fn strip_root(place: &[u8]) -> &[u8] {
    if place == b"/" { b"" } else { place }
}

/// Puts the parts of a path on those still to go, the next one last.
pub(in crate::sandbox) fn push_parts(parts: &mut Vec<Vec<u8>>, path: &[u8]) {
    let new = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.extend(new.rev().map(<[u8]>::to_vec));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_kernel_takes_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = ops::canonical(dir.path()).expect("it is there");
        ops::create_dir_all(&root.join("a/b")).expect("it can be made");
        ops::write(&root.join("a/b/file"), b"").expect("it can be written");
        ops::symlink("../a/./b", &root.join("a/link")).expect("it can be made");
        ops::symlink("link/missing", &root.join("a/dangling")).expect("it can be made");
        ops::symlink("loop", &root.join("loop")).expect("it can be made");
        let root = root.as_os_str().as_bytes();
        let check = |path: &str, last: Last, expect: Option<(&str, bool)>| {
            let end = resolve(root, path.as_bytes(), last, 1).end;
            let expect = expect.map(|(path, there)| {
                let place = [root, b"/", path.as_bytes()].concat();
                End { place: place.strip_suffix(b"/").unwrap_or(&place).to_vec(), there, opened: None }
            });
            assert_eq!(end, expect, "{path}");
        };
        check("a/b/file", Last::Follow, Some(("a/b/file", true)));
        check("a//link/./file", Last::Keep, Some(("a/b/file", true)));
        check("a/link", Last::Follow, Some(("a/b", true)));
        check("a/link", Last::Keep, Some(("a/link", true)));
        check("a/link/", Last::Keep, Some(("a/b", true)));
        check("a/dangling", Last::Follow, Some(("a/b/missing", false)));
        check("a/dangling", Last::Keep, Some(("a/dangling", true)));
        check("x/y/z", Last::Follow, Some(("x/y/z", false)));
        check("x/../y", Last::Follow, Some(("x", false)));
        check("a/b/file/x", Last::Follow, Some(("a/b/file/x", false)));
        check("a/link/..", Last::Follow, Some(("a", true)));
        check("loop", Last::Follow, None);
        check(&"x".repeat(300), Last::Follow, None);
        check(".", Last::Follow, Some(("", true)));
        let relative = |path: &[u8]| String::from_utf8_lossy(&path[root.len()..]).into_owned();
        let end = resolve(root, b"a/b/../link/../../a/b/file/../x", Last::Follow, 1);
        // Nothing here is in the workspace.
        assert_eq!(end.left, Vec::<Vec<u8>>::new());
        assert_eq!(end.end.map(|end| relative(&end.place)), Some("/a/b/x".into()));
        let end = |path: &[u8]| resolve(b"/", path, Last::Follow, 1).end.map(|end| end.place);
        assert_eq!(end(b"../.."), Some(b"/".to_vec()));
    }

    #[test]
    fn what_is_of_the_system_and_what_is_of_the_workspace() {
        assert!(is_of_system(b"/usr/lib/x") && !is_of_system(b"/usr/../workspace/x") && !is_of_system(b"usr/x"));
        assert_eq!(in_workspace(b"/workspace"), Some(&b""[..]));
        assert_eq!(in_workspace(b"/workspace/a"), Some(&b"a"[..]));
        assert_eq!(in_workspace(b"/workspaces/a"), None);
    }
}
