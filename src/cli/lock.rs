//! `drystone lock`: pins what comes from outside. The only command that asks registries what their names mean today.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::span::Place;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::given::{client, refused};
use crate::cli::opening::{self, Opened};
use crate::cli::table::json;
use crate::engine::image_key::read_lock;
use crate::fs::atomic::{self, Durability};
use crate::image::wire::Index;
use crate::manifest::image::LOCK_FILE;
use crate::manifest::lock::{Lock, LockedImage};
use crate::registry::{Client, Reference, resolve};

/// Options of `lock`.
#[derive(Args, Clone, Debug)]
pub struct LockArgs {
    /// Which images, by their names in the manifests. With none, all.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Asks again what is pinned already, and tells what moved.
    #[arg(long)]
    pub update: bool,
    /// Asks nobody and writes nothing: fails if something is not pinned, or pinned and no longer used.
    #[arg(long, conflicts_with = "update")]
    pub check: bool,
    /// How what changed is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// One image whose pin changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Moved {
    /// Its name.
    pub name: String,
    /// What it was pinned to.
    pub was: Option<String>,
    /// What it is pinned to.
    pub is: Option<String>,
}

/// What changed, a line each.
pub fn moved_text(moved: &[Moved], format: Format) -> String {
    if format == Format::Json {
        return json(&moved);
    }
    let line = |one: &Moved| match (&one.was, &one.is) {
        (None, Some(is)) => format!("pinned   {} {is}\n", one.name),
        (Some(was), None) => format!("removed  {} {was}\n", one.name),
        (was, is) => {
            let told = |digest: &Option<String>| digest.clone().unwrap_or_default();
            format!("moved    {} {} → {}\n", one.name, told(was), told(is))
        }
    };
    moved.iter().map(line).collect()
}

/// What differs between two lock files.
fn difference(was: &Lock, is: &Lock) -> Vec<Moved> {
    let names: std::collections::BTreeSet<&String> = was.images.keys().chain(is.images.keys()).collect();
    let of = |lock: &Lock, name: &str| lock.images.get(name).map(|image| image.digest.clone());
    let moved = names.into_iter().filter(|name| was.images.get(*name) != is.images.get(*name));
    moved.map(|name| Moved { name: name.clone(), was: of(was, name), is: of(is, name) }).collect()
}

/// Pins what the manifests name.
pub fn run(args: &LockArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = opening::open(context)?;
    let was = read_lock(&opened.workspace.root).map_err(CliError::Usage)?;
    let named = bases(&opened);
    for name in &args.names {
        if !named.contains_key(name) {
            let told = format!("no image of the workspace is built on `{name}`");
            let near = nearest(name, named.keys().map(String::as_str));
            let help = near.map_or_else(
                || "`base` of an `[image.NAME]` names it".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(CliError::usage(told).help(help));
        }
    }
    let is_meant = |name: &String| args.names.is_empty() || args.names.contains(name);
    if args.check {
        return check(&opened, &was, &named, context);
    }
    let mut is = Lock::default();
    let cancel = opening::never_cancelled()?;
    let mut asked: Option<Client> = None;
    for (name, place) in &named {
        let known = was.images.get(name).filter(|_| !(args.update && is_meant(name)));
        let image = match known {
            Some(known) => known.clone(),
            None if !is_meant(name) => continue,
            None => {
                if asked.is_none() {
                    asked = Some(client(context, &cancel)?);
                }
                let client = asked.as_ref().expect("it was just made");
                locked(client, name).map_err(|error| told(&opened, name, place, error))?
            }
        };
        is.images.insert(name.clone(), image);
    }
    let moved = difference(&was, &is);
    if was != is {
        let path = opened.workspace.root.join(LOCK_FILE);
        atomic::write(&path, is.write().as_bytes(), Durability::Synced)?;
    } else if named.is_empty() {
        context.say("nothing here comes from a registry by a tag, so there is nothing to pin");
    } else {
        context.say(&format!("{} pinned, nothing changed", named.len()));
    }
    context.out.write(moved_text(&moved, args.format).as_bytes());
    Ok(ExitKind::Done)
}

fn check(
    opened: &Opened,
    lock: &Lock,
    named: &BTreeMap<String, Place>,
    context: &Context,
) -> Result<ExitKind, CliError> {
    let missing = named.iter().filter(|(name, _)| !lock.images.contains_key(*name)).map(|(name, place)| {
        Diagnostic::error(format!("`{name}` is not pinned in {LOCK_FILE}"))
            .at(place, "named here")
            .help("`drystone lock` pins it")
    });
    let unused = lock.images.keys().filter(|name| !named.contains_key(*name)).map(|name| {
        Diagnostic::error(format!("{LOCK_FILE} pins `{name}`, which nothing is built on"))
            .help("`drystone lock` takes it out")
    });
    let problems: Vec<Diagnostic> = missing.chain(unused).collect();
    opening::tell(context, &opened.workspace.sources, &problems);
    Ok(if problems.is_empty() { ExitKind::Done } else { ExitKind::Failed })
}

/// The images of registries that images are built on and no digest is written for, each with a place that names it.
fn bases(opened: &Opened) -> BTreeMap<String, Place> {
    let mut all = BTreeMap::new();
    for task in opened.workspace.tasks.values() {
        let Some(recipe) = task.kind.command().and_then(|run| run.command.image()) else { continue };
        for (name, place) in recipe.bases().filter(|(name, _)| !name.contains('@')) {
            all.entry(name.to_owned()).or_insert_with(|| place.clone());
        }
    }
    all
}

fn locked(client: &Client, name: &str) -> Result<LockedImage, CliError> {
    let reference = Reference::parse(name).map_err(|error| CliError::usage(error.to_string()))?;
    let document = resolve(client, &reference).map_err(|error| refused(&error))?;
    let mut platforms = BTreeMap::new();
    if document.descriptor.is_index() {
        let index = Index::read(&document.bytes, name).map_err(|error| CliError::usage(error.to_string()))?;
        for child in index.manifests.iter().filter(|child| child.is_image()) {
            let platform = child.platform.as_ref().and_then(crate::image::wire::PlatformObject::platform);
            platforms.extend(platform.map(|platform| (platform.to_string(), child.digest.clone())));
        }
    }
    let descriptor = document.descriptor;
    Ok(LockedImage { digest: descriptor.digest, media_type: descriptor.media_type, size: descriptor.size, platforms })
}

/// An error of a registry with the place in the manifest.
fn told(opened: &Opened, name: &str, place: &Place, error: CliError) -> CliError {
    match error {
        CliError::Infrastructure(problem) | CliError::Usage(problem) => {
            let label = format!("`{name}` is named here");
            opened.wrong(vec![problem.at(place, label)])
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_is_told_by_name_and_digest() {
        let image = |digest: &str| LockedImage {
            digest: format!("sha256:{digest}"),
            media_type: "m".into(),
            size: 1,
            platforms: BTreeMap::new(),
        };
        let lock = |images: &[(&str, &str)]| Lock {
            images: images.iter().map(|(name, digest)| ((*name).to_owned(), image(digest))).collect(),
        };
        let moved =
            difference(&lock(&[("a", "1"), ("b", "1"), ("c", "1")]), &lock(&[("a", "1"), ("b", "2"), ("d", "1")]));
        let text = moved_text(&moved, Format::Human);
        assert_eq!(text, "moved    b sha256:1 → sha256:2\nremoved  c sha256:1\npinned   d sha256:1\n");
        assert!(moved_text(&moved, Format::Json).contains("\"was\": \"sha256:1\""));
    }
}
