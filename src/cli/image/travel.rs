//! `drystone image push`, `load`, `promote` and `tags`: images on their way.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::base::platform::Platform;
use crate::base::time::human_bytes;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::args::{Engine, LoadArgs, PromoteArgs, PushArgs, TagsArgs};
use crate::cli::image::attest::{self, Said};
use crate::cli::image::build::usual_name;
use crate::cli::image::given::{Given, client, find, refused, wrong};
use crate::cli::table::{aligned, json};
use crate::cli::{opening, verify};
use crate::engine::execute::now_ms;
use crate::fs::out::OutFile;
use crate::image::BlobDigest;
use crate::image::archive::{ArchiveOptions, write_archive};
use crate::manifest::recipe::Base;
use crate::process::cancel::Cancel;
use crate::process::{signals, spawn};
use crate::registry::tagged::{Tagged, given, note};
use crate::registry::{
    Client, PromoteOptions, PushEvent, PushOptions, Reference, Repository, Tally, attach, promote as promote_image,
    push as push_image,
};

/// The file of the store with the tags that were given.
const TAGS_FILE: &str = "image-tags";

/// A container engine that takes longer than this to load an image is given up.
const LOAD_MAX: Duration = Duration::from_secs(1800);

/// One image in one place.
#[derive(Clone, Debug, Serialize)]
pub struct PushedRow {
    /// Host and repository, with the digest.
    pub image: String,
    /// Tags that lead to it now.
    pub tags: Vec<String>,
    /// Blobs that were sent.
    pub sent: u64,
    /// Blobs that came from another repository of the host.
    pub mounted: u64,
    /// Blobs that were there.
    pub present: u64,
    /// Bytes of blobs that were sent.
    pub bytes_sent: u64,
}

/// What was done, in the order given.
pub fn pushed_text(rows: &[PushedRow], format: Format) -> String {
    if format == Format::Json {
        return json(&rows);
    }
    let mut text = String::new();
    for row in rows {
        let PushedRow { image, tags, sent, mounted, present, bytes_sent } = row;
        let tags = if tags.is_empty() { String::new() } else { format!("  {}", tags.join(" ")) };
        let bytes = human_bytes(*bytes_sent);
        let what = match sent + mounted + present {
            // Where the manifest is there, blobs are not asked for.
            0 => "all of it was there".to_owned(),
            _ => format!("blobs: {sent} sent ({bytes}), {mounted} mounted, {present} there"),
        };
        text.push_str(&format!("{image}{tags}\n  {what}\n"));
    }
    text
}

/// A cancellation by signals, for as long as the watch lives.
pub(super) fn cancellable() -> Result<(Cancel, signals::Watch), CliError> {
    let cancel = opening::never_cancelled()?;
    let for_signals = cancel.clone();
    let watch = signals::watch(move |_| for_signals.cancel())
        .map_err(|error| CliError::infrastructure(format!("cannot watch for signals: {error}")))?;
    Ok((cancel, watch))
}

/// Sends an image to registries.
pub fn push(args: &PushArgs, context: &Context) -> Result<ExitKind, CliError> {
    let image = match find(&args.image, &args.making, context)? {
        Ok(image) => image,
        Err(exit) => return Ok(exit),
    };
    let places = places(args, &image)?;
    let said = attest::said(&image, args.sign.as_deref(), args.sbom, context)?;
    let (cancel, _watch) = cancellable()?;
    let client = client(context, &cancel)?;
    // What was given while this runs is known to the client.
    let sent = given(&tags_file(context)?, None)?;
    let mut rows = Vec::new();
    for place in &places {
        let mut tags: Vec<String> = place.tag.iter().cloned().collect();
        tags.extend(args.tag.iter().cloned());
        tags.dedup();
        let options = PushOptions { mount_from: mount_from(&image, &place.repository, &sent)? };
        let mut tell = |event: PushEvent| told(context, &event);
        let mut push = |tags: &[String]| {
            let pushed = push_image(&client, &image.blobs, &place.repository, tags, &options, &mut tell);
            pushed.map_err(|error| not_sent(&cancel, &error))
        };
        // Whoever finds the image by a tag finds what is said of it, too.
        let pushed = push(if said.is_none() { &tags } else { &[] })?;
        if let Some(said) = &said {
            attach_all(said, &client, &cancel, &place.repository, &pushed.digest, context)?;
            push(&tags)?;
        }
        let digest = pushed.digest.to_string();
        remember(context, &place.repository, &tags, &digest, &image.name)?;
        rows.push(row(&place.repository, &digest, tags, pushed.blobs, pushed.bytes_sent));
    }
    context.out.write(pushed_text(&rows, args.format).as_bytes());
    Ok(ExitKind::Done)
}

