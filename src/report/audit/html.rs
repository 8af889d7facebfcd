//! An audit as one page that needs nothing beside it: no script, no picture, no font. Writes no file.
//!
//! Whatever comes from an output or a command is foreign: it is escaped, and what would hide in a page is shown as an escape. The
//! policy in the head forbids everything but the style, in case that is not enough.

use std::fmt::Write as _;

use crate::audit::model::{Audit, Certainty, Difference, Effect, Ending, Outcome, TaskAudit, Verdict};
use crate::report::audit::html_bytes::bytes;
use crate::report::audit::told::{
    VERDICTS, causes, causes_of, counted, counts, date, duration, folded, manner, outcome, shown, site, summary, tested,
};
use crate::sandbox::surroundings::Dimension;

const STYLE: &str = include_str!("page.css");

/// The page. The same audit gives the same bytes.
pub fn page(audit: &Audit) -> String {
    let mut page = String::new();
    let title = format!("Audit {}: {}", escaped(&audit.id), headline(audit));
    write_to(
        &mut page,
        format_args!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n"
        ),
    );
    head(&mut page, audit);
    page.push_str("</header>\n<main>\n");
    tasks(&mut page, audit);
    causes_found(&mut page, audit);
    dimensions(&mut page, audit);
    for (position, task) in audit.tasks.iter().enumerate() {
        details(&mut page, position, task);
    }
    left_out(&mut page, audit);
    page.push_str("</main>\n<footer>\n");
    machine(&mut page, audit);
    page.push_str("</footer>\n</body>\n</html>\n");
    page
}

fn write_to(page: &mut String, what: std::fmt::Arguments<'_>) {
    page.write_fmt(what).expect("writing to a string cannot fail");
}

/// A foreign text as it can stand in a page, between tags and in a quoted attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in shown(text).chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            letter => html.push(letter),
        }
    }
    html
}

/// A word with its class and a sign, so that colour is never alone.
fn verdict(verdict: Verdict) -> String {
    let (class, sign) = match verdict {
        Verdict::Identical | Verdict::IdenticalUncompressed => ("good", "✓"),
        Verdict::Equivalent => ("care", "≈"),
        Verdict::Inconclusive => ("care", "?"),
        Verdict::Different => ("bad", "✗"),
    };
    format!("<span class=\"{class}\"><span aria-hidden=\"true\">{sign} </span>{}</span>", verdict.word())
}

fn headline(audit: &Audit) -> &'static str {
    match audit.verdict() {
        _ if audit.tasks.is_empty() => "nothing was audited",
        Verdict::Identical => "every build is the same",
        Verdict::IdenticalUncompressed => "every build is the same, uncompressed",
        Verdict::Equivalent => "every build is equivalent",
        Verdict::Inconclusive => "not everything could be found out",
        Verdict::Different => "builds differ",
    }
}

fn meaning(audit: &Audit) -> &'static str {
    match audit.verdict() {
        _ if audit.tasks.is_empty() => "No task was rebuilt, so nothing is known.",
        Verdict::Identical => {
            "Whoever rebuilds these tasks from the same sources gets the same bytes, whatever was varied and took hold here."
        }
        Verdict::IdenticalUncompressed => {
            "The content is the same each time; some compressed files have other bytes, so digests of those files do not agree."
        }
        Verdict::Equivalent => {
            "The content is the same but for what the named normalizers remove; digests of the files do not agree."
        }
        Verdict::Inconclusive => {
            "Nothing was found to differ, but some rebuilds failed or were not made, so not all is known."
        }
        Verdict::Different => {
            "Some tasks make other bytes from the same sources, so nobody can tell by rebuilding whether they were tampered with."
        }
    }
}

fn head(page: &mut String, audit: &Audit) {
    let counts = counts(audit);
    write_to(
        page,
        format_args!(
            "<h1>Audit: {}</h1>\n<p>{} {}</p>\n<ul class=\"counts\">\n",
            headline(audit),
            verdict(audit.verdict()),
            meaning(audit)
        ),
    );
    for one in VERDICTS {
        let count = counts.get(&one).copied().unwrap_or(0);
        write_to(page, format_args!("<li><b>{count}</b> {}</li>\n", verdict(one)));
    }
    write_to(
        page,
        format_args!(
            "</ul>\n<p>{}.</p>\n<p class=\"faint\">Audit {}, Drystone {}, {}, {}.</p>\n",
            escaped(&summary(audit)),
            escaped(&audit.id),
            escaped(&audit.version),
            date(audit.started_ms),
            duration(audit.duration_ms),
        ),
    );
}

