//! One `[image.NAME]` as a task that puts an image together: every value for each platform, and every check that needs nothing but the
//! table. Reads no image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::span::{Place, Placed};
use crate::manifest::glob::{Pattern, PatternItem, PatternList};
use crate::manifest::image_layer;
use crate::manifest::interpolate::{Names, Use, interpolate};
use crate::manifest::layers::{Layers, Templates};
use crate::manifest::model::{Command, Inputs, Need, RunTask};
use crate::manifest::origin::{Origin, Written};
use crate::manifest::patterns;
use crate::manifest::problems::Problems;
use crate::manifest::raw::TaskTable;
use crate::manifest::raw_image::{CompressionWord, ImageTable};
use crate::manifest::read::Declared;
use crate::manifest::recipe::{Base, Compression, ImageRecipe, LayerSource, PlatformRecipe};
use crate::manifest::task::Lowering;
use crate::manifest::value::At;

/// The platform where none is named. Not that of the machine: the image would be another one elsewhere.
const PLATFORM_DEFAULT: &str = "linux/amd64";

/// The file that pins images of registries, at the root of the workspace.
pub const LOCK_FILE: &str = "drystone.lock";

/// The latest time that the header of a file in an image can hold without an extension: the year 2242.
pub const EPOCH_MAX: u64 = 0o77_777_777_777;

/// An image with what it declares beside its parts.
pub(crate) struct Lowered {
    /// `needs`, with what its layers and its base come from.
    pub(crate) needs: Arc<[Need]>,
    /// `tags`.
    pub(crate) tags: Arc<[String]>,
    /// The rest.
    pub(crate) run: RunTask,
}

/// The image; `None` after reporting why it cannot be.
pub(crate) fn lower(
    declared: &Declared<ImageTable>,
    origin: &Origin,
    templates: &Templates,
    names: Names<'_>,
    problems: &mut Problems<'_>,
) -> Option<Lowered> {
    let table = &declared.table;
    let as_task = TaskTable {
        needs: table.needs.clone(),
        tags: table.tags.clone(),
        salt: table.salt.clone(),
        ..TaskTable::default()
    };
    let layers = Layers::new(&as_task, declared.damaged, origin, templates, problems)?;
    let mut lowering = Lowering { layers: &layers, names, problems, kept: None };
    let (own_needs, tags, mut terms) = (lowering.needs(), lowering.tags(), lowering.terms(None));
    let mut image = ImageLowering { declared, origin, names, layers: &layers, problems };
    let recipe = image.recipe()?;
    let place = origin.of(&declared.name);
    let pattern = Pattern::parse(&globset::escape(recipe.output.as_str())).expect("an escaped path is a pattern");
    terms.outputs = vec![Placed::new(pattern, place.clone())];
    let mut needs = own_needs.to_vec();
    let mut inputs: Vec<PatternItem> = Vec::new();
    for one in &recipe.platforms {
        let whole = |path: &RelPath| PatternItem {
            pattern: Pattern::parse(&globset::escape(path.as_str())).expect("an escaped path is a pattern"),
            exclude: false,
            reach: None,
            place: one.base.place.clone(),
        };
        match &one.base.value {
            Base::Task(need) => needs.push(need.clone()),
            Base::Files(path) => inputs.push(whole(path)),
            Base::Registry(name) if !name.contains('@') => inputs.push(whole(&lock_path())),
            Base::Registry(_) | Base::Scratch => {}
        }
        for layer in &one.layers {
            match &layer.source {
                LayerSource::Task(need) => needs.push(need.clone()),
                LayerSource::Step { from, .. } => needs.extend(from.iter().cloned()),
                LayerSource::Files(files) => inputs.extend(files.items.iter().cloned()),
                LayerSource::Dirs(_) => {}
            }
        }
    }
    let mut seen = BTreeSet::new();
    inputs.retain(|item| item.exclude || seen.insert(item.written()));
    let mut known: Vec<Need> = Vec::new();
    for need in needs {
        if !known.iter().any(|other| other.which == need.which && other.interface_only == need.interface_only) {
            known.push(need);
        }
    }
    let run = RunTask {
        command: Command::Image(Arc::new(recipe)),
        inputs: Inputs::Patterns(inputs.into_iter().collect()),
        scratch: PatternList::default(),
        terms: Arc::new(terms),
    };
    Some(Lowered { needs: known.into(), tags, run })
}

