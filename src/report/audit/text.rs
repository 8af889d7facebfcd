//! An audit as text, for a person at a terminal. Writes nowhere.

use crate::audit::model::{Audit, Certainty, Difference, Effect, Ending, Evidence, Outcome, TaskAudit, Verdict};
use crate::report::audit::told::{
    counted, duration, folded, hex, manner, outcome, shown, site, summary, tested, text_of,
};
use crate::report::ink::{Color, Ink, paint};

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// What differs, what was not tested, and the summary.
    Findings,
    /// Also every build, every dimension, and each consequence.
    Everything,
}

/// Most differences of one task that are told with [`Detail::Findings`].
const DIFFERENCES_MAX: usize = 20;

/// An audit as lines, each with a newline at its end. No foreign bytes reach them as they are.
pub fn lines(audit: &Audit, detail: Detail, color: Color) -> String {
    let mut page = Page { lines: Vec::new(), detail, color };
    for task in &audit.tasks {
        page.task(task);
    }
    for (label, why) in &audit.left_out {
        let word = page.paint(Ink::Faint, "left out");
        page.lines.push(format!("{} {word}: {}", shown(label), shown(why)));
    }
    let ink = verdict_ink(audit.verdict());
    let summary = page.paint(ink, &summary(audit));
    page.lines.push(summary);
    page.lines.join("\n") + "\n"
}

/// One task as lines, each with a newline at its end.
pub(super) fn lines_of(task: &TaskAudit, detail: Detail, color: Color) -> String {
    let mut page = Page { lines: Vec::new(), detail, color };
    page.task(task);
    page.lines.join("\n") + "\n"
}

const fn verdict_ink(verdict: Verdict) -> Ink {
    match verdict {
        Verdict::Identical | Verdict::IdenticalUncompressed => Ink::Good,
        Verdict::Equivalent => Ink::Calm,
        Verdict::Inconclusive => Ink::Care,
        Verdict::Different => Ink::Bad,
    }
}

struct Page {
    lines: Vec<String>,
    detail: Detail,
    color: Color,
}

impl Page {
    fn paint(&self, ink: Ink, text: &str) -> String {
        paint(self.color, ink, text)
    }

    fn add(&mut self, depth: usize, line: &str) {
        self.lines.push(format!("{}{line}", "  ".repeat(depth)));
    }

    fn task(&mut self, task: &TaskAudit) {
        let verdict = self.paint(verdict_ink(task.verdict), task.verdict.word());
        let after: Vec<_> = task.normalizers.iter().map(|name| shown(name)).collect();
        let after = if after.is_empty() { String::new() } else { format!(" after {}", after.join(", ")) };
        let unstable = if task.is_unstable { "; plain builds differ among themselves" } else { "" };
        self.add(0, &format!("{} {verdict}{after}{unstable}", shown(&task.label)));
        for note in &task.notes {
            self.add(1, &format!("note: {}", shown(note)));
        }
        let differences = folded(task);
        let most = if self.detail == Detail::Everything { differences.len() } else { DIFFERENCES_MAX };
        for (difference, consequences) in differences.iter().take(most) {
            self.difference(difference, consequences);
        }
        let more = differences.len().saturating_sub(most) as u64 + task.untold;
        if more > 0 {
            self.add(1, &format!("… and {more} more"));
        }
        self.dimensions(task);
        if self.detail == Detail::Everything {
            self.builds(task);
        }
    }

    fn difference(&mut self, difference: &Difference, consequences: &[&Difference]) {
        let place = self.paint(Ink::Strong, &site(&difference.site));
        self.add(1, &format!("{place}: {}", shown(&difference.what)));
        if let Some(evidence) = &difference.evidence {
            self.evidence(evidence);
        }
        let certainty = match difference.certainty {
            Certainty::Proven => Certainty::Proven.word().to_owned(),
            Certainty::Suspected => self.paint(Ink::Care, Certainty::Suspected.word()),
        };
        let by = difference.dimension.map(|one| format!(", by {}", one.word())).unwrap_or_default();
        let cause = difference.cause;
        self.add(2, &format!("cause: {} [{}], {certainty}{by}", shown(cause.title), shown(cause.id)));
        self.add(2, &format!("remedy: {}", shown(cause.remedy)));
        if let Some(of) = &difference.consequence_of {
            self.add(2, &format!("follows from {}, which is not told", site(of)));
        }
        match consequences {
            [] => {}
            _ if self.detail == Detail::Everything => {
                for one in consequences {
                    self.add(2, &format!("so also {}: {}", site(&one.site), shown(&one.what)));
                }
            }
            [_] => self.add(2, "and 1 that follows from it"),
            _ => self.add(2, &format!("and {} that follow from it", consequences.len())),
        }
    }

    fn evidence(&mut self, evidence: &Evidence) {
        let (a, b) = match (text_of(&evidence.a), text_of(&evidence.b)) {
            (Some(a), Some(b)) => (a, b),
            _ => (hex(&evidence.a), hex(&evidence.b)),
        };
        self.add(2, &format!("at byte {}:", evidence.offset));
        for (mark, ink, side) in [("-", Ink::Bad, a), ("+", Ink::Good, b)] {
            let side = if side.is_empty() { "(no bytes)" } else { &side };
            let side = self.paint(ink, &format!("{mark} {side}"));
            self.add(2, &side);
        }
    }

    fn dimensions(&mut self, task: &TaskAudit) {
        // What is told of several in the same words is told once, where no more is asked for.
        let mut lines: Vec<(Vec<&str>, String)> = Vec::new();
        for one in &task.varied {
            let came = tested(one);
            let told = self.detail == Detail::Everything || !matches!(came, Outcome::Same | Outcome::Differs);
            if !told {
                continue;
            }
            let (word, more) = outcome(came);
            let why = match (&one.effect, more) {
                (_, Some(more)) => format!(": {}", shown(more)),
                (Effect::None { why }, None) => format!(": {}", shown(why)),
                (Effect::Effective { first, second }, None) => format!(" ({} → {})", shown(first), shown(second)),
            };
            let word = match came {
                Outcome::Same => word.to_owned(),
                Outcome::Differs | Outcome::Fails { .. } => self.paint(Ink::Bad, word),
                Outcome::NotTested | Outcome::Unknown { .. } => self.paint(Ink::Care, word),
            };
            let (name, rest) = (one.dimension.word(), format!("{word}{why}"));
            let known = lines.iter_mut().find(|(_, known)| *known == rest && self.detail == Detail::Findings);
            match known {
                Some((names, _)) => names.push(name),
                None => lines.push((vec![name], rest)),
            }
        }
        for (names, rest) in lines {
            self.add(1, &format!("{} {rest}", names.join(", ")));
        }
    }

    fn builds(&mut self, task: &TaskAudit) {
        for (position, build) in task.builds.iter().enumerate() {
            let ending = match &build.ending {
                Ending::Built { outputs } => outputs.short(),
                Ending::Failed { how } => format!("failed: {}", shown(how)),
            };
            let how = manner(position, build);
            self.add(1, &format!("build {position}: {how}, {}, {ending}", duration(build.duration_ms)));
        }
        self.add(
            1,
            &format!(
                "action {}, {} at {}",
                task.action.short(),
                counted(task.builds.len(), "build"),
                shown(&task.isolation)
            ),
        );
    }
}
