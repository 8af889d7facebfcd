//! Tool identity: the program a name stands for, and everything it drags in. Runs nothing.
//!
//! A name is looked up on the user's `PATH`, through the shims of version managers and along its links to the real file. In its
//! identity: that file, its interpreter chain (`#!`, ELF), its library closure, and its installation root as a whole when it
//! lies outside the system directories. Such roots are mounted read-only at their own paths.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::encode::Encoder;
use crate::fingerprint::elf;
use crate::fingerprint::packages::Packages;
use crate::fingerprint::roots::{Crowds, RootError, installation_root, is_system};
use crate::fs::ops::{self, Kind};
use crate::fs::walk;
use crate::sandbox::spec::{Access, Mount};

/// Where names are looked up.
#[derive(Clone, Debug, Default)]
pub struct ToolContext {
    /// Directories of the user's `PATH`, in order.
    pub path: Vec<PathBuf>,
    /// Home directory.
    pub home: Option<PathBuf>,
    /// Directory of the package, where version files are looked for first.
    pub directory: PathBuf,
    /// Root of the workspace, where that search ends.
    pub root: PathBuf,
    /// `PYENV_VERSION`, `RUSTUP_TOOLCHAIN` and `RUSTUP_HOME`, where set.
    pub overrides: BTreeMap<String, String>,
    /// Directories of many installations.
    pub crowds: Arc<Crowds>,
    /// With `system = "tools"`: where the directories are looked up that come with a program of the system.
    pub alone: Option<Arc<Packages>>,
}

/// A resolved tool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tool {
    /// As declared.
    pub name: String,
    /// Path to execute, the same inside and outside.
    pub program: PathBuf,
    /// Digest over everything that belongs to it.
    pub identity: Digest,
    /// What must be mounted for it to work.
    pub mounts: Vec<Mount>,
    /// The files it consists of, and the directories it brings as a whole; in order.
    pub paths: Vec<PathBuf>,
    /// With `system = "tools"`: every link on the way to one of the files, with its target.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// Programs that its scripts name through `env`, which looks them up on `PATH`.
    pub named: BTreeMap<String, PathBuf>,
}

/// Why a tool cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// It is not there.
    #[error("tool `{name}` is not on the PATH ({searched})")]
    NotFound {
        /// As declared.
        name: String,
        /// Where it was looked for.
        searched: String,
    },
    /// A shim that leads nowhere.
    #[error("tool `{name}` is a {manager} shim, but {cause}")]
    Shim {
        /// As declared.
        name: String,
        /// Which version manager.
        manager: &'static str,
        /// What is missing.
        cause: String,
    },
    /// What must be digested and mounted with it has no bounds.
    #[error(
        "tool `{name}` lies in {}, which holds more than {limit} files: move it to a directory of its own, or put a link to it alone on the PATH",
        root.display()
    )]
    TooLarge {
        /// As declared.
        name: String,
        /// Its installation root.
        root: PathBuf,
        /// Most files of one root.
        limit: usize,
    },
    /// A file that belongs to it cannot be read.
    #[error("tool `{name}`: {cause}")]
    Unreadable {
        /// As declared.
        name: String,
        /// Which file and why.
        cause: String,
    },
}

/// A file's digest, and whether its owner may execute it.
pub type FileDigest = (Digest, bool);

/// Digests files by absolute path, in order; from memory where their stat signature is known.
pub type DigestFiles<'a> = dyn Fn(&[PathBuf]) -> Vec<Result<FileDigest, ops::FsError>> + 'a;

/// Digests an installation root as a whole: [`crate::fingerprint::roots::root_digest`], perhaps remembered for the invocation.
pub type DigestRoot<'a> = dyn Fn(&Path) -> Result<Digest, RootError> + 'a;

/// As much of a `#!` line as the kernel reads (`BINPRM_BUF_SIZE`), in bytes.
const SHEBANG_BYTES_MAX: usize = 256;

/// Links followed and interpreters chained at most.
const CHAIN_MAX: usize = 16;

/// Links on the way to one file at most, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// The name in keys of what [`system_libraries`] gives.
pub const SYSTEM_LIBRARIES: &str = "system libraries";

/// The C library's own parts and the runtime of compilers.
const LIBRARIES: [&str; 9] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libstdc++.so.6",
];

