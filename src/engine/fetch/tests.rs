//! Downloads from a server that does what it should not: breaks off, comes back, lies about parts, asks for patience.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::download::{Download, Patience, as_written};
use super::part::{Part, cache_name};
use super::*;
use crate::base::digest::Digest;
use crate::fs::ops;
use crate::process::cancel::Cancel;
use crate::store::OpenOptions;

/// Tests do not wait.
const HASTY: Patience = Patience {
    silence_max: Duration::from_secs(5),
    pause: Duration::from_millis(1),
    progress_bytes_min: 4,
    ..Patience::USUAL
};

/// A server that gives one reply for each connection, in order, and then none; what it was asked is kept.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(replies: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/a.tar.gz", listener.local_addr().expect("an address"));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, replies) = (Arc::clone(&asked), replies.iter().map(|reply| (*reply).to_owned()).collect::<Vec<_>>());
        std::thread::spawn(move || {
            for reply in replies {
                let Ok((stream, _)) = listener.accept() else { return };
                answer_one(&stream, &reply, &log);
            }
        });
        Self { url, asked }
    }

    /// What of each request matters here: `-` for the whole.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panicked").clone()
    }
}

fn answer_one(mut stream: &TcpStream, reply: &str, log: &Mutex<Vec<String>>) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let mut asked = String::from("-");
    for line in lines {
        let line = line.to_ascii_lowercase();
        assert!(!line.starts_with("accept-encoding: gzip"), "{line}");
        if let Some(range) = line.strip_prefix("range: ") {
            asked = range.to_owned();
        } else if let Some(tag) = line.strip_prefix("if-range: ") {
            asked += &format!(" if {tag}");
        }
    }
    log.lock().expect("nobody panicked").push(asked);
    stream.write_all(reply.as_bytes()).ok();
}

/// `200` with a tag and a length, and as much of the body.
fn whole(length: usize, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nETag: \"t\"\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn rest(range: &str, body: &str) -> String {
    let head = "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Range: bytes ";
    format!("{head}{range}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn status(line: &str, more: &str) -> String {
    format!("HTTP/1.1 {line}\r\n{more}Connection: close\r\nContent-Length: 0\r\n\r\n")
}

struct Trial {
    dir: tempfile::TempDir,
    store: Store,
}

impl Trial {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options =
            OpenOptions { dir: dir.path().join("store"), bytes_max: None, now_ms: || 1, origin: Default::default() };
        let store = Store::open(options).expect("a new store");
        Self { dir, store }
    }

    fn run(&self, urls: &[&str], content: &str) -> Result<(Vec<u8>, Vec<Diagnostic>), FetchError> {
        self.run_with(urls, content, HASTY, &Cancel::new().expect("an event"))
    }

    /// One run that fetches the file with this content.
    fn run_with(
        &self,
        urls: &[&str],
        content: &str,
        patience: Patience,
        cancel: &Cancel,
    ) -> Result<(Vec<u8>, Vec<Diagnostic>), FetchError> {
        let expect = Expected::Blake3(Digest::of(content.as_bytes()));
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        let (tls, proxies) = (trust::roots(&std::collections::BTreeMap::new()), Proxies::default());
        let part = Part::open(self.store.cache_dir(&cache_name(&expect))?)?;
        let to = self.dir.path().join("file");
        let notes = Download::new(&urls, expect, (&tls, &proxies), patience, cancel).fetch(part, &to)?;
        let bytes = ops::read(&to)?;
        ops::remove_file(&to)?;
        assert_eq!(self.parts(), 0, "nothing of a file that is whole stays");
        Ok((bytes, notes))
    }

    /// How many files are arriving.
    fn parts(&self) -> usize {
        ops::read_dir(&self.dir.path().join("store/caches")).expect("a directory").len()
    }
}

const TEN: &str = "0123456789";

#[track_caller]
fn check(replies: &[&str], expect_asked: &[&str]) {
    let (trial, server) = (Trial::new(), Server::new(replies));
    let (bytes, notes) = trial.run(&[&server.url], TEN).expect("it arrives");
    assert_eq!((String::from_utf8_lossy(&bytes).as_ref(), notes.len()), (TEN, 0));
    assert_eq!(server.asked(), expect_asked);
}

#[test]
fn what_broke_off_is_carried_on() {
    let rest = rest("4-9/10", "456789");
    check(&[&whole(10, "0123"), &rest], &["-", "bytes=4- if \"t\""]);
    check(&[&whole(10, "0123"), &status("503 Busy", ""), &rest], &["-", "bytes=4- if \"t\"", "bytes=4- if \"t\""]);
    // Without a tag only the sum tells whether it is the same file.
    check(&["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123", &rest], &["-", "bytes=4-"]);
    check(&[&whole(10, ""), &whole(10, TEN)], &["-", "-"]);
    check(&["", &whole(10, TEN)], &["-", "-"]);
}

