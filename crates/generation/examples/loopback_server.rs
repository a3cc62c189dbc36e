//! vLLM's completions, answered at once with the same long body: what a client costs beside it.
//!
//! `loopback_server [TOKENS] [TOP_K]` prints its address and serves until it is killed; scripts/bench/generation.py
//! starts it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|n| n.parse().unwrap_or(0));
    let (tokens, k) = (
        arguments.next().unwrap_or(2000),
        arguments.next().unwrap_or(20),
    );
    let body = body(tokens, k).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let responses: Arc<[Vec<u8>; 2]> = Arc::new(
        ["", "Connection: close\r\n"].map(|last| format!("{head}{last}\r\n{body}").into_bytes()),
    );
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}/v1", listener.local_addr()?);
    std::io::stdout().flush()?;
    for stream in listener.incoming() {
        let (stream, responses) = (stream?, responses.clone());
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || drop(serve(stream, &responses)))?;
    }
    Ok(())
}

fn serve(mut stream: TcpStream, responses: &[Vec<u8>; 2]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    loop {
        let (mut length, mut closes) = (0, false);
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            closes |= header.starts_with("connection: close");
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        stream.write_all(&responses[usize::from(closes)])?;
        if closes {
            return Ok(());
        }
    }
}

/// A completion of `tokens` tokens whose likeliest entries are spread as a language model's are.
fn body(tokens: usize, k: usize) -> Value {
    let id = |t: usize, j: usize| (t * 7919 + j * 104_729 + 13) % 150_000 + 3;
    let logprob = |t: usize, j: usize| -0.65 - (t % 17) as f64 * 0.031 - j as f64 * 0.773;
    let name = |t: usize, j: usize| format!("token_id:{}", id(t, j));
    let top = |t: usize| -> Value {
        let entries = (0..k.max(1)).map(|j| (name(t, j), json!(logprob(t, j))));
        Value::Object(entries.collect())
    };
    json!({
        "id": "cmpl-0", "object": "text_completion", "created": 1, "model": "served",
        "choices": [{
            "index": 0,
            "text": "word ".repeat(tokens),
            "token_ids": (0..tokens).map(|t| id(t, 0)).collect::<Vec<_>>(),
            "logprobs": {
                "tokens": (0..tokens).map(|t| name(t, 0)).collect::<Vec<_>>(),
                "token_logprobs": (0..tokens).map(|t| logprob(t, 0)).collect::<Vec<_>>(),
                "top_logprobs": (0..tokens).map(top).collect::<Vec<_>>(),
                "text_offset": (0..tokens).map(|t| 5 * t).collect::<Vec<_>>(),
            },
            "finish_reason": "length", "stop_reason": null,
        }],
        "usage": {"prompt_tokens": 40, "total_tokens": 40 + tokens, "completion_tokens": tokens},
    })
}
