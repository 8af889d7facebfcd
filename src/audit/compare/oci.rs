//! OCI image layouts: parts are paired by what they are for, since the names of blobs are digests. Reads no disk.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::audit::causes::{self, Cause};
use crate::audit::compare::archive::{self, Archive};
use crate::audit::compare::document::{self, Rules, Written};
use crate::audit::compare::verdict::Cost;
use crate::audit::compare::walk::{Told, Walk, within};
use crate::audit::model::{Certainty, Site};

/// The file by which a layout is known.
pub(super) const MARKER: &str = "oci-layout";
/// The file that names what is in it.
pub(super) const INDEX: &str = "index.json";

/// Indexes within one another.
const LEVELS_MAX: usize = 4;
/// Parts of one document that are paired.
const PARTS_MAX: usize = 1_000;
/// Bytes of a document.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// The files of a layout.
pub(super) struct Files<'f> {
    /// Gives the bytes of one.
    pub(super) read: &'f dyn Fn(&str) -> Result<Vec<u8>, String>,
}

/// What was compared of two layouts.
#[derive(Default)]
pub(super) struct Used {
    /// Files of both sides that belong together.
    pub(super) pairs: BTreeSet<(String, String)>,
    /// Files that are named on one side.
    names: BTreeSet<String>,
}

impl Used {
    /// Whether a file was compared.
    pub(super) fn contains(&self, name: &str) -> bool {
        name == INDEX || self.names.contains(name)
    }
}

/// Whether a file of a layout may be named by others.
pub(super) fn is_part(name: &str) -> bool {
    name == INDEX || name.starts_with("blobs/")
}

/// Whether an archive holds a layout.
pub(super) fn is_layout(archive: &Archive) -> bool {
    [MARKER, INDEX].iter().all(|name| archive.members.iter().any(|member| plain(&member.name) == *name))
}

/// A name in an archive without the `./` that some programs put before it.
pub(super) fn plain(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

/// Compares layouts in archives.
pub(super) fn archives(walk: &mut Walk<'_>, site: &Site, sides: [(&[u8], &Archive); 2], depth: usize) -> Used {
    let read = |side: usize| {
        let (bytes, archive) = sides[side];
        move |name: &str| {
            let member = archive.members.iter().rfind(|member| plain(&member.name) == name);
            match member.map(|member| &member.content) {
                Some(archive::Content::At(at)) => Ok(bytes[at.clone()].to_vec()),
                _ => Err(format!("there is no `{name}`")),
            }
        }
    };
    let (first, second) = (read(0), read(1));
    compare(walk, site, &[Files { read: &first }, Files { read: &second }], depth + 1)
}

/// Compares two layouts.
pub(super) fn compare(walk: &mut Walk<'_>, site: &Site, files: &[Files<'_>; 2], depth: usize) -> Used {
    let mut layouts = Layouts { files, used: Used::default(), depth };
    match [0, 1].map(|side: usize| (files[side].read)(INDEX)) {
        [Ok(a), Ok(b)] if a == b => {}
        [Ok(a), Ok(b)] => {
            walk.known.add(&within(site, INDEX), &a, &b);
            layouts.index(walk, site, &within(site, INDEX), (&a, &b), 0);
        }
        [Err(why), _] | [_, Err(why)] => walk.over(site, &why),
    }
    layouts.used
}

struct Layouts<'l> {
    files: &'l [Files<'l>; 2],
    used: Used,
    depth: usize,
}

/// The parts that a document names under a key.
fn parts<'v>(document: &'v Value, key: &str) -> Vec<&'v Value> {
    document.get(key).and_then(Value::as_array).into_iter().flatten().take(PARTS_MAX).collect()
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The file of a part.
fn blob(part: &Value) -> String {
    format!("blobs/{}", word(part, "digest").replacen(':', "/", 1))
}

fn annotation<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get("annotations").map_or("", |all| word(all, key))
}

fn is_attestation(part: &Value) -> bool {
    let platform = part.get("platform").map_or("", |platform| word(platform, "os"));
    annotation(part, "vnd.docker.reference.type") == "attestation-manifest" || platform == "unknown"
}

/// What a part of an index is for.
fn label(part: &Value) -> String {
    let platform = part.get("platform").unwrap_or(&Value::Null);
    let words = ["os", "architecture", "variant"].map(|key| word(platform, key));
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let name = annotation(part, "org.opencontainers.image.ref.name");
    match (words.is_empty(), name.is_empty()) {
        _ if is_attestation(part) => "attestation".into(),
        (false, true) => words.join("/"),
        (false, false) => format!("{} {name}", words.join("/")),
        (true, false) => name.to_owned(),
        (true, true) => "manifest".into(),
    }
}

