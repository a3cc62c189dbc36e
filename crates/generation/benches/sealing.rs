//! A million tokens with their top 20 on the way from the journal to Parquet, and the bytes that they take there.
//!
//! There is no model: ids are drawn as often as words are (log-uniform over 151,936), and seven positions of ten are as
//! good as certain, which is how chains of thought look. `cargo bench -p stillroom-generation --bench sealing`.
#![allow(clippy::unwrap_used)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use half::f16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use records::Message;
use records::top_k::TopK;
use records::trace::{Trace, trace_id};
use stillroom_generation::journal::{Finished, Journal, Rows};
use stillroom_generation::seal;

const TRACES: u32 = 500;
const TOKENS: usize = 2000;
const K: usize = 20;
const VOCABULARY: f64 = 151_936.0;

fn id(rng: &mut ChaCha8Rng) -> u32 {
    VOCABULARY.powf(rng.random::<f64>()) as u32
}

/// Descending log-probabilities of K entries, and the log of what is left.
fn distribution(rng: &mut ChaCha8Rng) -> (Vec<f64>, f64) {
    let sure = rng.random_bool(0.7);
    let mut logit = if sure {
        rng.random_range(4.0..12.0)
    } else {
        1.0
    };
    let mut logits = vec![logit];
    logit = 0.0;
    for j in 1..=K {
        logits.push(logit);
        logit -= -rng.random::<f64>().ln() * 4.0 / j as f64;
    }
    let left = logits[K].exp() * 30.0;
    let total: f64 = logits[..K].iter().map(|logit| logit.exp()).sum::<f64>() + left;
    let logprobs = logits[..K].iter().map(|logit| logit - total.ln());
    (logprobs.collect(), (left / total).ln())
}

fn trace(rng: &mut ChaCha8Rng, number: u32) -> Trace {
    let prompt_id = format!("{number:032x}");
    let token_ids: Vec<u32> = (0..TOKENS).map(|_| id(rng)).collect();
    let mut top = TopK {
        k: K as u16,
        ..TopK::default()
    };
    let mut token_logprobs = Vec::new();
    for &token in &token_ids {
        let (logprobs, tail) = distribution(rng);
        token_logprobs.push(logprobs[0] as f32);
        top.ids.push(token);
        top.ids.extend((1..K).map(|_| id(rng)));
        top.logprobs.extend(logprobs.into_iter().map(f16::from_f64));
        top.tail_logprobs.push(tail as f32);
    }
    // Four characters to a token.
    let words = token_ids.iter().map(|token| format!("{:x} ", token % 4096));
    let text: String = words.collect();
    Trace {
        trace_id: trace_id(&prompt_id, 0),
        prompt_id,
        sample_index: 0,
        source: "bench".into(),
        problem: text[..200].into(),
        gold_answer: Some("42".into()),
        prompt_messages: vec![Message::new("user", &text[..200])],
        reasoning: Some(text.clone()),
        answer: Some("\\boxed{42}".into()),
        text: Some(text),
        finish_reason: Some("stop".into()),
        n_prompt_tokens: Some(60),
        n_completion_tokens: Some(TOKENS as u32),
        prompt_token_ids: Some((0..60).map(|_| id(rng)).collect()),
        token_ids: Some(token_ids),
        token_logprobs: Some(token_logprobs),
        top: Some(top),
        logprob_space: Some("raw".into()),
        temperature: Some(0.6),
        top_p: Some(0.95),
        seed: Some(rng.random()),
        teacher: "served".into(),
        teacher_revision: None,
        created_at: 1,
        latency_ms: Some(rng.random_range(20_000..60_000)),
        error: None,
    }
}

/// A folder with the traces in its journal.
fn journalled(rows: &[Finished]) -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let requests = rows
        .iter()
        .map(|row| ((), row.trace.prompt_id.as_str(), 0, 0));
    journal.plan(requests).unwrap();
    for group in rows.chunks(64) {
        journal.commit(group).unwrap();
    }
    (dir, journal)
}

fn sealing(criterion: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let rows: Vec<Finished> = (0..TRACES)
        .map(|number| Finished {
            trace: trace(&mut rng, number),
            failure: None,
            input_tokens: 60,
            output_tokens: 60,
        })
        .collect();
    let seal = |(dir, mut journal): (tempfile::TempDir, Journal)| {
        seal::seal_all(dir.path(), &mut journal, None, seal::PART_BYTES, Rows::Done).unwrap();
        (dir, journal)
    };
    let (_dir, journal) = seal(journalled(&rows));
    let bytes: u64 = journal
        .parts()
        .unwrap()
        .iter()
        .filter_map(|part| part.bytes)
        .sum();
    let n_tokens = f64::from(TRACES) * TOKENS as f64;
    println!(
        "{:.1} bytes per completion token with the top {K}",
        bytes as f64 / n_tokens
    );
    let mut group = criterion.benchmark_group("a million tokens");
    group.sample_size(10);
    group.bench_function("journal", |bencher| {
        bencher.iter_batched(|| (), |()| journalled(&rows), BatchSize::PerIteration);
    });
    group.bench_function("seal", |bencher| {
        bencher.iter_batched(|| journalled(&rows), seal, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, sealing);
criterion_main!(benches);
