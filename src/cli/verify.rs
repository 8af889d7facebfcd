//! `drystone verify`: whether an image is what is said of it. The checks are those of `attest::verify`; here stand where attestations
//! come from and how the outcome is written.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::attest::KEY_FILE_BYTES_MAX;
use crate::attest::bundle::{BUNDLE_BYTES_MAX, BUNDLE_TYPE};
use crate::attest::cyclonedx::CYCLONEDX_TYPE;
use crate::attest::keys::PublicKey;
use crate::attest::spdx::SPDX_TYPE;
use crate::attest::verify::{
    Attestation, Form, Outcome, Question, Quorum, Released, Report, Verdict, is_of_rebuilder, require_reproduced,
    verify, verify_blob,
};
use crate::audit::results::{RESULTS_BYTES_MAX, Results};
use crate::audit::statement::{REPRODUCTION_PREDICATE, claims};
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::args::MakingArgs;
use crate::cli::image::given::{self, Given, refused, wrong};
use crate::cli::opening;
use crate::cli::table::json;
use crate::fs::ops::{self, FsError};
use crate::image::wire::{Descriptor, MANIFEST_TYPE, Manifest};
use crate::image::{BlobDigest, Blobs};
use crate::registry::{Client, Reference, Wanted};

/// Most attestations taken from a registry or a directory.
const ATTESTATIONS_MAX: usize = 256;

/// What the names of attestations in a directory end with, and what they are.
const ENDINGS: [(&str, &str); 3] =
    [(".sigstore.json", BUNDLE_TYPE), (".spdx.json", SPDX_TYPE), (".cdx.json", CYCLONEDX_TYPE)];

/// Options of `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Which image: a task, an OCI layout or an archive of one, or a name in a registry, where what is attached to it is asked for, too.
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// A public key (PEM) that is trusted. Without any, digests are checked and signatures are not.
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// A Sigstore bundle or a bill of materials of the image, or a directory with such, as `image attest` writes them.
    #[arg(long, value_name = "FILE")]
    pub attestation: Vec<PathBuf>,
    /// Requires that so many distinct keys signed that they built the same: `--require-reproduced 2-of KEYS`, where KEYS is a file of
    /// public keys (PEM) or a directory of `.pub` and `.pem` files. What they signed, by `audit results --key`, is among the attestations.
    /// IMAGE may be a file of results then, as `audit results` writes it.
    #[arg(long, value_names = ["N-of", "KEYS"], num_args = 2)]
    pub require_reproduced: Vec<String>,
    /// How the checks are written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// All that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct VerifiedImage {
    /// The image as it was named.
    pub image: String,
    /// Its digest; empty if it was not found.
    pub digest: String,
    /// Whether nothing failed.
    pub held: bool,
    /// Whether a trusted key signed something that was said of it.
    pub signed: bool,
    /// Ids of the trusted keys that did.
    pub signed_by: Vec<String>,
    /// Who built it, as signed provenance says.
    pub built_by: Vec<String>,
    /// Every check, in the order in which they were made.
    pub checks: Vec<CheckRow>,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct CheckRow {
    /// What it is about.
    pub subject: String,
    /// What should hold of it.
    pub law: String,
    /// `held`, `failed` or `not-checked`.
    pub verdict: &'static str,
    /// Why it failed or was not checked.
    pub cause: Option<String>,
}

impl VerifiedImage {
    fn of(image: &str, report: &Report) -> Self {
        let row = |check: &crate::attest::verify::Check| {
            let (verdict, cause) = match &check.verdict {
                Verdict::Held => ("held", None),
                Verdict::Failed(cause) => ("failed", Some(cause.clone())),
                Verdict::NotChecked(why) => ("not-checked", Some(why.clone())),
            };
            CheckRow { subject: check.subject.clone(), law: check.law.to_owned(), verdict, cause }
        };
        Self {
            image: image.to_owned(),
            digest: report.digest.clone(),
            held: report.holds(),
            signed: !report.signed_by.is_empty(),
            signed_by: report.signed_by.iter().cloned().collect(),
            built_by: report.built_by.iter().cloned().collect(),
            checks: report.checks.iter().map(row).collect(),
        }
    }
}

