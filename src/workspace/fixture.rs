//! Workspaces for unit tests, built from tasks directly: nothing here reads a manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::ids::{IdMap, PackageId};
use crate::base::label::Label;
use crate::base::path::RelPath;
use crate::base::span::{Place, Placed, SourceId, Sources};
use crate::manifest::glob::{Pattern, PatternItem, PatternList};
use crate::manifest::model::{
    Command, Ecosystem, Inputs, IsolationRequest, Materialize, Need, Reach, Resources, RunTask, RunTerms, SystemPolicy,
    Task, TaskKind, Which, WorkspaceConfig,
};
use crate::workspace::model::{Package, Workspace};
use crate::workspace::split::Splits;
use crate::workspace::tasks::Tasks;

/// A path that is known to be good.
pub(crate) fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("a good path")
}

/// Builds a [`Workspace`]; every package and task method refers to the one added last.
pub(crate) struct Fixture {
    root: PathBuf,
    packages: BTreeMap<RelPath, (Vec<String>, Vec<String>)>,
    tasks: Vec<Task>,
    last: RelPath,
    places: usize,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let packages = BTreeMap::from([(RelPath::root(), (Vec::new(), Vec::new()))]);
        Self { root: PathBuf::from("/nowhere"), packages, tasks: Vec::new(), last: RelPath::root(), places: 0 }
    }

    pub(crate) fn at(root: &std::path::Path) -> Self {
        Self { root: root.to_owned(), ..Self::new() }
    }

    fn place(&mut self) -> Place {
        self.places += 1;
        Place::new(SourceId(0), self.places..self.places + 1)
    }

    pub(crate) fn package(mut self, dir: &str) -> Self {
        self.last = path(dir);
        self.packages.entry(path(dir)).or_default();
        self
    }

    pub(crate) fn depends(mut self, dirs: &[&str]) -> Self {
        let entry = self.packages.get_mut(&self.last).expect("a package was added");
        entry.0.extend(dirs.iter().map(ToString::to_string));
        self
    }

    pub(crate) fn dev_depends(mut self, dirs: &[&str]) -> Self {
        let entry = self.packages.get_mut(&self.last).expect("a package was added");
        entry.1.extend(dirs.iter().map(ToString::to_string));
        self
    }

    pub(crate) fn task(mut self, name: &str) -> Self {
        let place = self.place();
        let label = Label::new(self.last.clone(), name);
        let kind = TaskKind::Run(run_task());
        self.tasks.push(Task { label, place, needs: [].into(), services: [].into(), tags: [].into(), kind });
        self
    }

    pub(crate) fn matrix(mut self, axis: &str, value: &str) -> Self {
        Arc::make_mut(&mut self.last_task().label.matrix).insert(axis.into(), value.into());
        self
    }

    pub(crate) fn tags(mut self, tags: &[&str]) -> Self {
        self.last_task().tags = tags.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn needs(mut self, needs: &[&str]) -> Self {
        for text in needs {
            let place = self.place();
            let need = need(&self.last.clone(), text, place);
            let needs = &mut self.last_task().needs;
            *needs = needs.iter().cloned().chain([need]).collect();
        }
        self
    }

    pub(crate) fn outputs(mut self, patterns: &[&str]) -> Self {
        let placed = self.patterns(patterns);
        self.last_run().outputs = placed;
        self
    }

    pub(crate) fn committed(mut self, patterns: &[&str]) -> Self {
        let placed = self.patterns(patterns);
        self.last_run().committed = placed;
        self
    }

    pub(crate) fn reports(mut self, pattern: &str) -> Self {
        let item = self.item(&RelPath::root(), pattern);
        let all = &mut self.last_run().reports;
        *all = all.items.iter().cloned().chain([item]).collect();
        self
    }

    pub(crate) fn interface(mut self, pattern: &str) -> Self {
        let item = self.item(&RelPath::root(), pattern);
        let all = &mut self.last_run().interface;
        *all = all.items.iter().cloned().chain([item]).collect();
        self
    }

    pub(crate) fn tools(mut self, names: &[&str]) -> Self {
        let placed = names.iter().map(|name| Placed::new((*name).to_owned(), self.place())).collect();
        self.last_run().tools = placed;
        self
    }

    pub(crate) fn tool_trees(mut self, labels: &[&str]) -> Self {
        let here = self.last.clone();
        let needs = labels.iter().map(|text| need(&here, text, self.place())).collect();
        self.last_run().tool_trees = needs;
        self
    }

    pub(crate) fn root(mut self, label: &str) -> Self {
        let need = need(&self.last.clone(), label, self.place());
        self.last_run().root = Some(need);
        self
    }

    pub(crate) fn exec(mut self, words: &[&str]) -> Self {
        self.last_run().command = Command::Exec(words.iter().map(ToString::to_string).collect());
        self
    }

    pub(crate) fn inputs(mut self, patterns: &[&str]) -> Self {
        let dir = self.last.clone();
        let items = patterns.iter().map(|text| self.item(&dir, text)).collect();
        self.last_run().inputs = Inputs::Patterns(PatternList { items });
        self
    }

    fn patterns(&mut self, patterns: &[&str]) -> Vec<Placed<Pattern>> {
        patterns.iter().map(|text| Placed::new(Pattern::parse(text).expect("a good pattern"), self.place())).collect()
    }

    fn item(&mut self, dir: &RelPath, text: &str) -> PatternItem {
        let (exclude, bare) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let pattern = match bare.strip_prefix("//") {
            Some(rest) => Pattern::parse(rest).expect("a good pattern"),
            None => Pattern::parse(bare).expect("a good pattern").below(dir),
        };
        PatternItem { pattern, exclude, reach: None, place: self.place() }
    }

    fn last_task(&mut self) -> &mut Task {
        self.tasks.last_mut().expect("a task was added")
    }

    fn last_run(&mut self) -> &mut RunTask {
        match &mut self.last_task().kind {
            TaskKind::Run(run) => run,
            TaskKind::Fetch(_) | TaskKind::Service(_) => unreachable!("what came last is a run task"),
        }
    }

    pub(crate) fn build(self) -> Workspace {
        let ids: BTreeMap<&str, PackageId> =
            self.packages.keys().enumerate().map(|(index, dir)| (dir.as_str(), PackageId(index as u32))).collect();
        let named = |dirs: &[String]| dirs.iter().map(|dir| ids[dir.as_str()]).collect::<Vec<_>>();
        let mut packages: IdMap<PackageId, Package> = self
            .packages
            .iter()
            .map(|(dir, (depends, dev_depends))| Package {
                dir: dir.clone(),
                name: dir.file_name().to_owned(),
                depends: named(depends),
                dev_depends: named(dev_depends),
                tasks: Vec::new(),
                place: None,
            })
            .collect();
        let mut all = self.tasks;
        all.sort_by(|one, other| one.label.cmp(&other.label));
        let mut tasks = Tasks::new();
        for task in all {
            let package = ids[task.label.package.as_str()];
            let id = tasks.push(task);
            packages[package].tasks.push(id);
        }
        let mut sources = Sources::default();
        sources.add("drystone.toml", " ".repeat(self.places + 2));
        let config = WorkspaceConfig {
            name: "fixture".into(),
            packages: None,
            package_graph: vec![Ecosystem::Cargo, Ecosystem::Npm, Ecosystem::Uv, Ecosystem::Go],
            default_branch: "main".into(),
            system: SystemPolicy::Packages,
            salt: None,
            pools: BTreeMap::new(),
            materialize: Materialize::Copy,
            store_bytes_max: None,
            place: Place::new(SourceId(0), 0..0),
        };
        let splits = Splits::of(&tasks);
        Workspace { root: self.root, config, packages, tasks, splits, sources, diagnostics: Vec::new(), walked: None }
    }
}

