//! What is told of an image that was made: which tasks, source files, fetched things and packages are in it, and from which revision.
//! Writes no document.
//!
//! The same image made by the same run has the same facts on every call: times are those of the run that made it. The revision goes here
//! and never into the image, whose digest would change with every commit.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::attest::installed::Installed;
use crate::attest::model::{
    BaseFacts, Component, ComponentKind, ImageFacts, LayerFacts, PlatformFacts, Relation, RelationKind, TaskFacts,
};
use crate::attest::provenance::{LOCAL_BUILDER, Parameter, Resource, RunFacts};
use crate::base::diagnostic::Diagnostic;
use crate::base::digest::{Digest, Digester};
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::engine::image_key::{epoch, found};
use crate::engine::image_layer::holding;
use crate::engine::image_task::Trouble;
use crate::engine::job::Found;
use crate::engine::plan::{self, PlanError};
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::preview::{self, PreviewError};
use crate::engine::session::Session;
use crate::engine::tracked::run_git;
use crate::fingerprint::action::Work;
use crate::fs::ops::{self, FsError};
use crate::image::find::{self, Found as FoundImage};
use crate::image::{BlobDigest, Blobs, FORMAT_VERSION, ImageError};
use crate::manifest::image::LOCK_FILE;
use crate::manifest::model::{Expected, FetchTask, TaskKind};
use crate::manifest::recipe::{ImageRecipe, LayerSource};
use crate::store::ActionResult;
use crate::workspace::discover::MANIFEST;
use crate::workspace::{git, repository};

/// By what it is told which image another is built upon (OCI image specification, "Pre-Defined Annotation Keys").
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Bytes read at once.
const READ_BYTES: usize = 128 * 1024;

/// What is told of an image and of the run that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The image.
    pub facts: ImageFacts,
    /// The run.
    pub run: RunFacts,
}

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no forecast.
    #[error(transparent)]
    Preview(#[from] PreviewError),
    /// What it holds cannot be told.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// What it is made of is not what is in the tree now.
    #[error("what the image is made of changed meanwhile")]
    Changed,
}

/// An image that a task made.
pub struct MadeImage<'a> {
    /// The task.
    pub task: TaskId,
    /// Its recipe.
    pub recipe: &'a ImageRecipe,
    /// Its result.
    pub result: &'a ActionResult,
    /// Where it lies.
    pub blobs: &'a Blobs,
}

/// Tells what is known of an image whose task, made now, would give this result.
///
/// Cost: the keys of all it is made of; every layer is unpacked once, every source file of a layer is read once.
pub fn told(session: &Session<'_>, made: &MadeImage<'_>) -> Result<Told, Untold> {
    let revision = Revision::of(session);
    let plan = plan::plan(session, &[made.task])?;
    let mut seen = Seen::new(session, made, &revision.untracked);
    preview::visit(session, &plan, &mut |task, prepared, dependencies, found| {
        seen.visit(task, prepared, dependencies, found);
    })?;
    let Seen { tasks, needs, own, took_untracked, .. } = seen;
    let own = own.ok_or(Untold::Changed)??;
    let (platforms, packages) = platforms(made.blobs)?;
    let (components, relations) = materials(session, &tasks, &needs, own.placed, own.sources, packages);
    let label = session.label(made.task);
    let facts = ImageFacts {
        name: name(session, made),
        digest: top(made.blobs)?,
        platforms,
        epoch: own.epoch,
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        image_format: FORMAT_VERSION,
        action_key: made.result.action,
        components,
        relations,
        tasks: tasks.into_values().collect(),
    };
    let finished = u64::try_from(made.result.created_ms).unwrap_or(0);
    // As the key has it, so that nothing can be left out; but for NUL, which not everybody reads.
    let said = own.parts.iter().map(|part| Parameter::Text(part.replace('\0', " "))).collect();
    let run = RunFacts {
        external: BTreeMap::from([
            ("target".to_owned(), Parameter::Text(label)),
            ("image".to_owned(), Parameter::List(said)),
        ]),
        isolation: made.result.isolation.clone(),
        sources: revision.resource(took_untracked).into_iter().collect(),
        builder: LOCAL_BUILDER.to_owned(),
        invocation: format!("{}@{finished}", made.result.action.to_hex()),
        started: finished.saturating_sub(made.result.duration_ms) / 1000,
        finished: finished / 1000,
        byproducts: Vec::new(),
    };
    Ok(Told { facts, run })
}

