//! `drystone outputs`: a task's outputs with their digests.

use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::base::path::RelPath;
use crate::base::time::human_bytes;
use crate::base::tree::Entry;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::opening;
use crate::cli::table::{aligned, json};
use crate::engine::union::{Age, Keep, Piece, unite};

/// Options of `outputs`.
#[derive(Args, Clone, Debug)]
pub struct OutputsArgs {
    /// Which task; of a split one, what all its parts make together.
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// How the outputs are written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// One output.
#[derive(Clone, Debug, Serialize)]
pub struct OutputRow {
    /// Path relative to the workspace root.
    pub path: String,
    /// `file`, `executable`, `link` or `dir`.
    pub kind: &'static str,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// Digest of a file's content, 64 hexadecimal digits.
    pub digest: Option<String>,
    /// What a link points to.
    pub link: Option<String>,
}

/// The outputs, in the order given. Digests are whole: they are there to be compared.
pub fn outputs_text(rows: &[OutputRow], format: Format) -> String {
    if format == Format::Json {
        return json(&rows);
    }
    let rows: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let name = row.link.as_ref().map_or_else(|| row.path.clone(), |to| format!("{} → {to}", row.path));
            let digest = row.digest.clone().unwrap_or_else(|| "-".into());
            let size = row.size.map_or_else(|| "-".into(), human_bytes);
            [digest, row.kind.to_owned(), size, name]
        })
        .collect();
    aligned(&rows)
}

/// Lists outputs.
pub fn run(args: OutputsArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = opening::open(context)?;
    let (store, all) = opening::known_of(&opened, context, &args.target)?;
    let mut pieces = Vec::new();
    for known in all {
        let result = known.result.as_ref().ok_or_else(|| known.missing())?;
        let listing = store.listing(&result.outputs)?;
        let listing = listing.ok_or_else(|| CliError::infrastructure("the outputs are no longer in the store"))?;
        pieces.push(Piece { part: known.task, age: Age::Now, listing: Arc::new(listing) });
    }
    let Some(first) = pieces.first() else { return Err(CliError::bug("a word selected no task")) };
    let package = opened.workspace.tasks[first.part].label.package.clone();
    let listing = match opened.workspace.split_of(first.part) {
        None => first.listing.as_ref().clone(),
        Some(_) => {
            let session = opened.session(context, store, opening::looking(), opening::never_cancelled()?)?;
            unite(&session, &pieces, Keep::Nothing).map_err(|error| opened.union_error(error))?.listing
        }
    };
    let rows: Vec<OutputRow> = listing.iter().map(|(path, entry)| row(&package.join(path), entry)).collect();
    context.out.write(outputs_text(&rows, args.format).as_bytes());
    Ok(ExitKind::Done)
}

fn row(path: &RelPath, entry: &Entry) -> OutputRow {
    let (kind, size, digest, link) = match entry {
        Entry::File { digest, size, executable } => {
            (if *executable { "executable" } else { "file" }, Some(*size), Some(digest.to_hex()), None)
        }
        Entry::Link { target } => ("link", None, None, Some(target.clone())),
        Entry::Dir => ("dir", None, None, None),
    };
    OutputRow { path: path.to_string(), kind, size, digest, link }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_digests_and_links_say_where_to() {
        let file = OutputRow {
            path: "a/dist/x.js".into(),
            kind: "file",
            size: Some(1536),
            digest: Some("0f".repeat(4)),
            link: None,
        };
        let link =
            OutputRow { path: "a/dist/y".into(), kind: "link", size: None, digest: None, link: Some("x.js".into()) };
        let rows = [file, link];
        assert_eq!(
            outputs_text(&rows, Format::Human),
            "0f0f0f0f  file  1.5 KiB  a/dist/x.js\n-         link  -        a/dist/y → x.js\n"
        );
        let value: serde_json::Value = serde_json::from_str(&outputs_text(&rows, Format::Json)).unwrap();
        assert_eq!(value[0]["size"], 1536);
    }
}