/// The file a name or path stands for, links and shims not seen through. Cost: one `stat` per directory of the `PATH`.
pub fn locate(name: &str, context: &ToolContext) -> Option<PathBuf> {
    Closure::new(name, context).find(name).ok()
}

/// Resolves a tool and digests what belongs to it.
pub fn resolve(
    name: &str,
    context: &ToolContext,
    digest: &DigestFiles<'_>,
    root_digest: &DigestRoot<'_>,
) -> Result<Tool, ToolError> {
    let mut closure = Closure::new(name, context);
    let program = closure.add_program(name, 0)?;
    closure.add_package_libraries()?;
    finish(closure, program, digest, root_digest)
}

/// What programs that were built elsewhere load beside the C library itself, as one tool: with `system = "tools"`, the programs
/// of an output tree have nothing else. Those of the names that are not there are left out.
pub fn system_libraries(
    context: &ToolContext,
    digest: &DigestFiles<'_>,
    root_digest: &DigestRoot<'_>,
) -> Result<Tool, ToolError> {
    let mut closure = Closure::new(SYSTEM_LIBRARIES, context);
    for library in LIBRARIES {
        if let Some(path) = library_path(library, &elf::Dynamic::default(), Path::new("/")) {
            closure.add_file(&path, 0)?;
        }
    }
    finish(closure, PathBuf::new(), digest, root_digest)
}

fn finish(
    closure: Closure<'_>,
    program: PathBuf,
    digest: &DigestFiles<'_>,
    root_digest: &DigestRoot<'_>,
) -> Result<Tool, ToolError> {
    let name = closure.name;
    let unreadable = |error: ops::FsError| ToolError::Unreadable { name: name.to_owned(), cause: error.to_string() };
    let mut encoder = Encoder::new();
    encoder.u64(closure.roots.len() as u64);
    for root in closure.roots.keys() {
        let digest = root_digest(root).map_err(|error| match error {
            RootError::TooLarge { root, limit } => ToolError::TooLarge { name: name.to_owned(), root, limit },
            RootError::Fs(error) => unreadable(error),
        })?;
        encoder.bytes(root.as_os_str().as_encoded_bytes()).digest(&digest);
    }
    // Files beneath a root are in its digest already.
    let outside = |path: &&PathBuf| !closure.roots.keys().any(|root| path.starts_with(root));
    let paths: Vec<PathBuf> = closure.files.keys().filter(outside).cloned().collect();
    for (path, digest) in paths.iter().zip(digest(&paths)) {
        let (digest, executable) = digest.map_err(unreadable)?;
        encoder.bytes(path.as_os_str().as_encoded_bytes()).u8(u8::from(executable)).digest(&digest);
    }
    let consists: Vec<PathBuf> = closure.roots.keys().cloned().chain(paths).collect();
    let alone = closure.context.alone.is_some();
    let shown = consists.iter().filter(|path| alone || (closure.roots.contains_key(*path) && !is_system(path)));
    let mounts =
        shown.map(|path| Mount { host: path.clone(), inside: path.clone(), access: Access::ReadOnly }).collect();
    let identity = Digest::derived("drystone 2026-11 tool v1", encoder.as_slice());
    Ok(Tool {
        name: name.to_owned(),
        program,
        identity,
        mounts,
        paths: consists,
        links: closure.links,
        named: closure.named,
    })
}

struct Closure<'a> {
    name: &'a str,
    context: &'a ToolContext,
    files: BTreeMap<PathBuf, ()>,
    roots: BTreeMap<PathBuf, ()>,
    links: BTreeMap<PathBuf, PathBuf>,
    named: BTreeMap<String, PathBuf>,
}

impl<'a> Closure<'a> {
    fn new(name: &'a str, context: &'a ToolContext) -> Self {
        let (files, roots, links, named) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { name, context, files, roots, links, named }
    }

    fn unreadable(&self, error: &ops::FsError) -> ToolError {
        ToolError::Unreadable { name: self.name.to_owned(), cause: error.to_string() }
    }

    /// Finds a program by name or path and adds it; gives the path to execute.
    fn add_program(&mut self, word: &str, depth: usize) -> Result<PathBuf, ToolError> {
        let found = self.find(word)?;
        let program = match self.through_shim(&found)? {
            Some(real) => real,
            None => found,
        };
        self.add_file(&program, depth)?;
        self.add_package(&program);
        Ok(program)
    }

