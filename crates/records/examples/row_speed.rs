//! What rows cost on their way to a file and back, for comparing two versions of the program in alternation:
//! `cargo run --release -p stillroom-records --example row_speed`.
//!
//! 1,000 traces of 500 tokens with the teacher's top 20, 21 million list values. Prints the fastest of several rounds in
//! milliseconds, and the file's hash: versions that write the same file print the same.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use half::f16;
use stillroom_records::parquet_file::{Reader, Writer};
use stillroom_records::top_k::TopK;
use stillroom_records::trace::{self, Trace};
use stillroom_records::{Message, Result, hash};

const ROWS: u32 = 1000;
const TOKENS: u32 = 500;
const K: u16 = 20;
const ROUNDS: usize = 9;

fn main() -> Result<()> {
    let rows: Vec<Trace> = (0..ROWS).map(row).collect();
    let (written, batch) = fastest(ROUNDS, || trace::to_batch(&rows));
    let batch = batch?;
    let (read, back) = fastest(ROUNDS, || trace::from_batch(&batch));
    assert_eq!(back?, rows, "rows come back as they were");
    println!("to_batch {written:.1} ms, from_batch {read:.1} ms");

    let path = std::env::temp_dir().join(format!("row-speed-{}.parquet", std::process::id()));
    let (finished, bytes) = fastest(3, || write(&path, &batch));
    let bytes = bytes?;
    let (hashed, blake3) = fastest(3, || hash::file(&path));
    let rows: usize = Reader::open(&path)?
        .map(|batch| batch.map_or(0, |batch| batch.num_rows()))
        .sum();
    println!(
        "Parquet {finished:.0} ms, {bytes} bytes, {rows} rows; hashing the file {hashed:.1} ms; blake3 {}",
        blake3?
    );
    // The file is this example's own; a leftover in the temporary folder harms nobody.
    let _ = std::fs::remove_file(&path);
    Ok(())
}

fn write(path: &Path, batch: &arrow::array::RecordBatch) -> Result<u64> {
    let mut writer = Writer::create(path, trace::schema(), &[])?;
    writer.write(batch)?;
    Ok(writer.finish()?.bytes)
}

/// The shortest of `rounds` in milliseconds, and what the last one gave.
fn fastest<T>(rounds: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let mut timed = || {
        let clock = Instant::now();
        let made = black_box(work());
        (clock.elapsed().as_secs_f64() * 1e3, made)
    };
    let mut best = timed();
    for _ in 1..rounds {
        let (time, made) = timed();
        best = (best.0.min(time), made);
    }
    best
}

fn row(n: u32) -> Trace {
    // Numbers without a pattern, the same at every run.
    let number = |at: u32| (at + n * TOKENS * u32::from(K)).wrapping_mul(0x9E37_79B9) >> 8;
    let entries = TOKENS * u32::from(K);
    let logprob = |at: u32| -(number(at) as f32) / 1e6;
    Trace {
        trace_id: trace::trace_id("p", n),
        prompt_id: "p".into(),
        sample_index: n,
        source: "made up".into(),
        problem: format!("What is {n} + {n}?"),
        gold_answer: n.is_multiple_of(2).then(|| (2 * n).to_string()),
        prompt_messages: vec![Message::new("user", format!("What is {n} + {n}?"))],
        reasoning: Some("thought ".repeat(100)),
        answer: Some(format!("\\boxed{{{}}}", 2 * n)),
        text: Some("thought ".repeat(100)),
        finish_reason: Some("stop".into()),
        n_prompt_tokens: Some(12),
        n_completion_tokens: Some(TOKENS),
        prompt_token_ids: Some((0..12).map(number).collect()),
        token_ids: Some((0..TOKENS).map(number).collect()),
        token_logprobs: Some((0..TOKENS).map(logprob).collect()),
        top: Some(TopK {
            k: K,
            ids: (0..entries).map(number).collect(),
            logprobs: (0..entries).map(logprob).map(f16::from_f32).collect(),
            tail_logprobs: (0..TOKENS).map(logprob).collect(),
            counts: None,
        }),
        logprob_space: Some("raw".into()),
        temperature: Some(0.6),
        top_p: Some(0.95),
        seed: Some(u64::from(n)),
        teacher: "t".into(),
        teacher_revision: None,
        created_at: 1_700_000_000_000_000 + i64::from(n),
        latency_ms: Some(3),
        error: n.is_multiple_of(100).then(|| "made up".to_owned()),
    }
}