#[test]
fn a_server_that_gives_something_else_is_asked_for_the_whole() {
    let whole_again = whole(10, TEN);
    let carry_on = ["-", "bytes=4- if \"t\""];
    check(&[&whole(10, "0123"), &whole_again], &carry_on);
    for wrong in [rest("3-9/10", "3456789"), rest("4-8/10", "45678"), rest("*/10", ""), status("206 Partial", "")] {
        check(&[&whole(10, "0123"), &wrong, &whole_again], &[carry_on[0], carry_on[1], "-"]);
    }
    check(
        &[&whole(10, "0123"), &status("416 No", "Content-Range: bytes */2\r\n"), &whole_again],
        &[carry_on[0], carry_on[1], "-"],
    );
    check(&[&whole(10, "0123"), &status("403 Forbidden", ""), &whole_again], &[carry_on[0], carry_on[1], "-"]);
    // The rest is of another file: the sum is wrong, and the server is not blamed before all of it was had.
    check(&[&whole(10, "0123"), &rest("4-9/10", "xxxxxx"), &whole_again], &[carry_on[0], carry_on[1], "-"]);
    check(&[&whole(10, "xxxx"), &rest("4-9/10", "456789"), &whole_again], &[carry_on[0], carry_on[1], "-"]);
}

#[test]
fn the_next_run_goes_on_where_the_last_one_stood() {
    let trial = Trial::new();
    let server = Server::new(&[&whole(10, "0123"), &status("404 Not Found", ""), &rest("4-9/10", "456789")]);
    let error = trial.run(&[&server.url], TEN).expect_err("it is gone");
    assert!(matches!(&error, FetchError::Unreachable { kept: 4, .. }), "{error}");
    assert_eq!(way_out(&error).as_deref(), Some("4 B of it are kept: the next run goes on from there"));
    assert_eq!(trial.parts(), 1);
    assert_eq!(trial.run(&[&server.url], TEN).expect("it arrives").0, TEN.as_bytes());
    assert_eq!(server.asked(), ["-", "bytes=4- if \"t\"", "bytes=4- if \"t\""]);
}

#[test]
fn another_address_carries_on_too_but_knows_no_tag_of_the_first() {
    let trial = Trial::new();
    let gone = Server::new(&[&whole(10, "0123"), &status("410 Gone", "")]);
    let mirror = Server::new(&[&rest("4-9/10", "456789")]);
    assert_eq!(trial.run(&[&gone.url, &mirror.url], TEN).expect("it arrives").0, TEN.as_bytes());
    assert_eq!(mirror.asked(), ["bytes=4-"]);
}

#[test]
fn all_that_is_missing_may_be_nothing() {
    let trial = Trial::new();
    // All of it came, and the connection did not end as it should have.
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n";
    let server = Server::new(&[chunked, &status("416 No", "Content-Range: bytes */10\r\n")]);
    assert_eq!(trial.run(&[&server.url], TEN).expect("it arrives").0, TEN.as_bytes());
    assert_eq!(server.asked(), ["-", "bytes=10-"]);
}

#[test]
fn a_wrong_digest_is_told_as_it_is_to_be_written_and_leaves_nothing() {
    let trial = Trial::new();
    let server = Server::new(&[&whole(5, "other")]);
    let error = trial.run(&[&server.url], TEN).expect_err("it is another file");
    let right = format!("blake3 = \"{}\"", Digest::of(b"other"));
    assert!(error.to_string().contains(&right), "{error}");
    assert!(way_out(&error).is_some_and(|help| help.ends_with(&format!("write `{right}`"))));
    assert_eq!((server.asked().len(), trial.parts()), (1, 0));
    assert_eq!(as_written(&Expected::Sha256([0xab; 32])), format!("sha256 = \"{}\"", "ab".repeat(32)));
}

#[test]
fn a_mirror_with_another_file_is_passed_over_and_told() {
    let trial = Trial::new();
    let (wrong, gone) = (Server::new(&[&whole(5, "other")]), Server::new(&[&status("404 Not Found", "")]));
    let right = Server::new(&[&whole(10, TEN)]);
    let (bytes, notes) = trial.run(&[&wrong.url, &gone.url, &right.url], TEN).expect("it arrives");
    assert_eq!(bytes, TEN.as_bytes());
    assert_eq!(notes.len(), 1);
    assert!(notes[0].message.starts_with(&wrong.url), "{}", notes[0].message);
}

