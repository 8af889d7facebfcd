//! `drystone image attest` and `keygen`: what goes with an image, as files or as documents that are attached to it in a registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::attest::bundle::{BUNDLE_TYPE, Bundle, is_signed};
use crate::attest::cyclonedx::{self, CYCLONEDX_PREDICATE, CYCLONEDX_TYPE};
use crate::attest::keys::{Algorithm, SigningKey};
use crate::attest::provenance::{PROVENANCE_PREDICATE, provenance};
use crate::attest::referrer::{bundle_annotations, plain_annotations, referrer};
use crate::attest::spdx::{self, SPDX_PREDICATE, SPDX_TYPE};
use crate::attest::statement::Statement;
use crate::attest::verify::Attestation;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::args::{AttestArgs, KeyKind, KeygenArgs};
use crate::cli::image::given::{self, Given, wrong};
use crate::cli::opening;
use crate::cli::table::aligned;
use crate::cli::verify::read_key;
use crate::engine::image_facts::{self, MadeImage, Told, Untold};
use crate::engine::image_task::Trouble;
use crate::fs::atomic::{self, Durability};
use crate::fs::ops;
use crate::image::assemble::{layout_index, layout_mark};
use crate::image::layout::{INDEX_FILE, LAYOUT_FILE};
use crate::image::wire::{Descriptor, write};
use crate::image::{BlobDigest, Blobs};

/// Permissions of a private key, and of what everybody may read.
const PRIVATE_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// One document.
struct Paper {
    /// Its file, and that of the bundle in which it is signed.
    file: &'static str,
    bundle: &'static str,
    predicate: &'static str,
    /// The type under which it is attached as it is, for what others look for so.
    plain: Option<&'static str>,
    /// Its bytes as a file.
    bytes: Vec<u8>,
    /// What is signed.
    statement: Vec<u8>,
}

/// Writes what goes with an image.
pub fn run(args: &AttestArgs, context: &Context) -> Result<ExitKind, CliError> {
    let key = args.sign.as_deref().map(|file| signing_key(&context.path(file))).transpose()?;
    let image = match given::made(&args.target, &args.making, context)? {
        Ok(image) => image,
        Err(exit) => return Ok(exit),
    };
    let told = told(&image, context)?;
    let dir = context.path(&args.output);
    ops::create_dir_all(&dir)?;
    let mut rows = Vec::new();
    for paper in papers(&told) {
        let mut files = vec![(paper.file, paper.bytes)];
        if let Some(key) = &key {
            files.push((paper.bundle, signed(&paper.statement, key)?));
        }
        for (name, bytes) in files {
            atomic::write(&dir.join(name), &bytes, Durability::Relaxed)?;
            rows.push([BlobDigest::of(&bytes).to_string(), args.output.join(name).display().to_string()]);
        }
    }
    context.out.write(aligned(&rows).as_bytes());
    if key.is_none() {
        context.say("nothing is signed: `--sign FILE` signs, `drystone image keygen` makes a key");
    }
    Ok(ExitKind::Done)
}

/// What is to be attached to an image.
pub struct Said {
    papers: [Paper; 3],
    subject: Descriptor,
    epoch: u64,
    key: Option<SigningKey>,
    is_plain: bool,
}

/// What is said of an image: signed if there is a key, bills of materials as they are if that is wanted; `None` if it is neither.
///
/// # Errors
/// If no task of this workspace made the image: then nothing is known of how it came to be.
pub fn said(image: &Given, key: Option<&Path>, is_plain: bool, context: &Context) -> Result<Option<Said>, CliError> {
    if key.is_none() && !is_plain {
        return Ok(None);
    }
    let key = key.map(|key| signing_key(&context.path(key))).transpose()?;
    let told = told(image, context)?;
    Ok(Some(Said { papers: papers(&told), subject: image.top()?, epoch: told.facts.epoch, key, is_plain }))
}

impl Said {
    /// Whether each signing makes other bytes, so that what is attached already should be looked at first.
    pub fn is_random(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.public().algorithm() == Algorithm::P256)
    }

    /// The documents, each in a layout of its own whose index names the manifest that has the image as its subject. A signature among
    /// those that are attached serves again: they are found under the same digests, and nothing is sent.
    pub fn layouts(&self, attached: &[Attestation]) -> Result<Vec<Blobs>, CliError> {
        let mut layouts = Vec::new();
        for paper in &self.papers {
            if let Some(key) = &self.key {
                let there = attached.iter().find(|one| is_signed(&one.document, &paper.statement, key.public()));
                let document = match there {
                    Some(there) => there.document.clone(),
                    None => signed(&paper.statement, key)?,
                };
                let annotations = bundle_annotations(paper.predicate, self.epoch);
                let (blobs, manifest) = referrer(document, BUNDLE_TYPE, None, &self.subject, annotations);
                layouts.push(layout_of(blobs, &manifest));
            }
            if let Some(kind) = paper.plain.filter(|_| self.is_plain) {
                let (document, annotations) = (paper.bytes.clone(), plain_annotations(self.epoch));
                let (blobs, manifest) = referrer(document, kind, Some(paper.file), &self.subject, annotations);
                layouts.push(layout_of(blobs, &manifest));
            }
        }
        Ok(layouts)
    }
}

