//! The traces, and what is planted in them.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use half::f16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use records::Message;
use records::manifest::{Manifest, now_micros};
use records::parquet_file::Writer;
use records::prompt::prompt_id;
use records::top_k::TopK;
use records::trace::{self, Trace, trace_id};

use crate::text::{edited, jaccard, joined, prose, word};
use crate::{KINDS, Planted};

const SAMPLES: u32 = 4;
/// Words of a thought: about 6 kB.
const WORDS: usize = 950;
const BENCHMARK_ROWS: usize = 500;
/// One prompt in so many has something planted in it.
const ONE_IN: u32 = 4;

pub fn write(dir: &Path, rows: u64, seed: u64, tokens: usize) {
    let traces = dir.join("traces");
    fs::create_dir_all(&traces).unwrap();
    let benchmark = benchmark(dir, seed);
    let mut world = World {
        benchmark,
        tokens,
        seed,
        previous: None,
        planted: BufWriter::new(File::create(dir.join("planted.jsonl")).unwrap()),
    };
    let rows_per_part = if tokens > 0 { 500 } else { 20_000 };
    let (mut prompt, mut part) = (0, 0);
    while u64::from(prompt) * u64::from(SAMPLES) < rows {
        let mut rows_here = Vec::new();
        while rows_here.len() < rows_per_part && u64::from(prompt) * u64::from(SAMPLES) < rows {
            rows_here.extend(world.prompt(prompt));
            prompt += 1;
        }
        rows_here
            .sort_by(|a, b| (&a.prompt_id, a.sample_index).cmp(&(&b.prompt_id, b.sample_index)));
        let path = traces.join(format!("part-{part:05}.parquet"));
        let mut writer = Writer::create(&path, trace::schema(), &[]).unwrap();
        for rows in rows_here.chunks(if tokens > 0 { 8 } else { 512 }) {
            writer.write(&trace::to_batch(rows).unwrap()).unwrap();
        }
        writer.finish().unwrap();
        part += 1;
    }
    world.planted.flush().unwrap();
    let manifest = Manifest::new("traces", serde_json::json!({}), now_micros());
    manifest.write(&traces).unwrap();
    fs::write(dir.join("recipe.toml"), recipe(dir)).unwrap();
}

fn recipe(dir: &Path) -> String {
    let benchmark = dir.join("benchmark.jsonl");
    let against = format!(
        "{{ name = \"planted\", source = {benchmark:?}, problem = \"problem\", answer = \"answer\" }}"
    );
    format!(
        "# Synthetic traces with planted faults; see crates/dataset/examples/planted.\n\
         name = \"planted\"\n\n[dataset]\n\
         filter = \"verdict = 'correct' AND finish_reason = 'stop' AND loop_repeats < 10 AND \
         think_format = 'valid' AND language_mix < 0.1 AND code_blocks = 0 AND \
         longest_paragraph < 4000\"\n\
         decontaminate = {{ against = [{against}], ngram = 13 }}\n\
         deduplicate = {{ problems = 0.8, traces = 0.8, ngram = 5 }}\n\
         validation_fraction = 0.01\nmemory_limit = \"2GiB\"\n"
    )
}

fn benchmark(dir: &Path, seed: u64) -> Vec<Vec<String>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xBE4C);
    let problems: Vec<_> = (0..BENCHMARK_ROWS).map(|_| prose(&mut rng, 45)).collect();
    let mut file = BufWriter::new(File::create(dir.join("benchmark.jsonl")).unwrap());
    for problem in &problems {
        let row = serde_json::json!({"problem": joined(problem), "answer": "1"});
        writeln!(file, "{row}").unwrap();
    }
    file.flush().unwrap();
    problems
}

struct World {
    benchmark: Vec<Vec<String>>,
    tokens: usize,
    seed: u64,
    /// The prompt before, when nothing is planted in it: its problem, and its first thought.
    previous: Option<(Vec<String>, Vec<String>)>,
    planted: BufWriter<File>,
}

impl World {
    fn plant(
        &mut self,
        trace_id: String,
        kind: &str,
        partner: Option<String>,
        jaccard: Option<f64>,
    ) {
        let planted = Planted {
            trace_id,
            kind: kind.to_owned(),
            partner,
            jaccard,
        };
        writeln!(self.planted, "{}", serde_json::to_string(&planted).unwrap()).unwrap();
    }

