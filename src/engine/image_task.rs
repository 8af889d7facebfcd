//! Puts an image together: base, layers, documents, and the layout that is the output of the task. Decides nothing about what a layer
//! holds.
//!
//! A packed layer is the result of an action of its own, by the digest of what is in it: where one file changed, one layer is packed.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::time::human_bytes;
use crate::base::tree::{Entry, Listing, fold};
use crate::engine::event::{Failure, Log};
use crate::engine::execute::{Executed, Passed};
use crate::engine::image_access;
use crate::engine::image_base::{self, BaseError, BaseImage};
use crate::engine::image_key::epoch;
use crate::engine::image_layer::{Holding, add_directories, holding, led};
use crate::engine::image_pack::{Packed, Packer, SourceChanged};
use crate::engine::image_run;
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::rebuild::Occasion;
use crate::engine::session::Session;
use crate::image::access::Below;
use crate::image::assemble::{
    Assembled, Base, ImageSpec, OwnLayer, assemble_image, assemble_index, layout_index, layout_mark,
};
use crate::image::closure;
use crate::image::layout::{INDEX_FILE, LAYOUT_FILE};
use crate::image::recipe::{Content, LayerRecipe, Member};
use crate::image::tar_writer::Access;
use crate::image::wire::{Empty, Execution};
use crate::image::{BlobDigest, ImageError};
use crate::manifest::recipe::{Compression, DeclaredLayer, ImageRecipe, LayerSource, PlatformRecipe};
use crate::registry::RegistryError;
use crate::sandbox::spec::{Stream, Usage};
use crate::store::StoreError;

/// Why an image was not put together.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It is for a person to mend.
    #[error("{0:?}")]
    Input(Box<Diagnostic>),
    /// A command of a layer failed: how, and what it printed.
    #[error("a step failed")]
    Step(Box<(Failure, Log)>),
    /// Something that an image cannot be made of.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// What it is built on.
    #[error(transparent)]
    Base(BaseError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk, or the sandbox.
    #[error("{0}")]
    Machine(String),
    /// The run was stopped.
    #[error("cancelled")]
    Cancelled,
}

impl From<Diagnostic> for Trouble {
    fn from(problem: Diagnostic) -> Self {
        Self::Input(Box::new(problem))
    }
}

impl From<BaseError> for Trouble {
    fn from(error: BaseError) -> Self {
        match error {
            BaseError::Input(problem) => Self::Input(problem),
            BaseError::Image(error) => Self::Image(error),
            BaseError::Store(error) => Self::Store(error),
            BaseError::Cancelled => Self::Cancelled,
            BaseError::Registry(RegistryError::Cancelled) => Self::Cancelled,
            BaseError::Registry(error) if error.is_of_the_machine() => Self::Machine(error.to_string()),
            error => Self::Base(error),
        }
    }
}

impl Compression {
    /// The compressor.
    pub fn of_layers(self) -> crate::image::compress::Compression {
        match self {
            Self::Gzip => crate::image::compress::Compression::Gzip,
            Self::Zstd => crate::image::compress::Compression::Zstd,
            Self::None => crate::image::compress::Compression::None,
        }
    }
}

/// Puts an image together, and its layout into the store.
pub fn execute(
    session: &Session<'_>,
    task: TaskId,
    recipe: &ImageRecipe,
    prepared: &Prepared,
    dependencies: &[Dependency],
    occasion: Occasion<'_>,
) -> Executed {
    let started = Instant::now();
    let mut making =
        Making { session, task, recipe, prepared, dependencies, occasion, layout: Listing::new(), log: Log::new() };
    match making.all() {
        Ok(()) => {
            let Making { layout: listing, log, .. } = making;
            let trees = fold(&listing);
            if let Err(error) = session.store.put_trees(&trees) {
                return told(session, task, Trouble::Store(error), started, log);
            }
            Executed::Passed(Passed {
                log,
                outputs: trees.root,
                listing,
                duration: started.elapsed(),
                usage: Usage::default(),
                attempts: 1,
                notes: Vec::new(),
                keyed: None,
                storable: true,
            })
        }
        Err(trouble) => {
            let log = std::mem::take(&mut making.log);
            told(session, task, trouble, started, log)
        }
    }
}

