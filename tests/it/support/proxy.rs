//! A proxy that makes tunnels (`CONNECT`), to where the test says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The proxy; it ends with the test's process.
pub struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one. Who is asked for one of these names, with its port, is led to the address beside it; for another there is no way.
    pub fn start(ways: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let ways: BTreeMap<String, String> =
            ways.iter().map(|(name, to)| ((*name).to_owned(), (*to).to_owned())).collect();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, ways) = (Arc::clone(&log), ways.clone());
                // Either end may go away whenever it likes.
                std::thread::spawn(move || tunnel(stream, &log, &ways).ok());
            }
        });
        Self { address, asked }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The names that were asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panicked").clone()
    }
}

fn tunnel(mut near: TcpStream, log: &Mutex<Vec<String>>, ways: &BTreeMap<String, String>) -> std::io::Result<()> {
    let mut reader = BufReader::new(near.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
    }
    let name = first.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    log.lock().expect("nobody panicked").push(name.clone());
    let Some(to) = ways.get(&name) else {
        return near.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    };
    let far = TcpStream::connect(to)?;
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut far_out, mut near_in) = (far.try_clone()?, reader);
    let there = std::thread::spawn(move || {
        std::io::copy(&mut near_in, &mut far_out).ok();
        far_out.shutdown(Shutdown::Write).ok();
    });
    std::io::copy(&mut &far, &mut near).ok();
    near.shutdown(Shutdown::Both).ok();
    far.shutdown(Shutdown::Both).ok();
    there.join().ok();
    Ok(())
}
