//! `drystone audit results`: what this machine's builds came to, as a file for others to compare theirs with, or as what is signed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::attest::bundle::Bundle;
use crate::audit::results::{FORMAT, MachineFacts, Results, TaskResult};
use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::base::ids::TaskId;
use crate::base::tree::{Entry, Listing};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::attest::signing_key;
use crate::cli::opening::{self, Opened};
use crate::engine::plan::{self, Plan};
use crate::engine::preview::{self, Forecast};
use crate::engine::session::Session;
use crate::fingerprint::sink::{Content, RecordSink};
use crate::fs::atomic::{self, Durability};
use crate::image::wire::Index;
use crate::store::Store;

/// Options of `audit results`.
#[derive(Args, Clone, Debug)]
pub struct ResultsArgs {
    /// Which tasks, as for `run`; what they need is among them. With none, every task here.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Where to: results as JSON, or with `--key` a Sigstore bundle with them, whose name should end with `.sigstore.json`.
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output: PathBuf,
    /// A private key (PEM) that signs it, for `verify --require-reproduced`.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Who built it; else what the ledger has: `DRYSTONE_BUILDER`, the CI job, or `local`.
    #[arg(long, value_name = "ID")]
    pub builder: Option<String>,
}

/// Largest `index.json` of an image that is looked into, in bytes.
const INDEX_BYTES_MAX: u64 = 1024 * 1024;

/// Results of tasks and of all they need.
pub struct Gathered<'w> {
    /// The session they were looked up in.
    pub session: Session<'w>,
    /// The store.
    pub store: Arc<Store>,
    /// What would run.
    pub plan: Plan,
    /// The actions of fetches.
    pub fetches: Vec<Digest>,
    /// The results.
    pub results: Results,
}

/// Looks results up, as the tree is now. A task without one is an error.
pub fn gather<'w>(opened: &'w Opened, targets: &[String], context: &Context) -> Result<Gathered<'w>, CliError> {
    let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session(context, Arc::clone(&store), opening::looking(), opening::never_cancelled()?)?;
    let plan = plan::plan(&session, &opened.select(targets)?).map_err(|error| opened.plan_error(error))?;
    let forecasts = preview::preview(&session, &plan).map_err(|error| opened.preview_error(error))?;
    let (mut tasks, mut fetches, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (task, forecast) in plan.tasks.iter().zip(&forecasts) {
        let kind = &opened.workspace.tasks[*task].kind;
        match forecast {
            Forecast::Hit { action } => {
                tasks.push(task_result(&session, *task, action)?);
                fetches.extend(matches!(kind, crate::manifest::model::TaskKind::Fetch(_)).then_some(*action));
            }
            Forecast::Service { .. } => {}
            Forecast::Run { .. } | Forecast::Depends { .. } => missing.push(session.label(*task)),
        }
    }
    if let Some(first) = missing.first() {
        let told = format!("{} tasks have no result for what is in the tree now, `{first}` among them", missing.len());
        return Err(CliError::usage(told)
            .help(format!("`drystone run {first}` makes one; what is not kept cannot be compared")));
    }
    tasks.sort_by(|one, other| one.label.cmp(&other.label));
    let origin = store.origin().clone();
    let machine = MachineFacts {
        id: origin.machine.map(|machine| machine.to_hex()).unwrap_or_default(),
        architecture: std::env::consts::ARCH.to_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
    };
    let results = Results {
        format: FORMAT,
        drystone: env!("CARGO_PKG_VERSION").to_owned(),
        targets: targets.to_vec(),
        builder: origin.builder,
        machine,
        tasks,
    };
    Ok(Gathered { session, store, plan, fetches, results })
}

fn task_result(session: &Session<'_>, task: TaskId, action: &Digest) -> Result<TaskResult, CliError> {
    let store = &session.store;
    let gone = || CliError::infrastructure("a result is no longer in the store").help("run it again");
    let result = store.lookup(action)?.ok_or_else(gone)?;
    let listing = store.listing(&result.outputs)?.ok_or_else(gone)?;
    let fingerprint = store.fingerprint(action)?.and_then(|stream| RecordSink::decode(&stream).ok());
    Ok(TaskResult {
        label: session.label(task),
        action: action.to_hex(),
        outputs: Some(result.outputs.to_hex()),
        isolation: result.isolation,
        files: listing.iter().map(|(path, entry)| (path.to_string(), told_entry(entry))).collect(),
        images: images(store, &listing)?,
        fingerprint: fingerprint.map(|record| told_fields(&record)).unwrap_or_default(),
    })
}

/// What a file is, as results have it.
pub fn told_entry(entry: &Entry) -> String {
    match entry {
        Entry::File { digest, executable: true, .. } => format!("x {digest}"),
        Entry::File { digest, .. } => digest.to_string(),
        Entry::Link { target } => format!("link {target}"),
        Entry::Dir => "dir".to_owned(),
    }
}

/// A digest of each field: it may hold what is for nobody else to know.
fn told_fields(record: &RecordSink) -> BTreeMap<String, String> {
    let digest = |content: &Content| {
        let mut encoder = Encoder::new();
        let (kind, values): (u8, Vec<&Vec<u8>>) = match content {
            Content::Absent => (0, Vec::new()),
            Content::One(value) => (1, vec![value]),
            Content::List(values) => (2, values.iter().collect()),
            Content::Map(pairs) => (3, pairs.iter().flat_map(|(name, value)| [name, value]).collect()),
        };
        encoder.u8(kind);
        for value in values {
            encoder.bytes(value);
        }
        Digest::of(encoder.as_slice()).to_hex()
    };
    record.fields.iter().map(|(field, content)| (field.word().to_owned(), digest(content))).collect()
}

/// Digests of the images whose layouts are among the outputs.
pub fn images(store: &Store, listing: &Listing) -> Result<Vec<String>, CliError> {
    let mut found = Vec::new();
    for (path, entry) in listing {
        let Entry::File { digest, size, .. } = entry else { continue };
        let is_layout = path.file_name() == "index.json"
            && path.parent().is_some_and(|dir| listing.contains_key(&dir.child("oci-layout")));
        if !is_layout || *size > INDEX_BYTES_MAX {
            continue;
        }
        let Some(bytes) = store.read(digest)? else { continue };
        // What is called so and is none has no digest to be released by.
        if let Ok(index) = Index::read(&bytes, "index.json") {
            found.extend(
                index.manifests.into_iter().filter(|one| one.is_image() || one.is_index()).map(|one| one.digest),
            );
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Writes the results of this machine.
pub fn run(args: &ResultsArgs, context: &Context) -> Result<ExitKind, CliError> {
    let key = args.key.as_deref().map(|file| signing_key(&context.path(file))).transpose()?;
    let opened = opening::open(context)?;
    let mut results = gather(&opened, &args.targets, context)?.results;
    if let Some(builder) = &args.builder {
        results.builder.clone_from(builder);
    }
    let bytes = match &key {
        None => results.write(),
        Some(key) => {
            let bundle = Bundle::sign(&results.statement().write(), key);
            bundle.map_err(|error| CliError::infrastructure(error.to_string()))?.write()
        }
    };
    atomic::write(&context.path(&args.output), &bytes, Durability::Relaxed)?;
    let signed = key.map(|key| format!(", signed by {}", key.public().id())).unwrap_or_default();
    context.out.line(&format!("{} tasks in {}{signed}", results.tasks.len(), args.output.display()));
    Ok(ExitKind::Done)
}
