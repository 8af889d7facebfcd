//! One of the `layers` of an image. Lists no files.

use crate::base::diagnostic::Diagnostic;
use crate::base::path::RelPath;
use crate::manifest::glob::{PatternItem, PatternList};
use crate::manifest::model::Need;
use crate::manifest::origin::{Origin, Written};
use crate::manifest::patterns;
use crate::manifest::raw_image::LayerTable;
use crate::manifest::recipe::{DeclaredLayer, LayerSource};
use crate::manifest::task;
use crate::manifest::value::{At, OneOrMany};

/// Most layers one `layers` entry may be split into.
const BUDGET_MAX: u32 = 100;

/// A layer being lowered.
pub(crate) struct Lowering<'a, 'b, 'p> {
    /// Its table.
    pub(crate) table: &'a LayerTable,
    /// The text it stands in.
    pub(crate) origin: &'a Origin,
    /// The image.
    pub(crate) image: &'a At<String>,
    /// What lowers commands and labels, for the platform.
    pub(crate) task: task::Lowering<'b, 'p>,
}

impl Lowering<'_, '_, '_> {
    /// The layer; `None` after reporting why it cannot be.
    pub(crate) fn layer(mut self) -> Option<DeclaredLayer> {
        let table = self.table;
        let source = self.source()?;
        let (to, into) = self.to()?;
        let path = match &table.path {
            None => RelPath::root(),
            Some(path) => self.own_path(path)?,
        };
        let budget = table.budget.as_ref().map_or(1, |budget| budget.value);
        if let Some(entry) = table.budget.as_ref().filter(|budget| !(1..=BUDGET_MAX).contains(&budget.value)) {
            let place = self.origin.of(entry);
            self.push(
                Diagnostic::error(format!("a layer may be split into 1 to {BUDGET_MAX}"))
                    .at(&place, "")
                    .help("runtimes take 127 layers at most, those of the base among them"),
            );
        }
        match source {
            LayerSource::Step { .. } => self.refuse_beside("run", &["path", "to", "owner", "mode"]),
            LayerSource::Dirs(_) => self.refuse_beside("dirs", &["path", "to"]),
            LayerSource::Task(_) | LayerSource::Files(_) => {}
        }
        Some(DeclaredLayer {
            place: self.place(),
            source,
            path,
            to,
            into,
            owner: self.owner(),
            mode: self.mode(),
            only: self.only(),
            budget,
        })
    }

    fn push(&mut self, problem: Diagnostic) {
        self.task.problems.push(problem);
    }

    /// Where it is written, as near as its values tell.
    fn place(&self) -> crate::base::span::Place {
        let LayerTable { from, files, run, to, dirs, .. } = self.table;
        let ranges = [
            dirs.as_ref().and_then(|dirs| dirs.first()).map(|dir| &dir.range),
            from.as_ref().map(|value| &value.range),
            files.as_ref().map(|value| &value.range),
            run.as_ref().map(|value| &value.range),
            to.as_ref().map(|value| &value.range),
        ];
        let first = ranges.into_iter().flatten().next();
        first.map_or_else(|| self.origin.of(self.image), |range| self.origin.place(range))
    }

    fn source(&mut self) -> Option<LayerSource> {
        let (origin, place) = (self.origin, self.place());
        match self.table {
            LayerTable { run: Some(run), from, files: None, dirs: None, .. } => {
                let command = self.task.command(run, origin, "run")?;
                let from = from.as_ref().map_or_else(|| Some(Vec::new()), |from| self.needs(from))?;
                Some(LayerSource::Step { command, from })
            }
            LayerTable { from: Some(from), files: None, run: None, dirs: None, .. } => {
                let mut needs = self.needs(from)?;
                match (needs.pop(), needs.is_empty()) {
                    (Some(need), true) => Some(LayerSource::Task(need)),
                    _ => {
                        let error = Diagnostic::error("a layer holds the outputs of one task").at(&place, "");
                        self.push(error.help("write one layer for each task"));
                        None
                    }
                }
            }
            LayerTable { files: Some(files), from: None, run: None, dirs: None, .. } => {
                let mut items: Vec<PatternItem> = Vec::new();
                for entry in files.value.each(&files.range) {
                    let written = Written::new(&entry, origin);
                    items.push(patterns::input(written, &self.task.names, self.task.problems)?);
                }
                if let Some(upstream) = items.iter().find(|item| item.reach.is_some()) {
                    let error = Diagnostic::error("a layer cannot hold `^…` files").at(&upstream.place, "");
                    self.push(error.help("name the packages: `//libs/ui/src/**`"));
                    return None;
                }
                Some(LayerSource::Files(items.into_iter().collect()))
            }
            LayerTable { dirs: Some(dirs), from: None, files: None, run: None, .. } => {
                let mut all = Vec::new();
                for entry in dirs {
                    let text = self.task.plain(entry, origin)?;
                    match self.in_image(&text, entry)? {
                        dir if dir.is_root() => {
                            let error = Diagnostic::error("the root of the image is always there");
                            self.push(error.at(&origin.of(entry), "").help("take it out of `dirs`"));
                        }
                        dir => all.push(dir),
                    }
                }
                Some(LayerSource::Dirs(all))
            }
            LayerTable { from: None, files: None, run: None, dirs: None, .. } => {
                let message = format!("a layer of image `{}` holds nothing", self.image.value);
                self.push(Diagnostic::error(message).at(&place, "").help(
                    "say what it holds: `from = \":TASK\"`, `files = [\"…\"]`, `dirs = [\"/…\"]` or `run = \"…\"`",
                ));
                None
            }
            _ => {
                let error =
                    Diagnostic::error("a layer holds either outputs (`from`), `files`, `dirs`, or what `run` changes");
                self.push(error.at(&place, "").help("write two layers; only `run` may have `from` beside it"));
                None
            }
        }
    }

    fn needs(&mut self, from: &At<OneOrMany>) -> Option<Vec<Need>> {
        let mut needs = Vec::new();
        for entry in from.value.each(&from.range) {
            let text = self.task.plain(&entry, self.origin)?;
            needs.push(self.task.one_task(&text, &self.origin.of(&entry), "source of a layer")?);
        }
        Some(needs)
    }

    fn to(&mut self) -> Option<(RelPath, bool)> {
        let Some(to) = &self.table.to else { return Some((RelPath::root(), true)) };
        let text = self.task.plain(to, self.origin)?;
        Some((self.in_image(&text, to)?, text.ends_with('/')))
    }

    /// A path in the image, without the leading slash.
    fn in_image(&mut self, text: &str, entry: &At<String>) -> Option<RelPath> {
        let parsed = text.strip_prefix('/').map(|rest| RelPath::parse(rest.trim_end_matches('/')));
        if let Some(Ok(path)) = parsed {
            return Some(path);
        }
        let place = self.origin.of(entry);
        let error = Diagnostic::error(format!("`{}` is no place in the image", text.escape_debug()));
        let plain = text.trim_matches('/');
        self.push(error.at(&place, "").help(format!(
            "write it from the root of the image, without `..`: `/{}`",
            if plain.contains("..") || plain.is_empty() { "srv/www" } else { plain }
        )));
        None
    }

    fn own_path(&mut self, path: &At<String>) -> Option<RelPath> {
        let text = self.task.plain(path, self.origin)?;
        match RelPath::parse(&text) {
            Ok(path) => Some(path),
            Err(cause) => {
                let place = self.origin.of(path);
                let error = Diagnostic::error(format!("`{}` is not a path: {cause}", text.escape_debug()));
                self.push(error.at(&place, "").help("write it relative to the package that the files are of"));
                None
            }
        }
    }

    fn owner(&mut self) -> (u32, u32) {
        let Some(owner) = &self.table.owner else { return (0, 0) };
        let Some(text) = self.task.plain(owner, self.origin) else { return (0, 0) };
        let (user, group) = text.split_once(':').unwrap_or((&text, &text));
        if let (Ok(user), Ok(group)) = (user.parse(), group.parse()) {
            return (user, group);
        }
        let place = self.origin.of(owner);
        self.push(
            Diagnostic::error(format!("`{}` is no owner", text.escape_debug()))
                .at(&place, "")
                .help("write numbers, `\"65532\"` or `\"65532:65532\"`: names mean something else in every image"),
        );
        (0, 0)
    }

    fn mode(&mut self) -> Option<u32> {
        let mode = self.table.mode.as_ref()?;
        let text = self.task.plain(mode, self.origin)?;
        let parsed = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777 && text.len() >= 3);
        if parsed.is_none() {
            let place = self.origin.of(mode);
            self.push(
                Diagnostic::error(format!("`{}` are no permissions", text.escape_debug()))
                    .at(&place, "")
                    .help("write three or four octal digits: `\"0640\"`"),
            );
        }
        parsed
    }

    fn only(&mut self) -> PatternList {
        let mut items: Vec<PatternItem> = Vec::new();
        let lists = [(self.table.include.as_ref(), false), (self.table.exclude.as_ref(), true)];
        for (list, exclude) in lists {
            for entry in list.into_iter().flatten() {
                let written = Written::new(entry, self.origin);
                let what = if exclude { "`exclude` pattern" } else { "`include` pattern" };
                let Some(pattern) = patterns::own(written, what, &self.task.names, self.task.problems) else {
                    continue;
                };
                if exclude && items.is_empty() {
                    let place = written.place();
                    let all = crate::manifest::glob::Pattern::parse("**").expect("a constant pattern");
                    items.push(PatternItem { pattern: all, exclude: false, reach: None, place });
                }
                items.push(PatternItem { pattern: pattern.value, exclude, reach: None, place: pattern.place });
            }
        }
        items.into_iter().collect()
    }

    /// Keys that mean nothing beside another.
    fn refuse_beside(&mut self, beside: &str, keys: &[&str]) {
        let LayerTable { path, to, owner, mode, .. } = self.table;
        let all = [("path", path), ("to", to), ("owner", owner), ("mode", mode)];
        for (key, value) in all.into_iter().filter(|(key, _)| keys.contains(key)) {
            let Some(value) = value else { continue };
            let place = self.origin.of(value);
            let error = Diagnostic::error(format!("`{key}` means nothing beside `{beside}`")).at(&place, "");
            self.push(error.help(match beside {
                "run" => "take it out: the layer is what the command changes, where it changes it",
                _ => "take it out: the directories are named from the root of the image",
            }));
        }
    }
}
