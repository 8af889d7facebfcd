//! One `[fetch.NAME]` as a [`FetchTask`]. Fetches nothing.

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::span::Place;
use crate::manifest::interpolate::{Names, Use, interpolate};
use crate::manifest::model::{Expected, FetchTask, Unpack};
use crate::manifest::origin::{Origin, Written};
use crate::manifest::patterns;
use crate::manifest::problems::Problems;
use crate::manifest::raw::FetchTable;
use crate::manifest::read::Declared;
use crate::manifest::task::check_tag;
use crate::manifest::value::{At, UnpackText};

/// Schemes an address may have.
const SCHEMES: [&str; 3] = ["https://", "http://", "file://"];

/// Endings that say how to unpack.
const ARCHIVES: [&str; 7] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".zip", ".deb"];

/// A fetch being lowered.
pub(crate) struct Lowering<'a, 'p> {
    /// Its table.
    pub(crate) fetch: &'a Declared<FetchTable>,
    /// The text it stands in.
    pub(crate) origin: &'a Origin,
    /// What `${…}` stands for.
    pub(crate) names: Names<'a>,
    /// Where errors go.
    pub(crate) problems: &'a mut Problems<'p>,
}

impl Lowering<'_, '_> {
    /// The task; `None` after reporting why it cannot be.
    pub(crate) fn fetch_task(&mut self) -> Option<FetchTask> {
        let table = &self.fetch.table;
        let urls = self.urls();
        let expect = self.expect();
        let unpack = match table.unpack.as_ref().map(|unpack| unpack.value) {
            Some(UnpackText::Auto) => Unpack::ByName,
            Some(UnpackText::Oci) => Unpack::Image,
            None | Some(UnpackText::No) => Unpack::No,
        };
        self.check_unpack(unpack, urls.as_deref());
        let platform = self.platform(unpack);
        let output = self.output(unpack, urls.as_deref());
        Some(FetchTask {
            urls: urls?,
            expect: expect?,
            unpack,
            platform,
            strip: table.strip.as_ref().map_or(0, |strip| strip.value as usize),
            output: output?,
            executable: table.executable.as_ref().is_some_and(|executable| executable.value),
        })
    }

    /// `tags`.
    pub(crate) fn tags(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for entry in self.fetch.table.tags.iter().flatten() {
            let written = Written::new(entry, self.origin);
            let tag = interpolate(written, &self.names, Use::Plain, self.problems);
            all.extend(tag.filter(|tag| check_tag(tag, written, self.problems)));
        }
        all
    }

    fn here(&self) -> Place {
        self.origin.of(&self.fetch.name)
    }

    fn missing(&mut self, message: &str, help: &str) {
        if !self.fetch.damaged {
            let message = format!("fetch `{}` {message}", self.fetch.name.value);
            self.problems.push(Diagnostic::error(message).at(&self.here(), "").help(help));
        }
    }

    fn twice(&mut self, first: (&str, Place), second: (&str, Place)) {
        self.problems.push(
            Diagnostic::error(format!("fetch `{}` has `{}` and `{}`", self.fetch.name.value, first.0, second.0))
                .at(&second.1, "")
                .at(&first.1, "")
                .help("keep one of them"),
        );
    }

    fn urls(&mut self) -> Option<Vec<String>> {
        let table = &self.fetch.table;
        let entries: Vec<&At<String>> = match (&table.url, &table.urls) {
            (Some(url), Some(urls)) => {
                let place = urls.first().map_or_else(|| self.here(), |first| self.origin.of(first));
                self.twice(("url", self.origin.of(url)), ("urls", place));
                return None;
            }
            (Some(url), None) => vec![url],
            (None, urls) => urls.iter().flatten().collect(),
        };
        if entries.is_empty() {
            self.missing("has no `url`", "add `url = \"https://…\"`");
            return None;
        }
        let all: Vec<Option<String>> = entries.into_iter().map(|entry| self.url(entry)).collect();
        all.into_iter().collect()
    }

    fn url(&mut self, entry: &At<String>) -> Option<String> {
        let url = interpolate(Written::new(entry, self.origin), &self.names, Use::Plain, self.problems)?;
        if holds_credentials(&url) {
            // Not at its own place: the line would be shown.
            let message =
                format!("an address of fetch `{}` holds a name or a password before its `@`", self.fetch.name.value);
            self.problems.push(Diagnostic::error(message).at(&self.here(), "").help(
                "take it out, for what is in an address is stored and shown; what needs a password is fetched by a task with \
                 `network = true` and `secret-env`, or beforehand, to a `file://…`",
            ));
            return None;
        }
        let rest = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
        if rest.is_none_or(str::is_empty) || url.contains(|letter: char| letter.is_whitespace() || letter.is_control())
        {
            self.problems.push(
                Diagnostic::error(format!("`{}` is not an address", url.escape_debug()))
                    .at(&self.origin.of(entry), "")
                    .help("write `https://…`, `http://…` or `file://…`, without spaces"),
            );
            return None;
        }
        Some(url)
    }

