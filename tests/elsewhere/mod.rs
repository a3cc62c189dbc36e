//! Servers of files for tests, HTTP/1.1 on a port of their own: the Hub's endpoints that hf-hub calls, and an object
//! store that is asked as a web server or as S3.
#![allow(clippy::unwrap_used, dead_code)]

pub mod bucket;
pub mod dataset_hub;
pub mod loopback_hub;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    /// The token of `Authorization: Bearer …`.
    pub token: Option<String>,
    /// The first byte of `Range: bytes=…`.
    pub range: Option<usize>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<usize>,
    /// It does not end there: nothing more comes.
    pub silent: bool,
    /// The connection ends before a byte of it.
    pub lost: bool,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Answers each request on a connection of its own, and remembers it. It ends with the value.
pub struct Server {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    open: Arc<Mutex<bool>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on(0, |_| None, answer)
    }

    /// On a port; `before` says of a request how much of its body is read before the connection ends, where it does.
    pub fn start_on(
        port: u16,
        before: impl Fn(&Request) -> Option<usize> + Send + Sync + 'static,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let before = Arc::new(before);
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::new(Mutex::new(true));
        let (seen, still_open, answer) = (requests.clone(), open.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !*still_open.lock().unwrap() {
                    return;
                }
                let (seen, answer) = (seen.clone(), answer.clone());
                let before = before.clone();
                // A client that goes away leaves a thread that fails and ends.
                std::thread::spawn(move || {
                    let work = |request: Request| {
                        seen.lock().unwrap().push(request.clone());
                        answer(&request)
                    };
                    drop(serve(stream, |request| before(request), work))
                });
            }
        });
        Self {
            address,
            requests,
            open,
        }
    }

    /// The requests since the last call, as `METHOD path`.
    pub fn asked(&self) -> Vec<String> {
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        let line = |request: Request| format!("{} {}", request.method, request.path);
        requests.into_iter().map(line).collect()
    }

    /// Refuses connections from now on.
    pub fn close(&self) {
        *self.open.lock().unwrap() = false;
        // The listener sees it at the next connection.
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

fn serve(
    stream: TcpStream,
    before: impl FnOnce(&Request) -> Option<usize>,
    answer: impl FnOnce(Request) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        token: None,
        range: None,
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => request.body = vec![0; value.parse().unwrap()],
            "range" => {
                let from = value.strip_prefix("bytes=").unwrap().split('-').next();
                request.range = Some(from.unwrap().parse().unwrap());
            }
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    if let Some(bytes) = before(&request) {
        let end = bytes.min(request.body.len());
        return reader.read_exact(&mut request.body[..end]);
    }
    reader.read_exact(&mut request.body)?;
    let head_only = request.method == "HEAD";
    let answer = answer(request);
    if answer.lost {
        return Ok(());
    }
    let mut text = format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n", answer.status);
    if answer.status != 304 {
        text += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    let mut stream = stream;
    stream.write_all(format!("{text}\r\n").as_bytes())?;
    if !head_only {
        let end = answer.cut.unwrap_or(answer.body.len());
        stream.write_all(&answer.body[..end])?;
    }
    stream.flush()?;
    if answer.silent {
        std::thread::sleep(Duration::from_secs(60));
    }
    Ok(())
}

/// As large files are named.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
