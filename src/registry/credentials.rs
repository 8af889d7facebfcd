//! Who we are to a host: from the files of Docker and Podman, and from the programs that keep secrets for them. Sends nothing.
//!
//! Looked at in this order, the first that knows the host counts: `$REGISTRY_AUTH_FILE`, `$XDG_RUNTIME_DIR/containers/auth.json`,
//! `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`. Within a file: `credHelpers`, `auths`, `credsStore`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;

use crate::fs::ops;
use crate::process::spawn::{SpawnError, run_captured_with};
use crate::registry::error::RegistryError;
use crate::registry::reference::Repository;

/// Largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How long a program that keeps credentials may take: it may ask somebody.
const PROGRAM_TIME: Duration = Duration::from_secs(60);
/// What such a program calls a user whose secret is a token.
const TOKEN_USER: &str = "<token>";
/// By what name Docker keeps the credentials of its own registry; cut in two, as in `reference`.
const HUB_KEY: &str = concat!("https://index.docker", ".io/v1/");
/// The names of Docker's own registry.
const HUB_NAMES: [&str; 3] =
    [concat!("docker", ".io"), concat!("index.docker", ".io"), concat!("registry-1.docker", ".io")];

/// Something that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the header or body it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Who we are to a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credentials {
    /// A name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token of OAuth2, for which tokens are given.
    Identity(Secret),
    /// A token that the registry itself takes.
    Ready(Secret),
}

/// The part of the files that we know.
#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    programs: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
    #[serde(default, rename = "registrytoken")]
    registry_token: Option<String>,
}