fn labels(parts: &[&Value]) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let numbered = parts.iter().map(|part| {
        let own = label(part);
        let nth = counts.entry(own.clone()).or_default();
        *nth += 1;
        if *nth == 1 { own } else { format!("{own} #{nth}") }
    });
    numbered.collect()
}

fn cause(path: &str) -> (&'static Cause, Cost) {
    let last = path.rsplit('.').next().unwrap_or_default();
    let is_time = path == "$.created" || (path.starts_with("$.history[") && last == "created");
    if is_time || path.ends_with("annotations.org.opencontainers.image.created") {
        (&causes::IMAGE_CONFIG, Cost::Normal("oci-created"))
    } else if last == "mediaType" || path.ends_with("schemaVersion") {
        (&causes::MEDIA_TYPE, Cost::Real)
    } else if path.contains("annotations.org.opencontainers.image.base.") {
        (&causes::BASE_IMAGE, Cost::Real)
    } else {
        (&causes::IMAGE_CONFIG, Cost::Real)
    }
}

impl Layouts<'_> {
    fn use_part(&mut self, a: &Value, b: &Value) {
        self.used.names.extend([blob(a), blob(b)]);
        self.used.pairs.insert((blob(a), blob(b)));
    }

    fn index(&mut self, walk: &mut Walk<'_>, site: &Site, own: &Site, (a, b): (&[u8], &[u8]), level: usize) {
        let (Ok(first), Ok(second)) = (serde_json::from_slice::<Value>(a), serde_json::from_slice::<Value>(b)) else {
            walk.over(own, "it is no index");
            return;
        };
        let (parts_a, parts_b) = (parts(&first, "manifests"), parts(&second, "manifests"));
        if parts_a.len().max(parts_b.len()) >= PARTS_MAX || a.len().max(b.len()) > DOCUMENT_BYTES_MAX {
            walk.over(own, "it is too large");
            return;
        }
        let (labels_a, labels_b) = (labels(&parts_a), labels(&parts_b));
        for (label, part) in labels_a.iter().zip(&parts_a) {
            match labels_b.iter().position(|other| other == label) {
                Some(at) => {
                    let site = within(site, label);
                    if is_attestation(part) && is_attestation(parts_b[at]) {
                        walk.attestations.push(site.clone());
                    }
                    self.part(walk, &site, part, parts_b[at], level);
                }
                None => self.alone(walk, &within(site, label), part, 0),
            }
        }
        for (label, part) in labels_b.iter().zip(&parts_b).filter(|(label, _)| !labels_a.contains(label)) {
            self.alone(walk, &within(site, label), part, 1);
        }
        let is_alike = labels_a == labels_b;
        let skip = |path: &str| !is_alike && path.starts_with("$.manifests");
        let sorted = |labels: &[String]| labels.iter().cloned().collect::<BTreeSet<_>>();
        let written = match () {
            () if is_alike => Written::Same,
            () if sorted(&labels_a) == sorted(&labels_b) => Written::Sorted,
            () => Written::Any,
        };
        document::compare(walk, own, a, b, &Rules { skip: &skip, cause, written });
        if is_alike {
            return;
        }
        for (label, part) in labels_a.iter().zip(&parts_a) {
            if let Some(at) = labels_b.iter().position(|other| other == label) {
                let rules = Rules { skip: &|_| false, cause, written };
                document::values(walk, &within(own, label), "$", part, parts_b[at], &rules);
            }
        }
        if written == Written::Sorted {
            let what = "the index names its parts in another order".to_owned();
            walk.push(own, Told::proven(what, &causes::FILE_ORDER, Cost::Normal("oci-order")));
        }
    }

    fn alone(&mut self, walk: &mut Walk<'_>, site: &Site, part: &Value, side: usize) {
        self.used.names.insert(blob(part));
        let which = ["first", "second"][side];
        let cause = if is_attestation(part) { &causes::ATTESTATION_IN_INDEX } else { &causes::FILE_SET };
        walk.push(site, Told::proven(format!("named by the index of the {which} side only"), cause, Cost::Real));
        // What it names belongs to it.
        let Ok(bytes) = (self.files[side].read)(&blob(part)) else { return };
        let Ok(document) = serde_json::from_slice::<Value>(&bytes) else { return };
        let named = ["layers", "manifests"].into_iter().flat_map(|key| parts(&document, key));
        self.used.names.extend(named.chain(document.get("config")).map(blob));
    }

    /// Compares what two descriptors name.
    fn part(&mut self, walk: &mut Walk<'_>, site: &Site, a: &Value, b: &Value, level: usize) {
        if blob(a) == blob(b) {
            return;
        }
        let Some((first, second)) = self.read(walk, site, a, b) else { return };
        if first.len().max(second.len()) > DOCUMENT_BYTES_MAX {
            return walk.descend(site, "blob", &first, &second, self.depth);
        }
        let documents = [&first, &second].map(|bytes| serde_json::from_slice::<Value>(bytes));
        match documents {
            [Ok(x), Ok(y)] if x.get("layers").is_some() && y.get("layers").is_some() => {
                walk.known.add(site, &first, &second);
                self.manifest(walk, site, (&first, &second), (&x, &y));
            }
            [Ok(x), Ok(y)] if x.get("manifests").is_some() && y.get("manifests").is_some() && level < LEVELS_MAX => {
                walk.known.add(site, &first, &second);
                self.index(walk, site, site, (&first, &second), level + 1);
            }
            _ => walk.descend(site, "blob", &first, &second, self.depth),
        }
    }

    fn read(&mut self, walk: &mut Walk<'_>, site: &Site, a: &Value, b: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
        match ((self.files[0].read)(&blob(a)), (self.files[1].read)(&blob(b))) {
            (Ok(first), Ok(second)) => {
                self.use_part(a, b);
                Some((first, second))
            }
            (Err(why), _) | (_, Err(why)) => {
                walk.over(site, &why);
                None
            }
        }
    }

    fn manifest(&mut self, walk: &mut Walk<'_>, site: &Site, raw: (&[u8], &[u8]), (a, b): (&Value, &Value)) {
        let (layers_a, layers_b) = (parts(a, "layers"), parts(b, "layers"));
        if layers_a.len().max(layers_b.len()) >= PARTS_MAX {
            return walk.over(site, "it has too many layers");
        }
        let same_end = layers_a.iter().rev().zip(layers_b.iter().rev()).take_while(|(x, y)| blob(x) == blob(y)).count();
        let has_other_base = annotation(a, BASE_DIGEST) != annotation(b, BASE_DIGEST);
        let is_other_count = layers_a.len() != layers_b.len();
        // One layer at least is the image's own.
        let base = (has_other_base || (is_other_count && same_end > 0)).then(|| {
            let own = same_end.max(1);
            [layers_a.len().saturating_sub(own), layers_b.len().saturating_sub(own)]
        });
        for position in 0..layers_a.len().max(layers_b.len()) {
            let both = [layers_a.get(position), layers_b.get(position)];
            let site = within(site, &format!("layer {position}"));
            let is_base = base.is_some_and(|base| position < base[0] || position < base[1]);
            let [Some(x), Some(y)] = both else {
                self.used.names.extend(both.into_iter().flatten().map(|part| blob(part)));
                let cause = if base.is_some() { &causes::BASE_IMAGE } else { &causes::FILE_SET };
                walk.push(&site, Told::proven("a layer on one side only".into(), cause, Cost::Real));
                continue;
            };
            if blob(x) == blob(y) {
                continue;
            }
            let Some((first, second)) = self.read(walk, &site, x, y) else { continue };
            if is_base {
                walk.known.add(&site, &first, &second);
                let told = Told::proven("a layer of another base".into(), &causes::BASE_IMAGE, Cost::Real);
                let certainty = if has_other_base { Certainty::Proven } else { Certainty::Suspected };
                walk.push(&site, Told { certainty, ..told });
            } else {
                walk.descend(&site, "layer.tar", &first, &second, self.depth);
            }
        }
        let is_shifted = base.is_some() || is_other_count;
        let written = if is_shifted { Written::Any } else { Written::Same };
        self.config(walk, site, (a, b), is_shifted);
        let skip = |path: &str| is_shifted && path.starts_with("$.layers");
        document::compare(walk, site, raw.0, raw.1, &Rules { skip: &skip, cause, written });
    }

    fn config(&mut self, walk: &mut Walk<'_>, site: &Site, (a, b): (&Value, &Value), is_shifted: bool) {
        let (Some(x), Some(y)) = (a.get("config"), b.get("config")) else { return };
        if blob(x) == blob(y) {
            return;
        }
        let site = within(site, "config");
        let Some((first, second)) = self.read(walk, &site, x, y) else { return };
        walk.known.add(&site, &first, &second);
        let written = if is_shifted { Written::Any } else { Written::Same };
        let skip = |path: &str| is_shifted && (path.starts_with("$.rootfs") || path.starts_with("$.history"));
        if !document::compare(walk, &site, &first, &second, &Rules { skip: &skip, cause, written }) {
            walk.descend(&site, "config.json", &first, &second, self.depth);
        }
    }
}
