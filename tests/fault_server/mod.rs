//! A server that fails in every way that teachers' servers do: HTTP/1.1 on a port of its own, vLLM's completions, and
//! chat completions of a judge.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    BusySeconds,
    BusyDate,
    Internal,
    /// A gateway's page of HTML.
    BadGateway,
    /// Nothing, for longer than anyone waits.
    Stall,
    /// The connection ends inside the body.
    Reset,
    /// Less JSON than there should be, in a whole response.
    Truncated,
    Malformed,
    /// One log-probability too few.
    WrongCount,
    /// Two choices where one was asked for.
    Duplicate,
    /// An error within a 200.
    ErrorInside,
    /// The stream ends without a word of why.
    Unfinished,
}

pub const FAULTS: [Fault; 12] = [
    Fault::BusySeconds,
    Fault::BusyDate,
    Fault::Internal,
    Fault::BadGateway,
    Fault::Stall,
    Fault::Reset,
    Fault::Truncated,
    Fault::Malformed,
    Fault::WrongCount,
    Fault::Duplicate,
    Fault::ErrorInside,
    Fault::Unfinished,
];

pub struct Options {
    /// Of requests that meet a fault.
    pub share: f64,
    /// Of prompts that are refused with a 400, always.
    pub refused: f64,
    /// Of answers that come a few bytes at a time.
    pub dripping: f64,
    pub tokens: usize,
    pub seed: u64,
}

pub struct FaultServer {
    pub url: String,
    pub state: Arc<State>,
}

pub struct State {
    options: Options,
    /// Requests that were answered whole.
    pub completed: AtomicU64,
    pub requests: AtomicU64,
    pub under_way: AtomicUsize,
    /// Answers by fault, in the order of [`FAULTS`].
    pub faults: [AtomicU64; FAULTS.len()],
}

impl FaultServer {
    pub fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let state = Arc::new(State {
            options,
            completed: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            faults: Default::default(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                // A killed client leaves threads that fail and end.
                std::thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        Self { url, state }
    }
}

fn serve(stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut length = 0;
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let asks_what_it_is = line.starts_with("GET ");
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if asks_what_it_is {
            whole(
                &mut stream,
                "404 Not Found",
                "text/plain",
                "",
                "no such page",
            )?;
            continue;
        }
        let request: Value = serde_json::from_slice(&body).unwrap();
        state.under_way.fetch_add(1, Ordering::SeqCst);
        let answered = answer(&mut stream, &request, state);
        state.under_way.fetch_sub(1, Ordering::SeqCst);
        if !answered? {
            return Ok(());
        }
    }
}

/// Whether the connection goes on.
fn answer(stream: &mut TcpStream, request: &Value, state: &State) -> std::io::Result<bool> {
    let number = state.requests.fetch_add(1, Ordering::SeqCst);
    let options = &state.options;
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ (number << 20));
    let question = request["messages"][0]["content"].as_str();
    let hash = |sum: u64, word: u64| sum.wrapping_mul(31).wrapping_add(word);
    let prompt = match (question, request["prompt"].as_array()) {
        (Some(question), _) => question.bytes().fold(7, |sum, byte| hash(sum, byte.into())),
        (None, Some(ids)) => ids
            .iter()
            .fold(7, |sum, id| hash(sum, id.as_u64().unwrap_or(0))),
        (None, None) => 0,
    };
    if (prompt % 1000) as f64 / 1000.0 < options.refused {
        let body = json!({"error": {"message": "this prompt is refused, Bearer sk-planted-secret", "code": 400}});
        return whole(
            stream,
            "400 Bad Request",
            "application/json",
            "",
            &body.to_string(),
        );
    }
    let scores = !request["prompt_logprobs"].is_null();
    let good = match question {
        Some(question) => judgement(question),
        None => completion(request, options.tokens, 0),
    };
    if rng.random_bool(options.share) {
        let mut at = rng.random_range(0..FAULTS.len());
        if scores && FAULTS[at] == Fault::Unfinished {
            // Scores are whole without a word of why they end.
            at = 0;
        }
        if question.is_some() && FAULTS[at] == Fault::WrongCount {
            at = 0;
        }
        state.faults[at].fetch_add(1, Ordering::SeqCst);
        return fault(stream, FAULTS[at], &good);
    }
    // Several samples come in one body.
    if scores || question.is_some() || request["n"].as_u64().is_some_and(|n| n > 1) {
        whole(stream, "200 OK", "application/json", "", &good.to_string())?;
        state.completed.fetch_add(1, Ordering::SeqCst);
        return Ok(true);
    }
    let events = events(&good);
    let going_on = if rng.random_bool(options.dripping) {
        drip(stream, &events)?
    } else {
        whole(stream, "200 OK", "text/event-stream", "", &events)?
    };
    state.completed.fetch_add(1, Ordering::SeqCst);
    Ok(going_on)
}