/// What a trouble means to the run.
fn told(session: &Session<'_>, task: TaskId, trouble: Trouble, started: Instant, log: Log) -> Executed {
    let declared = &session.workspace.tasks[task];
    let failed = |failure: Failure, log: Log| Executed::Failed {
        log,
        failure,
        duration: started.elapsed(),
        attempts: 1,
        left: Listing::new(),
    };
    let wrong = |problem: Diagnostic, log: Log| {
        let cause = problem.message.clone();
        failed(Failure { cause, exit: None, diagnostics: vec![problem] }, log)
    };
    let broken = |cause: String| Executed::Broken {
        problem: Diagnostic::error(format!("image `{}` could not be made: {cause}", declared.label))
            .at(&declared.place, "declared here")
            .help("see the path and its permissions; `drystone store verify` checks the store"),
        refused: false,
    };
    match trouble {
        Trouble::Cancelled => Executed::Cancelled { log },
        Trouble::Input(problem) => wrong(*problem, log),
        Trouble::Step(step) => {
            let (failure, printed) = *step;
            failed(failure, [log, printed].concat())
        }
        Trouble::Store(error) => broken(error.to_string()),
        Trouble::Machine(cause) => broken(cause),
        Trouble::Image(error) if is_of_change(&error) => {
            let told = format!("a file changed while image `{}` was made: {error}", declared.label);
            let problem = Diagnostic::error(told).at(&declared.place, "declared here");
            wrong(problem.help("run it again when the file is at rest"), log)
        }
        Trouble::Image(error) if error.is_of_the_machine() => broken(error.to_string()),
        Trouble::Image(error) => {
            let told = format!("image `{}` cannot be made: {error}", declared.label);
            let problem = Diagnostic::error(told).at(&declared.place, "declared here");
            wrong(problem, log)
        }
        Trouble::Base(BaseError::Registry(error)) => {
            let told = format!("the base of image `{}` could not be pulled: {error}", declared.label);
            let problem = Diagnostic::error(told).at(&declared.place, "declared here");
            wrong(error.way_out().into_iter().fold(problem, Diagnostic::help), log)
        }
        Trouble::Base(error) => broken(error.to_string()),
    }
}

/// What became of a file that was no longer as it was digested.
fn is_of_change(error: &ImageError) -> bool {
    match error {
        ImageError::Length { .. } => true,
        ImageError::Content { cause, .. } => cause.get_ref().is_some_and(|cause| cause.is::<SourceChanged>()),
        _ => false,
    }
}

/// An image being put together.
struct Making<'a, 's, 'w> {
    session: &'a Session<'w>,
    task: TaskId,
    recipe: &'a ImageRecipe,
    prepared: &'s Prepared,
    dependencies: &'s [Dependency],
    occasion: Occasion<'s>,
    /// The layout, relative to the package.
    layout: Listing,
    log: Log,
}

impl Making<'_, '_, '_> {
    fn all(&mut self) -> Result<(), Trouble> {
        let epoch = epoch(self.session, self.recipe)?;
        let mut manifests = Vec::new();
        for one in &self.recipe.platforms {
            let made = self.for_platform(one, epoch)?;
            let digest = &made.descriptor.digest;
            self.say(&format!("{} {digest}, {} layers\n", one.platform, made.layers.len()));
            manifests.push(made.descriptor);
        }
        let top = match <[_; 1]>::try_from(manifests) {
            Ok([only]) => only,
            Err(several) => {
                let index = assemble_index(several, self.recipe.annotations.clone())?;
                self.put_document(&index.descriptor.digest, &index.bytes)?;
                self.say(&format!("index {}\n", index.descriptor.digest));
                index.descriptor
            }
        };
        let name = &self.session.workspace.tasks[self.task].label.name;
        self.put_file(INDEX_FILE, &layout_index(&top, Some(name)))?;
        self.put_file(LAYOUT_FILE, &layout_mark())?;
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.log.push((Stream::Stdout, text.as_bytes().to_vec()));
    }

    fn for_platform(&mut self, one: &PlatformRecipe, epoch: u64) -> Result<Assembled, Trouble> {
        if self.session.cancel.is_cancelled() {
            return Err(Trouble::Cancelled);
        }
        let base = image_base::settle(self.session, self.task, one, self.prepared, self.dependencies)?;
        if let Some(base) = &base {
            self.take_over(base)?;
        }
        let mut below = match &base {
            Some(base) => image_access::of_base(self.session, base)?,
            None => Below::default(),
        };
        let packer = Packer::new(self.session, self.prepared, self.recipe.compression.of_layers()).on(self.occasion);
        let mut layers: Vec<OwnLayer> = Vec::new();
        for layer in &one.layers {
            let recipes = match &layer.source {
                LayerSource::Step { .. } => {
                    let blob = |digest: &BlobDigest| self.blob(digest);
                    let lower =
                        image_run::Below { platform: &one.platform, base: base.as_ref(), layers: &layers, blob: &blob };
                    let (recipe, log) = image_run::run(
                        self.session,
                        self.task,
                        layer,
                        &lower,
                        self.dependencies,
                        (epoch, self.occasion),
                    )?;
                    self.log.extend(log);
                    vec![recipe]
                }
                LayerSource::Task(_) | LayerSource::Files(_) | LayerSource::Dirs(_) => {
                    let held = holding(self.session, self.task, layer, self.prepared, self.dependencies)?;
                    let mut held = led(held, &below, layer)?;
                    add_directories(&mut held, layer, &below);
                    split(layer, recipe_of(&held, epoch)?, &packer)?
                }
            };
            let said = said_of(layer);
            for recipe in recipes.iter().filter(|recipe| !recipe.members().is_empty()) {
                if self.session.cancel.is_cancelled() {
                    return Err(Trouble::Cancelled);
                }
                let packed = packer.pack(recipe)?;
                self.say(&format!("  {} {} {said}\n", packed.layer.digest, human_bytes(packed.layer.size)));
                self.put_blob(&packed);
                below.add(recipe);
                layers.push(OwnLayer::packed(&packed.layer, &said));
            }
        }
        let spec = ImageSpec {
            base: base.map(|base| Base {
                name: base.name,
                digest: BlobDigest::parse(&base.found.descriptor.digest).unwrap_or_else(|_| BlobDigest::of(b"")),
                manifest: base.found.manifest,
                config: base.found.config,
            }),
            layers,
            platform: one.platform.clone(),
            execution: execution(one),
            annotations: self.recipe.annotations.clone(),
            epoch,
        };
        let made = assemble_image(&spec)?;
        self.put_document(&made.config_descriptor.digest, &made.config)?;
        self.put_document(&made.descriptor.digest, &made.manifest)?;
        Ok(made)
    }

    /// The layers of the base, byte for byte.
    fn take_over(&mut self, base: &BaseImage) -> Result<(), Trouble> {
        let files = image_base::files(&base.blobs);
        for layer in &base.found.manifest.layers {
            let path = BlobDigest::parse(&layer.digest)?.path();
            let (digest, size) = *files.get(&path).ok_or_else(|| ImageError::Missing(path.clone()))?;
            self.put_entry(&path, digest, size);
        }
        Ok(())
    }

    fn put_blob(&mut self, packed: &Packed) {
        self.put_entry(&packed.layer.digest.path(), packed.content.0, packed.content.1);
    }

    /// Where a blob lies in the store, with its length.
    fn blob(&self, digest: &BlobDigest) -> Option<(Digest, u64)> {
        let path = self.recipe.output.join(&RelPath::parse(&digest.path()).ok()?);
        match self.layout.get(&path) {
            Some(Entry::File { digest, size, .. }) => Some((*digest, *size)),
            _ => None,
        }
    }

    fn put_document(&mut self, digest: &str, bytes: &[u8]) -> Result<(), Trouble> {
        self.put_file(&BlobDigest::parse(digest)?.path(), bytes)
    }

    fn put_file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Trouble> {
        let digest = self.session.store.put_bytes(bytes)?;
        self.put_entry(path, digest, bytes.len() as u64);
        Ok(())
    }

    fn put_entry(&mut self, path: &str, digest: Digest, size: u64) {
        let below = RelPath::parse(path).expect("the names of a layout are paths");
        self.layout.insert(self.recipe.output.join(&below), Entry::File { digest, size, executable: false });
    }
}

