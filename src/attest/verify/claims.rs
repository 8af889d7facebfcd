//! What a signed statement says, against the image that is there. Everything here was signed by a key that is trusted.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::attest::cyclonedx::CYCLONEDX_PREDICATE;
use crate::attest::provenance::{BASE_ROLE, BUILD_TYPE, DIFF_ID, LAYER_ROLE, MANIFEST, PROVENANCE_PREDICATE, ROLE};
use crate::attest::spdx::SPDX_PREDICATE;
use crate::attest::statement::{Statement, digest_set};
use crate::attest::verify::blobs::FoundImage;
use crate::attest::verify::report::Report;
use crate::image::BlobDigest;

const ABOUT: &str = "it is about this image";

/// The name of a tree digest among those of in-toto.
const TREE_ALGORITHM: &str = "drystoneTree";

/// The image that claims are held against.
pub(super) struct Claims<'a> {
    /// Digest of what was found.
    pub digest: &'a BlobDigest,
    /// The images in it.
    pub images: &'a [FoundImage],
}

impl Claims<'_> {
    /// Whether hexadecimal digits are those of the image, or of one in it.
    fn has_sha256(&self, hex: &str) -> bool {
        let all = std::iter::once(self.digest).chain(self.images.iter().map(|image| &image.manifest));
        all.into_iter().any(|digest| digest.to_string() == format!("sha256:{}", hex.to_ascii_lowercase()))
    }
}

/// Provenance as far as it is read; other builders tell more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provenance {
    build_definition: Definition,
    run_details: Run,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    build_type: String,
    #[serde(default)]
    resolved_dependencies: Vec<Resource>,
}

#[derive(Deserialize)]
struct Run {
    builder: Builder,
    #[serde(default)]
    byproducts: Vec<Resource>,
}

#[derive(Deserialize)]
struct Builder {
    id: String,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    digest: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, Value>,
}

impl Resource {
    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name)?.as_str()
    }

    fn is_of(&self, role: &str, manifest: &str) -> bool {
        self.annotation(ROLE) == Some(role) && self.annotation(MANIFEST) == Some(manifest)
    }

    fn is_blob(&self, digest: &str) -> bool {
        BlobDigest::parse(digest).is_ok_and(|digest| self.digest == digest_set(&digest))
    }
}

/// Whether a statement is about outputs of tasks and no image: `audit --attest` writes such beside those that are about one.
pub(super) fn is_of_tasks(statement: &Statement<Value>) -> bool {
    let is_tree = |algorithm: &String| algorithm == TREE_ALGORITHM;
    !statement.subject.is_empty() && statement.subject.iter().all(|subject| subject.digest.keys().all(is_tree))
}

/// Says of a statement about outputs of tasks that it is none about this image.
pub(super) fn pass_by(name: &str, report: &mut Report) {
    report.not_checked(name.escape_debug().to_string(), ABOUT, "it is about outputs of tasks, and no image");
}

/// Checks one signed statement.
pub(super) fn check_statement(name: &str, statement: &Statement<Value>, claims: &Claims<'_>, report: &mut Report) {
    let name = name.escape_debug().to_string();
    let is_named = |digest: &BlobDigest| statement.subject.iter().any(|subject| subject.is(digest));
    let whole = is_named(claims.digest);
    let part = claims.images.iter().any(|image| is_named(&image.manifest));
    let about = if whole || part {
        Ok(())
    } else {
        Err(format!("it names {}, not {}", told_subjects(statement), claims.digest))
    };
    let is_about = about.is_ok();
    report.settle(name.clone(), ABOUT, about);
    if !is_about {
        return;
    }
    match statement.predicate_type.as_str() {
        PROVENANCE_PREDICATE => {
            if !claims.images.is_empty() {
                let law = "every image of the index is a subject of it";
                let missing = claims.images.iter().find(|image| !is_named(&image.manifest));
                let outcome = match missing {
                    _ if !whole => Err("it does not name the index".to_owned()),
                    Some(image) => Err(format!("it does not name {}", image.manifest)),
                    None => Ok(()),
                };
                report.settle(name.clone(), law, outcome);
            }
            check_provenance(&name, &statement.predicate, claims, report);
        }
        kind @ (SPDX_PREDICATE | CYCLONEDX_PREDICATE) => check_bill(&name, kind, &statement.predicate, claims, report),
        other => report.not_checked(name, "what it says holds", format!("`{}` is not known", other.escape_debug())),
    }
}

fn told_subjects(statement: &Statement<Value>) -> String {
    const TOLD_MAX: usize = 3;
    let digest = |(algorithm, hex): (&String, &String)| format!("{algorithm}:{hex}").escape_debug().to_string();
    let all = statement.subject.iter().flat_map(|subject| subject.digest.iter().map(digest));
    all.take(TOLD_MAX).map(|text| text.chars().take(100).collect::<String>()).collect::<Vec<_>>().join(", ")
}

