//! What makes builds differ: one row for each cause, with its name, what it is and the way out. Finds none itself.

/// A cause of differences.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cause {
    /// Its name, the same for ever: `timestamp.embedded`.
    pub id: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// The way out, in one sentence.
    pub remedy: &'static str,
}

/// Where nothing better is known.
pub static UNKNOWN: Cause = Cause {
    id: "unknown",
    title: "a difference of no known kind",
    remedy: "compare the two files by hand; `--keep DIR` leaves them there",
};

/// The time of a file in an archive.
pub static TIMESTAMP_FILE_MTIME: Cause = Cause {
    id: "timestamp.file-mtime",
    title: "the time of a file in an archive",
    remedy: "set the times of members when packing: `tar --mtime=@$SOURCE_DATE_EPOCH --clamp-mtime`",
};

/// The time in the header of a gzip file.
pub static TIMESTAMP_GZIP_HEADER: Cause = Cause {
    id: "timestamp.gzip-header",
    title: "the time in the header of a gzip file",
    remedy: "compress with `gzip -n`",
};

/// The operating system in the header of a gzip file.
pub static GZIP_OS: Cause = Cause {
    id: "gzip.os",
    title: "the operating system in the header of a gzip file",
    remedy: "write the byte for an unknown system, or use one compressor everywhere",
};

/// A file name or comment in the header of a gzip file.
pub static GZIP_NAME: Cause = Cause {
    id: "gzip.name",
    title: "a file name or comment in the header of a gzip file",
    remedy: "compress with `gzip -n`",
};

/// The same bytes compressed otherwise.
pub static COMPRESSOR: Cause = Cause {
    id: "compressor.version",
    title: "the same bytes compressed otherwise",
    remedy: "pin version and level of the compressor",
};

/// The same bytes compressed in other blocks.
pub static COMPRESSOR_THREADS: Cause = Cause {
    id: "compressor.threads",
    title: "the same bytes compressed in other blocks",
    remedy: "fix the size of blocks, or compress with one thread",
};

/// The order of files.
pub static FILE_ORDER: Cause = Cause {
    id: "file-order",
    title: "the order of files",
    remedy: "sort names by bytes before packing: `tar --sort=name`",
};

/// Owner or group of a file in an archive.
pub static OWNER: Cause = Cause {
    id: "owner",
    title: "owner or group of a file in an archive",
    remedy: "pack with `--owner=0 --group=0 --numeric-owner`",
};

/// Permissions that follow the umask.
pub static MODE: Cause = Cause {
    id: "umask",
    title: "permissions that follow the umask",
    remedy: "set the umask, or the modes when packing: `tar --mode=go=rX,u+rw`",
};

/// The number of a process.
pub static PID: Cause = Cause {
    id: "pid",
    title: "the number of a process",
    remedy: "name such files by their content, and set the names of PAX headers",
};

/// The time of a member of a zip archive.
pub static ZIP_TIME: Cause = Cause {
    id: "zip.time",
    title: "the time of a member of a zip archive",
    remedy: "set the times of members when packing",
};

/// An extra field of a zip archive.
pub static ZIP_EXTRA: Cause =
    Cause { id: "zip.extra", title: "an extra field of a zip archive", remedy: "pack with `zip -X`" };

/// What a zip archive tells of the program that made it.
pub static ZIP_HOST: Cause = Cause {
    id: "zip.creator",
    title: "what a zip archive tells of the program that made it",
    remedy: "pack with one program everywhere",
};

/// Time, owner or mode of a member of an ar archive.
pub static AR_HEADER: Cause = Cause {
    id: "ar.header",
    title: "time, owner or mode of a member of an ar archive",
    remedy: "use `ar D` and `ranlib -D`",
};

/// Inode or device numbers in a cpio archive.
pub static CPIO_HEADER: Cause = Cause {
    id: "cpio.header",
    title: "inode or device numbers in a cpio archive",
    remedy: "pack with `cpio --reproducible`",
};

/// An archive in another format, or of another program.
pub static ARCHIVE_FORMAT: Cause = Cause {
    id: "archive.format",
    title: "an archive in another format, or of another program",
    remedy: "pack with one program and one format everywhere",
};

/// The configuration of an image.
pub static IMAGE_CONFIG: Cause = Cause {
    id: "image-config",
    title: "the configuration of an image",
    remedy: "set `created` from SOURCE_DATE_EPOCH, and write history and labels in a fixed order",
};

/// The media type of a part of an image.
pub static MEDIA_TYPE: Cause = Cause {
    id: "media-type",
    title: "the media type of a part of an image",
    remedy: "write one of the two formats, OCI or Docker",
};

/// An attestation in the index of an image.
pub static ATTESTATION_IN_INDEX: Cause = Cause {
    id: "attestation-in-index",
    title: "an attestation in the index of an image",
    remedy: "attach attestations as referrers: `--provenance=false --sbom=false`",
};

/// Another base image.
pub static BASE_IMAGE: Cause =
    Cause { id: "base-image", title: "another base image", remedy: "lock the base by its digest" };

/// The time of a whiteout in a layer.
pub static WHITEOUT: Cause = Cause {
    id: "whiteout-time",
    title: "the time of a whiteout in a layer",
    remedy: "set the times of all entries of a layer, those of removed files too",
};

/// Extended attributes of a file.
pub static XATTR: Cause = Cause {
    id: "xattr",
    title: "extended attributes of a file",
    remedy: "pack the attributes that are meant, and no others",
};

/// A hard link on one side and a file on the other.
pub static HARDLINK: Cause = Cause {
    id: "hardlink",
    title: "a hard link on one side and a file on the other",
    remedy: "decide about hard links by content, not by the link count on the disk",
};

/// A file that is there on one side only.
pub static FILE_SET: Cause = Cause {
    id: "file-set",
    title: "a file that is there on one side only",
    remedy: "find out what decides whether it is written",
};

/// Kind or permissions of a file.
pub static FILE_MODE: Cause =
    Cause { id: "file-mode", title: "kind or permissions of a file", remedy: "set the mode where the file is made" };

/// The target of a link.
pub static LINK_TARGET: Cause =
    Cause { id: "link-target", title: "the target of a link", remedy: "write links relative to where they lie" };
