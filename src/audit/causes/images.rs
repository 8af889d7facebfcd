//! Causes in trees, images and packages, and what comes from elsewhere. Finds none itself.

use super::{Cause, causes};

causes! {
    IMAGES:
    FILE_SET = "file-set", "a file that only one of the builds has",
        "declare the files that count as outputs, and delete leftovers and caches at the end of the command";
    FILE_MODE = "file-mode", "kind or permission bits of a file",
        "set kind and mode of the output in the command (`install -m`, `chmod`)";
    LINK_TARGET = "link-target", "where a symbolic link points",
        "make links relative, to a fixed name";
    HARDLINK = "hardlink", "whether two files are one",
        "decide by a list which files are linked, not by what the file system made of them";
    XATTR = "xattr", "extended attributes",
        "pack without them (`--no-xattrs`), or name those that are wanted, such as `security.capability`";
    WHITEOUT = "whiteout-time", "the time of a deletion or of a directory above a change",
        "set the time of whiteouts and directories of a layer when packing it";
    NAME_CASE = "name-case", "the same name in other letters or another Unicode form",
        "name files in lower case and in one Unicode form, and compare names by bytes";
    NETWORK_DRIFT = "network-drift", "other versions came from the network",
        "fetch what is needed as tasks with a digest, and lock versions; no network in the build";
    BASE_IMAGE = "base-image", "another base image",
        "name the base image by digest";
    IMAGE_CONFIG = "image-config", "times, names or history in the configuration of an image",
        "set `created` from `SOURCE_DATE_EPOCH` and leave names of machines and containers out";
    MEDIA_TYPE = "media-type", "another media type for the same content",
        "write OCI media types, always the same";
    ATTESTATION_IN_INDEX = "attestation-in-index", "provenance in the index of an image",
        "build with `--provenance=false`, and attach attestations as referrers";
    DIRTY_PATH = "dirty-path", "a log, cache, backup or identifier of a machine that installing leaves behind",
        "delete it in the step that made it, or leave `/etc/machine-id` empty: `/var/log/*`, `/var/cache/*`, `/var/lib/apt/lists/*`, `*-old`, `*-`";
}