/// The lock file, relative to the root of the workspace.
pub fn lock_path() -> RelPath {
    RelPath::parse(LOCK_FILE).expect("a constant path")
}

/// An image being lowered.
pub(crate) struct ImageLowering<'a, 'p, 'q> {
    declared: &'a Declared<ImageTable>,
    origin: &'a Origin,
    names: Names<'a>,
    layers: &'a Layers<'a>,
    problems: &'q mut Problems<'p>,
}

impl<'a> ImageLowering<'a, '_, '_> {
    fn recipe(&mut self) -> Option<ImageRecipe> {
        let table = &self.declared.table;
        let platforms = self.platforms()?;
        let told = self.problems.told();
        let output = self.output();
        let recipes: Vec<PlatformRecipe> =
            platforms.iter().filter_map(|platform| self.for_platform(platform)).collect();
        let epoch = table.epoch.as_ref().map(|epoch| {
            if epoch.value > EPOCH_MAX {
                self.problems.push(
                    Diagnostic::error("`epoch` is too late for the header of a file in an image")
                        .at(&self.origin.of(epoch), "")
                        .help("it is in seconds since 1970, not in milliseconds"),
                );
            }
            epoch.value
        });
        let annotations = self.map(table.annotations.as_ref(), self.names, "annotation");
        let push = self.push();
        if self.problems.told() != told {
            return None;
        }
        Some(ImageRecipe {
            output: output?,
            platforms: recipes,
            compression: match table.compression.as_ref().map(|word| word.value) {
                None | Some(CompressionWord::Gzip) => Compression::Gzip,
                Some(CompressionWord::Zstd) => Compression::Zstd,
                Some(CompressionWord::None) => Compression::None,
            },
            epoch,
            annotations,
            push,
        })
    }

    fn platforms(&mut self) -> Option<Vec<Platform>> {
        let Some(list) = &self.declared.table.platforms else {
            return Some(vec![Platform::parse(PLATFORM_DEFAULT).expect("a constant platform")]);
        };
        let mut all: BTreeMap<Platform, &At<String>> = BTreeMap::new();
        let mut good = true;
        for entry in list {
            let text = interpolate(Written::new(entry, self.origin), &self.names, Use::Plain, self.problems)?;
            let Some(platform) = Platform::parse(&text) else {
                self.problems.push(
                    Diagnostic::error(format!("`{}` is no platform", text.escape_debug()))
                        .at(&self.origin.of(entry), "")
                        .help(
                            "write `os/architecture` or `os/architecture/variant`, such as `linux/amd64` or `linux/arm/v7`",
                        ),
                );
                good = false;
                continue;
            };
            if let Some(earlier) = all.insert(platform.clone(), entry) {
                self.problems.push(
                    Diagnostic::error(format!("platform `{platform}` is named twice"))
                        .at(&self.origin.of(entry), "here again")
                        .at(&self.origin.of(earlier), "first here")
                        .help("keep one of them"),
                );
                good = false;
            }
        }
        if all.is_empty() && good && !self.declared.damaged {
            self.problems.push(
                Diagnostic::error(format!("image `{}` is for no platform", self.declared.name.value))
                    .at(&self.origin.of(&self.declared.name), "")
                    .help(format!("write `platforms = [\"{PLATFORM_DEFAULT}\"]`, or leave it out")),
            );
            good = false;
        }
        good.then(|| all.into_keys().collect())
    }

    fn output(&mut self) -> Option<RelPath> {
        match &self.declared.table.output {
            Some(output) => patterns::own_path(Written::new(output, self.origin), "output", &self.names, self.problems),
            None => RelPath::parse(&format!("{}.oci", self.declared.name.value)).ok(),
        }
    }