    fn find(&self, word: &str) -> Result<PathBuf, ToolError> {
        let usable = |path: &Path| {
            ops::metadata(path).is_ok_and(|meta| {
                meta.is_file() && std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 != 0
            })
        };
        let missing = |searched: String| ToolError::NotFound { name: self.name.to_owned(), searched };
        if word.contains('/') {
            let path = if let Some(below) = word.strip_prefix("//") {
                self.context.root.join(below)
            } else {
                self.context.directory.join(word)
            };
            return if usable(&path) { Ok(path) } else { Err(missing(path.display().to_string())) };
        }
        let mut candidates = self.context.path.iter().filter(|dir| dir.is_absolute()).map(|dir| dir.join(word));
        candidates.find(|path| usable(path)).ok_or_else(|| {
            let dirs: Vec<String> = self.context.path.iter().map(|dir| dir.display().to_string()).collect();
            missing(dirs.join(":"))
        })
    }

    /// The real program behind a pyenv shim or a rustup proxy; `None` if it is neither.
    fn through_shim(&self, found: &Path) -> Result<Option<PathBuf>, ToolError> {
        let Some(file_name) = found.file_name() else { return Ok(None) };
        let dir = found.parent().unwrap_or(Path::new("/"));
        if dir.ends_with("shims") && ops::exists(&dir.with_file_name("versions")) {
            return self.through_pyenv(&dir.with_file_name(""), file_name).map(Some);
        }
        let real = ops::canonical(found).unwrap_or_else(|_| found.to_owned());
        let proxy = real.file_name().is_some_and(|name| name == "rustup")
            || (file_name != "rustup" && same_file(&dir.join("rustup"), found));
        if proxy && file_name != "rustup" {
            return self.through_rustup(file_name).map(Some);
        }
        Ok(None)
    }

    fn through_pyenv(&self, pyenv: &Path, file_name: &OsStr) -> Result<PathBuf, ToolError> {
        let shim = |cause: String| ToolError::Shim { name: self.name.to_owned(), manager: "pyenv", cause };
        let chosen = match self.context.overrides.get("PYENV_VERSION") {
            Some(version) => Some(version.clone()),
            None => self.version_file(".python-version").or_else(|| ops::read_text(&pyenv.join("version")).ok()),
        };
        let chosen = chosen.ok_or_else(|| shim("no version is chosen; run `pyenv local VERSION`".into()))?;
        let mut tried = Vec::new();
        for version in chosen.split([':', '\n', ' ']).map(str::trim).filter(|version| !version.is_empty()) {
            if version == "system" {
                let shims = pyenv.join("shims");
                let rest = self.context.path.iter().filter(|dir| **dir != shims).map(|dir| dir.join(file_name));
                if let Some(path) = rest.into_iter().find(|path| ops::exists(path)) {
                    return Ok(path);
                }
            }
            let program = pyenv.join("versions").join(version).join("bin").join(file_name);
            if ops::metadata(&program).is_ok() {
                return Ok(program);
            }
            tried.push(version.to_owned());
        }
        Err(shim(format!("version {} has no such program", tried.join(", "))))
    }

    fn through_rustup(&self, file_name: &OsStr) -> Result<PathBuf, ToolError> {
        let shim = |cause: &str| ToolError::Shim { name: self.name.to_owned(), manager: "rustup", cause: cause.into() };
        let home = self.context.overrides.get("RUSTUP_HOME").map(PathBuf::from);
        let home = home.or_else(|| self.context.home.as_ref().map(|home| home.join(".rustup")));
        let home = home.ok_or_else(|| shim("there is no home directory"))?;
        let from_text = |text: String| match text.parse::<toml::Table>() {
            Ok(table) => table
                .get("toolchain")
                .and_then(|toolchain| toolchain.get("channel"))
                .or_else(|| table.get("default_toolchain"))
                .and_then(|channel| channel.as_str())
                .map(str::to_owned),
            Err(_) => text.lines().next().map(|line| line.trim().to_owned()),
        };
        let chosen = self
            .context
            .overrides
            .get("RUSTUP_TOOLCHAIN")
            .cloned()
            .or_else(|| self.version_file("rust-toolchain.toml").and_then(from_text))
            .or_else(|| self.version_file("rust-toolchain").and_then(from_text))
            .or_else(|| ops::read_text(&home.join("settings.toml")).ok().and_then(from_text))
            .ok_or_else(|| shim("no toolchain is chosen; run `rustup default stable`"))?;
        let toolchains = ops::read_dir(&home.join("toolchains")).map_err(|error| self.unreadable(&error))?;
        let names = toolchains.iter().filter_map(|entry| entry.name.to_str());
        let name = names
            .filter(|name| *name == chosen || name.starts_with(&format!("{chosen}-")))
            .min_by_key(|name| name.len())
            .ok_or_else(|| {
                shim(&format!("toolchain `{chosen}` is not installed; run `rustup toolchain install {chosen}`"))
            })?;
        let program = home.join("toolchains").join(name).join("bin").join(file_name);
        if ops::metadata(&program).is_ok() {
            Ok(program)
        } else {
            Err(shim(&format!("toolchain `{chosen}` does not have it; run `rustup component add`")))
        }
    }

