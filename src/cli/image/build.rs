//! `drystone image build`: makes images, tells their digests, writes one as a layout or an archive.

use serde::Serialize;

use crate::base::time::human_bytes;
use crate::cli::args::Format;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::ExitKind;
use crate::cli::image::args::BuildArgs;
use crate::cli::image::given::{self, Given, run_args, wrong};
use crate::cli::table::{aligned, json};
use crate::cli::{opening, run};
use crate::fs::out::OutFile;
use crate::image::archive::{ArchiveOptions, write_archive, write_layout};
use crate::image::find;

/// One image that was made.
#[derive(Clone, Debug, Serialize)]
pub struct ImageRow {
    /// Label of the task.
    pub task: String,
    /// `os/architecture[/variant]`; `index` for what names the images of several platforms.
    pub platform: String,
    /// Digest of its manifest, or of the index.
    pub digest: String,
    /// Layers, those of the base included; absent for an index.
    pub layers: Option<usize>,
    /// Bytes of its layers and documents, as a registry has them; absent for an index.
    pub bytes: Option<u64>,
}

/// The images, in the order given.
pub fn images_text(rows: &[ImageRow], format: Format) -> String {
    if format == Format::Json {
        return json(&rows);
    }
    let rows: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let size = match (row.layers, row.bytes) {
                (Some(layers), Some(bytes)) => format!("{layers} layers, {}", human_bytes(bytes)),
                _ => String::new(),
            };
            [row.task.clone(), row.platform.clone(), row.digest.clone(), size]
        })
        .collect();
    aligned(&rows)
}

/// Makes images.
pub fn run(args: &BuildArgs, context: &Context) -> Result<ExitKind, CliError> {
    let opened = opening::open(context)?;
    let is_image = |task: &crate::base::ids::TaskId| opened.workspace.tasks[*task].kind.word() == "image";
    let selected = opened.select(&args.targets)?;
    let images: Vec<String> = selected
        .iter()
        .filter(|task| is_image(task))
        .map(|task| opened.workspace.tasks[*task].label.to_string())
        .collect();
    if images.is_empty() {
        let told =
            if args.targets.is_empty() { "there is no image here" } else { "none of these tasks makes an image" };
        return Err(CliError::usage(told).help("an image is declared as `[image.NAME]` in drystone.toml"));
    }
    let writes = args.output.is_some() || args.archive.is_some();
    if writes && images.len() > 1 {
        let told = format!("`--output` and `--archive` take one image, and {} are selected", images.len());
        return Err(CliError::usage(told).help("name one of them in full"));
    }
    drop(opened);
    let exit = run::run(run_args(images.clone(), &args.making), context)?;
    if exit != ExitKind::Done {
        return Ok(exit);
    }
    let mut rows = Vec::new();
    for label in &images {
        let image = given::of_task(label, context)?;
        rows.extend(rows_of(&image)?);
        if let Some(dir) = &args.output {
            write_layout(&image.blobs, &context.path(dir)).map_err(|error| unwritten(&error))?;
        }
        if let Some(file) = &args.archive {
            let name = args.name.clone().unwrap_or_else(|| usual_name(label));
            let options = ArchiveOptions { name: Some(&name), platforms: &[] };
            let mut out = OutFile::create(&context.path(file), 0o644)?;
            write_archive(&image.blobs, options, &mut out).map_err(|error| unwritten(&error))?;
            out.place()?;
        }
    }
    context.out.write(images_text(&rows, args.format).as_bytes());
    Ok(ExitKind::Done)
}

/// What an image is called where nobody says: the name of its task.
pub fn usual_name(label: &str) -> String {
    let name = label.rsplit(':').next().unwrap_or(label).to_ascii_lowercase();
    format!("{}:latest", name.split('[').next().unwrap_or(&name))
}

fn unwritten(error: &crate::image::ImageError) -> CliError {
    CliError::infrastructure(format!("the image was not written: {error}"))
        .help("the directory must be new or empty, and its disk have room")
}

fn rows_of(image: &Given) -> Result<Vec<ImageRow>, CliError> {
    let told = |error: &crate::image::ImageError| wrong(&image.name, error);
    let top = image.top()?;
    let mut rows = Vec::new();
    if top.is_index() {
        rows.push(ImageRow {
            task: image.name.clone(),
            platform: "index".into(),
            digest: top.digest,
            layers: None,
            bytes: None,
        });
    }
    for (platform, _, descriptor) in find::all(&image.blobs).map_err(|error| told(&error))? {
        let found = find::find(&image.blobs, &platform).map_err(|error| told(&error))?;
        let layers = found.manifest.layers.len();
        let bytes = descriptor.size + found.manifest.config.size;
        let bytes = found.manifest.layers.iter().map(|layer| layer.size).fold(bytes, u64::saturating_add);
        rows.push(ImageRow {
            task: image.name.clone(),
            platform: platform.to_string(),
            digest: descriptor.digest,
            layers: Some(layers),
            bytes: Some(bytes),
        });
    }
    Ok(rows)
}
