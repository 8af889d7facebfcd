//! The action of putting an image together: what is said of it in the manifest, with what its base and its layers are taken from by
//! digest. Reads no content.

use std::collections::BTreeMap;

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::engine::prepare::{Dependency, in_workspace};
use crate::engine::session::Session;
use crate::image::FORMAT_VERSION;
use crate::manifest::image::LOCK_FILE;
use crate::manifest::lock::Lock;
use crate::manifest::model::{Command, Need, RunTask, Which};
use crate::manifest::recipe::{Base, DeclaredLayer, ImageRecipe, LayerSource, PlatformRecipe};
use crate::sandbox::spec::Level;

/// The variable by which reproducible builds are told a time (the specification of that name, reproducible-builds.org).
pub const EPOCH_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// The time of all files and of the image where the manifest does not tell: `SOURCE_DATE_EPOCH`, else 0 (in seconds since 1970).
///
/// # Errors
/// If the variable is no such number.
pub fn epoch(session: &Session<'_>, recipe: &ImageRecipe) -> Result<u64, Diagnostic> {
    let Some(text) =
        session.ambient.variables.get(EPOCH_VARIABLE).filter(|text| recipe.epoch.is_none() && !text.is_empty())
    else {
        return Ok(recipe.epoch.unwrap_or(0));
    };
    let parsed = text.parse().ok().filter(|epoch| *epoch <= crate::manifest::image::EPOCH_MAX);
    parsed.ok_or_else(|| {
        Diagnostic::error(format!("`{EPOCH_VARIABLE}` is `{}`, which is no time", text.escape_debug()))
            .help("it is in whole seconds since 1970: unset it, or write `epoch` in the manifest")
    })
}

/// Whether commands run while the image is put together.
pub fn has_steps(recipe: &ImageRecipe) -> bool {
    let mut layers = recipe.platforms.iter().flat_map(|one| &one.layers);
    layers.any(|layer| matches!(layer.source, LayerSource::Step { .. }))
}

/// The level that is in the key: that of the steps, or the same everywhere where there are none.
pub fn level(session: &Session<'_>, run: &RunTask, recipe: &ImageRecipe) -> Result<Level, Diagnostic> {
    if !has_steps(recipe) {
        return Ok(Level::Namespaces);
    }
    let level = session.level(run)?;
    if level != Level::Namespaces {
        let told = format!("`run` in a layer works at the `namespaces` level only, and this is `{}`", level.word());
        return Err(Diagnostic::error(told).help(
            "nothing else can give it another root file system; `drystone doctor` tells what this machine allows",
        ));
    }
    Ok(level)
}

/// The texts that are in the key. One line each, told apart by what they begin with, in an order of their own.
///
/// # Errors
/// A base that is not pinned, and what is wrong with the lock file.
pub fn parts(
    session: &Session<'_>,
    task: TaskId,
    recipe: &ImageRecipe,
    dependencies: &[Dependency],
) -> Result<Vec<String>, Diagnostic> {
    let mut parts = vec![
        format!("format={FORMAT_VERSION}"),
        format!("compressor={}", recipe.compression.of_layers().id()),
        format!("epoch={}", epoch(session, recipe)?),
        format!("output={}", recipe.output),
        // What the layout calls it.
        format!("name={}", session.workspace.tasks[task].label.name),
    ];
    pairs(&mut parts, "annotation", &recipe.annotations);
    for one in &recipe.platforms {
        platform(&mut parts, session, task, one, dependencies)?;
    }
    Ok(parts)
}

fn pairs(parts: &mut Vec<String>, what: &str, map: &BTreeMap<String, String>) {
    // Lengths, for a name may hold what stands between it and the value.
    parts.extend(map.iter().map(|(name, value)| format!("{what}={}:{name}={value}", name.len())));
}

fn words(parts: &mut Vec<String>, what: &str, words: Option<&[String]>) {
    let Some(words) = words else { return };
    parts.push(format!("{what}#{}", words.len()));
    parts.extend(words.iter().map(|word| format!("{what}={word}")));
}

fn platform(
    parts: &mut Vec<String>,
    session: &Session<'_>,
    task: TaskId,
    one: &PlatformRecipe,
    dependencies: &[Dependency],
) -> Result<(), Diagnostic> {
    // Taken apart without `..`: a new field does not compile until it is in the key.
    let PlatformRecipe {
        platform,
        base,
        layers,
        entrypoint,
        cmd,
        env,
        user,
        workdir,
        labels,
        ports,
        volumes,
        stop_signal,
    } = one;
    parts.push(format!("platform={platform}"));
    parts.push(match &base.value {
        Base::Scratch => "base=scratch".into(),
        Base::Registry(name) => {
            let pinned = pinned(session, name).map_err(|problem| problem.at(&base.place, "named here"))?;
            format!("base=registry {pinned} {name}")
        }
        Base::Task(need) => format!("base=task {}", said_of(session, task, need, dependencies)?),
        Base::Files(path) => format!("base=files {path}"),
    });
    for layer in layers {
        layer_parts(parts, session, task, layer, dependencies)?;
    }
    words(parts, "entrypoint", entrypoint.as_deref());
    words(parts, "cmd", cmd.as_deref());
    pairs(parts, "env", env);
    pairs(parts, "label", labels);
    words(parts, "port", Some(ports));
    words(parts, "volume", Some(volumes));
    for (what, value) in [("user", user), ("workdir", workdir), ("stop-signal", stop_signal)] {
        parts.extend(value.iter().map(|value| format!("{what}={value}")));
    }
    Ok(())
}