    fn for_platform(&mut self, platform: &Platform) -> Option<PlatformRecipe> {
        let table = &self.declared.table;
        let names = self.names.with_platform(platform);
        let base = self.base(names);
        let mut layers = Vec::new();
        for layer in table.layers.iter().flatten() {
            let lowering = Lowering { layers: self.layers, names, problems: &mut *self.problems, kept: None };
            layers.extend(
                image_layer::Lowering { table: layer, origin: self.origin, image: &self.declared.name, task: lowering }
                    .layer(),
            );
        }
        let env = self.map(table.env.as_ref(), names, "environment variable");
        for (name, _) in table.env.iter().flatten() {
            if name.value.is_empty() || name.value.contains(['=', '\0']) {
                self.problems.push(
                    Diagnostic::error(format!("`{}` cannot name an environment variable", name.value.escape_debug()))
                        .at(&self.origin.of(name), "")
                        .help("a name is not empty and holds no `=` and no NUL byte"),
                );
            }
        }
        let recipe = PlatformRecipe {
            platform: platform.clone(),
            base: base?,
            layers,
            entrypoint: table.entrypoint.as_ref().map(|words| self.words(words, names)),
            cmd: table.cmd.as_ref().map(|words| self.words(words, names)),
            env,
            user: self.text(table.user.as_ref(), names),
            workdir: self.absolute(table.workdir.as_ref(), names),
            labels: self.map(table.labels.as_ref(), names, "label"),
            ports: self.ports(names),
            volumes: table.volumes.iter().flatten().filter_map(|entry| self.absolute(Some(entry), names)).collect(),
            stop_signal: self.text(table.stop_signal.as_ref(), names),
        };
        Some(recipe)
    }

    fn base(&mut self, names: Names<'_>) -> Option<Placed<Base>> {
        let Some(written) = &self.declared.table.base else {
            return Some(Placed::new(Base::Scratch, self.origin.of(&self.declared.name)));
        };
        let place = self.origin.of(written);
        let text = interpolate(Written::new(written, self.origin), &names, Use::Plain, self.problems)?;
        let base = match text.as_str() {
            "scratch" => Base::Scratch,
            text if text.starts_with(':') || (text.starts_with("//") && text.contains(':')) => {
                let mut lowering = Lowering { layers: self.layers, names, problems: &mut *self.problems, kept: None };
                Base::Task(lowering.one_task(text, &place, "base")?)
            }
            text if text.starts_with("./") || text.starts_with("//") => Base::Files(self.file(text, names, &place)?),
            text if is_reference(text) => {
                if let Some((_, digest)) = text.split_once('@').filter(|(_, digest)| !is_sha256(digest)) {
                    self.problems.push(not_a_pin(digest, &place));
                    return None;
                }
                Base::Registry(text.to_owned())
            }
            text => {
                self.problems.push(not_a_base(text, &place));
                return None;
            }
        };
        Some(Placed::new(base, place))
    }

    /// A path of the workspace: `./x` relative to the package, `//x` to the root.
    fn file(&mut self, text: &str, names: Names<'_>, place: &Place) -> Option<RelPath> {
        let parsed = match text.strip_prefix("//") {
            Some(rest) => RelPath::parse(rest),
            None => RelPath::parse(text).map(|path| names.package_dir().join(&path)),
        };
        match parsed {
            Ok(path) if !path.is_root() => Some(path),
            _ => {
                self.problems.push(not_a_base(text, place));
                None
            }
        }
    }

    fn push(&mut self) -> BTreeMap<String, Placed<String>> {
        let mut all = BTreeMap::new();
        for (word, name) in self.declared.table.push.iter().flatten() {
            let place = self.origin.of(name);
            let Some(text) = self.text(Some(name), self.names) else { continue };
            if !is_reference(&text) || text.contains('@') {
                self.problems.push(
                    Diagnostic::error(format!("`{}` is no place in a registry", text.escape_debug()))
                        .at(&place, "")
                        .help("write host, repository and perhaps a tag: `registry.example/team/web:1`"),
                );
            }
            all.insert(word.value.clone(), Placed::new(text, place));
        }
        all
    }