/// Attaches what is said of an image that is there.
fn attach_all(
    said: &Said,
    client: &Client,
    cancel: &Cancel,
    to: &Repository,
    image: &BlobDigest,
    context: &Context,
) -> Result<(), CliError> {
    let reference = Reference { repository: to.clone(), tag: None, digest: Some(image.clone()) };
    let there = if said.is_random() { verify::attached(client, &reference, image, context)? } else { Vec::new() };
    let documents = said.layouts(&there)?;
    for one in &documents {
        attach(client, one, to, &PushOptions::default(), &mut |_| {}).map_err(|error| not_sent(cancel, &error))?;
    }
    context.say(&format!("{} documents attached", documents.len()));
    Ok(())
}

fn row(repository: &Repository, digest: &str, tags: Vec<String>, blobs: Tally, bytes_sent: u64) -> PushedRow {
    PushedRow {
        image: format!("{repository}@{digest}"),
        tags,
        sent: blobs.sent as u64,
        mounted: blobs.mounted as u64,
        present: blobs.present as u64,
        bytes_sent,
    }
}

/// What a registry did, or that a signal ended it.
pub(super) fn ended(cancel: &Cancel, error: &crate::registry::RegistryError) -> CliError {
    // What the machine could not do is told even then: the same command would not go on.
    if error.is_cancelled() || (cancel.is_cancelled() && !error.is_of_the_machine()) {
        return CliError::interrupted(
            "it was interrupted; what arrived stays, and the same command goes on from there",
        );
    }
    refused(error)
}

/// What a registry did with what was sent to it, or that a signal ended it.
fn not_sent(cancel: &Cancel, error: &crate::registry::RegistryError) -> CliError {
    match ended(cancel, error) {
        CliError::Interrupted(_) => CliError::interrupted(
            "it was interrupted; no tag leads to what is not whole, blobs that arrived whole stay, and the same command sends the others",
        ),
        told => told,
    }
}

/// Where the image goes: places that were named, words of `push`, or all of those.
fn places(args: &PushArgs, image: &Given) -> Result<Vec<Reference>, CliError> {
    let known = image.made.as_ref().map(|made| &made.recipe.push);
    let words: Vec<&str> = known.iter().flat_map(|push| push.keys().map(String::as_str)).collect();
    let named: Vec<&str> = match args.to.as_slice() {
        [] if words.is_empty() => {
            return Err(CliError::usage(format!("nothing says where `{}` is to go", image.name))
                .help("`--to registry.example/team/web:1`, or `push = { ci = \"…\" }` in the manifest"));
        }
        [] => words.clone(),
        named => named.iter().map(String::as_str).collect(),
    };
    let place = |word: &str| {
        let text = known.and_then(|push| push.get(word)).map_or(word, |place| place.value.as_str());
        let parsed = Reference::parse(text).map_err(|error| {
            let listed: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            let known = if listed.is_empty() { String::new() } else { format!("; `push` knows {}", listed.join(", ")) };
            CliError::usage(format!("`{word}` is no place for an image: {error}{known}"))
                .help("write host, repository and perhaps a tag: `registry.example/team/web:1`")
        })?;
        if parsed.digest.is_some() {
            return Err(CliError::usage(format!("`{word}` names a digest, which follows from the image"))
                .help("write host, repository and perhaps a tag"));
        }
        Ok(parsed)
    };
    named.into_iter().map(place).collect()
}

/// Repositories of the same host that have layers of the image: those of the base, and the one that it was sent to last, as it is or as
/// it was.
fn mount_from(image: &Given, to: &Repository, sent: &[Tagged]) -> Result<Vec<Repository>, CliError> {
    let recipes = image.made.iter().flat_map(|made| &made.recipe.platforms);
    let bases = recipes.filter_map(|one| match &one.base.value {
        Base::Registry(name) => Reference::parse(name).ok().map(|reference| reference.repository),
        Base::Scratch | Base::Task(_) | Base::Files(_) => None,
    });
    let is_other = |other: &Repository| other.host == to.host && other != to;
    let digest = image.top()?.digest;
    let last = |is_meant: &dyn Fn(&Tagged) -> bool| {
        let places = sent.iter().filter(|one| is_meant(one)).filter_map(|one| Repository::parse(&one.place).ok());
        places.into_iter().find(is_other)
    };
    // One: each that is asked in vain is a question more for every blob.
    let before = last(&|one| one.digest == digest).or_else(|| last(&|one| one.from == image.name));
    let mut all: Vec<Repository> = bases.filter(is_other).collect();
    all.dedup();
    all.extend(before.filter(|before| !all.contains(before)));
    Ok(all)
}

