//! Why two images differ: the classes, each with an id that never changes. Decides nothing about which applies.

use serde::{Serialize, Serializer};

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $id:literal,)*) => {
        /// Why something differs.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Class { $($(#[$doc])* $name,)* }

        impl Class {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its id, which never changes.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }
        }
    };
}

classes! {
    /// A name of an image in the index of the layout.
    Names = "names",
    /// A remark on an index, a manifest or a descriptor.
    Annotations = "annotations",
    /// Anything else of an index: its order, how it nests, artifacts in it.
    Index = "index",
    /// A platform that only one side has.
    PlatformSet = "platform-set",
    /// Attestations that lie in the index beside the images.
    AttestationInIndex = "attestation-in-index",
    /// What only one side keeps, as one of them is what `docker save` packs.
    LayoutForm = "layout-form",
    /// Types of Docker on one side, those of the OCI on the other, or none.
    MediaTypes = "media-types",
    /// The same JSON, written otherwise.
    JsonOrder = "json-order",
    /// A field of a manifest.
    Manifest = "manifest",
    /// A field of the configuration.
    ImageConfig = "image-config",
    /// Another base image.
    BaseImageDrift = "base-image-drift",
    /// A layer that only one side has.
    LayerSet = "layer-set",
    /// A layer that lies elsewhere among the layers.
    LayerOrder = "layer-order",
    /// The same layer, compressed by something else.
    Compressor = "compressor",
    /// The time in the header of gzip.
    GzipTime = "timestamp.gzip-header",
    /// The system, or how hard it was compressed, in the header of gzip.
    GzipOs = "gzip-os-byte",
    /// A name, comment or other extra in the header of gzip.
    GzipName = "gzip-name",
    /// The same entries, written otherwise.
    TarFormat = "tar-format",
    /// The kind of an entry kept in its mode as well.
    ModeForm = "mode-form",
    /// Entries in another order.
    FileOrder = "file-order",
    /// A path that a layer has more than once.
    DuplicateEntry = "duplicate-entry",
    /// An entry that only one side has.
    FileSet = "file-set",
    /// The same entry in another layer.
    FileMoved = "file-moved",
    /// Another kind of entry.
    FileKind = "file-kind",
    /// A file of its own on one side, another name of one on the other.
    Hardlink = "hardlink",
    /// Target of a link.
    LinkTarget = "link-target",
    /// Numbers of a device.
    DeviceNumber = "device-number",
    /// Permission bits.
    Mode = "umask/mode",
    /// Owner or group.
    Owner = "owner",
    /// Time of a file.
    FileTime = "timestamp.file-mtime",
    /// Time of a directory.
    DirTime = "timestamp.dir-mtime",
    /// Time of a whiteout.
    WhiteoutTime = "timestamp.whiteout",
    /// Extended attributes.
    Xattr = "xattr",
    /// A date or a time in the content.
    EmbeddedTime = "timestamp.embedded",
    /// A path of the build in the content.
    BuildPath = "build-path",
    /// Something drawn at random.
    Randomness = "randomness",
    /// The same lines in another order.
    HashSeed = "hash-seed",
    /// Python's bytecode.
    PythonBytecode = "python-bytecode",
    /// A file of caches, logs and identities that a distribution leaves behind.
    DirtyPath = "dirty-path",
    /// Content, for a reason that nothing tells.
    Content = "content",
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_told_apart_and_only_of_plain_letters() {
        let ids: BTreeSet<&str> = Class::ALL.iter().map(|class| class.id()).collect();
        assert_eq!(ids.len(), Class::ALL.len());
        assert!(
            ids.iter().all(|id| id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'-' | b'.' | b'/'))),
            "{ids:?}"
        );
    }
}