fn check_provenance(name: &str, predicate: &Value, claims: &Claims<'_>, report: &mut Report) {
    let provenance = match Provenance::deserialize(predicate) {
        Ok(provenance) => provenance,
        Err(error) => return report.failed(name, "it can be read", error.to_string()),
    };
    let (definition, run) = (provenance.build_definition, provenance.run_details);
    if definition.build_type != BUILD_TYPE {
        let why = format!("it was built as `{}`, whose meaning is not known", definition.build_type.escape_debug());
        return report.not_checked(name, "what it says holds", why);
    }
    report.built_by.insert(run.builder.id);
    for image in claims.images {
        let manifest = image.manifest.to_string();
        let subject = match &image.platform {
            Some(platform) => format!("{name}, {platform}"),
            None => name.to_owned(),
        };
        let layers: Vec<_> = run.byproducts.iter().filter(|one| one.is_of(LAYER_ROLE, &manifest)).collect();
        report.settle(subject.clone(), "the layers are those that were built", same_layers(&layers, image));
        let bases: Vec<_> =
            definition.resolved_dependencies.iter().filter(|one| one.is_of(BASE_ROLE, &manifest)).collect();
        report.settle(subject, "the base is the one it was built upon", same_base(&bases, image));
    }
}

fn same_layers(told: &[&Resource], image: &FoundImage) -> Result<(), String> {
    if told.len() != image.layers.len() || told.len() != image.diff_ids.len() {
        return Err(format!("{} were built, and there are {}", told.len(), image.layers.len()));
    }
    for (position, one) in told.iter().enumerate() {
        if !one.is_blob(&image.layers[position]) || one.annotation(DIFF_ID) != Some(image.diff_ids[position].as_str()) {
            return Err(format!("layer {} is another", position + 1));
        }
    }
    Ok(())
}

fn same_base(told: &[&Resource], image: &FoundImage) -> Result<(), String> {
    match (told, &image.base) {
        ([], None) => Ok(()),
        ([one], Some(digest)) if one.is_blob(digest) => Ok(()),
        ([_], Some(digest)) => {
            Err(format!("the manifest names `{}`, and it was built upon another", digest.escape_debug()))
        }
        ([], Some(digest)) => {
            Err(format!("the manifest names `{}`, and it was built upon none", digest.escape_debug()))
        }
        ([_], None) => Err("it was built upon one that the manifest does not name".into()),
        _ => Err("several are told".into()),
    }
}

/// Checks that a bill of materials is of this image.
fn check_bill(name: &str, kind: &str, document: &Value, claims: &Claims<'_>, report: &mut Report) {
    let law = "its materials are those of this image";
    let digests = match kind {
        SPDX_PREDICATE => spdx_digests(document),
        _ => cyclonedx_digests(document),
    };
    match digests.as_slice() {
        [] => report.not_checked(name, law, "it does not tell the SHA-256 of what it describes"),
        all if all.iter().any(|hex| claims.has_sha256(hex)) => report.held(name, law),
        [first, ..] => {
            let first: String = first.escape_debug().take(100).collect();
            report.failed(name, law, format!("it describes sha256:{first}"));
        }
    }
}

/// The list at a place in a document; none if there is none.
fn list<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    document.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(document: &'a Value, name: &str) -> &'a str {
    document.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// SHA-256 of the packages that an SPDX document describes.
fn spdx_digests(document: &Value) -> Vec<String> {
    let is_described = |one: &&Value| {
        text(one, "relationshipType") == "DESCRIBES" && text(one, "spdxElementId") == text(document, "SPDXID")
    };
    let mut described: Vec<&str> = list(document, "/relationships")
        .iter()
        .filter(is_described)
        .map(|one| text(one, "relatedSpdxElement"))
        .collect();
    described.extend(list(document, "/documentDescribes").iter().filter_map(Value::as_str));
    let packages = list(document, "/packages").iter().filter(|package| described.contains(&text(package, "SPDXID")));
    let checksums = packages.flat_map(|package| list(package, "/checksums"));
    let sha256 = checksums.filter(|one| text(one, "algorithm") == "SHA256");
    sha256.map(|one| text(one, "checksumValue").to_owned()).collect()
}

/// SHA-256 of the component that a CycloneDX document is about.
fn cyclonedx_digests(document: &Value) -> Vec<String> {
    let sha256 = list(document, "/metadata/component/hashes").iter().filter(|one| text(one, "alg") == "SHA-256");
    sha256.map(|one| text(one, "content").to_owned()).collect()
}
