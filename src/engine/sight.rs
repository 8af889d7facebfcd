//! What traced tasks look at as the tree is now, for telling what a change reaches. Runs nothing.
//!
//! A task whose result is known for the tree as it is now looks at nothing but what it touched when that was made. If no change can be
//! seen there, all of it was the same before the change, and the task did the same. Any other observation says nothing: in another
//! state the task may look elsewhere.

use std::collections::BTreeMap;

use crate::base::ids::TaskId;
use crate::engine::plan;
use crate::engine::preview;
use crate::engine::session::Session;
use crate::engine::traced;
use crate::fingerprint::action::Tracing;
use crate::fingerprint::traced::{Observed, Seen};
use crate::workspace::affected::Scope;
use crate::workspace::changes::{Before, Change};

/// What traced tasks touched, where that holds for the tree as it is now.
pub struct Sight(BTreeMap<TaskId, Observed>);

impl Sight {
    /// Nothing is known: traced tasks may look anywhere.
    pub const NOTHING: Sight = Sight(BTreeMap::new());

    /// Looks up every traced task. Cost: that of a plan for them, with what they need.
    ///
    /// What cannot be planned or read is not known.
    pub fn of(session: &Session<'_>) -> Self {
        let tasks: Vec<TaskId> =
            session.workspace.tasks.ids().filter(|task| traced::of(session, *task).is_some()).collect();
        if tasks.is_empty() {
            return Self::NOTHING;
        }
        let Ok(mut plan) = plan::plan(session, &tasks) else { return Self::NOTHING };
        // `--force` runs them anyway; what is known of them stays.
        plan.selected.clear();
        let mut known = BTreeMap::new();
        let visited = preview::visit(session, &plan, &mut |task, _, _, found| {
            let Some(Tracing::Observed(digest)) = found.map(|found| found.action.tracing) else { return };
            let bytes = session.store.observed(&digest).ok().flatten();
            known.extend(bytes.and_then(|bytes| Observed::decode(&bytes).ok()).map(|observed| (task, observed)));
        });
        if visited.is_ok() { Self(known) } else { Self::NOTHING }
    }

    /// Whether a task can have seen a change, given what there was before.
    pub fn reaches(&self, task: TaskId, change: &Change, scope: Scope, before: &Before) -> bool {
        self.0.get(&task).is_none_or(|observed| sees(observed, change, scope, before))
    }
}

fn sees(observed: &Observed, change: &Change, scope: Scope, before: &Before) -> bool {
    if scope == Scope::Itself && observed.paths.contains_key(&change.path) {
        return true;
    }
    if change.is_in_names()
        && (scope == Scope::Itself && bars(observed, change) || moves_walls(observed, change, before))
    {
        return true;
    }
    let mut child = change.path.clone();
    while let Some(dir) = child.parent() {
        let differed = match observed.paths.get(&dir).map(|(_, seen)| seen.there()) {
            None => false,
            // It is a directory now, if only because of this file; it may not have been one.
            Some(Seen::Dir) => !before.has_dir(&dir),
            Some(Seen::Names(_)) if !before.has_dir(&dir) => true,
            Some(Seen::Names(_)) if child == change.path => scope == Scope::Itself && change.is_in_names(),
            Some(Seen::Names(names)) => names.contains_key(child.file_name()) != before.has_dir(&child),
            Some(_) => true,
        };
        if differed {
            return true;
        }
        child = dir;
    }
    false
}

/// Whether the change lies, or lay, in the way of something that was looked for.
fn bars(observed: &Observed, change: &Change) -> bool {
    let near = observed.paths.range(&change.path..).map(|(path, _)| path);
    // `a-b` sorts between `a` and `a/c`.
    let mut near = near.take_while(|path| path.as_str().starts_with(change.path.as_str()));
    near.any(|path| path.starts_with(&change.path))
}

/// Whether the change may decide if a directory is shown whole in which the task tried to write.
fn moves_walls(observed: &Observed, change: &Change, before: &Before) -> bool {
    let tried = observed.paths.iter().filter(|(_, (depth, _))| depth.writes);
    let mut walls = tried.map(|(path, _)| {
        let mut dir = path.clone();
        while let Some(parent) = dir.parent().filter(|_| !before.has_dir(&dir)) {
            dir = parent;
        }
        dir
    });
    walls.any(|dir| change.path.starts_with(&dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::path::RelPath;
    use crate::fingerprint::traced::{Depth, Named};
    use crate::workspace::changes::{ChangeKind, FileKind};

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    #[test]
    fn a_task_sees_what_it_touched_and_what_comes_and_goes_where_it_read_names() {
        let names = BTreeMap::from([("a".to_owned(), Named::File), ("sub".to_owned(), Named::Dir)]);
        let mut observed = Observed::default();
        for (at, seen) in [("src", Seen::Names(names)), ("plain", Seen::Dir), ("none", Seen::Absent)] {
            observed.paths.insert(path(at), (Depth::default(), seen));
        }
        observed.paths.insert(path("read"), (Depth::default(), Seen::File { size: 1, executable: false }));
        let files = ["src/a", "src/gone/x", "src/sub/x", "plain/x", "read"];
        let before = Before::new(files.map(|file| (path(file), FileKind::File)).into());
        let check = |file: &str, kind: ChangeKind, scope: Scope, expect: bool| {
            assert_eq!(sees(&observed, &Change { path: path(file), kind }, scope, &before), expect, "{file} {kind:?}");
        };
        check("read", ChangeKind::Altered, Scope::Itself, true);
        check("src/a", ChangeKind::Altered, Scope::Itself, false);
        check("src/a", ChangeKind::Turned, Scope::Itself, true);
        check("src/b", ChangeKind::Came, Scope::Itself, true);
        check("src/b", ChangeKind::Came, Scope::Above, false);
        check("src/sub/y", ChangeKind::Came, Scope::Itself, false);
        check("src/gone/x", ChangeKind::Went, Scope::Itself, true);
        check("src/gone/x", ChangeKind::Went, Scope::Above, true);
        check("src/fresh/x", ChangeKind::Came, Scope::Above, false);
        check("plain/y", ChangeKind::Came, Scope::Itself, false);
        check("none/y", ChangeKind::Went, Scope::Itself, true);
        check("elsewhere/y", ChangeKind::Came, Scope::Itself, false);
        let tried = Depth { writes: true, ..Depth::default() };
        observed.paths.insert(path("lib/new/x"), (tried, Seen::Shut(Box::new(Seen::Absent))));
        observed.paths.insert(path("way/in/it"), (Depth::default(), Seen::Barred { by: Named::Link }));
        let files = ["lib/a", "other/a"];
        let before = Before::new(files.map(|file| (path(file), FileKind::File)).into());
        let check = |file: &str, kind: ChangeKind, scope: Scope, expect: bool| {
            assert_eq!(sees(&observed, &Change { path: path(file), kind }, scope, &before), expect, "{file} {kind:?}");
        };
        check("way", ChangeKind::Came, Scope::Itself, true);
        check("way", ChangeKind::Came, Scope::Above, false);
        check("way/in", ChangeKind::Turned, Scope::Itself, true);
        check("way-in", ChangeKind::Came, Scope::Itself, false);
        check("lib/b", ChangeKind::Came, Scope::Above, true);
        check("lib/a", ChangeKind::Altered, Scope::Itself, false);
        check("other/b", ChangeKind::Came, Scope::Itself, false);
    }
}
