//! What the kernel's overlay says in its upper directory, where it is mounted without privilege. Knows no layers.
//!
//! The format is the kernel's (`Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories", `userxattr`): something
//! removed is a character device 0/0; a directory that hides what lies below has `user.overlay.opaque` = `y`. With `userxattr` the
//! kernel neither redirects directories nor keeps content apart from metadata, so nothing else need be read.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::fs::ops::{self, FsError};

const OPAQUE: &str = "user.overlay.opaque";

/// Set and removed again to see whether it can be.
const TRIAL: &str = "user.drystone.trial";

/// Whether this stands for something removed.
pub fn is_whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// Whether a directory hides what lies below it. Links are not followed.
pub fn is_opaque(dir: &Path) -> Result<bool, FsError> {
    let mut value = [0_u8; 8];
    match rustix::fs::lgetxattr(dir, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(FsError::new("read the marks of", dir, error.into())),
    }
}

/// Whether directories there can be marked at all: where they cannot, an overlay is mounted all the same and fails later.
pub fn can_be_marked(dir: &Path) -> bool {
    let mark = || Ok(rustix::fs::lsetxattr(dir, TRIAL, b"y", XattrFlags::empty())?);
    let unmark = || Ok(rustix::fs::lremovexattr(dir, TRIAL)?);
    ops::change("mark", dir, mark).and_then(|()| ops::change("unmark", dir, unmark)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_overlay_would_mark_is_told_from_what_lies_there() {
        let scene = tempfile::tempdir().expect("a temporary directory");
        let (dir, file) = (scene.path().join("dir"), scene.path().join("file"));
        ops::create_dir(&dir).expect("made");
        ops::write(&file, b"").expect("written");
        assert!(!is_whiteout(&ops::symlink_metadata(&file).expect("there")));
        assert!(!is_whiteout(&ops::symlink_metadata(Path::new("/dev/null")).expect("there")));
        assert!(!is_opaque(&dir).expect("readable"));
        assert!(is_opaque(&scene.path().join("nothing")).is_err());
        if can_be_marked(&dir) {
            rustix::fs::lsetxattr(&dir, OPAQUE, b"y", XattrFlags::empty()).expect("it can be marked");
            assert!(is_opaque(&dir).expect("readable"));
            rustix::fs::lsetxattr(&dir, OPAQUE, b"n", XattrFlags::empty()).expect("it can be marked");
            assert!(!is_opaque(&dir).expect("readable"));
        }
        let whiteout = scene.path().join("gone");
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            &whiteout,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        );
        if made.is_ok() {
            assert!(is_whiteout(&ops::symlink_metadata(&whiteout).expect("there")));
        }
    }
}
