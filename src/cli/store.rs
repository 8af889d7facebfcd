//! `drystone store`: looking after the store. What each command found is told here; the store does the work.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::base::digest::Digest;
use crate::base::time::{human_bytes, human_duration, parse_bytes, parse_duration};
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening;
use crate::cli::table::{aligned, json};
use crate::engine::plan;
use crate::engine::preview::{self, Forecast};
use crate::store::{GcMode, GcOptions, VerifyMode, VerifyOptions};

/// Options of `store`.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// The commands of `store`.
#[derive(Subcommand, Clone, Debug)]
pub enum StoreCommand {
    /// Says how full the store is.
    Stat(StatArgs),
    /// Removes what was used least recently, until the store fits its cap.
    Gc(GcArgs),
    /// Digests everything again and compares.
    Verify(VerifyArgs),
    /// Prints where the store lies.
    Path,
    /// Writes the results of tasks, with all they name, to a file.
    Export(ExportArgs),
    /// Takes in the results of an exported file; every one is checked.
    Import(ImportArgs),
}

/// Options of `store stat`.
#[derive(Args, Clone, Debug)]
pub struct StatArgs {
    /// How the numbers are written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// Options of `store gc`.
#[derive(Args, Clone, Debug)]
pub struct GcArgs {
    /// The cap for this time, as `20GiB`; without it, that of the workspace or the default.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Removes also what was not used for this long, as `720h`.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub unused_for: Option<Duration>,
    /// Says what would be removed, and removes nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `store verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Removes what is damaged, and every result that names it; it is made again when it is needed.
    #[arg(long)]
    pub repair: bool,
}

/// Options of `store export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Which tasks, as for `run`. With none, every task here.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Where to.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
}

/// Options of `store import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// Where from.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

fn size(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "write a size such as `20GiB` or `500MB`".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a duration such as `720h` or `1h30m`".into())
}

/// How full the store is.
#[derive(Clone, Debug, Serialize)]
pub struct StoreStat {
    /// Where it lies.
    pub dir: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// The cap in bytes.
    pub bytes_max: u64,
    /// How many blobs.
    pub blobs: u64,
    /// How many trees.
    pub trees: u64,
    /// How many action results.
    pub results: u64,
    /// How many caches of tasks.
    pub caches: u64,
    /// Bytes of those.
    pub cache_bytes: u64,
}

/// The numbers for people, or for programs.
pub fn stat_text(stat: &StoreStat, format: Format) -> String {
    if format == Format::Json {
        return json(stat);
    }
    let percent = stat.bytes.saturating_mul(100).checked_div(stat.bytes_max).unwrap_or(0);
    let used = format!("{} of {} ({percent} %)", human_bytes(stat.bytes), human_bytes(stat.bytes_max));
    let row = |name: &str, value: String| [name.to_owned(), value];
    aligned(&[
        row("store", stat.dir.clone()),
        row("used", used),
        row("results", stat.results.to_string()),
        row("blobs", stat.blobs.to_string()),
        row("trees", stat.trees.to_string()),
        row("caches", format!("{}, {}", stat.caches, human_bytes(stat.cache_bytes))),
    ])
}

/// What a collection removed, or would remove.
#[derive(Clone, Copy, Debug)]
pub struct Collected {
    /// Action results.
    pub results: u64,
    /// Blobs.
    pub blobs: u64,
    /// Caches of tasks.
    pub caches: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes that are left.
    pub bytes_left: u64,
    /// Whether it was only tried.
    pub dry_run: bool,
}

/// One sentence about a collection.
pub fn gc_text(collected: &Collected) -> String {
    let Collected { results, blobs, caches, bytes, bytes_left, dry_run } = *collected;
    let verb = if dry_run { "would remove" } else { "removed" };
    let (bytes, left) = (human_bytes(bytes), human_bytes(bytes_left));
    let caches = if caches > 0 { format!(", {caches} caches") } else { String::new() };
    format!("{verb} {results} results and {blobs} blobs{caches}, {bytes}; {left} left\n")
}

/// What a check of the whole store found.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Blobs and trees looked at.
    pub checked: u64,
    /// What is damaged or missing, as `digest: what is wrong`.
    pub damaged: Vec<String>,
    /// Results that name something damaged.
    pub results_lost: u64,
    /// Whether the damage was removed.
    pub repaired: bool,
    /// How long it took.
    pub duration: Duration,
}