    fn expect(&mut self) -> Option<Expected> {
        let table = &self.fetch.table;
        match (&table.sha256, &table.blake3) {
            (Some(sha256), Some(blake3)) => {
                self.twice(("sha256", self.origin.of(sha256)), ("blake3", self.origin.of(blake3)));
                None
            }
            (Some(text), None) => self.digest(text, "sha256").map(Expected::Sha256),
            (None, Some(text)) => {
                let bytes = self.digest(text, "blake3")?;
                Digest::from_slice(&bytes).map(Expected::Blake3)
            }
            (None, None) => {
                self.missing("does not say which bytes it expects", "add `sha256 = \"…\"` or `blake3 = \"…\"`");
                None
            }
        }
    }

    fn digest(&mut self, text: &At<String>, key: &str) -> Option<[u8; 32]> {
        let parsed = hex(&text.value);
        if parsed.is_none() {
            self.problems.push(
                Diagnostic::error(format!("`{key}` is not a digest: {}", what_is_wrong(&text.value)))
                    .at(&self.origin.of(text), "")
                    .help(
                        format!("write 64 hexadecimal digits, as `{key}sum` prints them").replace("blake3sum", "b3sum"),
                    ),
            );
        }
        parsed
    }

    fn check_unpack(&mut self, unpack: Unpack, urls: Option<&[String]>) {
        let table = &self.fetch.table;
        match unpack {
            Unpack::ByName | Unpack::Image => {
                if let Some(executable) = table.executable.as_ref().filter(|executable| executable.value) {
                    self.useless("executable", "has no effect on what is unpacked", &self.origin.of(executable));
                }
                if unpack == Unpack::Image {
                    return; // It tells itself how it is packed.
                }
                let unknown = urls.is_some_and(|urls| !urls.iter().any(|url| is_archive(file_name(url))));
                if let (true, Some(entry)) = (unknown, &table.unpack) {
                    self.problems.push(
                        Diagnostic::error("no address says by its ending how to unpack the file")
                            .at(&self.origin.of(entry), "")
                            .help(format!(
                                "the endings are {}",
                                ARCHIVES.map(|ending| format!("`{ending}`")).join(", ")
                            )),
                    );
                }
            }
            Unpack::No => {
                if let Some(strip) = table.strip.as_ref().filter(|strip| strip.value > 0) {
                    self.useless("strip", "has no effect without `unpack = true`", &self.origin.of(strip));
                }
            }
        }
    }

    fn platform(&mut self, unpack: Unpack) -> Option<Platform> {
        let entry = self.fetch.table.platform.as_ref()?;
        if unpack != Unpack::Image {
            self.useless("platform", "has no effect without `unpack = \"oci\"`", &self.origin.of(entry));
        }
        let text = interpolate(Written::new(entry, self.origin), &self.names, Use::Plain, self.problems)?;
        let platform = Platform::parse(&text);
        if platform.is_none() {
            self.problems.push(
                Diagnostic::error(format!("`{}` is no platform", text.escape_debug()))
                    .at(&self.origin.of(entry), "")
                    .help(
                        "write `os/architecture` or `os/architecture/variant`, such as `linux/amd64` or `linux/arm/v7`",
                    ),
            );
        }
        platform
    }

    fn useless(&mut self, key: &str, why: &str, place: &Place) {
        let warning = Diagnostic::warning(format!("`{key}` {why}"));
        self.problems.push(warning.at(place, "").help("take it out"));
    }

    fn output(&mut self, unpack: Unpack, urls: Option<&[String]>) -> Option<RelPath> {
        if let Some(output) = &self.fetch.table.output {
            return patterns::own_path(Written::new(output, self.origin), "output", &self.names, self.problems);
        }
        let name = match unpack {
            Unpack::ByName | Unpack::Image => self.fetch.name.value.as_str(),
            Unpack::No => file_name(urls?.first()?),
        };
        match RelPath::parse(name) {
            Ok(path) if !path.is_root() => Some(path),
            _ => {
                self.missing("has an address without a file name", "say where it lands: `output = \"…\"`");
                None
            }
        }
    }
}

/// Whether a name or a password stands before the host.
fn holds_credentials(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
    !scheme.eq_ignore_ascii_case("file") && authority.contains('@')
}

/// The file name in an address, without query and fragment; empty if it has none.
fn file_name(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or("");
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    path.rsplit_once('/').map_or("", |(_, name)| name)
}

fn is_archive(name: &str) -> bool {
    ARCHIVES.iter().any(|ending| name.to_ascii_lowercase().ends_with(ending))
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |letter: u8| char::from(letter).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).expect("two hexadecimal digits fit a byte");
    }
    Some(bytes)
}

fn what_is_wrong(text: &str) -> String {
    match text.chars().find(|letter| !letter.is_ascii_hexdigit()) {
        Some(letter) => format!("`{}` is no hexadecimal digit", letter.escape_debug()),
        None => format!("it has {} digits instead of 64", text.len()),
    }
}
