//! The builds of one task while it is audited: each is made once, kept with what it left, and compared with others. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::compare::{self, Comparison, Limits};
use crate::audit::context::{Context, Planted, Span};
use crate::audit::hidden::{Hidden, Trait};
use crate::audit::model::{Build, Ending, Site};
use crate::audit::variation::{Dimensions, Marks};
use crate::base::diagnostic::Diagnostic;
use crate::base::path::RelPath;
use crate::base::tree::Listing;
use crate::engine::execute::now_ms;
use crate::engine::inspect::Case;
use crate::engine::rebuild::{self, Rebuilt};
use crate::sandbox::surroundings::Dimension;
use crate::store::Execution;

/// How far apart builds begin that are to show what time does: times of files are told in seconds.
const APART: Duration = Duration::from_millis(1_100);

/// The same in zip archives, which tell them in steps of two seconds.
const FAR: Duration = Duration::from_millis(2_100);

/// Why an examination ends early.
#[derive(Debug)]
pub enum Stop {
    /// The run was cancelled.
    Cancelled,
    /// Something other than a command is broken.
    Broken(Diagnostic),
    /// The budget is used up.
    Spent,
}

/// What may be spent on one task.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// When all audits have to end.
    pub until: Option<Instant>,
    /// Rebuilds at most.
    pub rebuilds: usize,
}

/// What a build left.
#[derive(Clone)]
struct Left {
    listing: Option<Arc<Listing>>,
    planted: Vec<Planted>,
    span: Span,
}

/// The builds of a task; the first is its result.
pub struct Builds<'b, 'c, 'w> {
    case: &'b Case<'c, 'w>,
    budget: Budget,
    told: Vec<Build>,
    left: Vec<Left>,
    known: BTreeMap<(Dimensions, Dimensions), usize>,
    begun: Instant,
    first_begun: Option<Instant>,
}

impl<'b, 'c, 'w> Builds<'b, 'c, 'w> {
    /// Begins with the result.
    pub fn new(case: &'b Case<'c, 'w>, budget: Budget) -> Self {
        let result = case.session.store.lookup(&case.key).ok().flatten();
        let (created_ms, duration_ms) = match &result {
            Some(result) => (result.created_ms, result.duration_ms),
            None => (now_ms(), u64::try_from(case.took.as_millis()).unwrap_or(u64::MAX)),
        };
        let started_ms = created_ms.saturating_sub(i64::try_from(duration_ms).unwrap_or(0));
        let build = Build {
            varied: Vec::new(),
            pinned: Vec::new(),
            ending: Ending::Built { outputs: *case.outputs },
            started_ms,
            duration_ms,
        };
        let left = Left {
            listing: Some(Arc::clone(case.listing)),
            planted: Vec::new(),
            span: Span { from_s: started_ms.div_euclid(1000), to_s: created_ms.div_euclid(1000) + 1 },
        };
        Self {
            case,
            budget,
            told: vec![build],
            left: vec![left],
            known: BTreeMap::new(),
            begun: Instant::now(),
            first_begun: None,
        }
    }

    /// All of them.
    pub fn told(self) -> Vec<Build> {
        self.told
    }

    /// Waits until a build that begins now begins another second than the last one.
    pub fn wait_apart(&self) -> Result<(), Stop> {
        match self.case.session.cancel.wait(APART.saturating_sub(self.begun.elapsed())) {
            true => Err(Stop::Cancelled),
            false => Ok(()),
        }
    }

    /// Waits until a build that begins now begins in another unit of any clock that files are told by than the first rebuild.
    pub fn wait_far(&self) -> Result<(), Stop> {
        let since = self.first_begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        match self.case.session.cancel.wait(FAR.saturating_sub(since)) {
            true => Err(Stop::Cancelled),
            false => Ok(()),
        }
    }

    /// The build with these dimensions varied, and these held fast; made unless it was made before.
    pub fn of(&mut self, marks: &Marks, varied: &Dimensions, pinned: &Dimensions) -> Result<usize, Stop> {
        let name = (varied.clone(), pinned.clone());
        if let Some(known) = self.known.get(&name) {
            return Ok(*known);
        }
        let made = self.again(marks, varied, pinned)?;
        self.known.insert(name, made);
        Ok(made)
    }

