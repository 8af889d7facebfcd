//! Bills of materials as CycloneDX 1.6 in JSON. The same facts give the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::attest::bill::{Bill, IMAGE, Licence, Link, LinkKind, Thing, ThingKind, bill};
use crate::attest::model::ImageFacts;
use crate::attest::names::{rfc3339, uuid};
use crate::image::wire::write;

/// The type of such a document, and of what holds one beside an image.
pub const CYCLONEDX_TYPE: &str = "application/vnd.cyclonedx+json";

/// What a statement calls it.
pub const CYCLONEDX_PREDICATE: &str = "https://cyclonedx.org/bom";

/// A CycloneDX document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Metadata {
    timestamp: String,
    tools: Tools,
    component: Component,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Tools {
    components: Vec<Tool>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    version: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref")]
    reference: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<LicenceChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_references: Vec<ExternalReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct LicenceChoice {
    #[serde(skip_serializing_if = "Option::is_none")]
    expression: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<LicenceName>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct LicenceName {
    name: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct ExternalReference {
    url: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Evidence {
    occurrences: Vec<Occurrence>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Occurrence {
    location: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Property {
    name: String,
    value: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    #[serde(rename = "ref")]
    reference: String,
    depends_on: Vec<String>,
}

/// The CycloneDX document of an image.
pub fn document(facts: &ImageFacts) -> Document {
    let Bill { image, things, links } = bill(facts);
    let tool = Tool { kind: "application", name: "drystone", version: facts.engine_version.clone() };
    let mut document = Document {
        schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: String::new(),
        version: 1,
        metadata: Metadata {
            timestamp: rfc3339(facts.epoch),
            tools: Tools { components: vec![tool] },
            component: component(&image),
        },
        dependencies: dependencies(&things, &links),
        components: things.iter().map(component).collect(),
    };
    // It follows from everything else, the digest of the image included: other contents, other number.
    document.serial_number = format!("urn:uuid:{}", uuid("cyclonedx", &write(&document)));
    document
}

/// CycloneDX knows one kind of arrow between components: whatever one has in it, or was made from, is what it depends on.
fn dependencies(things: &[Thing], links: &[Link]) -> Vec<Dependency> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::from([(IMAGE, BTreeSet::new())]);
    for thing in things {
        all.insert(&thing.reference, BTreeSet::new());
    }
    for link in links {
        let (from, to) = match link.kind {
            // The index is what has its images in it.
            LinkKind::VariantOf => (&link.to, &link.from),
            _ => (&link.from, &link.to),
        };
        if from != to {
            all.entry(from).or_default().insert(to);
        }
    }
    let dependency = |(reference, depends_on): (&str, BTreeSet<&str>)| Dependency {
        reference: reference.to_owned(),
        depends_on: depends_on.into_iter().map(str::to_owned).collect(),
    };
    all.into_iter().map(dependency).collect()
}

fn component(thing: &Thing) -> Component {
    let hash = |alg, value: &Option<String>| value.clone().map(|content| Hash { alg, content });
    let licence = thing.licence.clone().map(|licence| match licence {
        Licence::Expression(expression) => LicenceChoice { expression: Some(expression), license: None },
        Licence::Words(name) => LicenceChoice { expression: None, license: Some(LicenceName { name }) },
    });
    let property =
        |(name, value): (&&str, &String)| Property { name: format!("drystone:{name}"), value: value.clone() };
    Component {
        kind: match thing.kind {
            ThingKind::Image => "container",
            ThingKind::Layer | ThingKind::File => "file",
            ThingKind::Package => "library",
        },
        reference: thing.reference.clone(),
        name: thing.name.clone(),
        version: thing.version.clone(),
        hashes: [hash("SHA-256", &thing.sha256), hash("BLAKE3", &thing.blake3)].into_iter().flatten().collect(),
        licenses: licence.into_iter().collect(),
        purl: thing.purl.clone(),
        external_references: thing
            .url
            .clone()
            .map(|url| ExternalReference { url, kind: "distribution" })
            .into_iter()
            .collect(),
        evidence: thing.path.clone().map(|location| Evidence { occurrences: vec![Occurrence { location }] }),
        properties: thing.remarks.iter().map(property).collect(),
    }
}
