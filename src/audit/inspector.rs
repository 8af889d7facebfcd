//! The audit as a run sees it: each selected result is examined in the slot of a job, and what is found is gathered.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::audit::builds::Stop;
use crate::audit::examine::{Question, examine};
use crate::audit::model::TaskAudit;
use crate::audit::variation::Marks;
use crate::base::digest::Digest;
use crate::engine::execute::now_ms;
use crate::engine::inspect::{Case, Inspection, Inspector};

/// Called with each task once it is audited, on the thread of a job.
pub type Heard = Box<dyn Fn(&TaskAudit) + Send + Sync>;

/// Audits tasks.
pub struct Auditor {
    question: Question,
    /// Labels of the tasks to audit.
    selected: BTreeSet<String>,
    /// Number of the audit: marks are made of it.
    id: String,
    heard: Heard,
    found: Mutex<Findings>,
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Findings {
    /// Tasks that were audited, as they came.
    pub tasks: Vec<TaskAudit>,
    /// Tasks that were not, with why not.
    pub left_out: Vec<(String, String)>,
}

impl fmt::Debug for Auditor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Auditor")
            .field("id", &self.id)
            .field("question", &self.question)
            .finish_non_exhaustive()
    }
}

impl Auditor {
    /// One for the tasks of these labels.
    pub fn new(question: Question, selected: BTreeSet<String>, id: String, heard: Heard) -> Self {
        Self { question, selected, id, heard, found: Mutex::default() }
    }

    /// What was found, once the run is over; tasks by their labels.
    pub fn take(&self) -> Findings {
        let mut found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        found.tasks.sort_by(|one, other| one.label.cmp(&other.label));
        found.left_out.sort();
        found
    }

    fn leave_out(&self, label: String, why: &str) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).left_out.push((label, why.to_owned()));
    }

    /// Marks of a task: no other task of any audit has them.
    fn marks(&self, label: &str) -> Marks {
        let digest = Digest::of(format!("{} {label}", self.id).as_bytes()).to_string();
        Marks::new(digest[..8].to_owned(), now_ms())
    }
}

impl Inspector for Auditor {
    fn wants_hit(&self, label: &str, _: &Digest) -> bool {
        self.selected.contains(label)
    }

    fn wants_new(&self, label: &str, _: &Digest) -> bool {
        self.selected.contains(label)
    }

    fn inspect(&self, case: &Case<'_, '_>) -> Inspection {
        let label = case.label();
        if let Some(why) = case.not_buildable() {
            self.leave_out(label, why);
            return Inspection::Done(Vec::new());
        }
        match examine(case, &self.question, self.marks(&label)) {
            Ok(audit) => {
                (self.heard)(&audit);
                self.found.lock().unwrap_or_else(PoisonError::into_inner).tasks.push(audit);
                Inspection::Done(Vec::new())
            }
            Err(Stop::Cancelled) => Inspection::Cancelled,
            Err(Stop::Broken(problem)) => {
                self.leave_out(label, &problem.message);
                Inspection::Refused(problem)
            }
            Err(Stop::Spent) => unreachable!("BUG: a spent budget is part of what is found"),
        }
    }
}