    fn ports(&mut self, names: Names<'_>) -> Vec<String> {
        let mut all = Vec::new();
        for entry in self.declared.table.ports.iter().flatten() {
            let Some(text) = self.text(Some(entry), names) else { continue };
            let (number, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
            let is_port = number.parse::<u16>().is_ok_and(|number| number > 0);
            if !is_port || !matches!(protocol, "tcp" | "udp" | "sctp") {
                self.problems.push(
                    Diagnostic::error(format!("`{}` is no port", text.escape_debug()))
                        .at(&self.origin.of(entry), "")
                        .help("write a number from 1 to 65535, perhaps with `/tcp`, `/udp` or `/sctp`"),
                );
                continue;
            }
            all.push(format!("{number}/{protocol}"));
        }
        all
    }

    fn text(&mut self, value: Option<&At<String>>, names: Names<'_>) -> Option<String> {
        interpolate(Written::new(value?, self.origin), &names, Use::Plain, self.problems)
    }

    fn absolute(&mut self, value: Option<&At<String>>, names: Names<'_>) -> Option<String> {
        let text = self.text(value, names)?;
        if !text.starts_with('/') {
            let place = self.origin.of(value?);
            self.problems.push(
                Diagnostic::error(format!("`{}` is no place in the image", text.escape_debug()))
                    .at(&place, "")
                    .help(format!("write it from the root of the image: `/{text}`")),
            );
        }
        Some(text)
    }

    fn words(&mut self, words: &[At<String>], names: Names<'_>) -> Vec<String> {
        words.iter().filter_map(|word| self.text(Some(word), names)).collect()
    }

    fn map(
        &mut self,
        map: Option<&'a BTreeMap<At<String>, At<String>>>,
        names: Names<'_>,
        what: &str,
    ) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (name, value) in map.into_iter().flatten() {
            if name.value.trim().is_empty() {
                self.problems.push(
                    Diagnostic::error(format!("an empty {what}"))
                        .at(&self.origin.of(name), "")
                        .help("give it a name, or take it out"),
                );
            }
            if let Some(text) = self.text(Some(value), names) {
                all.insert(name.value.clone(), text);
            }
        }
        all
    }
}

/// Whether the text is a whole name of an image: with a host, which has a dot or a port or is `localhost`.
fn is_reference(text: &str) -> bool {
    let plain = !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_graphic());
    let Some((host, rest)) = text.split_once('/') else { return false };
    let is_host = host.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '[');
    plain && is_host && !rest.is_empty() && (host.contains(['.', ':']) || host == "localhost")
}

/// Whether the text is `sha256:` with 64 lower-case hexadecimal digits.
fn is_sha256(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn not_a_pin(digest: &str, place: &Place) -> Diagnostic {
    let error = Diagnostic::error(format!("`{}` pins no base: bases are pinned by sha256", digest.escape_debug()));
    error.at(place, "").help(
        "write `@sha256:` with 64 lower-case hexadecimal digits, or a tag: `drystone lock` then writes the digest to drystone.lock",
    )
}

fn not_a_base(text: &str, place: &Place) -> Diagnostic {
    let error = Diagnostic::error(format!("`{}` is no base of an image", text.escape_debug())).at(place, "");
    let short = !text.is_empty() && !text.contains(char::is_whitespace) && !text.starts_with(['/', '.']);
    if short {
        return error.help(format!(
            "name the registry too: `registry.example/{text}`; for a file write `./{text}`, for a task `//PACKAGE:TASK`"
        ));
    }
    error.help(
        "write `scratch`, the whole name of an image (`registry.example/team/base:1`), a task (`//:base`), or a path of the \
         workspace (`./base`, `//images/base.tar`)",
    )
}