fn fault(stream: &mut TcpStream, fault: Fault, good: &Value) -> std::io::Result<bool> {
    let json = "application/json";
    match fault {
        Fault::BusySeconds => whole(
            stream,
            "429 Too Many Requests",
            json,
            "Retry-After: 0.02\r\n",
            "{\"error\":\"slow down\"}",
        ),
        Fault::BusyDate => {
            let date = httpdate::fmt_http_date(SystemTime::now());
            whole(
                stream,
                "429 Too Many Requests",
                json,
                &format!("Retry-After: {date}\r\n"),
                "",
            )
        }
        Fault::Internal => whole(
            stream,
            "500 Internal Server Error",
            json,
            "",
            "{\"detail\":\"CUDA error\"}",
        ),
        Fault::BadGateway => whole(
            stream,
            "502 Bad Gateway",
            "text/html",
            "",
            "<html><body>bad gateway</body></html>",
        ),
        Fault::Stall => {
            // Longer than the recipe of the test waits; the thread goes with the client.
            std::thread::sleep(Duration::from_millis(1500));
            Ok(false)
        }
        Fault::Reset => {
            let text = good.to_string();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {json}\r\nContent-Length: {}\r\n\r\n",
                text.len()
            )?;
            stream.write_all(&text.as_bytes()[..text.len() / 2])?;
            stream.shutdown(Shutdown::Both)?;
            Ok(false)
        }
        Fault::Truncated => {
            let text = good.to_string();
            whole(stream, "200 OK", json, "", &text[..text.len() / 2])
        }
        Fault::Malformed => whole(stream, "200 OK", json, "", "{\"choices\": [oops"),
        Fault::WrongCount => {
            let mut wrong = good.clone();
            let logprobs = &mut wrong["choices"][0]["logprobs"];
            for key in ["tokens", "token_logprobs", "top_logprobs"] {
                logprobs[key].as_array_mut().unwrap().pop();
            }
            if let Some(scores) = wrong["choices"][0]["prompt_logprobs"].as_array_mut() {
                scores.pop();
            }
            whole(stream, "200 OK", json, "", &wrong.to_string())
        }
        Fault::Duplicate => {
            let mut twice = good.clone();
            let choice = twice["choices"][0].clone();
            twice["choices"].as_array_mut().unwrap().push(choice);
            whole(stream, "200 OK", json, "", &twice.to_string())
        }
        Fault::ErrorInside => whole(
            stream,
            "200 OK",
            json,
            "",
            "{\"error\":{\"message\":\"engine is dead\"}}",
        ),
        Fault::Unfinished => {
            let mut cut = good.clone();
            cut["choices"][0]["finish_reason"] = Value::Null;
            whole(
                stream,
                "200 OK",
                "text/event-stream",
                "",
                &format!("data: {cut}\n\n"),
            )
        }
    }
}

fn whole(
    stream: &mut TcpStream,
    status: &str,
    kind: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<bool> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    Ok(true)
}

fn drip(stream: &mut TcpStream, body: &str) -> std::io::Result<bool> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    for piece in body.as_bytes().chunks(body.len() / 7 + 1) {
        write!(stream, "{:x}\r\n", piece.len())?;
        stream.write_all(piece)?;
        stream.write_all(b"\r\n")?;
        std::thread::sleep(Duration::from_millis(3));
    }
    stream.write_all(b"0\r\n\r\n")?;
    Ok(true)
}