fn layout_of(blobs: Vec<(BlobDigest, Vec<u8>)>, manifest: &Descriptor) -> Blobs {
    let mut files: BTreeMap<String, Vec<u8>> =
        blobs.into_iter().map(|(digest, bytes)| (digest.path(), bytes)).collect();
    files.insert(INDEX_FILE.into(), layout_index(manifest, None));
    files.insert(LAYOUT_FILE.into(), layout_mark());
    Blobs::Memory(Arc::new(files))
}

fn told(image: &Given, context: &Context) -> Result<Told, CliError> {
    let Some(made) = &image.made else {
        let told = format!("`{}` was not made here: nothing is known of how it came to be", image.name);
        return Err(CliError::usage(told).help("name the task that makes it, as `//apps/web:image`"));
    };
    let opened = &made.opened;
    let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session(context, store, opening::looking(), opening::never_cancelled()?)?;
    let Some(result) = &made.result else {
        let told = format!("how `{}` came to be cannot be told: a result that it is made of is not kept", image.name);
        return Err(CliError::usage(told)
            .help("a task with `cache = false`, or with a secret in its outputs, is among what it needs"));
    };
    let (task, recipe) = (made.task, &made.recipe);
    let told = image_facts::told(&session, &MadeImage { task, recipe, result, blobs: &image.blobs });
    told.map_err(|error| match error {
        Untold::Plan(error) => opened.plan_error(error),
        Untold::Preview(error) => opened.preview_error(error),
        Untold::Image(error) | Untold::Trouble(Trouble::Image(error)) => wrong(&image.name, &error),
        Untold::Trouble(Trouble::Input(problem)) => opened.wrong(vec![*problem]),
        Untold::Trouble(trouble) => CliError::infrastructure(trouble.to_string()),
        Untold::Changed => CliError::infrastructure(format!("`{}` cannot be told of: {error}", image.name))
            .help("run it again when the files are at rest"),
    })
}

fn papers(told: &Told) -> [Paper; 3] {
    let facts = &told.facts;
    let (spdx, cyclonedx) = (spdx::document(facts), cyclonedx::document(facts));
    let provenance = provenance(facts, &told.run).write();
    [
        Paper {
            file: "sbom.spdx.json",
            bundle: "sbom.spdx.sigstore.json",
            predicate: SPDX_PREDICATE,
            plain: Some(SPDX_TYPE),
            bytes: write(&spdx),
            statement: Statement::about(facts, SPDX_PREDICATE, spdx).write(),
        },
        Paper {
            file: "sbom.cdx.json",
            bundle: "sbom.cdx.sigstore.json",
            predicate: CYCLONEDX_PREDICATE,
            plain: Some(CYCLONEDX_TYPE),
            bytes: write(&cyclonedx),
            statement: Statement::about(facts, CYCLONEDX_PREDICATE, cyclonedx).write(),
        },
        Paper {
            file: "provenance.json",
            bundle: "provenance.sigstore.json",
            predicate: PROVENANCE_PREDICATE,
            plain: None,
            bytes: provenance.clone(),
            statement: provenance,
        },
    ]
}

/// A bundle of a statement, signed.
pub fn signed(statement: &[u8], key: &SigningKey) -> Result<Vec<u8>, CliError> {
    let bundle = Bundle::sign(statement, key).map_err(|error| CliError::infrastructure(error.to_string()))?;
    Ok(bundle.write())
}

/// Reads the private key that the command line names.
pub fn signing_key(file: &Path) -> Result<SigningKey, CliError> {
    let read = SigningKey::read_pem(&read_key(file)?);
    read.map_err(|error| CliError::usage(format!("{}: {error}", file.display())))
}

/// Makes a pair of keys.
pub fn keygen(args: &KeygenArgs, context: &Context) -> Result<ExitKind, CliError> {
    let private = context.path(&args.output);
    let public = PathBuf::from(format!("{}.pub", private.display()));
    // No key is ever written over: what it signed would be worth nothing.
    if let Some(there) = [&private, &public].into_iter().find(|file| ops::symlink_metadata(file).is_ok()) {
        return Err(CliError::usage(format!("{} is there already, and no key is written over", there.display()))
            .help("name another file with `--output`"));
    }
    let algorithm = match args.algorithm {
        KeyKind::Ed25519 => Algorithm::Ed25519,
        KeyKind::P256 => Algorithm::P256,
    };
    let key = SigningKey::generate(algorithm).map_err(|error| CliError::infrastructure(error.to_string()))?;
    put_new(&private, key.pem().expose(), PRIVATE_MODE)?;
    put_new(&public, key.public().pem().as_bytes(), PUBLIC_MODE)?;
    let rows =
        [["private".to_owned(), private.display().to_string()], ["public".to_owned(), public.display().to_string()]];
    context.out.write(aligned(&rows).as_bytes());
    context.out.line(&format!("id {}", key.public().id()));
    Ok(ExitKind::Done)
}

/// Writes a file that must not be there; of a failure nothing stays.
fn put_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CliError> {
    let file = ops::create_new(path, mode)?;
    // The umask may have taken bits away that a public key needs, and has added none.
    let written = ops::set_mode_of(&file, mode, path)
        .and_then(|()| ops::write_all(&file, path, bytes))
        .and_then(|()| ops::sync_open(&file, path));
    if written.is_err() {
        // The first error is the one worth telling.
        drop(ops::remove_file(path));
    }
    Ok(written?)
}
