//! What a word on the command line means as an image: a task of the workspace, a layout or an archive on the disk, or a name in a
//! registry. Reads no layer.

use std::path::Path;
use std::sync::Arc;

use crate::base::ids::TaskId;
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::time::human_duration;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::args::MakingArgs;
use crate::cli::opening::{self, Opened};
use crate::cli::run::{self, RunArgs};
use crate::engine::registries;
use crate::fs::{ops, unpack};
use crate::image::layout::LAYOUT_FILE;
use crate::image::wire::{Descriptor, Index};
use crate::image::{Blobs, ImageError};
use crate::manifest::recipe::ImageRecipe;
use crate::process::cancel::Cancel;
use crate::registry::{Client, OnWait, Reference, Wanted};
use crate::report::story::Verbosity;
use crate::store::{ActionResult, Stage, Store};

/// An image, wherever it lies.
pub struct Given {
    /// Its blobs.
    pub blobs: Blobs,
    /// How it is called.
    pub name: String,
    /// The task that made it, for one of the workspace.
    pub made: Option<Made>,
    /// Its name, for one of a registry.
    pub reference: Option<Reference>,
    /// Where it was put meanwhile; it goes with this. Without the store another session would take it for one that was left.
    _stage: Option<(Stage, Arc<Store>)>,
}

/// What is known of an image that a task made.
pub struct Made {
    /// The task.
    pub task: TaskId,
    /// Its recipe.
    pub recipe: ImageRecipe,
    /// Its result; `None` where it cannot be looked up, for something that it is made of is not kept.
    pub result: Option<ActionResult>,
    /// What it is made in.
    pub opened: Opened,
}

impl Given {
    /// What the layout names: the manifest, or the index of several platforms.
    pub fn top(&self) -> Result<Descriptor, CliError> {
        let index = Index::read(&self.blobs.index().map_err(|error| wrong(&self.name, &error))?, "index.json")
            .map_err(|error| wrong(&self.name, &error))?;
        match <[Descriptor; 1]>::try_from(index.manifests) {
            Ok([top]) => Ok(top),
            Err(several) => Err(CliError::usage(format!("`{}` holds {} images", self.name, several.len()))
                .help("name a layout with one of them")),
        }
    }
}

/// An image that cannot be used, as the error of a command.
pub fn wrong(name: &str, error: &ImageError) -> CliError {
    if error.is_of_the_machine() {
        return CliError::infrastructure(format!("`{name}`: {error}"));
    }
    CliError::usage(format!("`{name}` is no image that can be used: {error}"))
}

/// What a registry did, as the error of a command.
pub fn refused(error: &crate::registry::RegistryError) -> CliError {
    use crate::registry::RegistryError::{Platform, Reference};
    let told = match error {
        Platform { .. } | Reference { .. } => CliError::usage(error.to_string()),
        _ if error.is_cancelled() => CliError::interrupted("it was interrupted"),
        _ => CliError::infrastructure(error.to_string()),
    };
    error.way_out().into_iter().fold(told, CliError::help)
}

/// Whether the word can only be a task.
fn is_label(word: &str) -> bool {
    word.starts_with("//") || word.starts_with(':')
}

/// Finds an image; one of the workspace is made first, unless it is known.
///
/// `Err` of the exit where making it failed, which was told.
pub fn find(word: &str, making: &MakingArgs, context: &Context) -> Result<Result<Given, ExitKind>, CliError> {
    let path = context.path(Path::new(word));
    if !is_label(word) && ops::exists(&path) {
        return on_disk(word, &path, context).map(Ok);
    }
    if !is_label(word) && (word.starts_with('/') || word.starts_with('.')) {
        return Err(CliError::usage(format!("there is no image at `{word}`"))
            .help("name a layout or an archive, a task (`//apps/web:web`), or an image in a registry with its host"));
    }
    if !is_label(word) && word.contains('/') && Reference::parse(word).is_ok() {
        return in_registry(word, context).map(Ok);
    }
    is_made_here(word, context).map_err(|error| {
        if is_label(word) { error } else { error.help(format!("no file and no directory `{word}` is there either")) }
    })?;
    make(word, making, context)
}

/// Makes the image of a task, unless it is known. `Err` of the exit as in [`find`].
pub fn made(word: &str, making: &MakingArgs, context: &Context) -> Result<Result<Given, ExitKind>, CliError> {
    is_made_here(word, context)?;
    make(word, making, context)
}

/// An error unless the word means a task of the workspace that makes an image.
fn is_made_here(word: &str, context: &Context) -> Result<(), CliError> {
    let opened = opening::open(context)?;
    recipe_of(&opened, opened.select_one(word)?)?;
    Ok(())
}

fn make(word: &str, making: &MakingArgs, context: &Context) -> Result<Result<Given, ExitKind>, CliError> {
    let exit = run::run(run_args(vec![word.to_owned()], making), context)?;
    if exit != ExitKind::Done {
        return Ok(Err(exit));
    }
    of_task(word, context).map(Ok)
}