fn tasks(page: &mut String, audit: &Audit) {
    page.push_str(
        "<section>\n<h2>Tasks</h2>\n<div class=\"wide\"><table>\n<tr><th scope=\"col\">task</th>\
         <th scope=\"col\">verdict</th><th scope=\"col\">causes</th><th scope=\"col\">builds</th></tr>\n",
    );
    for (position, task) in audit.tasks.iter().enumerate() {
        let causes: Vec<_> = causes_of(task).iter().map(|id| format!("<code>{}</code>", escaped(id))).collect();
        write_to(
            page,
            format_args!(
                "<tr><th scope=\"row\"><a href=\"#task-{position}\">{}</a></th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                escaped(&task.label),
                verdict(task.verdict),
                if causes.is_empty() { "none".to_owned() } else { causes.join(", ") },
                task.builds.len(),
            ),
        );
    }
    page.push_str("</table></div>\n</section>\n");
}

fn causes_found(page: &mut String, audit: &Audit) {
    page.push_str("<section>\n<h2>Causes</h2>\n");
    let hits = causes(audit);
    if hits.is_empty() {
        page.push_str("<p>Nothing differs.</p>\n</section>\n");
        return;
    }
    page.push_str(
        "<div class=\"wide\"><table>\n<tr><th scope=\"col\">cause</th><th scope=\"col\">what it is</th>\
         <th scope=\"col\">found in</th><th scope=\"col\">remedy</th></tr>\n",
    );
    for hit in hits {
        let tasks: Vec<_> = hit.tasks.iter().map(|label| escaped(label)).collect();
        write_to(
            page,
            format_args!(
                "<tr><th scope=\"row\"><code>{}</code></th><td>{} ({})</td>\
             <td>{}, {}: {}</td><td>{}</td></tr>\n",
                escaped(hit.cause.id),
                escaped(hit.cause.title),
                hit.certainty.word(),
                counted(hit.tasks.len(), "task"),
                counted(hit.differences, "difference"),
                tasks.join(", "),
                escaped(hit.cause.remedy),
            ),
        );
    }
    page.push_str("</table></div>\n</section>\n");
}

