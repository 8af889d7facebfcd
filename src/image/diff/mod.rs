//! Two images compared: what differs, where, and why.
//!
//! | file | owns |
//! |---|---|
//! | `class` | the classes of reasons and their ids |
//! | `told` | what is told, as data, text and JSON |
//! | `contents` | what lies in a layout |
//! | `whole` | whether all blobs are there and are what names them |
//! | `documents` | indexes, manifests and configurations, field by field |
//! | `layers` | which layer goes with which; compressors |
//! | `entries` | the entries of a layer, read |
//! | `files` | the entries of two layers, compared |
//! | `content` | where two files first differ |
//! | `looks` | what a difference in a file looks like |
//!
//! Laws: before anything is said of two images, all blobs of both are there and are what names them; two images with one digest have
//! no difference, and images of two digests have one that is told or counted; what follows from another difference (the digest of
//! what differs below) is not told; only layers that differ are unpacked; memory is bounded by the names of one pair of layers, by
//! those of a bounded number of entries that only one layer of a pair has, and by what is told, never by content.
//!
//! Where digests of unpacked layers are the same in two configurations, the layers count as the same: that they are what the
//! configuration says is for `flatten` to check.

mod class;
mod content;
pub(super) mod contents;
mod documents;
pub(super) mod entries;
mod files;
mod layers;
mod looks;
#[cfg(test)]
mod tests;
pub(super) mod told;
pub(super) mod whole;

use std::cell::Cell;
use std::collections::BTreeMap;

pub use class::Class;
pub use told::{Difference, Event, Excerpt, Place, Told, Verdict};

use crate::base::platform::Platform;
use crate::image::blob::BlobDigest;
use crate::image::blobs::Blobs;
use crate::image::diff::content::explain;
use crate::image::diff::contents::{Contents, ImageRef, LayerRef, OpenImage};
use crate::image::diff::entries::entries;
use crate::image::diff::files::Lonely;
use crate::image::diff::layers::Pair;
use crate::image::diff::told::Ledger;
use crate::image::diff::whole::{How, Which};
use crate::image::error::ImageError;

/// What of two images is compared, and how much is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiffOptions {
    /// Only images for this platform; the indexes are not compared then.
    pub platform: Option<Platform>,
    /// Most differences told; the others are counted.
    pub told_max: usize,
    /// Most differences told of one class, so that a thousand times of files do not hide one content.
    pub told_of_class_max: usize,
    /// Most files of one pair of layers whose content is looked at.
    pub excerpts_max: usize,
    /// Most lines of an excerpt.
    pub excerpt_lines_max: usize,
    /// Most bytes unpacked, counted over all layers and passes.
    pub unpacked_bytes_max: u64,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self {
            platform: None,
            told_max: 200,
            told_of_class_max: 25,
            excerpts_max: 25,
            excerpt_lines_max: 12,
            unpacked_bytes_max: 256 * 1024 * 1024 * 1024,
        }
    }
}

/// Compares the images of two layouts, which may be what `docker save` packs, each in a directory, in the store or in memory.
///
/// Errors: on which side a document or a layer is missing, malformed or other than its digest says; with a platform, only what belongs
/// to its images counts. Cost: blobs are read once, but for those in the store, which checks what it keeps; layers that differ once
/// more, those with files that differ up to four times.
pub fn diff(a: &Blobs, b: &Blobs, options: &DiffOptions) -> Result<Difference, ImageError> {
    let mut ledger = Ledger::new(options);
    let left = Cell::new(options.unpacked_bytes_max);
    let read = |blobs: &Blobs| -> Result<Contents, ImageError> {
        let mut all = Contents::read(blobs)?;
        let which = match &options.platform {
            Some(platform) => {
                all.only(platform)?;
                Which::Left
            }
            None => Which::All,
        };
        whole::check(blobs, &all, which, How::Read(&left))?;
        Ok(all)
    };
    let all_a = read(a).map_err(|error| error.on("first"))?;
    let all_b = read(b).map_err(|error| error.on("second"))?;
    if all_a.index.is_some() && all_a.index == all_b.index && options.platform.is_none() {
        return Ok(ledger.finish(Verdict::Identical));
    }
    if options.platform.is_none() {
        documents::indexes(&mut ledger, (a, &all_a), (b, &all_b))?;
    }
    let mut alike = Verdict::Identical;
    let (pairs, rest_a, rest_b) = pair_images(&all_a.images, &all_b.images);
    for (one, other) in &pairs {
        let (image_a, image_b) = (&all_a.images[*one], &all_b.images[*other]);
        let comparison = Comparison { a, b, platform: &image_a.platform, options, left: &left };
        if options.platform.is_none() {
            documents::entry(&mut ledger, &image_a.platform, image_a, image_b);
        }
        alike = alike.max(comparison.images(&mut ledger, image_a, image_b)?);
    }
    for (image, is_first) in
        rest_a.iter().map(|at| (&all_a.images[*at], true)).chain(rest_b.iter().map(|at| (&all_b.images[*at], false)))
    {
        alike = Verdict::Different;
        let id = Some(image.id());
        let (sides, which) = if is_first { ((id, None), "first") } else { ((None, id), "second") };
        ledger.add(Class::PlatformSet, || {
            let place = Place { platform: Some(image.platform.clone()), ..Place::default() };
            let sentence = format!("only the {which} has an image for {}", image.platform);
            Told::new(Event::DescriptorMismatch, Class::PlatformSet, place, sentence).sides(sides.0, sides.1)
        });
    }
    if options.platform.is_none() {
        index_bytes(&mut ledger, &all_a, &all_b, &pairs)?;
    }
    if alike == Verdict::Identical && ledger.count() > 0 {
        alike = Verdict::IdenticalButIndex;
    }
    Ok(ledger.finish(alike))
}

