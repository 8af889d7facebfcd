//! `extends`: a task's own table over its template's over that template's own. The first layer that has a key gives it; tables
//! are merged key by key, lists are replaced whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::limits::EXTENDS_DEPTH_MAX;
use crate::base::span::Place;
use crate::manifest::kept::{Everywhere, KeptTemplates};
use crate::manifest::origin::Origin;
use crate::manifest::problems::Problems;
use crate::manifest::raw::TaskTable;
use crate::manifest::read::{Declared, ManifestFile};
use crate::manifest::value::At;

/// The templates of the root manifest.
#[derive(Clone, Debug)]
pub struct Templates {
    origin: Origin,
    by_name: Arc<BTreeMap<String, Declared<TaskTable>>>,
    kept: Arc<KeptTemplates>,
}

/// The templates of a root manifest, for the packages.
pub fn templates(root: &ManifestFile) -> Templates {
    let kept = Arc::new(KeptTemplates::of(root.templates.keys()));
    Templates { origin: root.origin.clone(), by_name: Arc::clone(&root.templates), kept }
}

impl Templates {
    /// The template, or an error at `place`, where it is named.
    pub(crate) fn find(&self, name: &str, place: &Place, problems: &mut Problems<'_>) -> Option<&Declared<TaskTable>> {
        let found = self.by_name.get(name);
        if found.is_none() {
            let error = Diagnostic::error(format!("there is no template `{name}`")).at(place, "");
            problems.push(match nearest(name, self.by_name.keys().map(String::as_str)) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help(format!("declare `[template.{name}]` in the root manifest")),
            });
        }
        found
    }

    /// Reports every `extends` of a template that leads nowhere or in a circle.
    pub(crate) fn check(&self, problems: &mut Problems<'_>) {
        for template in self.by_name.values() {
            Layers::new(&template.table, template.damaged, &self.origin, self, problems);
        }
    }

    /// What tasks of a template have in common, over all packages.
    pub(crate) fn kept(&self, name: &str) -> Option<&Everywhere> {
        self.kept.template(name)
    }

    /// The origin of all templates.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// One table and the text it stands in.
struct Layer<'a> {
    table: &'a TaskTable,
    origin: &'a Origin,
}

/// A table over its templates.
pub(crate) struct Layers<'a> {
    list: Vec<Layer<'a>>,
    /// Whether values of the wrong type were left out of one of them.
    pub(crate) damaged: bool,
}

impl<'a> Layers<'a> {
    /// Follows `extends`; `None` after reporting a template that does not exist or extends itself.
    pub(crate) fn new(
        table: &'a TaskTable,
        damaged: bool,
        origin: &'a Origin,
        templates: &'a Templates,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let mut layers = Self { list: vec![Layer { table, origin }], damaged };
        // The names on the way, each with the place of the `extends` that leads on from it.
        let mut seen: Vec<(&str, Place)> = Vec::new();
        let mut next = table.extends.as_ref().map(|extends| (extends, origin));
        while let Some((extends, origin)) = next {
            let name = extends.value.as_str();
            let place = origin.of(extends);
            if let Some((_, last)) = seen.last_mut() {
                *last = place.clone();
            }
            if let Some(start) = seen.iter().position(|(earlier, _)| *earlier == name) {
                problems.push(cycle(&seen[start..]));
                return None;
            }
            if seen.len() == EXTENDS_DEPTH_MAX {
                problems.push(
                    Diagnostic::error(format!("templates extend each other more than {EXTENDS_DEPTH_MAX} deep"))
                        .at(&place, "")
                        .help("merge some of them"),
                );
                return None;
            }
            let template = templates.find(name, &place, problems)?;
            layers.list.push(Layer { table: &template.table, origin: &templates.origin });
            layers.damaged |= template.damaged;
            seen.push((name, place));
            next = template.table.extends.as_ref().map(|extends| (extends, &templates.origin));
        }
        Some(layers)
    }

    /// What the first layer that has it says, and where.
    pub(crate) fn first<T>(&self, key: impl Fn(&'a TaskTable) -> Option<&'a T>) -> Option<(&'a T, &'a Origin)> {
        self.list.iter().find_map(|layer| key(layer.table).map(|value| (value, layer.origin)))
    }

    /// The entries of a table over all layers, in byte order.
    pub(crate) fn merged<V>(
        &self,
        key: impl Fn(&'a TaskTable) -> Option<&'a BTreeMap<At<String>, V>>,
    ) -> Vec<(&'a At<String>, &'a V, &'a Origin)> {
        let mut all = BTreeMap::new();
        for layer in &self.list {
            for (name, value) in key(layer.table).into_iter().flatten() {
                all.entry(name).or_insert((value, layer.origin));
            }
        }
        all.into_iter().map(|(name, (value, origin))| (name, value, origin)).collect()
    }
}

/// The same error wherever the circle is entered: it starts at its smallest name.
fn cycle(circle: &[(&str, Place)]) -> Diagnostic {
    let smallest = (0..circle.len()).min_by_key(|at| circle[*at].0).unwrap_or(0);
    let round: Vec<&(&str, Place)> = circle[smallest..].iter().chain(&circle[..smallest]).collect();
    let first = round[0].0;
    let names: Vec<String> =
        round.iter().map(|(name, _)| *name).chain([first]).map(|name| format!("`{name}`")).collect();
    let error = Diagnostic::error(format!("template `{first}` extends itself: {}", names.join(" → ")));
    round
        .iter()
        .fold(error, |error, (name, place)| error.at(place, format!("`{name}` extends this")))
        .help("take one `extends` out")
}