/// The checks, one a line, and what they come to.
pub fn verified_text(verified: &VerifiedImage, report: &Report, format: Format) -> String {
    if format == Format::Json {
        return json(verified);
    }
    let mut text: String = report.checks.iter().map(|check| format!("{check}\n")).collect();
    let failed = verified.checks.iter().filter(|check| check.verdict == "failed").count();
    let digest = &verified.digest;
    text.push_str(&match (failed, verified.signed) {
        (0, true) => format!("{digest} holds, signed by {}\n", verified.signed_by.join(", ")),
        (0, false) => format!("{digest} holds; no signature was checked: name a trusted key with `--key`\n"),
        (failed, _) => {
            format!("{} does not hold: {failed} of {} checks failed\n", verified.image, verified.checks.len())
        }
    });
    text
}

/// What audits sign counts beside the results of builders.
const FORMS: [Form; 1] = [Form { predicate_type: REPRODUCTION_PREDICATE, read: claims }];

/// Verifies an image.
pub fn run(args: &VerifyArgs, context: &Context) -> Result<ExitKind, CliError> {
    let keys = keys(&args.key, context)?;
    let quorum = quorum(&args.require_reproduced, context)?;
    let mut attestations = files(&args.attestation, context)?;
    if let Some((count, listed)) = &quorum
        && let Some(released) = results(&context.path(Path::new(&args.image)))?
    {
        let mut report = Report { digest: args.image.clone(), ..Report::default() };
        require_reproduced(
            &released,
            &attestations,
            Quorum { count: *count, keys: listed, forms: &FORMS },
            &mut report,
        );
        return Ok(tell(&report, args, context));
    }
    let image = match given::find(&args.image, &MakingArgs::default(), context)? {
        Ok(image) => image,
        Err(exit) => return Ok(exit),
    };
    if let Some(reference) = &image.reference {
        let cancel = opening::never_cancelled()?;
        attestations.extend(attached(&given::client(context, &cancel)?, reference, &pulled(&image)?, context)?);
    }
    let digest = image.reference.as_ref().and_then(|reference| reference.digest.as_ref());
    let listed = quorum.as_ref().map_or(&[][..], |(_, listed)| listed);
    let (rebuilt, attestations): (Vec<_>, Vec<_>) =
        attestations.into_iter().partition(|one| quorum.is_some() && is_of_rebuilder(one, listed, &FORMS));
    let mut report = verify(&Question { blobs: &image.blobs, digest, attestations: &attestations, keys: &keys });
    if let Some((count, listed)) = &quorum
        && let Ok(digest) = BlobDigest::parse(&report.digest)
    {
        require_reproduced(
            &Released::Image(digest),
            &rebuilt,
            Quorum { count: *count, keys: listed, forms: &FORMS },
            &mut report,
        );
    }
    Ok(tell(&report, args, context))
}

fn tell(report: &Report, args: &VerifyArgs, context: &Context) -> ExitKind {
    let verified = VerifiedImage::of(&args.image, report);
    context.out.write(verified_text(&verified, report, args.format).as_bytes());
    if verified.held { ExitKind::Done } else { ExitKind::Failed }
}

/// How many of which keys are required; `None` if none are.
fn quorum(words: &[String], context: &Context) -> Result<Option<(usize, Vec<PublicKey>)>, CliError> {
    let [count, place] = words else { return Ok(None) };
    let number = count.strip_suffix("-of").unwrap_or(count).parse::<usize>().ok().filter(|count| *count > 0);
    let Some(number) = number else {
        return Err(
            CliError::usage(format!("`{count}` says not how many")).help("write `--require-reproduced 2-of KEYS`")
        );
    };
    let path = context.path(Path::new(place));
    let mut files = vec![path.clone()];
    if ops::metadata(&path).map_err(absent)?.is_dir() {
        files = ops::read_dir(&path)?.into_iter().map(|entry| path.join(entry.name)).collect();
        files.retain(|file| file.extension().is_some_and(|ending| ending == "pub" || ending == "pem"));
        files.sort();
    }
    let mut keys = keys(&files, context)?;
    keys.sort();
    keys.dedup();
    if keys.len() < number {
        let told = format!("{} holds {} keys, and {number} are required", path.display(), keys.len());
        return Err(CliError::usage(told).help("name a directory with the public keys of all builders, as `NAME.pub`"));
    }
    Ok(Some((number, keys)))
}