/// What differs of the bytes of two indexes when nothing else does.
fn index_bytes(
    ledger: &mut Ledger<'_>,
    a: &Contents,
    b: &Contents,
    pairs: &[(usize, usize)],
) -> Result<(), ImageError> {
    let (Some(one), Some(other)) = (&a.index, &b.index) else { return Ok(()) };
    let is_sorted = pairs.windows(2).all(|pair| pair[0].1 < pair[1].1);
    let tell = |ledger: &mut Ledger<'_>, sentence: &str| {
        ledger.add(Class::Index, || Told::new(Event::IndexBlobMismatch, Class::Index, Place::default(), sentence));
    };
    if !is_sorted {
        tell(ledger, "the index names the same platforms in another order");
    } else if ledger.count() == 0 && one != other {
        if contents::value(one, "index.json")? == contents::value(other, "index.json")? {
            documents::json_order(ledger, Event::IndexBlobMismatch, None, "the index");
        } else {
            tell(ledger, "the index names the same images otherwise: more than once, or in other nested indexes");
        }
    }
    Ok(())
}

/// Whether two images for one platform go together.
type Rule = fn(&ImageRef, &ImageRef) -> bool;

/// Which images go together: those for one platform, of several first the same, then those of one name, then in order.
fn pair_images(a: &[ImageRef], b: &[ImageRef]) -> (Vec<(usize, usize)>, Vec<usize>, Vec<usize>) {
    let mut free: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, image) in b.iter().enumerate() {
        free.entry(&image.platform).or_default().push(at);
    }
    let mut partners = vec![None; a.len()];
    let rules: [Rule; 3] = [
        |one, other| one.id() == other.id(),
        |one, other| one.names.intersection(&other.names).next().is_some(),
        |_, _| true,
    ];
    for rule in rules {
        for (at, image) in a.iter().enumerate().filter(|(at, _)| partners[*at].is_none()).collect::<Vec<_>>() {
            let Some(candidates) = free.get_mut(image.platform.as_str()) else { continue };
            if let Some(found) = candidates.iter().position(|other| rule(image, &b[*other])) {
                partners[at] = Some(candidates.remove(found));
            }
        }
    }
    let pairs = partners.iter().enumerate().filter_map(|(at, other)| Some((at, (*other)?))).collect();
    let rest_a = (0..a.len()).filter(|at| partners[*at].is_none()).collect();
    let mut rest_b: Vec<usize> = free.into_values().flatten().collect();
    rest_b.sort_unstable();
    (pairs, rest_a, rest_b)
}

/// Two sides and what holds for the comparison of two images in them.
struct Comparison<'a> {
    a: &'a Blobs,
    b: &'a Blobs,
    platform: &'a str,
    options: &'a DiffOptions,
    left: &'a Cell<u64>,
}