    /// The text of the nearest version file between the package and the workspace root.
    fn version_file(&self, name: &str) -> Option<String> {
        let mut dir = self.context.directory.as_path();
        loop {
            if let Ok(text) = ops::read_text(&dir.join(name)) {
                return Some(text);
            }
            if dir == self.context.root {
                return None;
            }
            dir = dir.parent()?;
        }
    }

    /// Adds a file with its links, roots, interpreters and libraries.
    fn add_file(&mut self, path: &Path, depth: usize) -> Result<(), ToolError> {
        if depth > CHAIN_MAX {
            let cause = format!("{} has more than {CHAIN_MAX} interpreters", path.display());
            return Err(ToolError::Unreadable { name: self.name.to_owned(), cause });
        }
        self.note_links(path);
        let mut hop = path.to_owned();
        for _ in 0..CHAIN_MAX {
            self.add_root(&hop);
            match ops::read_link(&hop) {
                Ok(next) => hop = beyond(&hop, &next),
                Err(_) => break,
            }
        }
        let real = ops::canonical(path).map_err(|error| self.unreadable(&error))?;
        self.add_root(&real);
        if self.files.insert(real.clone(), ()).is_some() {
            return Ok(());
        }
        let file = ops::open(&real).map_err(|error| self.unreadable(&error))?;
        let read_at = |offset: u64, length: usize| ops::read_at(&file, offset, length).ok();
        let beginning = read_at(0, SHEBANG_BYTES_MAX).unwrap_or_default();
        if let Some(line) = beginning.strip_prefix(b"#!") {
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
            return self.add_interpreter(line, depth);
        }
        let Some(dynamic) = elf::dynamic(&read_at) else { return Ok(()) };
        if let Some(interpreter) = &dynamic.interpreter {
            self.add_file(Path::new(interpreter), depth + 1)?;
        }
        for library in &dynamic.needed {
            if let Some(path) = library_path(library, &dynamic, &real) {
                self.add_file(&path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn add_interpreter(&mut self, line: &[u8], depth: usize) -> Result<(), ToolError> {
        let line = line.trim_ascii();
        let (interpreter, rest) = line.split_at(line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len()));
        if interpreter.is_empty() {
            return Ok(());
        }
        let interpreter = Path::new(OsStr::from_bytes(interpreter));
        self.add_file(interpreter, depth + 1)?;
        self.add_package(interpreter);
        if interpreter.file_name().is_some_and(|name| name == "env") {
            let rest = std::str::from_utf8(rest).map_err(|_| ToolError::Unreadable {
                name: self.name.to_owned(),
                cause: format!(
                    "what a script starts with `env` is not UTF-8: {}",
                    String::from_utf8_lossy(rest).trim()
                ),
            })?;
            let Some(program) = behind_env(rest.split_whitespace()) else { return Ok(()) };
            let found = self.add_program(program, depth + 1)?;
            self.named.insert(program.to_owned(), found);
        }
        Ok(())
    }

    /// Notes every link on the way to a file: where only the tool itself is visible, programs must find it by its usual names.
    fn note_links(&mut self, path: &Path) {
        if self.context.alone.is_none() {
            return;
        }
        let mut left: Vec<PathBuf> = vec![path.to_owned()];
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop() {
            let mut parts = part.components();
            let Some(first) = parts.next() else { continue };
            left.push(parts.as_path().to_owned());
            match first {
                Component::RootDir => here = PathBuf::from("/"),
                Component::ParentDir => drop(here.pop()),
                Component::CurDir | Component::Prefix(_) => {}
                Component::Normal(name) => {
                    here.push(name);
                    if let Ok(target) = ops::read_link(&here) {
                        links += 1;
                        if links > LINKS_MAX {
                            return;
                        }
                        self.links.insert(here.clone(), target.clone());
                        here.pop();
                        left.push(target);
                    }
                }
            }
        }
    }

    /// Adds the directories that come with a program of the system, by each of its names.
    fn add_package(&mut self, program: &Path) {
        let Some(packages) = &self.context.alone else { return };
        let mut hop = program.to_owned();
        for _ in 0..CHAIN_MAX {
            if is_system(&hop) {
                // A path through `/bin` is listed as one through `/usr/bin`, where the one is a link to the other.
                let dir = hop.parent().and_then(|dir| ops::canonical(dir).ok());
                let plain = dir.zip(hop.file_name()).map_or_else(|| hop.clone(), |(dir, name)| dir.join(name));
                let there = packages
                    .directories(&plain)
                    .into_iter()
                    .filter(|dir| ops::metadata(dir).is_ok_and(|meta| meta.is_dir()));
                self.roots.extend(there.map(|dir| (dir, ())));
            }
            match ops::read_link(&hop) {
                Ok(next) => hop = beyond(&hop, &next),
                Err(_) => return,
            }
        }
    }

    /// Adds the libraries of what lies in the directories that came with programs of the system.
    fn add_package_libraries(&mut self) -> Result<(), ToolError> {
        let roots: Vec<PathBuf> = self.roots.keys().filter(|root| is_system(root)).cloned().collect();
        if self.context.alone.is_none() {
            return Ok(());
        }
        for root in roots {
            let found = walk::survey_all(&root, &|_| false)
                .map_err(|error| ToolError::Unreadable { name: self.name.to_owned(), cause: error.to_string() })?;
            for found in found.found.into_iter().filter(|found| found.kind == Kind::File) {
                let path = root.join(found.path.as_str());
                let may_load = found.path.file_name().contains(".so")
                    || ops::metadata(&path)
                        .is_ok_and(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 != 0);
                if may_load {
                    self.add_libraries(&path)?;
                }
            }
        }
        Ok(())
    }

    fn add_libraries(&mut self, path: &Path) -> Result<(), ToolError> {
        let Ok(file) = ops::open(path) else { return Ok(()) };
        let read_at = |offset: u64, length: usize| ops::read_at(&file, offset, length).ok();
        let Some(dynamic) = elf::dynamic(&read_at) else { return Ok(()) };
        let interpreter = dynamic.interpreter.iter().map(PathBuf::from).filter(|path| ops::exists(path));
        let libraries = dynamic.needed.iter().filter_map(|library| library_path(library, &dynamic, path));
        let all: Vec<PathBuf> = interpreter.chain(libraries).collect();
        all.iter().try_for_each(|path| self.add_file(path, 1))
    }

    /// Adds what must be mounted (or at least digested) as a whole for the file at `path` to work.
    fn add_root(&mut self, path: &Path) {
        if let Some(root) = installation_root(path, &self.context.root, &self.context.crowds) {
            self.roots.insert(root, ());
        }
    }
}

/// Where a link leads, with its `.` and `..` resolved and the links further on left as they are: mounts need a plain path.
fn beyond(link: &Path, target: &Path) -> PathBuf {
    let dir = link.parent().unwrap_or(Path::new("/"));
    // A relative target starts where the directory really is.
    let mut place = ops::canonical(dir).unwrap_or_else(|_| dir.to_owned());
    for component in target.components() {
        match component {
            Component::ParentDir => {
                place.pop();
            }
            Component::CurDir => {}
            // An absolute one starts over.
            component => place.push(component),
        }
    }
    place
}

/// The program that `env` starts, given the rest of a `#!` line: behind options, their values and assignments.
fn behind_env<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    while let Some(word) = words.next() {
        let word = match word.strip_prefix('-') {
            None => word,
            // `-S` and `--split-string=` may have the first word at once, and other letters go before an `S`.
            Some(long) if long.starts_with('-') => match long.strip_prefix("-split-string=") {
                Some(rest) => rest,
                None => {
                    let _value = matches!(long, "-unset" | "-chdir" | "-argv0").then(|| words.next());
                    continue;
                }
            },
            Some(short) => match short.split_once('S') {
                Some((_, rest)) if !rest.is_empty() => rest,
                _ => {
                    let _value = (short.ends_with(['u', 'C', 'a'])).then(|| words.next());
                    continue;
                }
            },
        };
        let word = word.trim_matches(['"', '\'']);
        if !word.is_empty() && !word.contains('=') {
            return Some(word);
        }
    }
    None
}

fn same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (ops::metadata(one), ops::metadata(other)) {
        (Ok(one), Ok(other)) => one.dev() == other.dev() && one.ino() == other.ino(),
        _ => false,
    }
}

/// A search directory with `$ORIGIN` replaced, whatever the bytes of that are.
fn with_origin(dir: &str, origin: &Path) -> PathBuf {
    let dir = dir.replace("${ORIGIN}", "$ORIGIN");
    let parts: Vec<&OsStr> = dir.split("$ORIGIN").map(OsStr::new).collect();
    parts.join(origin.as_os_str()).into()
}

/// Where the loader would find a library: its search path, then the system's directories.
fn library_path(name: &str, dynamic: &elf::Dynamic, of: &Path) -> Option<PathBuf> {
    let origin = of.parent().unwrap_or(Path::new("/"));
    let own = dynamic.search.iter().map(|dir| with_origin(dir, origin));
    let machine = std::env::consts::ARCH;
    let system: [PathBuf; 6] = [
        format!("/lib/{machine}-linux-gnu").into(),
        format!("/usr/lib/{machine}-linux-gnu").into(),
        "/lib64".into(),
        "/usr/lib64".into(),
        "/lib".into(),
        "/usr/lib".into(),
    ];
    let found = own.chain(system).map(|dir| dir.join(name)).find(|path| ops::exists(path))?;
    // `$ORIGIN/../lib` and the like: a path with `..` in it has no root of its own and could not be mounted.
    let dir = ops::canonical(found.parent()?).ok()?;
    Some(dir.join(found.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::roots::root_digest;
    use crate::fs::digest::digest_file;

    fn digests(paths: &[PathBuf]) -> Vec<Result<FileDigest, ops::FsError>> {
        let executable = |path: &PathBuf| crate::fs::stat::StatKey::at(path).map(|stat| stat.is_executable());
        paths.iter().map(|path| Ok((digest_file(path)?.0, executable(path)?))).collect()
    }

    fn resolved(name: &str, context: &ToolContext) -> Result<Tool, ToolError> {
        resolve(name, context, &digests, &|root| root_digest(root, &digests))
    }

    fn script(path: &Path, text: &str) {
        ops::create_dir_all(path.parent().expect("a file in a directory")).expect("a temporary directory");
        ops::write(path, text.as_bytes()).expect("a temporary file");
        ops::set_mode(path, 0o755).expect("a temporary file");
    }

    fn context(dir: &Path) -> ToolContext {
        ToolContext {
            path: vec![dir.join("opt/tool/bin"), PathBuf::from("/usr/bin"), PathBuf::from("/bin")],
            home: Some(dir.join("home")),
            directory: dir.to_owned(),
            root: dir.to_owned(),
            overrides: BTreeMap::new(),
            crowds: Arc::default(),
            alone: None,
        }
    }

    #[test]
    fn replacing_a_tool_or_its_companions_in_place_changes_its_identity() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut context = context(dir.path());
        context.root = dir.path().join("workspace");
        script(&dir.path().join("opt/tool/bin/gen"), "#!/bin/sh\necho 1\n");
        let first = resolved("gen", &context).expect("it resolves");
        assert_eq!(first.mounts.len(), 1);
        assert_eq!(first.mounts[0].host, dir.path().join("opt/tool"));
        script(&dir.path().join("opt/tool/bin/gen"), "#!/bin/sh\necho 2\n");
        let second = resolved("gen", &context).expect("it resolves");
        assert_ne!(first.identity, second.identity);
        script(&dir.path().join("opt/tool/lib/part.sh"), "x");
        let third = resolved("gen", &context).expect("it resolves");
        assert_ne!(second.identity, third.identity);
        ops::set_mode(&dir.path().join("opt/tool/lib/part.sh"), 0o644).expect("a temporary file");
        let fourth = resolved("gen", &context).expect("it resolves");
        assert_ne!(third.identity, fourth.identity);
        ops::create_dir_all(&dir.path().join("opt/tool/empty")).expect("a temporary directory");
        assert_ne!(fourth.identity, resolved("gen", &context).expect("it resolves").identity);
    }

    #[test]
    fn the_interpreter_behind_env_belongs_to_the_tool() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let context = context(dir.path());
        script(&dir.path().join("opt/tool/bin/inner"), "#!/bin/sh\n");
        script(&dir.path().join("outer"), "#!/usr/bin/env inner\n");
        let before = resolved("./outer", &context).expect("it resolves");
        script(&dir.path().join("opt/tool/bin/inner"), "#!/bin/sh\n:\n");
        let after = resolved("./outer", &context).expect("it resolves");
        assert_ne!(before.identity, after.identity);
    }

    #[test]
    fn the_program_behind_env_is_found_behind_all_that_env_takes() {
        for line in [
            "node",
            "-S node --harmony a",
            "-Snode --harmony",
            "-iSnode",
            "-vS node",
            "-S -u HOME node",
            "-S --unset HOME -C / A=1 B=2 node x=y",
            "--split-string=node x",
            "-S \"node\" x",
            "-S -- node",
            "-i node",
        ] {
            assert_eq!(behind_env(line.split_whitespace()), Some("node"), "{line}");
        }
        assert_eq!(behind_env("-S A=1".split_whitespace()), None);
    }

    #[test]
    fn a_program_behind_a_link_in_a_home_is_the_link_and_the_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut context = context(dir.path());
        context.root = dir.path().join("workspace");
        let home = dir.path().join("home");
        ops::create_dir_all(&dir.path().join("etc")).expect("a temporary directory");
        context.crowds = Arc::new(Crowds::read(dir.path(), Some(&home)));
        script(&home.join("one/gen"), "#!/bin/sh\n");
        script(&home.join("two/gen"), "#!/bin/sh\n");
        ops::create_dir_all(&home.join(".local/bin")).expect("a temporary directory");
        let link = home.join(".local/bin/gen");
        ops::symlink("../../one/gen", &link).expect("a temporary link");
        context.path.insert(0, home.join(".local/bin"));
        let one = resolved("gen", &context).expect("it resolves");
        let hosts: Vec<&Path> = one.mounts.iter().map(|mount| mount.host.as_path()).collect();
        assert_eq!(hosts, [link.as_path(), &home.join("one")]);
        ops::remove_file(&link).expect("it can go");
        ops::symlink("../../two/gen", &link).expect("a temporary link");
        assert_ne!(resolved("gen", &context).expect("it resolves").identity, one.identity);
    }

