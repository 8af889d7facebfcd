//! As much of HTTP/1.1 as a test needs.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// Path, as it was sent.
    pub path: String,
    /// Behind `?`, as it was sent.
    pub query: String,
    /// What was sent along.
    pub body: Vec<u8>,
    headers: BTreeMap<String, String>,
}

impl Request {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The values of a parameter, decoded.
    pub fn parameters(&self, name: &str) -> Vec<String> {
        parameters(&self.query, name)
    }
}

/// The values of a parameter of a query or a form, decoded.
pub fn parameters(query: &str, name: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| decoded(value)).collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            out.push(u8::from_str_radix(&text[at + 1..at + 3], 16).expect("two digits"));
            at += 3;
        } else {
            out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
            at += 1;
        }
    }
    String::from_utf8(out).expect("text")
}

/// Reads the head of a request; `None` when nothing more comes.
pub fn read_head(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Request { method, path, query, body: Vec::new(), headers })
}

/// Reads the body, telling the bytes of each piece, as long as that says no; whether all of it came.
pub fn read_body(reader: &mut impl BufRead, request: &mut Request, ends: impl Fn(usize) -> bool) -> bool {
    assert!(request.header("transfer-encoding").is_none(), "some registries take no chunked bodies");
    let length: usize = request.header("content-length").map_or(0, |text| text.parse().expect("a number"));
    if ["POST", "PUT", "PATCH"].contains(&request.method.as_str()) {
        assert!(request.header("content-length").is_some(), "some registries want a length: {request:?}");
    }
    while request.body.len() < length {
        let mut piece = vec![0; (length - request.body.len()).min(16 * 1024)];
        let Ok(count) = reader.read(&mut piece) else { return false };
        request.body.extend_from_slice(&piece[..count]);
        if count == 0 || ends(count) {
            return false;
        }
    }
    true
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// As long as the body says it is, where that is a lie.
    pub length: Option<usize>,
    /// The connection ends with it.
    pub ends: bool,
}

impl Reply {
    /// One without a body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), length: None, ends: false }
    }

    /// One with an error as registries write it.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#).into_bytes();
        Self { body, ..Self::new(status) }.with("Content-Type", "application/json")
    }

    /// The same with a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends it.
    pub fn write(&self, writer: &mut impl Write, method: &str) -> std::io::Result<()> {
        let length = self.length.unwrap_or(self.body.len());
        let mut head = format!("HTTP/1.1 {} Said\r\nContent-Length: {length}\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        writer.write_all(head.as_bytes())?;
        if method != "HEAD" {
            writer.write_all(&self.body)?;
        }
        writer.flush()
    }
}