/// What is held, as a recipe of a layer.
pub fn recipe_of(held: &Holding, epoch: u64) -> Result<LayerRecipe, Trouble> {
    let mut recipe = LayerRecipe::new(epoch)?;
    for (path, held) in held {
        let content = match &held.entry {
            Entry::Dir => Content::Dir,
            Entry::File { digest, size, .. } => Content::File { digest: *digest, size: *size },
            Entry::Link { target } => Content::Link { target: target.clone() },
        };
        let access = Access { mode: held.mode, uid: held.owner.0, gid: held.owner.1 };
        recipe.put(path.clone(), Member { content, access })?;
    }
    Ok(recipe)
}

/// Splits a layer as its budget allows.
pub fn split(layer: &DeclaredLayer, recipe: LayerRecipe, packer: &Packer<'_, '_>) -> Result<Vec<LayerRecipe>, Trouble> {
    if layer.budget <= 1 {
        return Ok(vec![recipe]);
    }
    let mut lists = BTreeMap::new();
    for (package, path) in closure::dpkg_lists(&recipe) {
        lists.insert(package, packer.text(&recipe, &path)?);
    }
    let planned = closure::plan(closure::groups_of(&recipe, &lists), layer.budget as usize)?;
    Ok(closure::split(&recipe, &planned)?)
}

/// What the history of the image says of a layer: the same on every machine, and without the names of tasks, which are in no key.
pub fn said_of(layer: &DeclaredLayer) -> String {
    match &layer.source {
        LayerSource::Task(_) => format!("drystone: outputs to /{}", said_path(&layer.to)),
        LayerSource::Files(_) => format!("drystone: files to /{}", said_path(&layer.to)),
        LayerSource::Dirs(_) => "drystone: directories".to_owned(),
        LayerSource::Step { command, .. } => format!("drystone: run {}", image_run::written(command)),
    }
}

fn said_path(path: &RelPath) -> &str {
    if path.is_root() { "" } else { path.as_str() }
}

fn execution(one: &PlatformRecipe) -> Execution {
    let set = |names: &[String]| -> Option<BTreeMap<String, Empty>> {
        (!names.is_empty()).then(|| names.iter().map(|name| (name.clone(), Empty {})).collect())
    };
    Execution {
        user: one.user.clone(),
        exposed_ports: set(&one.ports),
        env: (!one.env.is_empty()).then(|| one.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        entrypoint: one.entrypoint.clone(),
        cmd: one.cmd.clone(),
        volumes: set(&one.volumes),
        working_dir: one.workdir.clone(),
        labels: (!one.labels.is_empty()).then(|| one.labels.clone()),
        stop_signal: one.stop_signal.clone(),
    }
}