#[test]
fn patience_has_an_end() {
    let check = |replies: &[&str], patience: Patience, asked: usize, expect: &str| {
        let (trial, server) = (Trial::new(), Server::new(replies));
        let cancel = Cancel::new().expect("an event");
        let error = trial.run_with(&[&server.url], TEN, patience, &cancel).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
        assert_eq!((server.asked().len(), trial.parts()), (asked, 0), "{expect}");
    };
    let busy = status("503 Service Unavailable", "");
    check(&[&busy, &busy, &busy, &busy, &busy], HASTY, 4, "it answers 503 Service Unavailable");
    check(&[&status("404 Not Found", ""), &busy], HASTY, 1, "it answers 404 Not Found");
    let later = status("429 Too Many Requests", "Retry-After: 3600\r\n");
    check(&[&later, &busy], HASTY, 1, "asks to come back in 3600 s");
    let now = status("429 Too Many Requests", "Retry-After: 0\r\n");
    check(&[&now, &now, &now, &now, &now], Patience { pause: Duration::from_secs(3600), ..HASTY }, 4, "429");
    let hurried = Patience { whole_max: Duration::from_millis(500), pause: Duration::from_secs(1), ..HASTY };
    check(&[&busy, &busy], hurried, 1, "503");
    let large = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n";
    check(&[large, large], HASTY, 1, "it is larger than");
    let unasked = rest("0-9/10", TEN);
    check(&[&unasked, &unasked], HASTY, 1, "nobody asked for a part");
    let lost = "HTTP/1.1 302 Found\r\nLocation: http://me:hush@[/\r\nContent-Length: 0\r\n\r\n";
    let (trial, server) = (Trial::new(), Server::new(&[lost]));
    let error = trial.run(&[&server.url], TEN).expect_err("nowhere").to_string();
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn a_server_that_falls_silent_is_given_up_and_a_pause_ends_with_the_run() {
    let trial = Trial::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/a", listener.local_addr().expect("an address"));
    let patience = Patience { silence_max: Duration::from_millis(100), attempts_max: 1, ..HASTY };
    let error = trial.run_with(&[&url], TEN, patience, &Cancel::new().expect("an event")).expect_err("silence");
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    let server = Server::new(&[&status("503 Busy", "Retry-After: 59\r\n")]);
    let cancel = Cancel::new().expect("an event");
    let canceller = cancel.clone();
    let asked = Arc::clone(&server.asked);
    let thread = std::thread::spawn(move || {
        while asked.lock().expect("nobody panicked").is_empty() {
            std::thread::yield_now();
        }
        canceller.cancel();
    });
    let error = trial.run_with(&[&server.url], TEN, HASTY, &cancel).expect_err("cancelled");
    assert!(matches!(error, FetchError::Cancelled), "{error}");
    thread.join().expect("it ends");
}

#[test]
fn what_a_server_calls_an_encoding_is_kept_as_it_came() {
    let trial = Trial::new();
    // As some servers send each `.tar.gz`; these are not even gzip.
    let reply =
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\nContent-Length: 10\r\n\r\n0123456789";
    let server = Server::new(&[reply]);
    assert_eq!(trial.run(&[&server.url], TEN).expect("it arrives").0, TEN.as_bytes());
}

#[test]
fn what_was_written_of_a_part_may_be_torn() {
    let trial = Trial::new();
    let expect = Expected::Blake3(Digest::of(TEN.as_bytes()));
    for (part, from, asked) in [
        ("0123", "", "bytes=4-"),
        ("0123", "URL", "bytes=4-"),
        ("0123", "URL\n\u{0}\u{1}\n", "bytes=4-"),
        ("0123", "URL\n\"t", "bytes=4-"),
        ("0123", "URL\n\n", "bytes=4-"),
        ("0123", "other\n\"t\"\n", "bytes=4-"),
        ("0123", "URL\n\"t\"\n", "bytes=4- if \"t\""),
        ("\0\0\0\0", "URL\n\"t\"\n", "bytes=4- if \"t\""),
        ("", "URL\n\"t\"\n", "-"),
    ] {
        let server = Server::new(&[&rest("4-9/10", "456789"), &whole(10, TEN)]);
        let dir = trial.store.cache_dir(&cache_name(&expect)).expect("nobody has it");
        ops::write(&dir.path().join("part"), part.as_bytes()).expect("a file");
        ops::write(&dir.path().join("from"), from.replace("URL", &server.url).as_bytes()).expect("a file");
        drop(dir);
        let server = if part.is_empty() { Server::new(&[&whole(10, TEN)]) } else { server };
        assert_eq!(trial.run(&[&server.url], TEN).expect("it arrives").0, TEN.as_bytes(), "{part} {from}");
        assert_eq!(server.asked()[0], asked, "{part} {from}");
    }
}

#[test]
fn files_of_the_machine_are_never_carried_on() {
    let trial = Trial::new();
    let file = trial.dir.path().join("there");
    let url = format!("file://{}", file.display());
    let broken = Server::new(&[&whole(10, "0123"), &status("404 Not Found", "")]);
    ops::write(&file, TEN.as_bytes()).expect("a file");
    let (bytes, _) = trial.run(&[&broken.url, "file:///nowhere/at/all", &url], TEN).expect("it is there");
    assert_eq!(bytes, TEN.as_bytes());
    let error = trial.run(&["file:///nowhere/at/all"], TEN).expect_err("it is not there");
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    assert_eq!(trial.parts(), 0);
}
