//! The options of the commands about images.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::args::Format;
use crate::cli::run::IsolationLevel;

/// Options of `image`.
#[derive(Args, Clone, Debug)]
pub struct ImageArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// The commands of `image`. IMAGE is a task (`//apps/web:web`), an OCI layout or an archive of one, or a name in a registry.
#[derive(Subcommand, Clone, Debug)]
pub enum ImageCommand {
    /// Makes images, and tells their digests.
    Build(BuildArgs),
    /// Tells what is in an image.
    Inspect(InspectArgs),
    /// Tells what differs between two images, and why.
    Diff(DiffArgs),
    /// Tells of which layers an image will be made, without making it.
    Plan(PlanArgs),
    /// Makes an image and sends to a registry what it lacks of it, straight from the store.
    Push(PushArgs),
    /// Takes an image from a registry, as an OCI layout.
    Pull(PullArgs),
    /// Makes an image and hands it to a container engine of this machine.
    Load(LoadArgs),
    /// Copies an image with all that refers to it from one place in registries to another, by digest; makes nothing anew.
    Promote(PromoteArgs),
    /// Tells which digests this machine gave tags in registries, latest first.
    Tags(TagsArgs),
    /// Makes an image with what goes with it: bills of materials, provenance, signatures.
    Attest(AttestArgs),
    /// Makes a key that signs, and the public one that verifies.
    Keygen(KeygenArgs),
}

/// Options of `image build`.
#[derive(Args, Clone, Debug)]
pub struct BuildArgs {
    /// Which images, as for `run`. With none, every image here.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Writes the one image as an OCI layout into this new or empty directory.
    #[arg(long, value_name = "DIR", conflicts_with = "archive")]
    pub output: Option<PathBuf>,
    /// Writes the one image as an archive that Docker, Podman and containerd read.
    #[arg(long, value_name = "FILE")]
    pub archive: Option<PathBuf>,
    /// The name the image has in the archive, such as `team/web:1`; without it, the name of the task with `:latest`.
    #[arg(long, value_name = "NAME", requires = "archive")]
    pub name: Option<String>,
    /// How it is made.
    #[command(flatten)]
    pub making: MakingArgs,
    /// How the digests are written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// How images are made.
#[derive(Args, Clone, Debug, Default)]
pub struct MakingArgs {
    /// Job slots; without it, one per core.
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Makes the images even if they are known. What they are made of is not made again.
    #[arg(long)]
    pub force: bool,
    /// How tasks are kept from what they did not declare, where they do not say themselves.
    #[arg(long, value_name = "LEVEL")]
    pub isolation: Option<IsolationLevel>,
    /// Asks no server for what images are made of.
    #[arg(long)]
    pub offline: bool,
}

/// Options of `image inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// Which image.
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Only this platform.
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Lists what is in its layers, too.
    #[arg(long)]
    pub files: bool,
    /// How it is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// Options of `image diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// One image.
    #[arg(value_name = "IMAGE")]
    pub one: String,
    /// The other.
    #[arg(value_name = "OTHER")]
    pub other: String,
    /// Only this platform of both; how an index names them is then of no account.
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Differences told at most; the rest is counted.
    #[arg(long, value_name = "N", default_value = "100")]
    pub most: usize,
    /// How it is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// Options of `image plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// Which image, a task.
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// How it is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// Options of `image push`.
#[derive(Args, Clone, Debug)]
pub struct PushArgs {
    /// Which image.
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Where to: a word of `push` in the manifest, or a place in a registry such as `registry.example/team/web:1`. Without it, every
    /// place that `push` names.
    #[arg(long, value_name = "PLACE")]
    pub to: Vec<String>,
    /// A tag to give, beside that of the place; without any, nothing but the digest leads to it.
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Signs provenance and bills of materials with this private key (PEM), and attaches them.
    #[arg(long, value_name = "FILE")]
    pub sign: Option<PathBuf>,
    /// Attaches the bills of materials (SPDX, CycloneDX) as they are, too, for scanners that look for them so.
    #[arg(long)]
    pub sbom: bool,
    /// How it is made.
    #[command(flatten)]
    pub making: MakingArgs,
    /// How what was done is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// Options of `image pull`.
#[derive(Args, Clone, Debug)]
pub struct PullArgs {
    /// Its name in a registry.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The new or empty directory that becomes an OCI layout.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Only these platforms.
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
}

/// Options of `image load`.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Which image.
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Whom to.
    #[arg(long, value_name = "ENGINE")]
    pub into: Option<Engine>,
    /// The name it has there, such as `team/web:1`; without it, the name of the task with `:latest`.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How it is made.
    #[command(flatten)]
    pub making: MakingArgs,
}

/// Container engines.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// `docker load`.
    Docker,
    /// `podman load`.
    Podman,
    /// `ctr images import`.
    Containerd,
}

/// Options of `image promote`.
#[derive(Args, Clone, Debug)]
pub struct PromoteArgs {
    /// The image by digest, `registry.example/team/web@sha256:…`; a tag is looked up first, and told.
    #[arg(value_name = "NAME")]
    pub from: String,
    /// Where to, with the tag it gets there: `other.example/prod/web:1.2`.
    #[arg(value_name = "PLACE")]
    pub to: String,
    /// Refuses unless provenance signed by one of these public keys (PEM) is attached.
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// Leaves behind what refers to the image.
    #[arg(long)]
    pub bare: bool,
    /// How what was done is written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// Options of `image tags`.
#[derive(Args, Clone, Debug)]
pub struct TagsArgs {
    /// Only those of this place, such as `registry.example/team/web`.
    #[arg(value_name = "PLACE")]
    pub place: Option<String>,
    /// How they are written.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// Options of `image attest`.
#[derive(Args, Clone, Debug)]
pub struct AttestArgs {
    /// Which image, a task.
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The directory that the documents are written to.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Signs them with this private key (PEM).
    #[arg(long, value_name = "FILE")]
    pub sign: Option<PathBuf>,
    /// How it is made.
    #[command(flatten)]
    pub making: MakingArgs,
}

/// Options of `image keygen`.
#[derive(Args, Clone, Debug)]
pub struct KeygenArgs {
    /// The file of the private key (PEM), which must not be there; its owner alone can read it. The public one is beside it, with
    /// `.pub` at its end.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// How it signs.
    #[arg(long, value_name = "ALGORITHM", default_value = "ed25519")]
    pub algorithm: KeyKind,
}

/// How a key signs.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// Ed25519: the same signature for the same bytes.
    Ed25519,
    /// ECDSA over P-256: what most key stores have.
    P256,
}