    /// The samples of one prompt.
    fn prompt(&mut self, prompt: u32) -> Vec<Trace> {
        let mut rng =
            ChaCha8Rng::seed_from_u64(self.seed.wrapping_mul(0x9E37_79B9) ^ u64::from(prompt));
        let place = rng.random_range(0..KINDS.len() as u32 * ONE_IN) as usize;
        let mut kind = KINDS.get(place).copied();
        let previous = self.previous.take();
        if previous.is_none() && matches!(kind, Some("near_duplicate_other" | "duplicate_problem"))
        {
            kind = None;
        }
        let mut problem = prose(&mut rng, 45);
        match (kind, &previous) {
            (Some("contaminated"), _) => self.share(&mut rng, &mut problem, 14),
            (Some("contamination_miss"), _) => self.share(&mut rng, &mut problem, 10),
            (Some("duplicate_problem"), Some((other, _))) => {
                problem = other.clone();
                problem.push(word(&mut rng));
            }
            _ => {}
        }
        let gold = gold(&mut rng);
        let thoughts: Vec<_> = (0..SAMPLES).map(|_| prose(&mut rng, WORDS)).collect();
        let mut traces: Vec<_> = (0..SAMPLES)
            .map(|sample| {
                self.trace(
                    &mut rng,
                    &problem,
                    &gold,
                    sample,
                    &joined(&thoughts[sample as usize]),
                )
            })
            .collect();
        let id = traces[0].prompt_id.clone();
        if let Some(kind) = kind {
            self.spoil(&mut rng, kind, &mut traces, &thoughts, previous.as_ref());
        } else {
            self.previous = Some((problem, thoughts[0].clone()));
        }
        if kind == Some("duplicate_problem") {
            let (other, _) = previous.unwrap();
            let similarity = jaccard(&other, &problem_words(&traces[0].problem));
            let partner = prompt_id(&joined(&other));
            self.plant(id, "duplicate_problem", Some(partner), Some(similarity));
        }
        traces
    }

    /// Puts words of a benchmark's row into the problem, written otherwise.
    fn share(&self, rng: &mut ChaCha8Rng, problem: &mut [String], n: usize) {
        let row = &self.benchmark[rng.random_range(0..self.benchmark.len())];
        let (from, to) = (
            rng.random_range(0..row.len() - n),
            rng.random_range(1..problem.len() - n),
        );
        for at in 0..n {
            let bare = row[from + at].trim_matches(|c: char| !c.is_alphanumeric());
            problem[to + at] = if at % 3 == 0 {
                bare.to_uppercase()
            } else {
                format!("{bare},")
            };
        }
    }

    fn spoil(
        &mut self,
        rng: &mut ChaCha8Rng,
        kind: &str,
        traces: &mut [Trace],
        thoughts: &[Vec<String>],
        previous: Option<&(Vec<String>, Vec<String>)>,
    ) {
        let first = &thoughts[0];
        let first_id = traces[0].trace_id.clone();
        let last = traces.last_mut().unwrap();
        let gold = last.gold_answer.clone().unwrap();
        let (mut partner, mut similarity) = (None, None);
        match kind {
            "exact_duplicate" => {
                set(last, &joined(first), &gold);
                partner = Some(first_id);
            }
            "near_duplicate" | "near_miss" => {
                let (low, high) = if kind == "near_miss" {
                    (0.5, 0.7)
                } else {
                    (0.9, 0.95)
                };
                let (words, found) = edited(rng, first, low, high);
                set(last, &joined(&words), &gold);
                (partner, similarity) = (Some(first_id), Some(found));
            }
            "near_duplicate_other" => {
                let (problem, thought) = previous.unwrap();
                let (words, found) = edited(rng, thought, 0.9, 0.95);
                set(last, &joined(&words), &gold);
                partner = Some(trace_id(&prompt_id(&joined(problem)), 0));
                similarity = Some(found);
            }
            "wrong_answer" => set(last, &joined(&thoughts[3]), "123456789"),
            "no_answer" => {
                last.answer = Some("I could not find it.".to_owned());
                last.text = Some(format!(
                    "<think>\n{}\n</think>\n\nI could not find it.",
                    joined(&thoughts[3])
                ));
            }
            "loop" => {
                let passage = joined(&prose(rng, 12));
                set(
                    last,
                    &format!(
                        "{} {}",
                        joined(&thoughts[3][..600]),
                        format!("{passage} ").repeat(30)
                    ),
                    &gold,
                );
            }
            "truncated" => {
                last.answer = None;
                last.finish_reason = Some("length".into());
                last.text = Some(format!("<think>\n{}", joined(&thoughts[3])));
            }
            "failed" => {
                last.error = Some("400: the prompt is too long".to_owned());
                (last.text, last.reasoning, last.answer, last.finish_reason) =
                    (None, None, None, None);
                (last.token_ids, last.token_logprobs, last.top) = (None, None, None);
            }
            "language_switch" => {
                let russian: Vec<String> =
                    prose(rng, 300).iter().map(|word| cyrillic(word)).collect();
                let russian = joined(&russian);
                set(
                    last,
                    &format!("{} {russian}", joined(&thoughts[3][..600])),
                    &gold,
                );
            }
            "code_block" => set(
                last,
                &format!("{}\n```python\nprint(1)\n```\n", joined(&thoughts[3])),
                &gold,
            ),
            "long_paragraph" => set(last, &joined(&thoughts[3]).replace('\n', " "), &gold),
            "null_gold" => traces.iter_mut().for_each(|trace| trace.gold_answer = None),
            _ => {}
        }
        let whole = ["contaminated", "contamination_miss", "null_gold"].contains(&kind);
        let ids: Vec<_> = traces.iter().map(|trace| trace.trace_id.clone()).collect();
        match kind {
            "duplicate_problem" => {}
            _ if whole => ids
                .into_iter()
                .for_each(|id| self.plant(id, kind, None, None)),
            _ => self.plant(ids.last().unwrap().clone(), kind, partner, similarity),
        }
    }