    /// The same, made whether or not it was made before.
    pub fn again(&mut self, marks: &Marks, varied: &Dimensions, pinned: &Dimensions) -> Result<usize, Stop> {
        if self.case.session.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let is_late = self.budget.until.is_some_and(|until| Instant::now() >= until);
        if is_late || self.told.len() > self.budget.rebuilds {
            return Err(Stop::Spent);
        }
        self.begun = Instant::now();
        self.first_begun.get_or_insert(self.begun);
        let started_ms = now_ms();
        let variation = marks.variation(varied, pinned, started_ms);
        let rebuilt = self.case.rebuild(&variation.arrangement);
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let at_s = |ms: i64| ms.div_euclid(1000) + variation.ahead_s;
        let span = Span { from_s: at_s(started_ms), to_s: at_s(now_ms()) + 1 };
        let (ending, listing) = match rebuilt {
            Rebuilt::Built(built) => {
                if varied.is_empty() && pinned.is_empty() {
                    self.enter(built.outputs)?;
                }
                (Ending::Built { outputs: built.outputs }, Some(Arc::new(built.listing)))
            }
            Rebuilt::Failed { how, .. } => (Ending::Failed { how }, None),
            Rebuilt::Cancelled => return Err(Stop::Cancelled),
            Rebuilt::Broken(problem) => return Err(Stop::Broken(problem)),
        };
        let list = |dimensions: &Dimensions| dimensions.iter().copied().collect();
        self.told.push(Build { varied: list(varied), pinned: list(pinned), ending, started_ms, duration_ms });
        self.left.push(Left { listing, planted: variation.planted, span });
        Ok(self.told.len() - 1)
    }

    /// A plain rebuild is an execution like any other.
    fn enter(&self, outputs: crate::base::digest::Digest) -> Result<(), Stop> {
        let session = self.case.session;
        let execution =
            Execution { action: self.case.key, outputs, label: self.case.label(), workspace: session.worktree() };
        session.store.note_execution(execution).map_err(|error| {
            let told = format!("a rebuild of `{}` could not be entered in the ledger: {error}", self.case.label());
            Stop::Broken(Diagnostic::error(told).help("`drystone store verify` tells what is wrong with the store"))
        })
    }

    /// How a build failed; `None` if it did not.
    pub fn failure(&self, build: usize) -> Option<&str> {
        match &self.told[build].ending {
            Ending::Failed { how } => Some(how),
            Ending::Built { .. } => None,
        }
    }

    /// Paths at which two builds differ; none where one of them failed.
    pub fn differing(&self, one: usize, other: usize) -> BTreeSet<RelPath> {
        let (Some(a), Some(b)) = (&self.left[one].listing, &self.left[other].listing) else { return BTreeSet::new() };
        let changed = a.iter().filter(|(path, entry)| b.get(*path) != Some(entry)).map(|(path, _)| path.clone());
        let added = b.keys().filter(|path| !a.contains_key(*path)).cloned();
        changed.chain(added).collect()
    }

    /// What differs between two builds and is not hidden, without what only follows from something else.
    pub fn news(&self, one: usize, other: usize, hidden: &Hidden) -> BTreeSet<Trait> {
        if self.differing(one, other).is_empty() {
            return BTreeSet::new();
        }
        let differences = self.compare(one, other, None).into_iter().flat_map(|comparison| comparison.differences);
        let news = differences.filter(|one| one.consequence_of.is_none() && !hidden.has(one));
        news.map(|one| (one.site, one.cause.id)).collect()
    }

    /// Whether all outputs of a build are among these paths.
    pub fn all_in(&self, build: usize, paths: &BTreeSet<RelPath>) -> bool {
        self.left[build].listing.as_ref().is_some_and(|listing| listing.keys().all(|path| paths.contains(path)))
    }

    /// Where names are that only one of two builds has.
    pub fn lonely(&self, one: usize, other: usize) -> BTreeSet<Site> {
        let differences = self.compare(one, other, None).into_iter().flat_map(|comparison| comparison.differences);
        differences.filter(compare::is_of_name).map(|difference| difference.site).collect()
    }

    /// Whether nothing was varied and nothing held fast.
    pub fn is_plain(&self, build: usize) -> bool {
        self.told[build].varied.is_empty() && self.told[build].pinned.is_empty()
    }

    /// Whether it is their number that is used up, rather than the time.
    pub fn is_over_count(&self) -> bool {
        self.told.len() > self.budget.rebuilds
    }

    /// Compares two builds down to the bytes. `alone` is the one dimension in which they were built differently.
    pub fn compare(&self, one: usize, other: usize, alone: Option<Dimension>) -> Option<Comparison> {
        let (left, right) = (&self.left[one], &self.left[other]);
        let (a, b) = (left.listing.as_ref()?, right.listing.as_ref()?);
        // Only the second side is ever varied; where the first has the same planted, it does not show.
        let planted = right.planted.iter().filter(|planted| !left.planted.contains(planted)).cloned().collect();
        let context = Context { planted, a: left.span, b: right.span, alone };
        let contents = |digest: &crate::base::digest::Digest| rebuild::contents(self.case.session, digest);
        let mut comparison = compare::trees(a, b, &contents, &context, &Limits::default());
        for difference in &mut comparison.differences {
            difference.between = (one, other);
        }
        Some(comparison)
    }

    /// Lays out what a build left, at a path where nothing is. Links are written down as files: nobody is to follow them.
    pub fn keep(&self, build: usize, dir: &Path) -> Result<(), String> {
        match &self.left[build].listing {
            Some(listing) => rebuild::keep(self.case.session, listing, dir),
            None => Ok(()),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.told.len()
    }
}