/// The recipe of the image that a task makes.
pub fn recipe_of(opened: &Opened, task: TaskId) -> Result<ImageRecipe, CliError> {
    let declared = &opened.workspace.tasks[task];
    declared.kind.command().and_then(|run| run.command.image()).cloned().ok_or_else(|| {
        CliError::usage(format!("`{}` makes no image", declared.label))
            .help("`drystone list` shows which tasks do: their kind is `image`")
    })
}

/// What `run` is told to make images.
pub fn run_args(targets: Vec<String>, making: &MakingArgs) -> RunArgs {
    RunArgs {
        targets,
        jobs: making.jobs,
        force: making.force,
        isolation: making.isolation,
        offline: making.offline,
        ..RunArgs::default()
    }
}

/// The image that a task made of what is in the tree now. It has just been run.
pub fn of_task(word: &str, context: &Context) -> Result<Given, CliError> {
    let opened = opening::open(context)?;
    let task = opened.select_one(word)?;
    let declared = &opened.workspace.tasks[task];
    let name = declared.label.to_string();
    let recipe = recipe_of(&opened, task)?;
    let (store, mut known) = opening::known_of(&opened, context, word)?;
    let Some(known) = known.pop() else { return Err(CliError::bug("a word selected no task")) };
    let result = known.result.clone();
    let blobs = match &result {
        Some(result) => {
            let listing = store.listing(&result.outputs)?;
            let listing = listing.ok_or_else(|| CliError::infrastructure("the image is no longer in the store"))?;
            Blobs::stored(store, &listing, &recipe.output)
        }
        // It was just put in place; whoever reads it compares it with its digests.
        None => Blobs::Dir(opened.workspace.root.join(declared.label.package.join(&recipe.output).as_str())),
    };
    Ok(Given { blobs, name, made: Some(Made { task, recipe, result, opened }), reference: None, _stage: None })
}

fn on_disk(word: &str, path: &Path, context: &Context) -> Result<Given, CliError> {
    let name = word.to_owned();
    if ops::metadata(path)?.is_dir() {
        if !ops::exists(&path.join(LAYOUT_FILE)) {
            let told = format!("`{word}` is no OCI layout: it has no `{LAYOUT_FILE}`");
            let task = if word.contains('/') { "//PACKAGE:TASK".to_owned() } else { format!(":{word}") };
            return Err(CliError::usage(told)
                .help(format!("what is on the disk comes first: for the task write `{task}`"))
                .help("`drystone image build --output DIR` writes a layout"));
        }
        return Ok(Given { blobs: Blobs::Dir(path.to_owned()), name, made: None, reference: None, _stage: None });
    }
    let store = opening::open_store(context, None)?;
    let stage = store.stage()?;
    let dir = stage.path().join("layout");
    ops::create_dir(&dir)?;
    unpack::unpack_tar(path, 0, &dir, FETCH_BYTES_MAX).map_err(|error| {
        let told = CliError::usage(format!("`{word}` is no archive of an image: {error}"));
        if word.ends_with(".json") {
            return told.help(format!("what is said of an image goes with it: `drystone verify IMAGE --attestation {word}`"));
        }
        told.help("`drystone image build --archive FILE` writes one, and so do `docker save` and `skopeo copy … oci-archive:FILE`")
    })?;
    if !ops::exists(&dir.join(LAYOUT_FILE)) {
        let told = format!("`{word}` holds no OCI layout: it has no `{LAYOUT_FILE}`");
        return Err(CliError::usage(told).help("archives of `docker save` before version 25 have none"));
    }
    Ok(Given { blobs: Blobs::Dir(dir), name, made: None, reference: None, _stage: Some((stage, store)) })
}

/// A client that tells why it waits.
pub fn client(context: &Context, cancel: &Cancel) -> Result<Client, CliError> {
    let (err, is_quiet) = (context.err.clone(), context.verbosity == Verbosity::Quiet);
    let on_wait: OnWait = Arc::new(move |error, wait| {
        if !is_quiet {
            err.line(&format!("{error}; trying again in {}", human_duration(wait)));
        }
    });
    registries::client(context.environment.variables(), cancel, Some(on_wait))
        .map_err(|error| CliError::infrastructure(format!("no connection to a registry can be made: {error}")))
}

fn in_registry(word: &str, context: &Context) -> Result<Given, CliError> {
    let cancel = Cancel::new().map_err(|error| CliError::infrastructure(error.to_string()))?;
    let client = client(context, &cancel)?;
    let reference = Reference::parse(word).map_err(|error| refused(&error))?;
    let store = opening::open_store(context, None)?;
    let stage = store.stage()?;
    let dir = stage.path().join("layout");
    let partial = stage.path().join("partial");
    ops::create_dir(&partial)?;
    crate::registry::pull(&client, &reference, &Wanted::All, &dir, &partial, &mut |_| {})
        .map_err(|error| refused(&error))?;
    Ok(Given {
        blobs: Blobs::Dir(dir),
        name: word.to_owned(),
        made: None,
        reference: Some(reference),
        _stage: Some((stage, store)),
    })
}