/// What a file of results has built; `None` if it is none.
fn results(path: &Path) -> Result<Option<Released>, CliError> {
    let is_file =
        path.extension().is_some_and(|ending| ending == "json") && ops::metadata(path).is_ok_and(|meta| meta.is_file());
    if !is_file {
        return Ok(None);
    }
    if ops::metadata(path)?.len() > RESULTS_BYTES_MAX as u64 {
        return Err(CliError::usage(format!("{} is too large for a file of results", path.display())));
    }
    let read = Results::read(&ops::read(path)?);
    let read = read.map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
    let built = read
        .tasks
        .into_iter()
        .filter_map(|task| Some((task.label, Outcome { action: task.action, outputs: task.outputs? })));
    Ok(Some(Released::Results(built.collect())))
}

/// Refuses an image of a registry unless a trusted key signed provenance of it, and nothing signed says otherwise.
pub fn demand_provenance(
    client: &Client,
    reference: &Reference,
    digest: &BlobDigest,
    keys: &[PathBuf],
    context: &Context,
) -> Result<(), CliError> {
    let keys = self::keys(keys, context)?;
    let attestations = attached(client, reference, digest, context)?;
    let report = verify_blob(digest, &attestations, &keys);
    let failed: Vec<String> = report
        .checks
        .iter()
        .filter(|check| matches!(check.verdict, Verdict::Failed(_)))
        .map(ToString::to_string)
        .collect();
    if failed.is_empty() && !report.built_by.is_empty() {
        return Ok(());
    }
    let why = failed.first().cloned().unwrap_or_else(|| "no trusted key signed provenance of it".into());
    Err(CliError::usage(format!("{reference} is not taken: {why}"))
        .help("`drystone verify` tells all of it; `drystone image push --sign FILE` attaches signed provenance"))
}

fn pulled(image: &Given) -> Result<BlobDigest, CliError> {
    BlobDigest::parse(&image.top()?.digest).map_err(|error| wrong(&image.name, &error))
}

/// Reads the file of a key that the command line names.
pub fn read_key(path: &Path) -> Result<Vec<u8>, CliError> {
    if ops::metadata(path).map_err(absent)?.len() > KEY_FILE_BYTES_MAX as u64 {
        return Err(CliError::usage(format!("{} is too large for a key", path.display())));
    }
    Ok(ops::read(path)?)
}

/// What is wrong with a file that the command line names.
fn absent(error: FsError) -> CliError {
    if error.is_missing() { CliError::usage(error.to_string()) } else { error.into() }
}

fn keys(files: &[PathBuf], context: &Context) -> Result<Vec<PublicKey>, CliError> {
    let mut keys = Vec::new();
    for file in files {
        let path = context.path(file);
        let read = PublicKey::read_all_pem(&read_key(&path)?);
        keys.extend(read.map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?);
    }
    Ok(keys)
}

/// Attestations that are files; of a directory those whose names tell what they are.
fn files(named: &[PathBuf], context: &Context) -> Result<Vec<Attestation>, CliError> {
    let mut found = Vec::new();
    for named in named {
        let path = context.path(named);
        if !ops::metadata(&path).map_err(absent)?.is_dir() {
            found.push(file(&path, named.display().to_string())?);
            continue;
        }
        let mut names: Vec<String> =
            ops::read_dir(&path)?.into_iter().filter_map(|entry| entry.name.into_string().ok()).collect();
        names.retain(|name| ENDINGS.iter().any(|(ending, _)| name.ends_with(ending)));
        names.sort();
        if names.is_empty() {
            let told = format!("{} has no attestation in it", path.display());
            return Err(
                CliError::usage(told).help("their names end with `.sigstore.json`, `.spdx.json` or `.cdx.json`")
            );
        }
        for name in names {
            found.push(file(&path.join(&name), name)?);
        }
    }
    if found.len() > ATTESTATIONS_MAX {
        return Err(CliError::usage(format!("these are {} attestations; most are {ATTESTATIONS_MAX}", found.len())));
    }
    Ok(found)
}