fn dimensions(page: &mut String, audit: &Audit) {
    page.push_str(
        "<section>\n<h2>What was varied</h2>\n\
         <p>What came of varying each. A variation that took no hold was not tested, and is not passed.</p>\n\
         <div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"What was varied, by task\">\n\
         <table class=\"matrix\">\n<tr><th scope=\"col\">task</th>",
    );
    for dimension in Dimension::ALL {
        write_to(page, format_args!("<th scope=\"col\" class=\"cell\">{}</th>", dimension.word()));
    }
    page.push_str("</tr>\n");
    for task in &audit.tasks {
        write_to(page, format_args!("<tr><th scope=\"row\">{}</th>", escaped(&task.label)));
        for dimension in Dimension::ALL {
            let varied = task.varied.iter().find(|one| one.dimension == dimension);
            let cell = varied.map_or_else(|| word_of(&Outcome::NotTested), |one| word_of(tested(one)));
            write_to(page, format_args!("<td class=\"cell\">{cell}</td>"));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n</section>\n");
}

fn word_of(of: &Outcome) -> String {
    let class = match of {
        Outcome::Same => "good",
        Outcome::NotTested | Outcome::Unknown { .. } => "care",
        Outcome::Differs | Outcome::Fails { .. } => "bad",
    };
    format!("<span class=\"{class}\">{}</span>", outcome(of).0)
}

fn details(page: &mut String, position: usize, task: &TaskAudit) {
    write_to(
        page,
        format_args!(
            "<section id=\"task-{position}\">\n<h2>{}</h2>\n<p>{}{}</p>\n",
            escaped(&task.label),
            verdict(task.verdict),
            if task.is_unstable { "; plain builds differ among themselves" } else { "" },
        ),
    );
    if !task.normalizers.is_empty() {
        let names: Vec<_> = task.normalizers.iter().map(|name| escaped(name)).collect();
        write_to(page, format_args!("<p>The same after: {}.</p>\n", names.join(", ")));
    }
    if !task.notes.is_empty() {
        page.push_str("<ul>\n");
        for note in &task.notes {
            write_to(page, format_args!("<li>{}</li>\n", escaped(note)));
        }
        page.push_str("</ul>\n");
    }
    let differences = folded(task);
    if !differences.is_empty() {
        page.push_str("<h3>Differences</h3>\n");
    }
    for (difference, consequences) in differences {
        finding(page, difference, &consequences);
    }
    if task.untold > 0 {
        write_to(page, format_args!("<p>And {} more that are not told.</p>\n", task.untold));
    }
    builds(page, task);
    variations(page, task);
    page.push_str("</section>\n");
}

fn finding(page: &mut String, difference: &Difference, consequences: &[&Difference]) {
    let class = if difference.certainty == Certainty::Proven { "bad" } else { "care" };
    write_to(
        page,
        format_args!(
            "<div class=\"finding\">\n<h4><code>{}</code></h4>\n<p>{}</p>\n\
         <p><code>{}</code> {} <span class=\"{class}\">{}</span>{}, builds {} and {}</p>\n<p>Remedy: {}</p>\n",
            escaped(&site(&difference.site)),
            escaped(&difference.what),
            escaped(difference.cause.id),
            escaped(difference.cause.title),
            difference.certainty.word(),
            difference.dimension.map(|one| format!(" by {}", one.word())).unwrap_or_default(),
            difference.between.0,
            difference.between.1,
            escaped(difference.cause.remedy),
        ),
    );
    if let Some(of) = &difference.consequence_of {
        write_to(page, format_args!("<p>Follows from <code>{}</code>, which is not told.</p>\n", escaped(&site(of))));
    }
    if let Some(evidence) = &difference.evidence {
        write_to(page, format_args!("<details>\n<summary>The bytes</summary>\n{}</details>\n", bytes(evidence)));
    }
    if !consequences.is_empty() {
        write_to(
            page,
            format_args!(
                "<details>\n<summary>{} from it</summary>\n<ul>\n",
                match consequences.len() {
                    1 => "1 difference that follows".to_owned(),
                    many => format!("{many} differences that follow"),
                }
            ),
        );
        for one in consequences {
            let place = escaped(&site(&one.site));
            write_to(page, format_args!("<li><code>{place}</code>: {}", escaped(&one.what)));
            if let Some(evidence) = &one.evidence {
                page.push_str(&bytes(evidence));
            }
            page.push_str("</li>\n");
        }
        page.push_str("</ul>\n</details>\n");
    }
    page.push_str("</div>\n");
}

fn builds(page: &mut String, task: &TaskAudit) {
    write_to(
        page,
        format_args!(
            "<details>\n<summary>{}</summary>\n<p>Action <code>{}</code>, at the level {}.</p>\n\
         <div class=\"wide\"><table>\n<tr><th scope=\"col\">build</th><th scope=\"col\">how</th>\
         <th scope=\"col\">came to</th><th scope=\"col\">began</th><th scope=\"col\">took</th></tr>\n",
            counted(task.builds.len(), "build"),
            task.action.to_hex(),
            escaped(&task.isolation),
        ),
    );
    for (position, build) in task.builds.iter().enumerate() {
        let ending = match &build.ending {
            Ending::Built { outputs } => format!("<code>{}</code>", outputs.short()),
            Ending::Failed { how } => format!("<span class=\"bad\">failed</span>: {}", escaped(how)),
        };
        write_to(
            page,
            format_args!(
                "<tr><th scope=\"row\">{position}</th><td>{}</td><td>{ending}</td><td>{}</td><td>{}</td></tr>\n",
                manner(position, build),
                date(build.started_ms),
                duration(build.duration_ms),
            ),
        );
    }
    page.push_str("</table></div>\n</details>\n");
}

fn variations(page: &mut String, task: &TaskAudit) {
    if task.varied.is_empty() {
        page.push_str("<p>Nothing was varied.</p>\n");
        return;
    }
    page.push_str(
        "<details>\n<summary>What was varied, and what was seen of it</summary>\n<div class=\"wide\"><table>\n\
         <tr><th scope=\"col\">dimension</th><th scope=\"col\">outcome</th><th scope=\"col\">seen inside</th></tr>\n",
    );
    for one in &task.varied {
        let seen = match &one.effect {
            Effect::Effective { first, second } => {
                format!("<code>{}</code>, then <code>{}</code>", escaped(first), escaped(second))
            }
            Effect::None { why } => format!("no effect: {}", escaped(why)),
        };
        let more = outcome(tested(one)).1.map(|more| format!(": {}", escaped(more))).unwrap_or_default();
        write_to(
            page,
            format_args!(
                "<tr><th scope=\"row\">{}</th><td>{}{more}</td><td>{seen}</td></tr>\n",
                one.dimension.word(),
                word_of(tested(one)),
            ),
        );
    }
    page.push_str("</table></div>\n</details>\n");
}

fn left_out(page: &mut String, audit: &Audit) {
    if audit.left_out.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Left out</h2>\n<p>These were selected and not audited:</p>\n<ul>\n");
    for (label, why) in &audit.left_out {
        write_to(page, format_args!("<li><code>{}</code>: {}</li>\n", escaped(label), escaped(why)));
    }
    page.push_str("</ul>\n</section>\n");
}

fn machine(page: &mut String, audit: &Audit) {
    let machine = &audit.machine;
    let asked: Vec<_> = audit.asked.iter().map(|one| one.word()).collect();
    page.push_str("<h2>Machine</h2>\n<div class=\"wide\"><table>\n");
    for (name, value) in [
        ("system", machine.system.clone()),
        ("kernel", machine.kernel.clone()),
        ("architecture", machine.architecture.clone()),
        ("processor", format!("{}, {} of them", machine.processor, machine.cpus)),
        ("file system", machine.file_system.clone()),
        ("machine", machine.id.clone()),
        ("asked to vary", asked.join(", ")),
    ] {
        write_to(page, format_args!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>\n", escaped(&value)));
    }
    page.push_str("</table></div>\n");
}
