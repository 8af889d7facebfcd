//! What lies below a layer as far as a layer on top must know it: kinds, permissions, owners, and where links lead. Puts nothing
//! anywhere.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::base::encode::{Decoder, Encoder};
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::path::RelPath;
use crate::image::blob::BlobDigest;
use crate::image::blobs::Blobs;
use crate::image::error::ImageError;
use crate::image::find::Found;
use crate::image::flatten::apply_blob;
use crate::image::layer::{Node, Stack};
use crate::image::layout::checked_diff_ids;
use crate::image::links::{Last, follow};
use crate::image::recipe::{Content, LayerRecipe};
use crate::image::tar_writer::Access;

/// What lies at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A directory.
    Dir(Access),
    /// A regular file.
    File(Access),
    /// A link.
    Link {
        /// Its target as written.
        target: String,
        /// User and group of the link itself.
        owner: (u32, u32),
    },
}

/// What lies below a layer. Every directory above an entry is there too.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Below(BTreeMap<RelPath, Seen>);

impl Below {
    /// What the layers of an image make. Each is checked: length, digest, and the digest of what is in it.
    ///
    /// Cost: every layer is unpacked once; in memory are names and targets, bounded as in [`Stack`].
    pub fn of_image(blobs: &Blobs, found: &Found) -> Result<Self, ImageError> {
        let mut stack = Stack::without_bytes(FETCH_BYTES_MAX);
        let left = Cell::new(FETCH_BYTES_MAX.saturating_mul(2));
        let layers = &found.manifest.layers;
        let diff_ids = checked_diff_ids(&found.config, layers.len(), &found.manifest.config.digest)?;
        for (position, (layer, diff_id)) in layers.iter().zip(&diff_ids).enumerate() {
            let digest = BlobDigest::parse(&layer.digest)?;
            apply_blob(&mut stack, blobs, &digest, layer.size, diff_id, &left).map_err(|error| match error {
                ImageError::Archive(cause) => ImageError::Layer { number: position + 1, cause },
                other => other,
            })?;
        }
        Ok(Self::of_stack(&stack))
    }

    /// What layers have made.
    pub fn of_stack(stack: &Stack) -> Self {
        let entries = stack.accesses().filter_map(|(path, node, access)| {
            let seen = match node {
                Node::Dir => Seen::Dir(access),
                Node::File(_) => Seen::File(access),
                Node::Link(target) => Seen::Link { target: target.clone(), owner: (access.uid, access.gid) },
            };
            Some((RelPath::parse(path).ok()?, seen))
        });
        Self(entries.collect())
    }

    /// What lies where, in byte order.
    pub fn entries(&self) -> impl Iterator<Item = (&RelPath, &Seen)> {
        self.0.iter()
    }

    /// What lies at a path.
    pub fn at(&self, path: &RelPath) -> Option<&Seen> {
        self.0.get(path)
    }

    /// Permissions and owner of a directory; `None` if there is none.
    pub fn dir(&self, path: &RelPath) -> Option<Access> {
        match self.0.get(path) {
            Some(Seen::Dir(access)) => Some(*access),
            Some(Seen::File(_) | Seen::Link { .. }) | None => None,
        }
    }

    /// Adds a layer that will lie on top.
    pub fn add(&mut self, recipe: &LayerRecipe) {
        for (path, member) in recipe.members() {
            match &member.content {
                Content::Whiteout => self.remove(path),
                Content::Dir => self.put(path, Seen::Dir(member.access)),
                Content::Opaque => {
                    self.remove_beneath(path);
                    self.put(path, Seen::Dir(member.access));
                }
                Content::File { .. } => self.put(path, Seen::File(member.access)),
                Content::Link { target } => {
                    let owner = (member.access.uid, member.access.gid);
                    self.put(path, Seen::Link { target: target.clone(), owner });
                }
                Content::Hard { to } => {
                    if let Some(seen) = self.0.get(to).cloned() {
                        self.put(path, seen);
                    }
                }
            }
        }
    }

    fn put(&mut self, path: &RelPath, seen: Seen) {
        if path.is_root() {
            return;
        }
        if !matches!(seen, Seen::Dir(_)) {
            self.remove_beneath(path);
        }
        let mut above = path.parent();
        while let Some(dir) = above.filter(|dir| !dir.is_root() && self.dir(dir).is_none()) {
            above = dir.parent();
            self.0.insert(dir, Seen::Dir(Access::DIR));
        }
        self.0.insert(path.clone(), seen);
    }

    fn remove(&mut self, path: &RelPath) {
        self.0.remove(path);
        self.remove_beneath(path);
    }

    fn remove_beneath(&mut self, path: &RelPath) {
        if path.is_root() {
            self.0.clear();
            return;
        }
        // `a-b` sorts between `a` and `a/c`.
        let near = self.0.range(path.clone()..).take_while(|(other, _)| other.as_str().starts_with(path.as_str()));
        let beneath: Vec<RelPath> = near
            .filter(|(other, _)| *other != path && other.starts_with(path))
            .map(|(other, _)| other.clone())
            .collect();
        for path in beneath {
            self.0.remove(&path);
        }
    }