/// A run task of which nothing is declared.
pub(crate) fn run_task() -> RunTask {
    let terms = RunTerms {
        outputs: Vec::new(),
        env: BTreeMap::new(),
        pass_env: Vec::new(),
        secret_env: Vec::new(),
        tools: Vec::new(),
        tool_trees: Vec::new(),
        root: None,
        network: false,
        isolation: IsolationRequest::Auto,
        timeout: None,
        retries: 0,
        resources: Resources { cpu: 1, memory_bytes: None, processes: None, pool: None, exclusive: false },
        caches: Vec::new(),
        cache: true,
        interface: PatternList::default(),
        committed: Vec::new(),
        on_failure: PatternList::default(),
        reports: PatternList::default(),
        fix: None,
        salt: None,
        undeclared: crate::manifest::model::Undeclared::Warn,
        split: None,
    };
    RunTask {
        command: Command::Shell("true".into()),
        inputs: Inputs::Package,
        scratch: PatternList::default(),
        terms: Arc::new(terms),
    }
}

/// A need as the manifest would write it.
pub(crate) fn need(package: &RelPath, text: &str, place: Place) -> Need {
    let (text, interface_only) = text.strip_suffix("#interface").map_or((text, false), |rest| (rest, true));
    let upstream = |task: &str, reach| Which::Upstream { task: task.into(), reach };
    let which = if let Some(task) = text.strip_prefix("^^") {
        upstream(task, Reach::Transitive)
    } else if let Some(task) = text.strip_prefix("^dev:") {
        upstream(task, Reach::Development)
    } else if let Some(task) = text.strip_prefix('^') {
        upstream(task, Reach::Direct)
    } else {
        let (dir, rest) = text.split_once(':').expect("a label with a colon");
        let package = dir.strip_prefix("//").map_or_else(|| package.clone(), path);
        let (task, axes) = rest.strip_suffix(']').and_then(|rest| rest.split_once('[')).unwrap_or((rest, ""));
        let matrix = axes
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(axis, value)| (axis.to_owned(), value.to_owned()))
            .collect();
        Which::Task { package, task: task.into(), matrix }
    };
    Need { place, which, interface_only }
}