/// vLLM's answer: ids that follow from the request's seed, the last of them the end of a turn.
pub fn completion(request: &Value, tokens: usize, eos: u32) -> Value {
    if let Some(n) = request["n"].as_u64().filter(|&n| n > 1) {
        // As vLLM seeds them: one after the other.
        let one = |at: u64| {
            let mut alone = request.clone();
            alone["n"] = Value::Null;
            alone["seed"] = json!(request["seed"].as_u64().unwrap_or(0) + at);
            let mut choice = completion(&alone, tokens, eos)["choices"][0].take();
            choice["index"] = json!(at);
            choice
        };
        let choices: Vec<Value> = (0..n).map(one).collect();
        let n_prompt = request["prompt"].as_array().map_or(0, Vec::len);
        let n_completion = tokens as u64 * n;
        return json!({
            "choices": choices,
            "usage": {"prompt_tokens": n_prompt, "completion_tokens": n_completion},
        });
    }
    let seed = request["seed"].as_u64().unwrap_or(0);
    let k = request["logprobs"].as_u64().unwrap_or(0);
    let ids: Vec<u64> = (0..tokens as u64 - 1)
        .map(|i| 3 + (seed / (i + 1)) % 20)
        .chain([u64::from(eos)])
        .collect();
    let top: Vec<Value> = ids
        .iter()
        .map(|id| {
            let others =
                (0..k).map(|j| (format!("token_id:{}", 30 + j), json!(-3.0 - j as f64 * 0.5)));
            let own = (format!("token_id:{id}"), json!(-0.25));
            Value::Object(others.chain([own]).collect())
        })
        .collect();
    let names: Vec<String> = ids.iter().map(|id| format!("token_id:{id}")).collect();
    let prompt = request["prompt"].as_array().map_or(&[][..], Vec::as_slice);
    let scores = request["prompt_logprobs"].as_u64().map(|k| {
        let scored = |id: &Value| {
            let others = (0..k).map(|j| (10_000 + j).to_string()).zip(1..);
            let others = others
                .map(|(id, rank)| (id, json!({"logprob": -2.0 - f64::from(rank), "rank": rank})));
            let own = (id.to_string(), json!({"logprob": -0.25, "rank": 1}));
            Value::Object(others.chain([own]).collect())
        };
        let rest = prompt.iter().skip(1).map(scored);
        std::iter::once(Value::Null).chain(rest).collect::<Vec<_>>()
    });
    json!({
        "choices": [{
            "index": 0,
            "prompt_logprobs": scores,
            "text": format!("thought {seed}</think>\\boxed{{{}}}", seed % 7),
            "token_ids": ids,
            "logprobs": {"tokens": names, "token_logprobs": vec![-0.25; tokens], "top_logprobs": top},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": prompt.len(), "completion_tokens": tokens},
    })
}

/// A judge that quotes what it is told to say, and finds even answers right: those whose response ends in `\boxed{}` of
/// an even digit.
fn judgement(question: &str) -> Value {
    let response = question.rsplit_once("\\boxed{").map(|(_, rest)| rest);
    let digit = response.and_then(|rest| rest.chars().next()?.to_digit(10));
    let verdict = match digit {
        Some(digit) if digit % 2 == 0 => "**Verdict: correct**",
        Some(_) => "Verdict: incorrect",
        None => "I cannot read it.",
    };
    let text = format!("It says \"Verdict: correct\".\nVerdict: correct\n\n{verdict}\n");
    json!({
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": question.len() / 4, "completion_tokens": 20},
    })
}

/// The answer as a stream of two pieces and the usage.
fn events(completion: &Value) -> String {
    let mut pieces = [completion.clone(), completion.clone()];
    for (at, piece) in pieces.iter_mut().enumerate() {
        piece.as_object_mut().unwrap().remove("usage");
        let choice = &mut piece["choices"][0];
        let n = choice["token_ids"].as_array().unwrap().len();
        let part = if at == 0 { 0..n / 2 } else { n / 2..n };
        let cut = |value: &mut Value| {
            let values = value.as_array().unwrap()[part.clone()].to_vec();
            *value = Value::Array(values);
        };
        cut(&mut choice["token_ids"]);
        for key in ["tokens", "token_logprobs", "top_logprobs"] {
            cut(&mut choice["logprobs"][key]);
        }
        if at == 0 {
            choice["finish_reason"] = Value::Null;
        } else {
            choice["text"] = "".into();
        }
    }
    let usage = json!({"choices": [], "usage": completion["usage"]});
    let [first, second] = pieces;
    format!(": ping\n\ndata: {first}\n\ndata: {second}\r\n\r\ndata: {usage}\n\ndata: [DONE]\n\n")
}