fn file(path: &Path, name: String) -> Result<Attestation, CliError> {
    let too_large = || CliError::usage(format!("{} is larger than {BUNDLE_BYTES_MAX} bytes", path.display()));
    if ops::metadata(path)?.len() > BUNDLE_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let kind = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map_or(BUNDLE_TYPE, |(_, kind)| kind);
    Ok(Attestation { name, artifact_type: kind.to_owned(), document: ops::read(path)? })
}

/// What is attached to an image in its registry, as far as it is of a kind that is known here.
pub fn attached(
    client: &Client,
    reference: &Reference,
    subject: &BlobDigest,
    context: &Context,
) -> Result<Vec<Attestation>, CliError> {
    let repository = &reference.repository;
    let listed = crate::registry::referrers(client, repository, subject, None).map_err(|error| refused(&error))?;
    let is_known = |one: &&Descriptor| {
        let kind = one.artifact_type.as_deref().unwrap_or_default();
        kind.starts_with("application/vnd.dev.sigstore.bundle") || [SPDX_TYPE, CYCLONEDX_TYPE].contains(&kind)
    };
    let known: Vec<&Descriptor> = listed.iter().filter(is_known).collect();
    if known.len() > ATTESTATIONS_MAX {
        let told = format!("{} attestations refer to {reference}; most are {ATTESTATIONS_MAX}", known.len());
        return Err(CliError::usage(told).help("take those away that nobody needs"));
    }
    let store = opening::open_store(context, None)?;
    let stage = store.stage()?;
    let mut found = Vec::new();
    for (number, one) in known.into_iter().enumerate() {
        let name = BlobDigest::parse(&one.digest).map_err(|error| wrong(&one.digest, &error))?;
        let at = Reference { repository: repository.clone(), tag: None, digest: Some(name.clone()) };
        let document = crate::registry::resolve(client, &at).map_err(|error| refused(&error))?;
        let bytes: u64 = document.blobs().map(|blob| blob.size).fold(0, u64::saturating_add);
        // What only claims to refer to the image is not worth its bytes.
        let is_about = document.subject().is_some_and(|named| named.digest == subject.to_string());
        if !is_about || bytes > BUNDLE_BYTES_MAX as u64 || document.descriptor.media_type != MANIFEST_TYPE {
            continue;
        }
        let (layout, partial) =
            (stage.path().join(format!("{number}")), stage.path().join(format!("{number}.partial")));
        ops::create_dir(&partial)?;
        crate::registry::pull(client, &at, &Wanted::All, &layout, &partial, &mut |_| {})
            .map_err(|error| refused(&error))?;
        found.extend(document_of(&Blobs::Dir(layout), &name)?);
    }
    Ok(found)
}

/// The document that a manifest ties to an image; each was checked when it came.
fn document_of(blobs: &Blobs, manifest: &BlobDigest) -> Result<Option<Attestation>, CliError> {
    let name = manifest.to_string();
    let told = |error: crate::image::ImageError| wrong(&name, &error);
    let read = Manifest::read(&blobs.document(manifest).map_err(told)?, &name).map_err(told)?;
    let ([layer], Some(artifact_type)) = (read.layers.as_slice(), read.artifact_type) else { return Ok(None) };
    let digest = BlobDigest::parse(&layer.digest).map_err(told)?;
    let mut document = Vec::new();
    let read = blobs.open(&digest).map_err(told)?.take(BUNDLE_BYTES_MAX as u64 + 1).read_to_end(&mut document);
    read.map_err(|error| CliError::infrastructure(format!("{name} cannot be read: {error}")))?;
    Ok(Some(Attestation { name, artifact_type, document }))
}