/// Where it is published, if there is one place; else what its task is called.
fn name(session: &Session<'_>, made: &MadeImage<'_>) -> String {
    let mut places: BTreeSet<&str> = made.recipe.push.values().map(|place| place.value.as_str()).collect();
    match (places.pop_first(), places.is_empty()) {
        (Some(only), true) => only.to_owned(),
        _ => session.workspace.tasks[made.task].label.name.to_ascii_lowercase(),
    }
}

fn top(blobs: &Blobs) -> Result<BlobDigest, ImageError> {
    let index = crate::image::wire::Index::read(&blobs.index()?, "index.json")?;
    let several = || ImageError::Several { wanted: "one image".into(), found: Vec::new() };
    BlobDigest::parse(&index.manifests.first().ok_or_else(several)?.digest)
}

/// What was seen while the graph was gone through.
struct Seen<'a, 'w> {
    session: &'a Session<'w>,
    made: &'a MadeImage<'a>,
    untracked: &'a BTreeSet<RelPath>,
    /// The tasks whose results are known, and what each of them needs.
    tasks: BTreeMap<TaskId, TaskFacts>,
    needs: BTreeMap<TaskId, Vec<TaskId>>,
    own: Option<Result<Own, Trouble>>,
    took_untracked: bool,
}

/// What the image itself is made of.
struct Own {
    epoch: u64,
    parts: Vec<String>,
    sources: Vec<Component>,
    /// Tasks with the places of their outputs in the image.
    placed: BTreeSet<(TaskId, String)>,
}

impl<'a, 'w> Seen<'a, 'w> {
    fn new(session: &'a Session<'w>, made: &'a MadeImage<'a>, untracked: &'a BTreeSet<RelPath>) -> Self {
        let (tasks, needs) = (BTreeMap::new(), BTreeMap::new());
        // No task has them as inputs, and all is made by them.
        let says = |path: &RelPath| [MANIFEST, LOCK_FILE].contains(&path.file_name());
        let took_untracked = untracked.iter().any(says);
        Self { session, made, untracked, tasks, needs, own: None, took_untracked }
    }

    fn visit(&mut self, task: TaskId, prepared: &Prepared, dependencies: &[Dependency], found: Option<&Found>) {
        self.took_untracked |= prepared.signatures.iter().any(|(path, _)| self.untracked.contains(path));
        if task == self.made.task {
            let is_it = found.is_some_and(|found| found.result.outputs == self.made.result.outputs);
            self.own = is_it.then(|| self.look(prepared, dependencies));
        } else if let Some(found) = found {
            let facts = TaskFacts { label: self.session.label(task), key: found.key, output: found.result.outputs };
            self.tasks.insert(task, facts);
        }
        self.needs.insert(task, dependencies.iter().flat_map(|needed| self.parts_of(needed.task)).collect());
    }

    /// The tasks that a dependency stands for: all parts of a split one.
    fn parts_of(&self, task: TaskId) -> Vec<TaskId> {
        self.session.workspace.split_of(task).map_or_else(|| vec![task], |split| split.parts.clone())
    }

    fn look(&self, prepared: &Prepared, dependencies: &[Dependency]) -> Result<Own, Trouble> {
        let (session, made) = (self.session, self.made);
        let Work::Image { parts } = &prepared.action.work else {
            return Err(Trouble::Machine("BUG: what makes an image is another action".into()));
        };
        let mut own =
            Own { epoch: epoch(session, made.recipe)?, parts: parts.clone(), sources: vec![], placed: BTreeSet::new() };
        let mut digests = BTreeMap::new();
        for layer in made.recipe.platforms.iter().flat_map(|one| &one.layers) {
            match &layer.source {
                LayerSource::Task(need) => {
                    let needed = found(session, made.task, need, dependencies)?;
                    let at = format!("/{}", layer.to);
                    own.placed.extend(self.parts_of(needed.task).into_iter().map(|part| (part, at.clone())));
                }
                LayerSource::Files(_) => {
                    for (path, held) in holding(session, made.task, layer, prepared, dependencies)? {
                        let (Entry::File { digest, .. }, Some(origin)) = (&held.entry, &held.origin) else { continue };
                        let source = source_path(session.package(made.task), origin, prepared);
                        let sha256 = match digests.get(digest) {
                            Some(known) => BlobDigest::clone(known),
                            None => sha256_of(session, &source, digest)?,
                        };
                        digests.insert(*digest, sha256.clone());
                        own.sources.push(Component {
                            sha256: Some(sha256),
                            blake3: Some(*digest),
                            path: Some(format!("/{path}")),
                            ..Component::new(ComponentKind::SourceFile, source.as_str())
                        });
                    }
                }
                LayerSource::Step { .. } | LayerSource::Dirs(_) => {}
            }
        }
        Ok(own)
    }
}