fn told(context: &Context, event: &PushEvent) {
    match event {
        PushEvent::Sending { digest, size } => {
            context.say(&format!("sending {} ({})", short(digest), human_bytes(*size)))
        }
        PushEvent::Mounted { digest, from, .. } => context.say(&format!("mounted {} from {from}", short(digest))),
        PushEvent::Tagged { tag, was_there: false } => context.say(&format!("tagged {tag}")),
        _ => {}
    }
}

fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

fn tags_file(context: &Context) -> Result<PathBuf, CliError> {
    Ok(context.environment.store_dir()?.join(TAGS_FILE))
}

fn remember(
    context: &Context,
    repository: &Repository,
    tags: &[String],
    digest: &str,
    from: &str,
) -> Result<(), CliError> {
    let at_ms = now_ms();
    let all: Vec<Tagged> = tags
        .iter()
        .map(|tag| Tagged {
            at_ms,
            place: repository.to_string(),
            tag: tag.clone(),
            digest: digest.to_owned(),
            from: from.to_owned(),
        })
        .collect();
    Ok(note(&tags_file(context)?, &all)?)
}

/// Hands an image to a container engine.
pub fn load(args: &LoadArgs, context: &Context) -> Result<ExitKind, CliError> {
    let image = match find(&args.image, &args.making, context)? {
        Ok(image) => image,
        Err(exit) => return Ok(exit),
    };
    let name = match (&args.name, &image.made) {
        (Some(name), _) => name.clone(),
        (None, Some(_)) => usual_name(&image.name),
        (None, None) => {
            let told = format!("nothing says what `{}` is to be called", image.name);
            return Err(CliError::usage(told).help("`--name team/web:1`"));
        }
    };
    let engine = args.into.or_else(|| installed(context)).ok_or_else(|| {
        CliError::usage("none of `docker`, `podman` and `ctr` is on the PATH")
            .help("`drystone image build --archive FILE` writes what any of them reads")
    })?;
    let store = opening::open_store(context, None)?;
    let stage = store.stage()?;
    let archive = stage.path().join("image.tar");
    let mut out = OutFile::create(&archive, 0o600)?;
    let options = ArchiveOptions { name: Some(&name), platforms: &[Platform::host()] };
    let host_only = write_archive(&image.blobs, options, &mut out);
    if host_only.is_err() {
        out = OutFile::create(&archive, 0o600)?;
        let options = ArchiveOptions { name: Some(&name), platforms: &[] };
        write_archive(&image.blobs, options, &mut out).map_err(|error| wrong(&image.name, &error))?;
    }
    out.place()?;
    let file = archive.to_string_lossy().into_owned();
    let argv: Vec<&str> = match engine {
        Engine::Docker => vec!["docker", "load", "--input", &file],
        Engine::Podman => vec!["podman", "load", "--input", &file],
        Engine::Containerd => vec!["ctr", "images", "import", &file],
    };
    let variables = context.environment.variables();
    let env: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let captured = spawn::run_captured(&argv, &context.dir, &env, LOAD_MAX)
        .map_err(|error| CliError::infrastructure(error.to_string()))?;
    if captured.exit != 0 {
        let told = String::from_utf8_lossy(&captured.stderr).trim().escape_debug().to_string();
        return Err(CliError::infrastructure(format!("`{}` did not take the image: {told}", argv[0]))
            .help("see that its service runs and that you may speak with it"));
    }
    context.out.line(&name);
    Ok(ExitKind::Done)
}

/// The first engine whose program is on the PATH.
fn installed(context: &Context) -> Option<Engine> {
    let path = context.environment.get("PATH")?;
    let is_there = |program: &str| path.split(':').any(|dir| crate::fs::ops::exists(&PathBuf::from(dir).join(program)));
    let engines = [("docker", Engine::Docker), ("podman", Engine::Podman), ("ctr", Engine::Containerd)];
    engines.into_iter().find(|(program, _)| is_there(program)).map(|(_, engine)| engine)
}

