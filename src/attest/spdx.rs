//! Bills of materials as SPDX 2.3 in JSON (specification 2.3, chapters 6, 7 and 11). The same facts give the same bytes.

use serde::Serialize;

use crate::attest::bill::{Bill, IMAGE, Licence, Link, LinkKind, Thing, ThingKind, bill};
use crate::attest::model::ImageFacts;
use crate::attest::names::{rfc3339, uuid};
use crate::image::wire::write;

/// The type of such a document, and of what holds one beside an image.
pub const SPDX_TYPE: &str = "application/spdx+json";

/// What a statement calls it.
pub const SPDX_PREDICATE: &str = "https://spdx.dev/Document";

const NAMESPACE: &str = "https://drystone.dev/spdx";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const UNKNOWN: &str = "NOASSERTION";

/// An SPDX document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: Creation,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Creation {
    created: String,
    creators: Vec<String>,
}

/// Files are packages too: what a file must have in SPDX 2.3 is a SHA-1, which nobody should go by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_file_name: Option<String>,
    download_location: String,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    license_concluded: &'static str,
    license_declared: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_comments: Option<String>,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
    primary_package_purpose: &'static str,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// The SPDX document of an image.
pub fn document(facts: &ImageFacts) -> Document {
    let Bill { image, things, links } = bill(facts);
    let described = Relationship {
        spdx_element_id: DOCUMENT.to_owned(),
        relationship_type: "DESCRIBES",
        related_spdx_element: element(IMAGE),
    };
    let relationship = |link: &Link| Relationship {
        spdx_element_id: element(&link.from),
        relationship_type: match link.kind {
            LinkKind::Contains => "CONTAINS",
            LinkKind::DependsOn => "DEPENDS_ON",
            LinkKind::DescendantOf => "DESCENDANT_OF",
            LinkKind::GeneratedFrom => "GENERATED_FROM",
            LinkKind::VariantOf => "VARIANT_OF",
        },
        related_spdx_element: element(&link.to),
    };
    let mut document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        name: image.name.clone(),
        document_namespace: String::new(),
        creation_info: Creation {
            created: rfc3339(facts.epoch),
            creators: vec![format!("Tool: drystone-{}", facts.engine_version)],
        },
        packages: std::iter::once(&image).chain(&things).map(package).collect(),
        relationships: std::iter::once(described).chain(links.iter().map(relationship)).collect(),
    };
    // Two documents with one namespace must be the same: so it follows from everything else, the digest of the image included.
    document.document_namespace = format!("{NAMESPACE}/{}", uuid("spdx", &write(&document)));
    document
}

fn element(reference: &str) -> String {
    format!("SPDXRef-{reference}")
}

fn package(thing: &Thing) -> Package {
    let sha256 = thing.sha256.clone().map(|checksum_value| Checksum { algorithm: "SHA256", checksum_value });
    let (license_declared, license_comments) = match &thing.licence {
        Some(Licence::Expression(expression)) => (expression.clone(), None),
        Some(Licence::Words(words)) => (UNKNOWN.to_owned(), Some(words.clone())),
        None => (UNKNOWN.to_owned(), None),
    };
    // Not as a checksum: spdx-tools 0.8.5 takes a BLAKE3 for 256 digits long and refuses any other.
    let blake3 = thing.blake3.as_ref().map(|value| ("blake3", value));
    let remarks = blake3.into_iter().chain(thing.remarks.iter().map(|(name, value)| (*name, value)));
    let remarks: Vec<_> = remarks.map(|(name, value)| format!("drystone:{name}={value}")).collect();
    let purl = thing.purl.clone().map(|reference_locator| ExternalRef {
        reference_category: "PACKAGE-MANAGER",
        reference_type: "purl",
        reference_locator,
    });
    Package {
        id: element(&thing.reference),
        name: thing.name.clone(),
        version_info: thing.version.clone(),
        package_file_name: thing.path.clone(),
        download_location: thing.url.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        files_analyzed: false,
        checksums: sha256.into_iter().collect(),
        license_concluded: UNKNOWN,
        license_declared,
        license_comments,
        copyright_text: UNKNOWN,
        comment: (!remarks.is_empty()).then(|| remarks.join(" ")),
        external_refs: purl.into_iter().collect(),
        primary_package_purpose: match thing.kind {
            ThingKind::Image => "CONTAINER",
            ThingKind::Layer => "ARCHIVE",
            ThingKind::File => "FILE",
            ThingKind::Package => "LIBRARY",
        },
    }
}