/// Where a file of a layer lies in the workspace: below the package, or where no such file is, from the root.
fn source_path(package: &RelPath, origin: &RelPath, prepared: &Prepared) -> RelPath {
    let below = package.join(origin);
    if prepared.inputs.all().contains_key(&below) { below } else { origin.clone() }
}

/// The SHA-256 of a file whose BLAKE3 is known.
fn sha256_of(session: &Session<'_>, path: &RelPath, digest: &Digest) -> Result<BlobDigest, Trouble> {
    let disk = session.workspace.root.join(path.as_str());
    let told = |error: &FsError| Trouble::Machine(error.to_string());
    let file = ops::open(&disk).map_err(|error| told(&error))?;
    let (mut sha256, mut blake3) = (Sha256::new(), Digester::default());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = ops::read_some(&file, &mut buffer).map_err(|cause| told(&FsError::new("read", &disk, cause)))?;
        if count == 0 {
            break;
        }
        sha256.update(&buffer[..count]);
        blake3.update(&buffer[..count]);
    }
    if blake3.finish() != *digest {
        let told = format!("`{path}` changed while it was read");
        return Err(Diagnostic::error(told).help("run it again when the file is at rest").into());
    }
    let hex: String = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(BlobDigest::parse(&format!("sha256:{hex}"))?)
}

/// The images of a layout, and the packages in them.
fn platforms(blobs: &Blobs) -> Result<(Vec<PlatformFacts>, Vec<Component>), ImageError> {
    let mut installed = Installed::new(blobs);
    let (mut platforms, mut packages) = (Vec::new(), Vec::new());
    for (platform, _, descriptor) in find::all(blobs)? {
        let image = find::find(blobs, &platform)?;
        packages.extend(installed.packages(&image.manifest.layers)?);
        platforms.push(PlatformFacts {
            platform,
            manifest: BlobDigest::parse(&descriptor.digest)?,
            base: base(&image),
            layers: layers(&image)?,
        });
    }
    Ok((platforms, packages))
}

/// As the manifest has it: what is told must agree with what can be seen.
fn base(image: &FoundImage) -> Option<BaseFacts> {
    let annotations = image.manifest.annotations.as_ref()?;
    let digest = BlobDigest::parse(annotations.get(BASE_DIGEST)?).ok()?;
    let name = annotations.get(BASE_NAME).cloned().unwrap_or_else(|| "base".to_owned());
    Some(BaseFacts { name, digest })
}

fn layers(image: &FoundImage) -> Result<Vec<LayerFacts>, ImageError> {
    let steps = image.config.history.iter().flatten().filter(|step| step.empty_layer != Some(true));
    let said: Vec<String> = steps.map(|step| step.created_by.clone().unwrap_or_default()).collect();
    let (layers, diff_ids) = (&image.manifest.layers, &image.config.rootfs.diff_ids);
    // Where there are more or fewer, nobody knows which is of which.
    let is_told = said.len() == layers.len();
    let facts = layers.iter().zip(diff_ids).enumerate().map(|(position, (layer, diff_id))| {
        Ok(LayerFacts {
            diff_id: BlobDigest::parse(diff_id)?,
            digest: BlobDigest::parse(&layer.digest)?,
            size: layer.size,
            created_by: if is_told { said[position].clone() } else { String::new() },
        })
    });
    facts.collect()
}

