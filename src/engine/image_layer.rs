//! What a layer of an image holds: which outputs or source files, under which names, whose and with which permissions. Opens no file.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::diagnostic::Diagnostic;
use crate::base::ids::TaskId;
use crate::base::path::RelPath;
use crate::base::tree::Entry;
use crate::engine::image_key::found;
use crate::engine::prepare::{Dependency, Prepared};
use crate::engine::session::Session;
use crate::image::access::{Below, Seen};
use crate::image::tar_writer::Access;
use crate::manifest::recipe::{DeclaredLayer, LayerSource};

/// Permissions of directories and of executable files.
const MODE_EXECUTABLE: u32 = 0o755;

/// Permissions of other files.
const MODE_PLAIN: u32 = 0o644;

/// One thing in a layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// What it is.
    pub entry: Entry,
    /// Permissions; of a link they mean nothing.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Its path before it was put here: in the package that it is from. None has a directory that only leads to what is held.
    pub origin: Option<RelPath>,
}

/// What a layer holds, by path from the root of the image.
pub type Holding = BTreeMap<RelPath, Held>;

/// What a layer of outputs or files holds.
///
/// # Errors
/// If nothing is selected, or two things would have one name.
pub fn holding(
    session: &Session<'_>,
    task: TaskId,
    layer: &DeclaredLayer,
    prepared: &Prepared,
    dependencies: &[Dependency],
) -> Result<Holding, Diagnostic> {
    let selected: Vec<(RelPath, Entry)> = match &layer.source {
        LayerSource::Task(need) => {
            let dependency = found(session, task, need, dependencies)?;
            let made = &session.workspace.tasks[dependency.task];
            if made.kind.word() == "image" {
                let told = format!("`{}` makes an image, and a layer would hold the files of its layout", made.label);
                let help = format!("to build on it, write `base = \"{}\"`", made.label);
                return Err(Diagnostic::error(told).at(&layer.place, "this layer").help(help));
            }
            let listing = dependency.produced.listing.iter();
            listing.map(|(path, entry)| (path.clone(), entry.clone())).collect()
        }
        LayerSource::Files(files) => {
            let package = session.package(task);
            let is_source: BTreeSet<&RelPath> = prepared.signatures.iter().map(|(path, _)| path).collect();
            let all = prepared.inputs.all().iter();
            let chosen = all.filter(|(path, _)| is_source.contains(path) && files.matches(path));
            chosen
                .map(|(path, entry)| (path.strip_prefix(package).unwrap_or_else(|| path.clone()), entry.clone()))
                .collect()
        }
        LayerSource::Dirs(dirs) => {
            let mode = layer.mode.unwrap_or(MODE_EXECUTABLE);
            let dir = |dir: &RelPath| (dir.clone(), Held { entry: Entry::Dir, mode, owner: layer.owner, origin: None });
            return Ok(dirs.iter().map(dir).collect());
        }
        LayerSource::Step { .. } => return Ok(Holding::new()),
    };
    let held = place(layer, &selected).map_err(|problem| problem.at(&layer.place, "this layer"))?;
    if let Some(path) = held.iter().find_map(|(path, held)| match &held.entry {
        Entry::File { digest, .. } if session.is_leaking(digest) => Some(path),
        _ => None,
    }) {
        let told = format!("`/{path}` of the image holds a secret of the task that made it");
        return Err(Diagnostic::error(told)
            .at(&layer.place, "this layer")
            .help("keep it out with `exclude`, or keep the secret out of the outputs"));
    }
    Ok(held)
}

