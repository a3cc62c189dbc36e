//! A server that answers each request as a test says: HTTP/1.1 on a port of its own.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Asked {
    /// From 0, of those with a body.
    pub number: usize,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

/// What it is answered with.
pub enum Reply {
    Whole {
        status: u16,
        kind: &'static str,
        body: String,
    },
    /// The connection is held, and nothing is said.
    Nothing,
    /// The connection is closed without a word.
    Closed,
}

pub fn json(status: u16, body: &Value) -> Reply {
    Reply::Whole {
        status,
        kind: "application/json",
        body: body.to_string(),
    }
}

/// Server-sent events, and the end of the stream.
pub fn events(events: &[Value]) -> Reply {
    let lines = events.iter().map(|event| format!("data: {event}\n\n"));
    Reply::Whole {
        status: 200,
        kind: "text/event-stream",
        body: lines.collect::<String>() + "data: [DONE]\n\n",
    }
}

pub struct ScriptedServer {
    /// With `/v1`.
    pub url: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
}

impl ScriptedServer {
    /// Answers requests with a body by `answer` after `pause`; questions of what it is by `models`, or with a 404.
    pub fn start(
        pause: Duration,
        models: Option<Value>,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (known, number) = (asked.clone(), Arc::new(AtomicUsize::new(0)));
        let (answer, models) = (Arc::new(answer), Arc::new(models));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (known, number) = (known.clone(), number.clone());
                let (answer, models) = (answer.clone(), models.clone());
                std::thread::spawn(move || {
                    let respond = |asked: Asked| {
                        let asked = Asked {
                            number: number.fetch_add(1, Ordering::SeqCst),
                            ..asked
                        };
                        known.lock().unwrap().push(asked.clone());
                        std::thread::sleep(pause);
                        answer(&asked)
                    };
                    // A client that goes away ends the thread.
                    let _ = serve(stream, &respond, models.as_ref().as_ref());
                });
            }
        });
        Self { url, asked }
    }

    pub fn n_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn serve(
    stream: TcpStream,
    respond: &dyn Fn(Asked) -> Reply,
    models: Option<&Value>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let gets = line.starts_with("GET ");
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers
            .get("content-length")
            .map_or(0, |n| n.parse().unwrap_or(0));
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let reply = match (gets, models) {
            (true, Some(models)) if path.contains("/models") => json(200, models),
            (true, _) => json(404, &json!({"detail": "Not Found"})),
            (false, _) => respond(Asked {
                number: 0,
                path,
                headers,
                body: serde_json::from_slice(&body).unwrap_or_default(),
            }),
        };
        match reply {
            Reply::Whole { status, kind, body } => write!(
                stream,
                "HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?,
            Reply::Nothing => {
                std::thread::sleep(Duration::from_secs(600));
                return Ok(());
            }
            Reply::Closed => return Ok(()),
        }
    }
}

/// A whole chat completion.
pub fn chat(content: &str) -> Value {
    json!({
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 10},
    })
}