/// Everything the image is made of, and what was made from what.
fn materials(
    session: &Session<'_>,
    tasks: &BTreeMap<TaskId, TaskFacts>,
    needs: &BTreeMap<TaskId, Vec<TaskId>>,
    placed: BTreeSet<(TaskId, String)>,
    sources: Vec<Component>,
    packages: Vec<Component>,
) -> (Vec<Component>, Vec<Relation>) {
    let mut outputs: BTreeMap<TaskId, Vec<Component>> = BTreeMap::new();
    let output = |facts: &TaskFacts| Component {
        tree: Some(facts.output),
        ..Component::new(ComponentKind::TaskOutput, &facts.label)
    };
    for (task, path) in placed {
        let Some(facts) = tasks.get(&task) else { continue };
        outputs.entry(task).or_default().push(Component { path: Some(path), ..output(facts) });
    }
    for (task, facts) in tasks {
        outputs.entry(*task).or_insert_with(|| vec![output(facts)]);
    }
    let (mut components, mut relations) = (Vec::new(), Vec::new());
    for (task, made) in &outputs {
        let mut from: Vec<Component> = Vec::new();
        if let TaskKind::Fetch(fetch) = &session.workspace.tasks[*task].kind {
            from.push(fetched(fetch));
            components.extend(from.clone());
        }
        let needed = needs.get(task).into_iter().flatten().filter_map(|needed| outputs.get(needed)).flatten();
        from.extend(needed.cloned());
        for (one, source) in made.iter().flat_map(|one| from.iter().map(move |source| (one, source))) {
            let (from, to) = (one.reference(), source.reference());
            relations.push(Relation { from, kind: RelationKind::GeneratedFrom, to });
        }
    }
    components.extend(outputs.into_values().flatten());
    components.extend(sources);
    components.extend(packages);
    (components, relations)
}

fn fetched(fetch: &FetchTask) -> Component {
    let url = fetch.urls.first().map(String::as_str).unwrap_or_default();
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let (sha256, blake3) = match fetch.expect {
        Expected::Blake3(digest) => (None, Some(digest)),
        Expected::Sha256(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            (BlobDigest::parse(&format!("sha256:{hex}")).ok(), None)
        }
    };
    // Components tell of no place on this machine.
    Component {
        sha256,
        blake3,
        url: fetch.urls.iter().find(|url| !url.starts_with("file:")).cloned(),
        ..Component::new(ComponentKind::Fetched, path.rsplit('/').next().unwrap_or(path))
    }
}

/// What git says of the workspace.
#[derive(Default)]
struct Revision {
    commit: Option<String>,
    remote: Option<String>,
    /// Whether files that git tracks are not as in the commit.
    is_changed: bool,
    /// Files that git neither tracks nor ignores.
    untracked: BTreeSet<RelPath>,
}

impl Revision {
    /// Nothing where there is no repository or no git.
    fn of(session: &Session<'_>) -> Self {
        let asked = |argv: Result<Vec<String>, git::RevisionError>| run_git(session, &argv.ok()?);
        let Some(commit) = asked(git::resolve("HEAD")).and_then(|answer| git::parse_commit(&answer)) else {
            return Self::default();
        };
        let paths = |answer: Option<Vec<u8>>| answer.map(|answer| git::parse_changed(&answer));
        Self {
            // What cannot be asked counts as changed.
            is_changed: paths(asked(git::changed_since(&commit))).is_none_or(|changed| !changed.is_empty()),
            untracked: paths(asked(Ok(git::untracked()))).unwrap_or_default().into_iter().collect(),
            remote: repository::public_remote(&session.workspace.root),
            commit: Some(commit),
        }
    }

    fn resource(self, took_untracked: bool) -> Option<Resource> {
        let commit = self.commit?;
        let is_clean = !self.is_changed && !took_untracked;
        let state = if is_clean { "as in the commit" } else { "changed since the commit" };
        Some(Resource {
            name: "workspace".into(),
            uri: self.remote.map(|remote| format!("{remote}@{commit}")),
            digest: BTreeMap::from([("gitCommit".to_owned(), commit)]),
            download_location: None,
            annotations: BTreeMap::from([("role".into(), "revision".into()), ("state".into(), state.into())]),
        })
    }
}