/// Gives what was selected its names in the image.
fn place(layer: &DeclaredLayer, selected: &[(RelPath, Entry)]) -> Result<Holding, Diagnostic> {
    let DeclaredLayer { path: part, to, into, owner, mode, only, .. } = layer;
    let mut held = Holding::new();
    let mut origins: BTreeMap<RelPath, &RelPath> = BTreeMap::new();
    for (path, entry) in selected {
        let Some(below) = path.strip_prefix(part) else { continue };
        let (name, tested) = if below.is_root() {
            if *entry == Entry::Dir {
                (to.clone(), RelPath::root())
            } else {
                let own = RelPath::root().child(path.file_name());
                (if *into { to.join(&own) } else { to.clone() }, own)
            }
        } else {
            (to.join(&below), below)
        };
        if !only.is_empty() && !tested.is_root() && !only.matches(&tested) {
            continue;
        }
        if name.is_root() {
            continue;
        }
        let permissions = match entry {
            Entry::Dir | Entry::File { executable: true, .. } => MODE_EXECUTABLE,
            Entry::File { .. } | Entry::Link { .. } => MODE_PLAIN,
        };
        let mode = mode.filter(|_| matches!(entry, Entry::File { .. })).unwrap_or(permissions);
        if let Some(other) = origins.insert(name.clone(), path)
            && other != path
        {
            let told = format!("`{other}` and `{path}` would both be `/{name}` in the image");
            return Err(Diagnostic::error(told).help("write two layers, or leave one of them out with `exclude`"));
        }
        held.insert(name, Held { entry: entry.clone(), mode, owner: *owner, origin: Some(path.clone()) });
    }
    if held.is_empty() {
        return Err(nothing(layer, selected));
    }
    Ok(held)
}

/// The same where links of the layers below lead it: a directory put in the place of a link would take away what lies behind it.
///
/// # Errors
/// Links that lead nowhere, and two things that would be one.
pub fn led(held: Holding, below: &Below, layer: &DeclaredLayer) -> Result<Holding, Diagnostic> {
    let mut all = Holding::new();
    for (path, one) in held {
        let Some(at) = below.resolve(&path) else {
            let told = format!("`/{path}` lies behind links of the image that lead nowhere");
            return Err(Diagnostic::error(told).at(&layer.place, "this layer").help("choose another `to`"));
        };
        // A directory that is listed for itself does not replace a link to one.
        let is_link = one.entry == Entry::Dir && matches!(below.at(&at), Some(Seen::Link { .. }));
        if !is_link && all.insert(at.clone(), one).is_some() {
            let told = format!("two files would both be `/{at}` in the image, one of them through a link");
            return Err(Diagnostic::error(told).at(&layer.place, "this layer").help("write two layers"));
        }
    }
    Ok(all)
}

/// Adds the directories on the way to what a layer holds. Those that are below already stay as they are; new ones belong to root,
/// or, from what becomes `to` on, to the owner of the layer.
pub fn add_directories(held: &mut Holding, layer: &DeclaredLayer, below: &Below) {
    let DeclaredLayer { to, into, owner, .. } = layer;
    let mut missing = BTreeSet::new();
    for path in held.keys() {
        let above = std::iter::successors(path.parent(), RelPath::parent);
        let new = above.take_while(|dir| !dir.is_root() && !missing.contains(dir));
        missing.extend(new.filter(|dir| !held.contains_key(dir)).collect::<Vec<_>>());
    }
    for dir in missing {
        let is_inside = dir.starts_with(to) && !(*into && dir == *to);
        let new = Access { mode: MODE_EXECUTABLE, uid: 0, gid: 0 };
        let new = if is_inside { Access { uid: owner.0, gid: owner.1, ..new } } else { new };
        let Access { mode, uid, gid } = below.dir(&dir).unwrap_or(new);
        held.insert(dir, Held { entry: Entry::Dir, mode, owner: (uid, gid), origin: None });
    }
}