/// What a program answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Who we are to the host of a repository; `None` if nothing knows it.
///
/// Cost: reads up to three small files, and may run a program for up to a minute.
pub fn find(
    variables: &BTreeMap<String, String>,
    repository: &Repository,
) -> Result<Option<Credentials>, RegistryError> {
    for place in places(variables) {
        let Some(file) = read(&place, repository)? else { continue };
        let program = file.programs.as_ref().and_then(|programs| programs.get(&repository.host));
        if let Some(program) = program {
            if let Some(found) = ask(program, variables, repository)? {
                return Ok(Some(found));
            }
            continue;
        }
        if let Some(entry) = matching(&file.auths.unwrap_or_default(), repository)
            && let Some(found) = of_entry(&entry, &place, repository)?
        {
            return Ok(Some(found));
        }
        if let Some(program) = file.store.filter(|program| !program.is_empty())
            && let Some(found) = ask(&program, variables, repository)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn places(variables: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let named = |name: &str| variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = named("DOCKER_CONFIG").or_else(|| Some(named("HOME")?.join(".docker")));
    let places = [
        named("REGISTRY_AUTH_FILE"),
        named("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ];
    places.into_iter().flatten().collect()
}

fn unreadable(repository: &Repository, cause: String) -> RegistryError {
    RegistryError::Credentials { host: repository.host.clone(), cause }
}

fn read(place: &Path, repository: &Repository) -> Result<Option<File>, RegistryError> {
    let Some(opened) = ops::if_there(ops::open(place))? else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|cause| ops::FsError::new("read", place, cause))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(repository, format!("{} is larger than {FILE_BYTES_MAX} bytes", place.display())));
    }
    // A file that was only just made may be empty.
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice(&bytes) {
        Ok(file) => Ok(Some(file)),
        // The words of the parser may hold a piece of the file; where it stopped does not.
        Err(error) => {
            let place = place.display();
            let cause =
                format!("{place} is not as Docker writes it (line {}, column {})", error.line(), error.column());
            Err(unreadable(repository, cause))
        }
    }
}

/// The names by which a file may know a host.
fn names(host: &str) -> Vec<&str> {
    if HUB_NAMES.contains(&host) { HUB_NAMES.to_vec() } else { vec![host] }
}

/// The entry that is meant for a repository: the longest part of its name counts.
fn matching(auths: &BTreeMap<String, Entry>, repository: &Repository) -> Option<Entry> {
    let plain: BTreeMap<String, &Entry> = auths.iter().map(|(key, entry)| (plain_key(key), entry)).collect();
    for host in names(&repository.host) {
        let mut whole = format!("{host}/{}", repository.name);
        loop {
            if let Some(entry) = plain.get(&whole) {
                return Some((*entry).clone());
            }
            match whole.rfind('/') {
                Some(end) => whole.truncate(end),
                None => break,
            }
        }
    }
    None
}

/// A key without what Docker puts around it: one with a scheme is an address, of which only the host counts.
fn plain_key(key: &str) -> String {
    let lower = key.to_ascii_lowercase();
    let address = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    match address {
        Some(address) => address.split('/').next().unwrap_or_default().to_owned(),
        None => {
            let (host, name) = key.split_once('/').unwrap_or((key, ""));
            let host = host.to_ascii_lowercase();
            let name = name.trim_end_matches('/');
            // `index…/v1/` without its scheme.
            if name.is_empty() || name == "v1" || name == "v2" { host } else { format!("{host}/{name}") }
        }
    }
}

fn of_entry(entry: &Entry, place: &Path, repository: &Repository) -> Result<Option<Credentials>, RegistryError> {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = filled(&entry.identity_token) {
        return Ok(Some(Credentials::Identity(Secret::new(token))));
    }
    if let Some(token) = filled(&entry.registry_token) {
        return Ok(Some(Credentials::Ready(Secret::new(token))));
    }
    if let Some(auth) = filled(&entry.auth) {
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_deref().and_then(|text| text.split_once(':'));
        let Some((user, password)) = pair else {
            let cause = format!("its entry in {} holds no name and password", place.display());
            return Err(unreadable(repository, cause));
        };
        // Old versions of Docker fill it up with zeros.
        let password = Secret::new(password.trim_end_matches('\0'));
        return Ok(Some(Credentials::Basic { user: user.to_owned(), password }));
    }
    let pair = filled(&entry.username).zip(filled(&entry.password));
    Ok(pair.map(|(user, password)| Credentials::Basic { user, password: Secret::new(password) }))
}

/// Asks a program that keeps credentials (docker-credential-helpers, "Development"); `None` if it has none for the host.
fn ask(
    suffix: &str,
    variables: &BTreeMap<String, String>,
    repository: &Repository,
) -> Result<Option<Credentials>, RegistryError> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if suffix.is_empty() || !suffix.bytes().all(fine) {
        return Err(unreadable(repository, "the program that keeps them has no name of one".into()));
    }
    let program = format!("docker-credential-{suffix}");
    let is_hub = HUB_NAMES.contains(&repository.host.as_str());
    let key = if is_hub { HUB_KEY } else { &repository.host };
    let environment: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let input = format!("{key}\n");
    let ran = run_captured_with(&[&program, "get"], Path::new("/"), &environment, PROGRAM_TIME, input.as_bytes());
    let captured = match ran {
        Ok(captured) => captured,
        Err(error @ SpawnError::NotFound { .. }) => {
            let cause = format!("{error}; install it, or take it out of Docker's config.json");
            return Err(unreadable(repository, cause));
        }
        Err(error) => return Err(unreadable(repository, error.to_string())),
    };
    if captured.exit != 0 {
        // The words are part of the protocol; what else such a program says may hold anything.
        let none = String::from_utf8_lossy(&captured.stdout).contains("credentials not found");
        let cause = format!("`{program} get` ended with {}; run it by hand to see why", captured.exit);
        return if none { Ok(None) } else { Err(unreadable(repository, cause)) };
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(&captured.stdout) else {
        return Err(unreadable(repository, format!("`{program} get` gave no name and secret")));
    };
    Ok(match answer {
        Answer { user, secret } if user == TOKEN_USER => Some(Credentials::Identity(Secret::new(secret))),
        Answer { user, secret } if user.is_empty() && secret.is_empty() => None,
        Answer { user, secret } => Some(Credentials::Basic { user, password: Secret::new(secret) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.into(), password: Secret::new(password) }
    }

    /// Looks for credentials where `$DOCKER_CONFIG/config.json` has this text.
    fn found(text: &str, repository: &str) -> Result<Option<Credentials>, RegistryError> {
        let dir = tempfile::tempdir().expect("a directory");
        ops::write(&dir.path().join("config.json"), text.as_bytes()).expect("written");
        let variables = BTreeMap::from([("DOCKER_CONFIG".to_owned(), dir.path().display().to_string())]);
        find(&variables, &Repository::parse(repository).expect("a repository"))
    }

    #[test]
    fn entries_are_found_by_every_key_that_tools_write() {
        // ann:one, bob:two
        let check = |key: &str, repository: &str, expect: Option<Credentials>| {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"YW5uOm9uZQ=="}}}}}}"#);
            assert_eq!(found(&text, repository).expect("readable"), expect, "{key} for {repository}");
        };
        let ann = || Some(basic("ann", "one"));
        check("r.example", "r.example/a", ann());
        check("https://R.example/v1/", "r.example/a", ann());
        check("http://r.example:5000", "r.example:5000/a", ann());
        check("r.example/team", "r.example/team/app", ann());
        check("r.example/team", "r.example/teams/app", None);
        check("r.example/", "r.example/a", ann());
        check("r.example", "r.example:5000/a", None);
        check("evil.example/r.example", "r.example/a", None);
        check(HUB_KEY, &format!("{}/library/debian", HUB_NAMES[0]), ann());
        let both = r#"{"auths":{"r.example":{"auth":"YW5uOm9uZQ=="},"r.example/team":{"auth":"Ym9iOnR3bw=="}}}"#;
        assert_eq!(found(both, "r.example/team/app").expect("readable"), Some(basic("bob", "two")));
        assert_eq!(found(both, "r.example/app").expect("readable"), ann());
    }

    #[test]
    fn each_kind_of_entry_is_read() {
        let check = |entry: &str, expect: Option<Credentials>| {
            let text = format!(r#"{{"auths":{{"r.example":{entry}}},"credHelpers":null,"credsStore":""}}"#);
            assert_eq!(found(&text, "r.example/a").expect("readable"), expect, "{entry}");
        };
        check("{}", None);
        check(r#"{"username":"ann","password":"o:n"}"#, Some(basic("ann", "o:n")));
        check(r#"{"auth":"YW5uOm86bg=="}"#, Some(basic("ann", "o:n")));
        check(r#"{"auth":"PHRva2VuPjo=","identitytoken":"t"}"#, Some(Credentials::Identity(Secret::new("t"))));
        check(r#"{"registrytoken":"t"}"#, Some(Credentials::Ready(Secret::new("t"))));
    }

    #[test]
    fn no_error_and_no_debug_output_tells_a_secret() {
        let told = |text: &str| found(text, "r.example/a").expect_err(text).to_string();
        let first = told(r#"{"auths":{"r.example":{"auth":"aHVudGVyMg=="}}}"#);
        assert!(
            first.contains("no name and password") && !first.contains("hunter2") && !first.contains("aHVud"),
            "{first}"
        );
        let second = told(r#"{"auths":{"r.example":"hunter2"}}"#);
        assert!(second.contains("line 1") && !second.contains("hunter2"), "{second}");
        let shown = format!("{:?} {:?}", basic("ann", "hunter2"), Credentials::Identity(Secret::new("hunter2")));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn files_are_asked_in_their_order_and_missing_ones_are_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let repository = Repository::parse("r.example/a").expect("a repository");
        let write = |name: &str, password: &str| {
            let text = format!(r#"{{"auths":{{"r.example":{{"username":"u","password":"{password}"}}}}}}"#);
            let path = dir.path().join(name);
            ops::create_dir_all(path.parent().expect("a parent")).expect("made");
            ops::write(&path, text.as_bytes()).expect("written");
        };
        let at = |name: &str| dir.path().join(name).display().to_string();
        let variables = BTreeMap::from([
            ("REGISTRY_AUTH_FILE".to_owned(), at("named.json")),
            ("XDG_RUNTIME_DIR".to_owned(), at("run")),
            ("HOME".to_owned(), at("home")),
        ]);
        let now = || find(&variables, &repository).expect("readable");
        assert_eq!(now(), None);
        write("home/.docker/config.json", "third");
        assert_eq!(now(), Some(basic("u", "third")));
        write("run/containers/auth.json", "second");
        assert_eq!(now(), Some(basic("u", "second")));
        write("named.json", "first");
        assert_eq!(now(), Some(basic("u", "first")));
        assert_eq!(find(&BTreeMap::new(), &repository).expect("nothing to read"), None);
    }

    #[test]
    fn programs_are_asked_with_the_host_on_their_input() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("docker-credential-test");
        let script = "#!/bin/sh\nread host\ncase $1:$host in\n\
            get:r.example) echo '{\"ServerURL\":\"r.example\",\"Username\":\"ann\",\"Secret\":\"one\"}' ;;\n\
            get:t.example) echo '{\"Username\":\"<token>\",\"Secret\":\"idt\"}' ;;\n\
            get:b.example) echo 'hunter2 is wrong'; exit 3 ;;\n\
            get:j.example) echo 'hunter2' ;;\n\
            *) echo 'credentials not found in native keychain'; exit 1 ;;\nesac\n";
        ops::write(&program, script.as_bytes()).expect("written");
        ops::set_mode(&program, 0o755).expect("made a program");
        let config = r#"{"credsStore":"test","credHelpers":{"n.example":"none-such","e.example":"a/b"}}"#;
        ops::write(&dir.path().join("config.json"), config.as_bytes()).expect("written");
        let here = dir.path().display().to_string();
        let variables = BTreeMap::from([
            ("DOCKER_CONFIG".to_owned(), here.clone()),
            ("PATH".to_owned(), format!("{here}:/usr/bin:/bin")),
        ]);
        let ask = |host: &str| find(&variables, &Repository::parse(&format!("{host}/a")).expect("a repository"));
        assert_eq!(ask("r.example").expect("it knows"), Some(basic("ann", "one")));
        assert_eq!(ask("t.example").expect("it knows"), Some(Credentials::Identity(Secret::new("idt"))));
        assert_eq!(ask("u.example").expect("it knows not"), None);
        for (host, expect) in [
            ("b.example", "ended with 3"),
            ("j.example", "gave no name"),
            ("n.example", "not found on PATH"),
            ("e.example", "no name of one"),
        ] {
            let told = ask(host).expect_err(host).to_string();
            assert!(told.contains(expect) && !told.contains("hunter2"), "{host}: {told}");
        }
    }
}