    /// Where a path leads with every link on the way followed inside the image; what it ends with is not followed. `None` behind too
    /// many links, and where it leads to the root.
    pub fn resolve(&self, path: &RelPath) -> Option<RelPath> {
        let link_at = |at: &RelPath| match self.0.get(at)? {
            Seen::Link { target, .. } => Some(target.as_str()),
            Seen::Dir(_) | Seen::File(_) => None,
        };
        follow(path, Last::Named, link_at).filter(|there| !there.is_root())
    }

    /// As bytes of the store.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u64(self.0.len() as u64);
        for (path, seen) in &self.0 {
            encoder.bytes(path.as_str().as_bytes());
            match seen {
                Seen::Dir(Access { mode, uid, gid }) => {
                    encoder.u8(0).u64((*mode).into()).u64((*uid).into()).u64((*gid).into());
                }
                Seen::File(Access { mode, uid, gid }) => {
                    encoder.u8(1).u64((*mode).into()).u64((*uid).into()).u64((*gid).into());
                }
                Seen::Link { target, owner: (uid, gid) } => {
                    encoder.u8(2).bytes(target.as_bytes()).u64((*uid).into()).u64((*gid).into());
                }
            }
        }
        encoder.into_vec()
    }

    /// Reads them back; `None` if they are damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let mut all = BTreeMap::new();
        for _ in 0..decoder.u64().ok()? {
            let path = RelPath::parse(decoder.text("path").ok()?).ok()?;
            let kind = decoder.u8().ok()?;
            let target = if kind == 2 { Some(decoder.text("target").ok()?.to_owned()) } else { None };
            let mut number = || u32::try_from(decoder.u64().ok()?).ok();
            if let Some(target) = target {
                all.insert(path, Seen::Link { target, owner: (number()?, number()?) });
                continue;
            }
            let access = Access { mode: number()?, uid: number()?, gid: number()? };
            all.insert(path, if kind == 0 { Seen::Dir(access) } else { Seen::File(access) });
        }
        Some(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;
    use crate::image::fixture::Make::{Dir, File, Link, Mode};
    use crate::image::fixture::tar_of;
    use crate::image::recipe::Member;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    fn below(layers: &[Vec<u8>]) -> Below {
        let mut stack = Stack::without_bytes(1 << 20);
        for layer in layers {
            stack.apply(&mut layer.as_slice()).expect("a good layer");
        }
        Below::of_stack(&stack)
    }

    fn told(below: &Below) -> Vec<String> {
        let told = |(path, seen): (&RelPath, &Seen)| match seen {
            Seen::Dir(access) => format!("{path}/ {:o}", access.mode),
            Seen::File(access) => format!("{path} {:o}", access.mode),
            Seen::Link { target, .. } => format!("{path} -> {target}"),
        };
        below.entries().map(told).collect()
    }

    #[test]
    fn the_last_word_on_a_path_holds() {
        let lower = tar_of(&[
            ("etc/", Dir),
            ("etc/shadow", Mode("x", 0o640)),
            ("etc/gone", File("")),
            ("bin", Link("usr/bin")),
            ("opt/app/cur", Link("/srv")),
        ]);
        let upper = tar_of(&[
            ("etc/.wh.gone", File("")),
            ("etc/shadow", Mode("y", 0o600)),
            ("bin/tool", Mode("", 0o755)),
            ("opt/.wh.app", File("")),
        ]);
        let found = below(&[lower, upper]);
        let expect = [
            "bin -> usr/bin",
            "etc/ 755",
            "etc/shadow 600",
            "opt/ 755",
            "usr/ 755",
            "usr/bin/ 755",
            "usr/bin/tool 755",
        ];
        assert_eq!(told(&found), expect);
        assert_eq!(Below::decode(&found.encode()), Some(found));
    }

    #[test]
    fn a_layer_on_top_removes_what_it_hides() {
        let mut found = below(&[tar_of(&[
            ("a/x/y", Mode("", 0o600)),
            ("a-b", File("")),
            ("d/e", File("")),
            ("f", File("")),
            ("l", Link("a")),
        ])]);
        let mut recipe = LayerRecipe::new(0).expect("a good time");
        let mut put = |at: &str, member: Member| recipe.put(path(at), member).expect("a good member");
        put("a", Member::whiteout());
        put("d", Member { content: Content::Opaque, ..Member::dir() });
        put("d/new", Member::file(Digest::of(b""), 0, true));
        put("f/deep", Member::link("x"));
        put("l", Member::dir());
        found.add(&recipe);
        assert_eq!(told(&found), ["a-b 644", "d/ 755", "d/new 755", "f/ 755", "f/deep -> x", "l/ 755"]);
    }

    #[test]
    fn links_on_the_way_are_followed_inside_the_image() {
        let found = below(&[tar_of(&[
            ("bin", Link("usr/bin")),
            ("lib", Link("/usr/lib")),
            ("up", Link("../../usr")),
            ("a", Link("b")),
            ("b", Link("a")),
        ])]);
        let check = |from: &str, expect: Option<&str>| {
            assert_eq!(found.resolve(&path(from)), expect.map(path), "{from}");
        };
        check("bin/sh", Some("usr/bin/sh"));
        check("lib/x/y", Some("usr/lib/x/y"));
        check("up/share", Some("usr/share"));
        check("bin", Some("bin"));
        check("usr/bin/sh", Some("usr/bin/sh"));
        check("a/x", None);
    }
}