/// The findings, and the way out.
pub fn verify_text(verified: &Verified) -> String {
    let mut text: String = verified.damaged.iter().map(|one| format!("damaged: {one}\n")).collect();
    let time = human_duration(verified.duration);
    text.push_str(&format!("{} checked in {time}, {} damaged", verified.checked, verified.damaged.len()));
    if !verified.damaged.is_empty() {
        text.push_str(&format!(", {} results lost with them", verified.results_lost));
        text.push_str(if verified.repaired {
            "; removed, they are made again when they are needed"
        } else {
            "\n  help: `drystone store verify --repair` removes them; they are made again when they are needed"
        });
    }
    text.push('\n');
    text
}

/// How a check ends: damage that is still there is a failure.
pub fn verify_exit(verified: &Verified) -> ExitKind {
    if verified.damaged.is_empty() || verified.repaired { ExitKind::Done } else { ExitKind::Failed }
}

/// Looks after the store.
pub fn run(args: StoreArgs, context: &Context) -> Result<ExitKind, CliError> {
    match args.command {
        StoreCommand::Path => {
            context.out.line(&context.environment.store_dir()?.to_string_lossy());
            Ok(ExitKind::Done)
        }
        StoreCommand::Stat(args) => stat(&args, context),
        StoreCommand::Gc(args) => gc(&args, context),
        StoreCommand::Verify(args) => verify(&args, context),
        StoreCommand::Export(args) => export(&args, context),
        StoreCommand::Import(args) => import(&args, context),
    }
}

fn stat(args: &StatArgs, context: &Context) -> Result<ExitKind, CliError> {
    let store = opening::open_store(context, None)?;
    let found = store.stat()?;
    let stat = StoreStat {
        dir: store.dir().display().to_string(),
        bytes: found.file_bytes + found.database_bytes + found.cache_bytes,
        bytes_max: found.bytes_max,
        blobs: found.blobs,
        trees: found.trees,
        results: found.results,
        caches: found.caches,
        cache_bytes: found.cache_bytes,
    };
    context.out.write(stat_text(&stat, args.format).as_bytes());
    Ok(ExitKind::Done)
}

fn gc(args: &GcArgs, context: &Context) -> Result<ExitKind, CliError> {
    const DAY: u64 = 24 * 3600;
    let store = opening::open_store(context, None)?;
    let keep_days = args.unused_for.map(|time| u32::try_from(time.as_secs().div_ceil(DAY)).unwrap_or(u32::MAX));
    let mode = if args.dry_run { GcMode::DryRun } else { GcMode::Delete };
    let report = store.gc(GcOptions { mode, bytes_max: args.max_size, keep_days })?;
    let collected = Collected {
        results: report.results_removed,
        blobs: report.blobs_removed,
        caches: report.caches_removed,
        bytes: report.bytes_freed,
        bytes_left: report.bytes_kept,
        dry_run: args.dry_run,
    };
    context.out.write(gc_text(&collected).as_bytes());
    Ok(ExitKind::Done)
}

fn verify(args: &VerifyArgs, context: &Context) -> Result<ExitKind, CliError> {
    let started = Instant::now();
    let store = opening::open_store(context, None)?;
    let mode = if args.repair { VerifyMode::Repair } else { VerifyMode::Report };
    let report = store.verify(VerifyOptions { mode })?;
    let mut damaged: Vec<String> = report.database.iter().map(|line| format!("database: {line}")).collect();
    damaged.extend(report.damaged_blobs.iter().map(|blob| format!("blob {blob}")));
    damaged.extend(report.damaged_trees.iter().map(|tree| format!("tree {tree}")));
    damaged.extend(report.damaged_kept.iter().map(|name| format!("kept copy {name}")));
    damaged.extend(report.damaged_links.iter().map(|name| format!("kept link {name}")));
    if damaged.is_empty() {
        damaged.extend(report.dangling.iter().map(|action| format!("result of action {action}")));
    }
    let verified = Verified {
        checked: report.contents,
        damaged,
        results_lost: report.dangling.len() as u64,
        repaired: report.repaired,
        duration: started.elapsed(),
    };
    context.out.write(verify_text(&verified).as_bytes());
    Ok(verify_exit(&verified))
}

