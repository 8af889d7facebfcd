//! The bill of materials before it has a format: things, and what holds between them, in one order. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::attest::model::{Component, ComponentKind, ImageFacts, RelationKind, slug};
use crate::attest::names::{image_purl, licence_expression, public_url, without_tag};
use crate::image::BlobDigest;

/// The reference of the image itself.
pub(super) const IMAGE: &str = "image";

/// What a thing is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum ThingKind {
    Image,
    Layer,
    File,
    Package,
}

/// One thing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Thing {
    pub reference: String,
    pub kind: ThingKind,
    pub name: String,
    pub version: Option<String>,
    pub sha256: Option<String>,
    pub blake3: Option<String>,
    pub url: Option<String>,
    pub licence: Option<Licence>,
    pub purl: Option<String>,
    /// Where it lies in the image.
    pub path: Option<String>,
    /// What else is known, by names of ours, sorted.
    pub remarks: BTreeMap<&'static str, String>,
}

/// How a licence was told.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Licence {
    /// As an SPDX expression of identifiers that are known.
    Expression(String),
    /// In words that need not be any.
    Words(String),
}

/// What holds between two things.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum LinkKind {
    Contains,
    DependsOn,
    DescendantOf,
    GeneratedFrom,
    VariantOf,
}

/// That something holds between two things.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Link {
    pub from: String,
    pub kind: LinkKind,
    pub to: String,
}

/// Things and links, each once: the image first, the other things in the order of their references.
pub(super) struct Bill {
    pub image: Thing,
    pub things: Vec<Thing>,
    pub links: Vec<Link>,
}

/// The bill of an image.
pub(super) fn bill(facts: &ImageFacts) -> Bill {
    let mut things = BTreeSet::new();
    let mut links = BTreeSet::new();
    let mut link = |from: &str, kind, to: &str| {
        links.insert(Link { from: from.to_owned(), kind, to: to.to_owned() });
    };
    for one in facts.sorted_platforms() {
        let mut reference = IMAGE.to_owned();
        if one.manifest != facts.digest {
            reference = format!("image-{}", slug(&one.platform.to_string()));
            let mut thing = image_thing(&reference, &facts.name, &one.manifest);
            thing.remarks.insert("platform", one.platform.to_string());
            things.insert(thing);
            link(&reference, LinkKind::VariantOf, IMAGE);
        }
        for layer in &one.layers {
            let layer_reference = format!("layer-{}", layer.diff_id.hex());
            let mut thing = Thing::new(&layer_reference, ThingKind::Layer, &layer.diff_id.to_string());
            thing.sha256 = sha256(&layer.digest);
            thing.remarks.insert("size", layer.size.to_string());
            // The same layer has one thing, however many images have it: what made it is told where all see the same.
            thing.remarks.insert("diffId", layer.diff_id.to_string());
            things.insert(thing);
            link(&reference, LinkKind::Contains, &layer_reference);
        }
        if let Some(base) = &one.base {
            let component = Component {
                sha256: Some(base.digest.clone()),
                purl: Some(image_purl(&base.name, &base.digest)),
                ..Component::new(ComponentKind::BaseImage, without_tag(&base.name))
            };
            link(&reference, LinkKind::DescendantOf, &component.reference());
            things.insert(component_thing(&component.reference(), &component));
        }
    }
    for (reference, component) in facts.sorted_components() {
        things.insert(component_thing(&reference, component));
        let inside = component.path.is_some();
        let kind = match component.kind {
            ComponentKind::BaseImage => LinkKind::DescendantOf,
            ComponentKind::DebianPackage | ComponentKind::AlpinePackage => LinkKind::Contains,
            _ if inside => LinkKind::Contains,
            _ => LinkKind::GeneratedFrom,
        };
        link(IMAGE, kind, &reference);
    }
    for task in facts.sorted_tasks() {
        let is_its_output = |one: &&Component| {
            one.kind == ComponentKind::TaskOutput && one.name == task.label && one.tree == Some(task.output)
        };
        let bare = Component { tree: Some(task.output), ..Component::new(ComponentKind::TaskOutput, &task.label) };
        let outputs: Vec<_> = facts.components.iter().filter(is_its_output).collect();
        // A task of whose output nothing is told as a component is one all the same.
        for component in if outputs.is_empty() { vec![&bare] } else { outputs } {
            let reference = component.reference();
            let mut thing = component_thing(&reference, component);
            thing.remarks.insert("action", task.key.to_hex());
            things.insert(thing);
            link(IMAGE, LinkKind::GeneratedFrom, &reference);
        }
    }
    for relation in facts.sorted_relations() {
        let kind = match relation.kind {
            RelationKind::GeneratedFrom => LinkKind::GeneratedFrom,
            RelationKind::Contains => LinkKind::Contains,
            RelationKind::DependsOn => LinkKind::DependsOn,
        };
        link(&relation.from, kind, &relation.to);
    }
    // What is known in two ways, as a component and as a task, is one thing.
    let mut by_reference: BTreeMap<String, Thing> = BTreeMap::new();
    for thing in things {
        let known = by_reference.entry(thing.reference.clone()).or_insert_with(|| thing.clone());
        known.remarks.extend(thing.remarks);
    }
    let mut image = image_thing(IMAGE, &facts.name, &facts.digest);
    image.remarks.insert("action", facts.action_key.to_hex());
    image.remarks.insert("imageFormat", facts.image_format.to_string());
    Bill { image, things: by_reference.into_values().collect(), links: links.into_iter().collect() }
}

impl Thing {
    fn new(reference: &str, kind: ThingKind, name: &str) -> Self {
        Self {
            reference: reference.to_owned(),
            kind,
            name: name.to_owned(),
            version: None,
            sha256: None,
            blake3: None,
            url: None,
            licence: None,
            purl: None,
            path: None,
            remarks: BTreeMap::new(),
        }
    }
}

/// The hexadecimal digits of a digest, if it is a SHA-256.
fn sha256(digest: &BlobDigest) -> Option<String> {
    digest.to_string().strip_prefix("sha256:").map(str::to_owned)
}

fn image_thing(reference: &str, name: &str, digest: &BlobDigest) -> Thing {
    let mut thing = Thing::new(reference, ThingKind::Image, without_tag(name));
    thing.version = Some(digest.to_string());
    thing.sha256 = sha256(digest);
    thing.purl = Some(image_purl(name, digest));
    thing
}

fn component_thing(reference: &str, component: &Component) -> Thing {
    let kind = match component.kind {
        ComponentKind::BaseImage => ThingKind::Image,
        ComponentKind::DebianPackage | ComponentKind::AlpinePackage => ThingKind::Package,
        _ => ThingKind::File,
    };
    let mut thing = Thing::new(reference, kind, &component.name);
    thing.version.clone_from(&component.version);
    thing.sha256 = component.sha256.as_ref().and_then(sha256);
    thing.blake3 = component.blake3.map(|digest| digest.to_hex());
    thing.url = component.url.as_deref().and_then(public_url);
    let licence = |text: &String| match licence_expression(text) {
        Some(expression) => Licence::Expression(expression),
        None => Licence::Words(text.clone()),
    };
    thing.licence = component.licence.as_ref().filter(|text| !text.trim().is_empty()).map(licence);
    thing.purl.clone_from(&component.purl);
    thing.path.clone_from(&component.path);
    thing.remarks.insert("kind", component.kind.word().to_owned());
    if let Some(tree) = component.tree {
        thing.remarks.insert("tree", tree.to_hex());
    }
    thing
}