    #[test]
    fn a_pyenv_shim_leads_to_the_version_that_the_workspace_names() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut context = context(dir.path());
        let pyenv = dir.path().join("pyenv");
        script(&pyenv.join("shims/python3"), "#!/bin/sh\n");
        script(&pyenv.join("versions/3.11.7/bin/python3"), "#!/bin/sh\n");
        script(&pyenv.join("versions/3.12.1/bin/python3"), "#!/bin/sh\n");
        ops::write(&pyenv.join("version"), b"3.11.7\n").expect("a temporary file");
        context.path.insert(0, pyenv.join("shims"));
        let tool = resolved("python3", &context).expect("it resolves");
        assert_eq!(tool.program, pyenv.join("versions/3.11.7/bin/python3"));
        ops::write(&dir.path().join(".python-version"), b"3.12.1\n").expect("a temporary file");
        let tool = resolved("python3", &context).expect("it resolves");
        assert_eq!(tool.program, pyenv.join("versions/3.12.1/bin/python3"));
        ops::write(&dir.path().join(".python-version"), b"3.13\n").expect("a temporary file");
        assert!(matches!(resolved("python3", &context), Err(ToolError::Shim { manager: "pyenv", .. })));
    }

    #[test]
    fn a_missing_tool_says_where_it_was_looked_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let error = resolved("no-such-tool", &context(dir.path())).expect_err("it is not there");
        assert!(error.to_string().contains("/usr/bin"), "{error}");
    }
}