    fn trace(
        &self,
        rng: &mut ChaCha8Rng,
        problem: &[String],
        gold: &str,
        sample: u32,
        thought: &str,
    ) -> Trace {
        let problem = joined(problem);
        let prompt_id = prompt_id(&problem);
        let mut trace = Trace {
            trace_id: trace_id(&prompt_id, sample),
            prompt_id,
            sample_index: sample,
            source: "planted".to_owned(),
            prompt_messages: vec![Message::new("user", &problem)],
            problem,
            gold_answer: Some(gold.to_owned()),
            finish_reason: Some("stop".into()),
            n_prompt_tokens: Some(80),
            n_completion_tokens: Some(thought.len() as u32 / 4),
            temperature: Some(0.6),
            teacher: "teacher".to_owned(),
            ..Trace::default()
        };
        set(&mut trace, thought, gold);
        if self.tokens > 0 {
            self.add_tokens(rng, &mut trace);
        }
        trace
    }

    fn add_tokens(&self, rng: &mut ChaCha8Rng, trace: &mut Trace) {
        let (n, k) = (self.tokens, 20);
        trace.n_completion_tokens = Some(n as u32);
        trace.prompt_token_ids = Some((0..80).collect());
        trace.token_ids = Some((0..n).map(|_| rng.random_range(0..150_000)).collect());
        trace.token_logprobs = Some((0..n).map(|_| -rng.random::<f32>()).collect());
        let shift: u32 = rng.random_range(0..100_000);
        trace.top = Some(TopK {
            k,
            ids: (0..n as u32 * u32::from(k))
                .map(|at| shift + at.wrapping_mul(2_654_435_761) % 50_000)
                .collect(),
            logprobs: (0..n * usize::from(k))
                .map(|at| f16::from_f32(-((at % 20) as f32) - 0.5))
                .collect(),
            tail_logprobs: vec![-3.0; n],
            counts: None,
        });
        trace.logprob_space = Some("raw".into());
    }
}

fn set(trace: &mut Trace, thought: &str, answer: &str) {
    let answer = format!("The final answer is \\boxed{{{answer}}}.");
    trace.text = Some(format!("<think>\n{thought}\n</think>\n\n{answer}"));
    trace.reasoning = Some(thought.to_owned());
    trace.answer = Some(answer);
}

/// The word in another script.
fn cyrillic(word: &str) -> String {
    let letter = |c: char| match c {
        'a'..='z' => char::from_u32(u32::from(c) - u32::from('a') + 0x430).unwrap(),
        other => other,
    };
    word.chars().map(letter).collect()
}

fn gold(rng: &mut ChaCha8Rng) -> String {
    let (a, b) = (rng.random_range(2..1000), rng.random_range(2..50));
    match rng.random_range(0..5) {
        0 => format!("\\frac{{{a}}}{{{b}}}"),
        1 => format!("{a}\\sqrt{{2}}"),
        2 => format!("({a}, {b})"),
        _ => a.to_string(),
    }
}

fn problem_words(problem: &str) -> Vec<String> {
    problem.split_whitespace().map(str::to_owned).collect()
}
