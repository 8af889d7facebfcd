//! A web server on the loopback that answers as a test says, and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as far as tests look at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The path with its leading slash.
    pub path: String,
    /// First byte of the range that was asked for.
    pub from: Option<usize>,
    /// `If-Range`.
    pub if_range: Option<String>,
}

/// An answer.
pub enum Reply {
    /// A status such as `404 Not Found`, more lines of the head, and a body.
    Status(&'static str, String, Vec<u8>),
    /// The file or the part of it that was asked for, with a tag; of that only so many bytes, and then the connection ends.
    File(Vec<u8>, Option<usize>),
    /// So many bytes of the file, and then nothing, until the client has gone.
    Hang(Vec<u8>, usize),
}

/// The server; it ends with the test's process.
pub struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Starts one that answers the requests, counted from 0, by this.
    pub fn start(answer: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                // A client that goes away in the middle is what is tested.
                std::thread::spawn(move || serve(&stream, &log, &*answer).ok());
            }
        });
        Self { address, asked }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panicked").clone()
    }
}

fn serve(
    mut stream: &TcpStream,
    log: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(usize, &Asked) -> Reply,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut asked = Asked { path, from: None, if_range: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.from = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "if-range" => asked.if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    let number = {
        let mut log = log.lock().expect("nobody panicked");
        log.push(asked.clone());
        log.len() - 1
    };
    const TAG: &str = "\"one\"";
    let (head, body, sent, hangs) = match answer(number, &asked) {
        Reply::Status(status, more, body) => (format!("{status}\r\n{more}"), body, None, false),
        Reply::Hang(file, sent) => (format!("200 OK\r\nETag: {TAG}\r\n"), file, Some(sent), true),
        Reply::File(file, sent) => match asked.from {
            Some(from) if from < file.len() && asked.if_range.as_deref().is_none_or(|tag| tag == TAG) => {
                let range = format!("bytes {from}-{}/{}", file.len() - 1, file.len());
                let head = format!("206 Partial Content\r\nETag: {TAG}\r\nContent-Range: {range}\r\n");
                (head, file[from..].to_vec(), sent, false)
            }
            _ => (format!("200 OK\r\nETag: {TAG}\r\n"), file, sent, false),
        },
    };
    write!(stream, "HTTP/1.1 {head}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body[..sent.unwrap_or(body.len())])?;
    if hangs {
        let _ = stream.read(&mut [0])?;
    }
    Ok(())
}