fn layer_parts(
    parts: &mut Vec<String>,
    session: &Session<'_>,
    task: TaskId,
    layer: &DeclaredLayer,
    dependencies: &[Dependency],
) -> Result<(), Diagnostic> {
    let DeclaredLayer { place: _, source, path, to, into, owner, mode, only, budget } = layer;
    match source {
        LayerSource::Task(need) => {
            parts.push(format!("layer=task {}", said_of(session, task, need, dependencies)?));
        }
        LayerSource::Files(files) => {
            parts.push("layer=files".into());
            parts.extend(files.items.iter().map(|item| format!("file={}", item.written())));
        }
        LayerSource::Dirs(dirs) => {
            parts.push("layer=dirs".into());
            parts.extend(dirs.iter().map(|dir| format!("dir={dir}")));
        }
        LayerSource::Step { command, from } => {
            match command {
                Command::Shell(text) => parts.push(format!("layer=shell {text}")),
                Command::Exec(argv) => {
                    parts.push("layer=exec".into());
                    words(parts, "word", Some(argv));
                }
                Command::Image(_) => unreachable!("BUG: an image is no step of an image"),
            }
            for need in from {
                parts.push(format!("sees={}", said_of(session, task, need, dependencies)?));
            }
        }
    }
    let mode = mode.map_or_else(String::new, |mode| format!("{mode:o}"));
    parts.push(format!("path={path}"));
    parts.push(format!("{}={to}", if *into { "into" } else { "to" }));
    parts.push(format!("owner={}:{} mode={mode} budget={budget}", owner.0, owner.1));
    parts.extend(only.items.iter().map(|item| format!("only={}", item.written())));
    Ok(())
}

/// A dependency as the key has it: which tree it made, and in which package. Not its label.
fn said_of(
    session: &Session<'_>,
    task: TaskId,
    need: &Need,
    dependencies: &[Dependency],
) -> Result<String, Diagnostic> {
    let found = found(session, task, need, dependencies)?;
    Ok(format!("{} {}", found.produced.digest, session.package(found.task)))
}

/// The one dependency that a layer or a base names.
///
/// # Errors
/// If it stands for several tasks.
pub fn found<'a>(
    session: &Session<'_>,
    task: TaskId,
    need: &Need,
    dependencies: &'a [Dependency],
) -> Result<&'a Dependency, Diagnostic> {
    let is_meant = |dependency: &&Dependency| {
        let label = &session.workspace.tasks[dependency.task].label;
        match &need.which {
            Which::Task { package, task, matrix } => {
                *package == label.package
                    && **task == *label.name
                    && matrix.iter().all(|(axis, value)| label.matrix.get(axis) == Some(value))
            }
            Which::Upstream { .. } => false,
        }
    };
    let mut meant = in_workspace(dependencies).filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(only), None) => Ok(only),
        (Some(first), Some(second)) => {
            let (first, second) = (session.label(first.task), session.label(second.task));
            let told = format!("this stands for several tasks: `{first}`, `{second}`");
            Err(Diagnostic::error(told).at(&need.place, "").help("name one of them with its matrix values in brackets"))
        }
        (None, _) => {
            let label = session.label(task);
            let told = format!("BUG: `{label}` does not depend on what it is made of");
            Err(Diagnostic::error(told).at(&need.place, ""))
        }
    }
}

/// The digest of the image of a registry, as its name has it or the lock file.
pub fn pinned(session: &Session<'_>, name: &str) -> Result<String, Diagnostic> {
    if let Some((_, digest)) = name.split_once('@') {
        return Ok(digest.to_owned());
    }
    let lock = session.lock()?;
    let image = lock.image(name).ok_or_else(|| {
        Diagnostic::error(format!("the image `{name}` is not pinned in {LOCK_FILE}"))
            .help("`drystone lock` asks its registry for the digest and writes it there")
    })?;
    Ok(image.digest.clone())
}

/// Reads the lock file of a workspace; an empty one where there is none.
pub fn read_lock(root: &std::path::Path) -> Result<Lock, Diagnostic> {
    let path = root.join(LOCK_FILE);
    let told = |cause: String| {
        Diagnostic::error(format!("`{LOCK_FILE}` cannot be used: {cause}"))
            .help("bring back the one that git has, or remove it and write a new one with `drystone lock`")
    };
    let bytes = match crate::fs::ops::read(&path) {
        Err(error) if error.is_missing() => return Ok(Lock::default()),
        read => read.map_err(|error| told(error.to_string()))?,
    };
    let text = String::from_utf8(bytes).map_err(|_| told("it is not UTF-8".into()))?;
    Lock::read(&text).map_err(told)
}