fn nothing(layer: &DeclaredLayer, selected: &[(RelPath, Entry)]) -> Diagnostic {
    let error = Diagnostic::error("this layer of the image would be empty");
    let part = &layer.path;
    if selected.is_empty() {
        return error.help("no file matches: correct the patterns, which are relative to the package");
    }
    if !part.is_root() && !selected.iter().any(|(path, _)| path.starts_with(part)) {
        let near = selected.iter().map(|(path, _)| path.as_str());
        let near = crate::base::diagnostic::nearest(part.as_str(), near)
            .map_or_else(|| selected[0].0.to_string(), str::to_owned);
        return error.help(format!("nothing lies at `{part}`; there is `{near}`"));
    }
    error.help("`include` and `exclude` leave nothing: they are relative to what becomes `to`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;
    use crate::base::span::{Place, SourceId};
    use crate::image::recipe::{Content, LayerRecipe, Member};
    use crate::manifest::glob::{Pattern, PatternItem, PatternList};

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    fn layer(part: &str, to: &str, into: bool, only: &[&str]) -> DeclaredLayer {
        let place = Place::new(SourceId(0), 0..0);
        let item = |text: &&str| PatternItem {
            pattern: Pattern::parse(text.trim_start_matches('!')).expect("a good pattern"),
            exclude: text.starts_with('!'),
            reach: None,
            place: place.clone(),
        };
        DeclaredLayer {
            place: place.clone(),
            source: LayerSource::Files(PatternList::default()),
            path: path(part),
            to: path(to),
            into,
            owner: (7, 8),
            mode: None,
            only: only.iter().map(item).collect(),
            budget: 1,
        }
    }

    fn selected() -> Vec<(RelPath, Entry)> {
        let file = |executable| Entry::File { digest: Digest::of(b""), size: 0, executable };
        vec![
            (path("dist/app.js"), file(false)),
            (path("dist/bin/run"), file(true)),
            (path("dist/empty"), Entry::Dir),
            (path("dist/link"), Entry::Link { target: "app.js".into() }),
            (path("notes.txt"), file(false)),
        ]
    }

    fn told(layer: &DeclaredLayer) -> Result<Vec<String>, String> {
        let mut held =
            place(layer, &selected()).map_err(|error| format!("{}|{}", error.message, error.help.join("|")))?;
        let mut lower = LayerRecipe::new(0).expect("a good time");
        let access = Access { mode: 0o700, uid: 1, gid: 2 };
        lower.put(path("srv"), Member { content: Content::Dir, access }).expect("a good member");
        lower.put(path("b"), Member::file(Digest::of(b""), 0, false)).expect("a good member");
        let mut below = Below::default();
        below.add(&lower);
        add_directories(&mut held, layer, &below);
        let kind = |held: &Held| match held.entry {
            Entry::Dir => "dir",
            Entry::File { .. } => "file",
            Entry::Link { .. } => "link",
        };
        let owner = |held: &Held| format!("{}:{}", held.owner.0, held.owner.1);
        Ok(held.iter().map(|(path, held)| format!("{path} {} {:o} {}", kind(held), held.mode, owner(held))).collect())
    }

    #[test]
    fn a_part_becomes_the_place_it_is_put_to() {
        let check =
            |layer: DeclaredLayer, expect: &[&str]| assert_eq!(told(&layer).expect("it holds something"), expect);
        check(
            layer("dist", "srv/www", false, &[]),
            &[
                "srv dir 700 1:2",
                "srv/www dir 755 7:8",
                "srv/www/app.js file 644 7:8",
                "srv/www/bin dir 755 7:8",
                "srv/www/bin/run file 755 7:8",
                "srv/www/empty dir 755 7:8",
                "srv/www/link link 644 7:8",
            ],
        );
        check(
            layer("dist/bin/run", "usr/bin/tool", false, &[]),
            &["usr dir 755 0:0", "usr/bin dir 755 0:0", "usr/bin/tool file 755 7:8"],
        );
        check(
            layer("dist/bin/run", "usr/bin", true, &[]),
            &["usr dir 755 0:0", "usr/bin dir 755 0:0", "usr/bin/run file 755 7:8"],
        );
        check(layer("dist", "", true, &["bin/**"]), &["bin dir 755 7:8", "bin/run file 755 7:8"]);
        check(layer("", "x", false, &["**", "!dist"]), &["x dir 755 7:8", "x/notes.txt file 644 7:8"]);
    }

    #[test]
    fn permissions_that_are_asked_for_are_those_of_files() {
        let mut asked = layer("dist/bin", "b", false, &[]);
        asked.mode = Some(0o4711);
        assert_eq!(told(&asked).expect("it holds something"), ["b dir 755 7:8", "b/run file 4711 7:8"]);
    }

    #[test]
    fn an_empty_layer_is_told_with_what_is_near() {
        let check = |layer: DeclaredLayer, expect: &str| {
            let error = told(&layer).expect_err(expect);
            assert!(error.contains(expect), "{expect}: {error}");
        };
        check(layer("dits", "x", false, &[]), "nothing lies at `dits`");
        check(layer("dist", "x", false, &["*.css"]), "`include` and `exclude` leave nothing");
    }
}
