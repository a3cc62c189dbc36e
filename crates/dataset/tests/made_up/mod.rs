//! Made-up traces, and a dataset built of them.
// Each test file uses a part of it.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use half::f16;
use records::benchmark::{AnswerSearch, Benchmark, BenchmarkChoice};
use records::example::{self, Example};
use records::outcome::Outcome;
use records::parquet_file::{Reader, Writer};
use records::prompt::prompt_id;
use records::stats::Stats;
use records::top_k::TopK;
use records::trace::{self, Trace, trace_id};
use records::{Message, TOKENIZER_KEY};
use stillroom_dataset as dataset;
use stillroom_dataset::config::{DatasetConfig, Decontaminate};
use stillroom_dataset::{Error, Plan};
use tempfile::TempDir;

pub const HELD_OUT: &str =
    "Start with 204, subtract 129, subtract 543, multiply by 2. Give the result modulo 1000.";

pub fn trace(problem: &str, sample_index: u32, thought: &str, answer: &str) -> Trace {
    let prompt_id = prompt_id(problem);
    let text = format!("<think>\n{thought}\n</think>\n\n\\boxed{{{answer}}}");
    let token_ids: Vec<u32> = text.bytes().map(u32::from).collect();
    let n = token_ids.len();
    Trace {
        trace_id: trace_id(&prompt_id, sample_index),
        prompt_id,
        sample_index,
        source: "arithmetic".into(),
        problem: problem.into(),
        gold_answer: Some("64".into()),
        prompt_messages: vec![Message::new("user", problem)],
        reasoning: Some(thought.into()),
        answer: Some(format!("\\boxed{{{answer}}}")),
        text: Some(text),
        finish_reason: Some("stop".into()),
        n_prompt_tokens: Some(2),
        n_completion_tokens: Some(n as u32),
        prompt_token_ids: Some(vec![1, 2]),
        token_logprobs: Some(vec![-0.5; n]),
        top: Some(TopK {
            k: 2,
            ids: token_ids.iter().flat_map(|id| [*id, 0]).collect(),
            logprobs: [f16::from_f32(-0.5), f16::from_f32(-1.5)].repeat(n),
            tail_logprobs: vec![-2.0; n],
            counts: None,
        }),
        token_ids: Some(token_ids),
        logprob_space: Some("raw".into()),
        temperature: Some(0.6),
        top_p: Some(0.95),
        seed: Some(7),
        teacher: "teacher".into(),
        teacher_revision: None,
        created_at: 1,
        latency_ms: Some(2),
        error: None,
    }
}

pub fn failed(problem: &str, sample_index: u32) -> Trace {
    Trace {
        reasoning: None,
        answer: None,
        text: None,
        finish_reason: None,
        n_completion_tokens: None,
        token_ids: None,
        token_logprobs: None,
        top: None,
        error: Some("400: the prompt is too long".into()),
        ..trace(problem, sample_index, "", "")
    }
}

/// One trace for each way that a trace can go, and 60 plain prompts of four samples.
pub fn traces() -> Vec<Trace> {
    let mut traces = vec![
        trace(HELD_OUT, 0, "402-921=570", "64"),
        trace("one of each", 0, "a longer thought than the others", "64"),
        trace("one of each", 1, "short", "64"),
        trace("one of each", 2, "short", "64"),
        trace("one of each", 3, "a wrong one", "65"),
        failed("one of each", 4),
        trace("one of each", 5, &"again ".repeat(50), "64"),
        Trace {
            answer: None,
            finish_reason: Some("length".into()),
            ..trace("one of each", 6, "never ends", "64")
        },
        trace("one of each", 7, "not so short", "64"),
    ];
    for prompt in 0..60 {
        for sample in 0..4 {
            let thought = format!("{} steps of {prompt}", "step ".repeat(sample as usize + 1));
            traces.push(trace(&format!("prompt {prompt}"), sample, &thought, "64"));
        }
    }
    traces
}

/// Writes parts as `gen-traces` does: each sorted by (prompt_id, sample_index).
pub fn write_parts(dir: &Path, traces: &[Trace], part_of: impl Fn(usize) -> usize) -> Vec<PathBuf> {
    let mut parts = BTreeMap::<usize, Vec<Trace>>::new();
    for (at, trace) in traces.iter().enumerate() {
        parts.entry(part_of(at)).or_default().push(trace.clone());
    }
    for (part, mut traces) in parts {
        traces.sort_by(|a, b| (&a.prompt_id, a.sample_index).cmp(&(&b.prompt_id, b.sample_index)));
        write_part(
            &dir.join(format!("part-{part:05}.parquet")),
            &traces,
            "qwen",
        );
    }
    dataset::trace_parts(dir).unwrap()
}

pub fn write_part(path: &Path, traces: &[Trace], tokenizer: &str) {
    let metadata = [(TOKENIZER_KEY.to_owned(), tokenizer.to_owned())];
    let mut writer = Writer::create(path, trace::schema(), &metadata).unwrap();
    for traces in traces.chunks(7) {
        writer.write(&trace::to_batch(traces).unwrap()).unwrap();
    }
    writer.finish().unwrap();
}

pub struct World {
    pub dir: TempDir,
    pub config: DatasetConfig,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let benchmark = dir.path().join("heldout.jsonl");
        let row = serde_json::json!({"problem": HELD_OUT, "answer": "64"});
        fs::write(&benchmark, format!("{row}\n")).unwrap();
        let against = BenchmarkChoice::Table(Benchmark {
            name: "heldout".into(),
            source: benchmark.to_str().unwrap().into(),
            problem: "problem".into(),
            answer: "answer".into(),
            distractors: Vec::new(),
            subject: None,
            level: None,
            answer_from: AnswerSearch::Written,
        });
        let config = DatasetConfig {
            per_prompt: NonZeroU32::new(2),
            decontaminate: Some(Decontaminate {
                against: vec![against],
                ngram: 13,
            }),
            validation_fraction: 0.2,
            ..DatasetConfig::default()
        };
        Self { dir, config }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn plan(&self, parts: Vec<PathBuf>, out: &str) -> Plan {
        Plan {
            parts,
            judged: Vec::new(),
            out_dir: self.path(out),
            config: self.config.clone(),
            recipe: serde_json::json!({"dataset": self.config}),
            tokenizer: None,
            quiet: true,
        }
    }

    pub fn build(
        &self,
        traces: &[Trace],
        out: &str,
        part_of: impl Fn(usize) -> usize,
    ) -> Result<Stats, Error> {
        let parts = write_parts(&self.path(&format!("{out}-traces")), traces, part_of);
        match stillroom_dataset::run(&self.plan(parts, out), &AtomicBool::new(false))? {
            Outcome::Complete(stats) => Ok(*stats),
            Outcome::Interrupted => panic!("nobody interrupted"),
        }
    }
}

pub fn read(dir: &Path, split: &str) -> Vec<Example> {
    files(dir)
        .into_keys()
        .filter(|name| name.contains(&format!("/{split}-")))
        .flat_map(|name| Reader::open(&dir.join(name)).unwrap())
        .flat_map(|batch| example::from_batch(&batch.unwrap()).unwrap())
        .collect()
}

/// Every file of a folder with its bytes, but for the manifest and its times, and for what an
/// unfinished run keeps.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with(".building") {
                    folders.push(path);
                }
            } else if !path.ends_with("manifest.json") {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}
