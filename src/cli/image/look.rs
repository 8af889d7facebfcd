//! `drystone image inspect`, `diff` and `plan`: what an image is, how two differ, what one will be.

use std::sync::Arc;

use crate::base::platform::Platform;
use crate::base::time::human_bytes;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::args::{DiffArgs, InspectArgs, MakingArgs, PlanArgs};
use crate::cli::image::given::{find, recipe_of, wrong};
use crate::cli::opening;
use crate::cli::table::{aligned, json};
use crate::engine::image_plan::{PlannedRow, planned};
use crate::engine::image_task::Trouble;
use crate::engine::plan as engine_plan;
use crate::engine::preview::{self, Forecast};
use crate::image::diff::{self, DiffOptions, Verdict};
use crate::image::inspect::{self, Files, InspectOptions};

/// Tells what is in an image.
pub fn inspect(args: &InspectArgs, context: &Context) -> Result<ExitKind, CliError> {
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let image = match find(&args.image, &MakingArgs::default(), context)? {
        Ok(image) => image,
        Err(exit) => return Ok(exit),
    };
    let files = if args.files { Files::Listed } else { Files::LeftOut };
    let options = InspectOptions { platform, files, ..InspectOptions::default() };
    let found = inspect::inspect(&image.blobs, &options).map_err(|error| wrong(&image.name, &error))?;
    write(context, args.format, &found.lines(), || found.json());
    Ok(ExitKind::Done)
}

/// Tells what differs between two images. The exit is 0 if they are one image, 1 if not.
pub fn diff(args: &DiffArgs, context: &Context) -> Result<ExitKind, CliError> {
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let mut images = Vec::new();
    for word in [&args.one, &args.other] {
        match find(word, &MakingArgs::default(), context)? {
            Ok(image) => images.push(image),
            Err(exit) => return Ok(exit),
        }
    }
    let options = DiffOptions { platform, told_max: args.most, ..DiffOptions::default() };
    let found = diff::diff(&images[0].blobs, &images[1].blobs, &options)
        .map_err(|error| wrong(&format!("{} or {}", images[0].name, images[1].name), &error))?;
    write(context, args.format, &found.lines(), || found.json());
    let is_same = matches!(found.verdict, Verdict::Identical | Verdict::IdenticalButIndex);
    Ok(if is_same { ExitKind::Done } else { ExitKind::Failed })
}

/// Tells of which layers an image will be made.
pub fn plan(args: &PlanArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = opening::open(context)?;
    let task = opened.select_one(&args.target)?;
    let (declared, recipe) = (&opened.workspace.tasks[task], recipe_of(&opened, task)?);
    let store = opening::open_store(context, opened.workspace.config.store_bytes_max)?;
    let session = opened.session(context, Arc::clone(&store), opening::looking(), opening::never_cancelled()?)?;
    let plan = engine_plan::plan(&session, &[task]).map_err(|error| opened.plan_error(error))?;
    let mut rows = None;
    let forecasts = preview::visit(&session, &plan, &mut |visited, prepared, dependencies, _| {
        if visited == task {
            rows = Some(planned(&session, task, &recipe, prepared, dependencies));
        }
    })
    .map_err(|error| opened.preview_error(error))?;
    match rows {
        Some(Ok(rows)) => {
            context.out.write(plan_text(&rows, args.format).as_bytes());
            Ok(ExitKind::Done)
        }
        Some(Err(Trouble::Input(problem))) => Err(opened.wrong(vec![*problem])),
        Some(Err(trouble)) => Err(CliError::infrastructure(trouble.to_string())),
        None => {
            let on = match forecasts.last() {
                Some(Forecast::Depends { on }) => on.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>(),
                _ => Vec::new(),
            };
            let told = format!("`{}` is made of what is not made yet: {}", declared.label, on.join(", "));
            Err(CliError::usage(told).help("run that first; what a layer holds follows from it"))
        }
    }
}

/// The layers of a plan.
pub fn plan_text(rows: &[PlannedRow], format: Format) -> String {
    if format == Format::Json {
        return json(&rows);
    }
    let rows: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let entries = row.entries.map_or_else(String::new, |entries| format!("{entries} entries"));
            let bytes = row.bytes.map_or_else(String::new, human_bytes);
            [row.platform.clone(), row.what.clone(), entries, bytes]
        })
        .collect();
    aligned(&rows)
}

fn platform(text: &str) -> Result<Platform, CliError> {
    Platform::parse(text).ok_or_else(|| {
        CliError::usage(format!("`{text}` is no platform"))
            .help("write `os/architecture` or `os/architecture/variant`, such as `linux/arm64`")
    })
}

fn write(context: &Context, format: Format, lines: &[String], json: impl FnOnce() -> String) {
    let mut text = match format {
        Format::Human => lines.join("\n"),
        Format::Json => json(),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    context.out.write(text.as_bytes());
}