impl Comparison<'_> {
    fn images(&self, ledger: &mut Ledger<'_>, a: &ImageRef, b: &ImageRef) -> Result<Verdict, ImageError> {
        if a.descriptor().is_some() && b.descriptor().is_some() && a.id() == b.id() {
            return Ok(Verdict::Identical);
        }
        let (one, other) = (a.open(self.a)?, b.open(self.b)?);
        let before = ledger.count();
        documents::manifests(ledger, self.platform, &one, &other)?;
        documents::configs(ledger, self.platform, &one, &other)?;
        let pairs = layers::pair(&one.layers, &other.layers);
        if layers::is_base_drift(&pairs, [&one, &other].into_iter().any(documents::has_base)) {
            let place = Place { layer_a: Some(1), layer_b: Some(1), ..self.place() };
            let told = |image: &OpenImage| image.layers.first().map(|layer| layer.diff_id.to_string());
            let sentence =
                "the lowest layer differs and others above it are the same: the image stands on another base";
            ledger.add(Class::BaseImageDrift, || {
                Told::new(Event::LayerBlobMismatch, Class::BaseImageDrift, place, sentence)
                    .sides(told(&one), told(&other))
            });
        }
        let mut lonely = Lonely::default();
        for pair in &pairs {
            layers::tell_pair(ledger, self.platform, *pair, &one.layers, &other.layers);
            match *pair {
                Pair::Same(at_a, at_b) | Pair::Moved(at_a, at_b) => self.same(ledger, (&one, at_a), (&other, at_b))?,
                Pair::Changed(at_a, at_b) => self.changed(ledger, &mut lonely, (&one, at_a), (&other, at_b))?,
                Pair::Removed(_) | Pair::Inserted(_) => {}
            }
        }
        lonely.tell(ledger);
        let same_layers = pairs.iter().all(|pair| matches!(pair, Pair::Same(..)));
        let same_config = one.config_bytes == other.config_bytes;
        let bytes = |image: &OpenImage| image.manifest.as_ref().map(|(bytes, _)| BlobDigest::of(bytes));
        let same_manifest = bytes(&one) == bytes(&other);
        if !(same_config && same_manifest) && ledger.count() == before {
            ledger.add(Class::Manifest, || {
                let sentence = "the manifests differ in something that is not told apart";
                Told::new(Event::ManifestBlobMismatch, Class::Manifest, self.place(), sentence)
            });
        }
        Ok(match (same_config && same_layers, same_layers) {
            (true, _) if same_manifest => Verdict::Identical,
            (true, _) => Verdict::SameUncompressed,
            (_, true) => Verdict::SameLayers,
            _ => Verdict::Different,
        })
    }

    fn place(&self) -> Place {
        Place { platform: Some(self.platform.to_owned()), ..Place::default() }
    }

    fn layer_place(&self, a: &LayerRef, b: &LayerRef) -> Place {
        Place { layer_a: Some(a.number), layer_b: Some(b.number), ..self.place() }
    }

    fn descriptors(&self, ledger: &mut Ledger<'_>, (a, at_a): (&OpenImage, usize), (b, at_b): (&OpenImage, usize)) {
        if let (Some((_, one)), Some((_, other))) = (&a.manifest, &b.manifest) {
            let place = self.layer_place(&a.layers[at_a], &b.layers[at_b]);
            documents::layer_descriptors(ledger, &place, &one.layers[at_a], &other.layers[at_b]);
        }
    }

    /// The same layer unpacked.
    fn same(&self, ledger: &mut Ledger<'_>, a: (&OpenImage, usize), b: (&OpenImage, usize)) -> Result<(), ImageError> {
        self.descriptors(ledger, a, b);
        let (one, other) = (&a.0.layers[a.1], &b.0.layers[b.1]);
        let place = self.layer_place(one, other);
        layers::compressors(ledger, &place, (self.a, one), (self.b, other))
    }

    fn changed(
        &self,
        ledger: &mut Ledger<'_>,
        lonely: &mut Lonely,
        a: (&OpenImage, usize),
        b: (&OpenImage, usize),
    ) -> Result<(), ImageError> {
        self.descriptors(ledger, a, b);
        let (one, other) = (&a.0.layers[a.1], &b.0.layers[b.1]);
        let place = self.layer_place(one, other);
        let before = (ledger.count(), lonely.count());
        let (entries_a, entries_b) = (entries(self.a, one, self.left)?, entries(self.b, other, self.left)?);
        let differing = files::compare(ledger, lonely, &place, (&entries_a, &entries_b));
        let looked_at = &differing[..differing.len().min(self.options.excerpts_max)];
        let both = [(self.a, one, entries_a.as_slice()), (self.b, other, entries_b.as_slice())];
        let tell = |which: files::Differing, class, sentence, excerpt| {
            let (entry, like) = (&entries_a[which.a], &entries_b[which.b]);
            let hex = |entry: &entries::Meta| {
                let digest = BlobDigest::from_sha256(entry.content);
                Some(format!("{} bytes, {digest}", entry.size))
            };
            let place = files::place_of(&place, entry, Some("content"));
            let told = Told::new(Event::TarEntryMismatch, class, place, sentence).sides(hex(entry), hex(like));
            Told { excerpt, ..told }
        };
        for found in explain(both, looked_at, self.options.excerpt_lines_max, self.left)? {
            ledger.add(found.class, || tell(found.which, found.class, found.sentence, Some(found.excerpt)));
        }
        for which in &differing[looked_at.len()..] {
            let dirty = files::known_dirty(&entries_a[which.a].path);
            let class = dirty.map_or(Class::Content, |_| Class::DirtyPath);
            ledger.add(class, || tell(*which, class, dirty.unwrap_or("the content differs"), None));
        }
        if (ledger.count(), lonely.count()) == before {
            ledger.add(Class::TarFormat, || {
                let sentence = "the entries are the same; the bytes around them differ: padding, the end of the archive, or global headers";
                let sides = [one, other].map(|layer| Some(layer.diff_id.to_string()));
                let [one, other] = sides;
                Told::new(Event::LayerBlobMismatch, Class::TarFormat, place.clone(), sentence).sides(one, other)
            });
        }
        Ok(())
    }
}