/// Copies an image between registries.
pub fn promote(args: &PromoteArgs, context: &Context) -> Result<ExitKind, CliError> {
    let parse = |text: &str| Reference::parse(text).map_err(|error| CliError::usage(error.to_string()));
    let (mut from, to) = (parse(&args.from)?, parse(&args.to)?);
    if to.digest.is_some() {
        return Err(CliError::usage(format!("`{}` names a digest, which follows from the image", args.to))
            .help("write host, repository and a tag: `other.example/prod/web:1.2`"));
    }
    let (cancel, _watch) = cancellable()?;
    let client = client(context, &cancel)?;
    if from.digest.is_none() {
        let found = crate::registry::resolve(&client, &from).map_err(|error| ended(&cancel, &error))?;
        let digest = BlobDigest::parse(&found.descriptor.digest).map_err(|error| wrong(&args.from, &error))?;
        context.say(&format!("{} is {digest}", args.from));
        from.digest = Some(digest);
    }
    if let Some(digest) = from.digest.as_ref().filter(|_| !args.key.is_empty()) {
        verify::demand_provenance(&client, &from, digest, &args.key, context)?;
    }
    let tags: Vec<String> = to.tag.iter().cloned().collect();
    let options = PromoteOptions { with_referrers: !args.bare };
    let mut tell = |event: PushEvent| told(context, &event);
    let promoted = promote_image(&client, &from, &to.repository, &tags, &options, &mut tell)
        .map_err(|error| not_sent(&cancel, &error))?;
    let digest = promoted.digest.to_string();
    remember(context, &to.repository, &tags, &digest, &format!("{}@{digest}", from.repository))?;
    if !promoted.referrers.is_empty() {
        context.say(&format!("{} documents that refer to it came along", promoted.referrers.len()));
    }
    let rows = [row(&to.repository, &digest, tags, promoted.blobs, promoted.bytes_sent)];
    context.out.write(pushed_text(&rows, args.format).as_bytes());
    Ok(ExitKind::Done)
}

/// Tells which tags were given.
pub fn tags(args: &TagsArgs, context: &Context) -> Result<ExitKind, CliError> {
    let all = given(&tags_file(context)?, args.place.as_deref())?;
    let text = match args.format {
        Format::Json => json(&all),
        Format::Human => aligned(
            &all.iter()
                .map(|one| {
                    let at = crate::image::assemble::rfc3339(u64::try_from(one.at_ms).unwrap_or(0) / 1000);
                    [at, format!("{}:{}", one.place, one.tag), one.digest.clone(), one.from.clone()]
                })
                .collect::<Vec<[String; 4]>>(),
        ),
    };
    context.out.write(text.as_bytes());
    Ok(ExitKind::Done)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::ops::FsError;
    use crate::registry::RegistryError;
    use crate::report::out::Appearance;

    #[test]
    fn who_has_to_act_is_told_of_each_failure() {
        let check = |is_stopped: bool, error: RegistryError, exit: ExitKind, words: &str| {
            let cancel = Cancel::new().expect("a descriptor");
            if is_stopped {
                cancel.cancel();
            }
            let told = ended(&cancel, &error);
            assert_eq!(told.exit(), exit, "{error}");
            let text = told.text(Appearance::plain());
            assert!(text.contains(words), "{text}");
        };
        let full = || {
            let cause = std::io::ErrorKind::StorageFull.into();
            RegistryError::Fs(FsError::new("write", Path::new("/x"), cause))
        };
        check(false, full(), ExitKind::Infrastructure, "see that the disk has room");
        check(true, full(), ExitKind::Infrastructure, "see that the disk has room");
        check(false, RegistryError::Cancelled, ExitKind::Interrupted, "the same command goes on from there");
        let unreachable = RegistryError::Unreachable {
            host: "registry.example".into(),
            asked: "a blob".into(),
            cause: "closed".into(),
            may_pass: true,
        };
        check(true, unreachable, ExitKind::Interrupted, "it was interrupted");
        let (image, wanted, found) = ("a".into(), "linux/arm64".into(), "linux/amd64".into());
        let platform = RegistryError::Platform { image, wanted, found };
        check(false, platform, ExitKind::Usage, "help: name a platform that it has");
    }
}
