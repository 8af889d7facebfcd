//! How an image came to be, as SLSA provenance v1. What is told of a run (who, when) comes from the caller; all else is of the image.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::attest::model::{Component, ComponentKind, ImageFacts, TaskFacts};
use crate::attest::names::{image_purl, percent_encoded, public_url, rfc3339, without_user};
use crate::attest::statement::{Statement, digest_set};
use crate::image::BlobDigest;

/// The type of the predicate.
pub const PROVENANCE_PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// How images are built: what the parameters mean. Another meaning gets another number.
pub const BUILD_TYPE: &str = "https://drystone.dev/image/v1";

/// The builder, unless another is told: this program on a machine of which nothing is claimed.
pub const LOCAL_BUILDER: &str = "https://drystone.dev/builder/local";

/// Names of annotations that tie a layer or a base to the image it is of.
pub(super) const ROLE: &str = "role";
pub(super) const MANIFEST: &str = "manifest";
pub(super) const DIFF_ID: &str = "diffId";
pub(super) const BASE_ROLE: &str = "base";
pub(super) const LAYER_ROLE: &str = "layer";

/// A value of a parameter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Parameter {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
    /// Values in an order that means something.
    List(Vec<Parameter>),
    /// Values by name.
    Map(BTreeMap<String, Parameter>),
}

/// Something that was used or left: `ResourceDescriptor` of in-toto.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What identifies it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its digests: hexadecimal digits by algorithm.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// Where it can be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_location: Option<String>,
    /// Remarks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is told of the run that built an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunFacts {
    /// Everything that whoever asked for the image decided: label, manifest of the image, options. Nothing may be left out, for a
    /// verifier goes by it.
    pub external: BTreeMap<String, Parameter>,
    /// How strictly tasks were kept apart, in the words of `--isolation`.
    pub isolation: String,
    /// Where the sources came from and at which revision, and whatever else is used that is no component. Names and passwords in
    /// places are left out.
    pub sources: Vec<Resource>,
    /// Who built it; [`LOCAL_BUILDER`] unless a known machine did.
    pub builder: String,
    /// The run.
    pub invocation: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// When it ended, in seconds since 1970.
    pub finished: u64,
    /// What it left beside the image: logs, reports.
    pub byproducts: Vec<Resource>,
}

/// Provenance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    build_definition: Definition,
    run_details: Run,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    build_type: &'static str,
    external_parameters: BTreeMap<String, Parameter>,
    internal_parameters: Internal,
    resolved_dependencies: Vec<Resource>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Internal {
    action_key: String,
    epoch: u64,
    image_format: u32,
    isolation: String,
    tasks: Vec<Task>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Task {
    label: String,
    key: String,
    output: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Run {
    builder: Builder,
    metadata: Metadata,
    byproducts: Vec<Resource>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Builder {
    id: String,
    version: BTreeMap<&'static str, String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    invocation_id: String,
    started_on: String,
    finished_on: String,
}

/// The statement of how an image came to be.
pub fn provenance(facts: &ImageFacts, run: &RunFacts) -> Statement<Provenance> {
    let task =
        |task: &&TaskFacts| Task { label: task.label.clone(), key: task.key.to_hex(), output: task.output.to_hex() };
    let mut byproducts = layers(facts);
    byproducts.extend(sorted(run.byproducts.iter().map(public).collect()));
    let provenance = Provenance {
        build_definition: Definition {
            build_type: BUILD_TYPE,
            external_parameters: run.external.clone(),
            internal_parameters: Internal {
                action_key: facts.action_key.to_hex(),
                epoch: facts.epoch,
                image_format: facts.image_format,
                isolation: run.isolation.clone(),
                tasks: facts.sorted_tasks().iter().map(task).collect(),
            },
            resolved_dependencies: dependencies(facts, run),
        },
        run_details: Run {
            builder: Builder {
                id: run.builder.clone(),
                version: BTreeMap::from([("drystone", facts.engine_version.clone())]),
            },
            metadata: Metadata {
                invocation_id: run.invocation.clone(),
                started_on: rfc3339(run.started),
                finished_on: rfc3339(run.finished),
            },
            byproducts,
        },
    };
    Statement::about(facts, PROVENANCE_PREDICATE, provenance)
}

/// Everything fixed that went in: bases by digest, sources, what was fetched.
fn dependencies(facts: &ImageFacts, run: &RunFacts) -> Vec<Resource> {
    let mut all: Vec<_> = run.sources.iter().map(public).collect();
    for one in &facts.platforms {
        if let Some(base) = &one.base {
            all.push(Resource {
                name: base.name.clone(),
                uri: Some(image_purl(&base.name, &base.digest)),
                digest: digest_set(&base.digest),
                download_location: None,
                annotations: annotations(&[(ROLE, BASE_ROLE), (MANIFEST, &one.manifest.to_string())]),
            });
        }
    }
    all.extend(facts.components.iter().map(resource));
    sorted(all)
}

fn resource(component: &Component) -> Resource {
    let mut digest: BTreeMap<_, _> = component.sha256.as_ref().map(digest_set).unwrap_or_default();
    digest.extend(component.blake3.map(|blake3| ("blake3".to_owned(), blake3.to_hex())));
    // In-toto leaves other algorithms to those who use them.
    digest.extend(component.tree.map(|tree| ("drystoneTree".to_owned(), tree.to_hex())));
    let place = component.url.as_deref().and_then(public_url);
    let path = component.name.split('/').map(percent_encoded).collect::<Vec<_>>().join("/");
    let uri = match component.kind {
        ComponentKind::SourceFile => Some(format!("drystone:source/{path}")),
        ComponentKind::TaskOutput => Some(format!("drystone:task/{}", path.trim_start_matches('/'))),
        _ => component.purl.clone().or_else(|| place.clone()),
    };
    Resource {
        name: component.name.clone(),
        uri: uri.or_else(|| Some(format!("drystone:{}/{path}", component.kind.word()))),
        digest,
        download_location: place,
        annotations: annotations(&[(ROLE, component.kind.word())]),
    }
}

/// The layers of every image, in their order: so what the manifests say of them is signed once more, uncompressed.
fn layers(facts: &ImageFacts) -> Vec<Resource> {
    let mut layers = Vec::new();
    for one in facts.sorted_platforms() {
        let manifest: &BlobDigest = &one.manifest;
        for (position, layer) in one.layers.iter().enumerate() {
            let mut annotations = annotations(&[
                (ROLE, LAYER_ROLE),
                (MANIFEST, &manifest.to_string()),
                (DIFF_ID, &layer.diff_id.to_string()),
                ("size", &layer.size.to_string()),
            ]);
            if !layer.created_by.is_empty() {
                annotations.insert("createdBy".into(), layer.created_by.clone());
            }
            layers.push(Resource {
                name: format!("layer {} of {}", position + 1, one.platform),
                uri: None,
                digest: digest_set(&layer.digest),
                download_location: None,
                annotations,
            });
        }
    }
    layers
}

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What a caller told, as it may be told to everyone.
fn public(told: &Resource) -> Resource {
    let without_user = |uri: &Option<String>| uri.as_deref().map(without_user);
    let (uri, download_location) = (without_user(&told.uri), without_user(&told.download_location));
    Resource { uri, download_location, ..told.clone() }
}

fn sorted(mut resources: Vec<Resource>) -> Vec<Resource> {
    resources.sort();
    resources.dedup();
    resources
}