fn export(args: &ExportArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = opening::open(context)?;
    let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session(context, Arc::clone(&store), opening::looking(), opening::never_cancelled()?)?;
    let plan = plan::plan(&session, &opened.select(&args.targets)?).map_err(|error| opened.plan_error(error))?;
    let forecasts = preview::preview(&session, &plan).map_err(|error| opened.preview_error(error))?;
    let known = forecasts.iter().filter_map(|forecast| match forecast {
        Forecast::Hit { action } => Some(*action),
        _ => None,
    });
    let actions: Vec<Digest> = known.collect();
    let report = store.export(&actions, &context.path(&args.to))?;
    let missing = plan.tasks.len() - actions.len() + report.missing.len();
    let size = human_bytes(report.bytes);
    let mut text = format!("exported {} results, {} blobs, {size}\n", report.results, report.blobs);
    if missing > 0 {
        text.push_str(&format!("{missing} tasks have no result for what is in the tree now; run them first\n"));
    }
    context.out.write(text.as_bytes());
    Ok(ExitKind::Done)
}

fn import(args: &ImportArgs, context: &Context) -> Result<ExitKind, CliError> {
    let store = opening::open_store(context, None)?;
    let report = store.import(&context.path(&args.file))?;
    let mut text = format!("imported {} results, {} were known", report.results, report.known);
    if report.differing > 0 {
        text.push_str(&format!(", {} differ from those here, which stay", report.differing));
    }
    if report.incomplete > 0 {
        text.push_str(&format!(", {} are incomplete and were left out", report.incomplete));
    }
    context.out.line(&text);
    Ok(ExitKind::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::tests::{context, environment};

    #[test]
    fn the_path_is_the_one_the_environment_gives() {
        let (mut context, out, _) = context(std::path::Path::new("/"));
        context.environment = environment(&[("DRYSTONE_STORE", "/var/store")]);
        let exit = run(StoreArgs { command: StoreCommand::Path }, &context).unwrap();
        assert_eq!((exit, out.text().as_str()), (ExitKind::Done, "/var/store\n"));
    }

    #[test]
    fn how_full_it_is_is_told_with_the_cap() {
        let stat = StoreStat {
            dir: "/s".into(),
            bytes: 5 << 30,
            bytes_max: 20 << 30,
            blobs: 12,
            trees: 3,
            results: 2,
            caches: 1,
            cache_bytes: 2048,
        };
        assert_eq!(
            stat_text(&stat, Format::Human),
            "store    /s\nused     5.0 GiB of 20.0 GiB (25 %)\nresults  2\nblobs    12\ntrees    3\ncaches   1, 2.0 KiB\n"
        );
        let value: serde_json::Value = serde_json::from_str(&stat_text(&stat, Format::Json)).unwrap();
        assert_eq!(value["bytes"], 5_u64 << 30);
    }

    #[test]
    fn a_trial_collection_says_that_it_was_one() {
        let collected = Collected { results: 2, blobs: 9, caches: 0, bytes: 2048, bytes_left: 512, dry_run: true };
        assert_eq!(gc_text(&collected), "would remove 2 results and 9 blobs, 2.0 KiB; 512 B left\n");
        let collected = Collected { caches: 1, dry_run: false, ..collected };
        assert_eq!(gc_text(&collected), "removed 2 results and 9 blobs, 1 caches, 2.0 KiB; 512 B left\n");
    }

    #[test]
    fn damage_that_stays_is_a_failure_and_names_the_way_out() {
        let check = |damaged: &[&str], repaired: bool, exit: ExitKind, expect: &str| {
            let damaged = damaged.iter().map(|one| (*one).to_owned()).collect();
            let duration = Duration::from_millis(5);
            let verified = Verified { checked: 7, damaged, results_lost: 2, repaired, duration };
            assert_eq!(verify_exit(&verified), exit);
            assert!(verify_text(&verified).contains(expect), "{}", verify_text(&verified));
        };
        check(&[], false, ExitKind::Done, "7 checked in 5 ms, 0 damaged\n");
        check(&["0f: bytes differ"], false, ExitKind::Failed, "store verify --repair");
        check(&["0f: bytes differ"], true, ExitKind::Done, "damaged: 0f: bytes differ\n");
    }
}
