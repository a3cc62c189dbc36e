//! The stage: asks the judge about what the rules leave open, and writes a table of verdicts for each part of the traces.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use records::atomic;
use records::judged::{self, Judged};
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::parquet_file::{self, Writer};
use records::prompt::{Prompt, prompt_id};
use records::stamps;
use records::{LeftOut, Message, Place};

use super::replies::{Replies, Settled};
use super::reply::Judgement;
use super::rows::Rows;
use crate::config::{JudgeConfig, Wording};
use crate::error::{Error, Result};
use crate::gen_traces;
use crate::journal;
use crate::key::sampling_key;
use crate::load::Source;
use crate::openai::secret::Secret;
use crate::sample::{EXHAUSTED, Sampling, sample};
use crate::teacher::SamplingConfig;

/// What the stage reads, writes and is told.
#[derive(Debug, Clone)]
pub struct JudgeTraces {
    /// The folder of the verdicts.
    pub dir: PathBuf,
    /// Parts of traces.
    pub inputs: Vec<PathBuf>,
    pub judge: JudgeConfig,
    /// Of its servers.
    pub secret: Option<Secret>,
    /// Asks again for what servers refused.
    pub retry_failed: bool,
    pub seed: u64,
    /// The recipe sections that decide the output, for the manifest.
    pub recipe: serde_json::Value,
    pub quiet: bool,
}

/// What the folder holds when the stage ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    pub traces: u64,
    /// Traces that the judge was asked about.
    pub judged: u64,
    pub questions: u64,
    /// Traces by verdict.
    pub verdicts: BTreeMap<Judgement, u64>,
    /// Replies that came and say nothing that reads.
    pub unreadable: u64,
    /// Traces without a verdict.
    pub failed: u64,
    /// Traces that the judge was not asked about, by reason.
    pub left_out: LeftOut,
    pub tables: Vec<PathBuf>,
}

/// The folder of the judge's replies within the stage's.
pub fn replies(dir: &Path) -> PathBuf {
    dir.join("replies")
}

/// Asks what has not been asked yet, and writes all verdicts.
///
/// # Errors
/// As [`sample`]; and parts that cannot be read as traces.
pub fn run(plan: &JudgeTraces, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    let (started_at, clock) = (now_micros(), Instant::now());
    plan.judge.validate()?;
    // From here on the stage counts as unfinished until its manifest is written again.
    Manifest::remove(&plan.dir)?;
    atomic::remove_stale_temporaries(&plan.dir)?;
    let questions = questions(&plan.inputs, &plan.judge)?.prompts;
    let (teacher, generate) = (&plan.judge.teacher, plan.judge.generate());
    let dir = replies(&plan.dir);
    let known = journal::saved(&dir)?.map_or_else(Vec::new, |saved| saved.teacher_files);
    let source = Source::new(teacher, plan.secret.clone(), &known)?;
    let sampling = Sampling {
        dir: &dir,
        prompts: &questions,
        key: sampling_key(&source.description, teacher, WHOLE, &generate, plan.seed),
        teacher: &source.description,
        teacher_files: &source.files,
        config: &SamplingConfig::from(&generate),
        seed: plan.seed,
        prices: teacher.price_per_million,
        retry_failed: plan.retry_failed,
        noun: "replies",
        quiet: plan.quiet,
    };
    let votes = plan.judge.votes;
    let requests = (0..questions.len()).flat_map(|at| (0..votes).map(move |vote| (at, vote)));
    let load = |spent| source.load(sampling.config.clone(), spent);
    let asked = match sample(&sampling, requests, load, stop)? {
        Outcome::Complete(asked) => asked,
        Outcome::Interrupted => return Ok(Outcome::Interrupted),
    };
    let replies = Replies::read(&asked.parts, &questions, votes)?;
    let mut summary = Summary {
        questions: questions.len() as u64,
        unreadable: replies.unreadable,
        ..Summary::default()
    };
    for (number, input) in plan.inputs.iter().enumerate() {
        let path = table(&plan.dir, number);
        write(input, &path, plan, &replies, &mut summary)?;
        summary.tables.push(path);
    }
    remove_others(&plan.dir, &summary.tables)?;

    let mut manifest = Manifest::new("judged", plan.recipe.clone(), started_at);
    manifest.inputs = stamps::stamp_all(&plan.inputs)?;
    manifest.outputs = stamps::stamp_all(&summary.tables)?;
    let counted = [
        ("traces", summary.traces),
        ("judged", summary.judged),
        ("questions", summary.questions),
        ("unreadable", summary.unreadable),
        ("failed", summary.failed),
        (EXHAUSTED, asked.exhausted()),
    ];
    let verdicts = Judgement::ALL.map(|verdict| {
        let n = summary.verdicts.get(&verdict);
        (verdict.as_str(), n.copied().unwrap_or(0))
    });
    manifest.counts = counted
        .into_iter()
        .chain(verdicts)
        .map(|(name, n)| (name.to_owned(), n))
        .collect();
    manifest.set_left_out(&summary.left_out);
    manifest.inputs.extend(source.files);
    asked.account(&mut manifest, teacher.price_per_million);
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.dir)?;
    Ok(Outcome::Complete(summary))
}

/// That the replies in a folder are of the same judge, sampled alike. Reads only; another template asks other
/// questions beside those that are there.
pub fn check_key(dir: &Path, judge: &JudgeConfig, seed: u64) -> Result<()> {
    let generate = judge.generate();
    gen_traces::check_key(&replies(dir), &judge.teacher, WHOLE, &generate, seed)
}

/// A question is put as it stands.
const WHOLE: Wording<'_> = Wording {
    system: None,
    template: "{problem}",
};

/// What the judge is to be asked.
pub struct Questions {
    /// Each once, however many traces it is about.
    pub prompts: Vec<Prompt>,
    /// Traces that are asked about.
    pub n_judged: u64,
    pub n_traces: u64,
}

/// The questions about the traces of these parts; they are held in memory, some thousand bytes each.
pub fn questions(parts: &[PathBuf], judge: &JudgeConfig) -> Result<Questions> {
    let mut questions = Questions {
        prompts: Vec::new(),
        n_judged: 0,
        n_traces: 0,
    };
    let mut seen = HashSet::new();
    for part in parts {
        for row in Rows::open(part)? {
            let row = row?;
            questions.n_traces += 1;
            let Ok(open) = row.open(judge) else {
                continue;
            };
            questions.n_judged += 1;
            let id = prompt_id(&open.question);
            if seen.insert(id.clone()) {
                questions.prompts.push(Prompt {
                    prompt_id: id,
                    source: "judge".to_owned(),
                    problem: row.problem,
                    gold_answer: row.gold,
                    messages: vec![Message::new("user", open.question)],
                });
            }
        }
    }
    Ok(questions)
}

/// Rows that are handed to the Parquet writer at once.
const WRITE_ROWS: usize = 8192;

fn table(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("verdicts-{number:05}.parquet"))
}

fn write(
    input: &Path,
    path: &Path,
    plan: &JudgeTraces,
    replies: &Replies,
    summary: &mut Summary,
) -> Result<()> {
    let mut writer = Writer::create(path, judged::schema(), &[])?;
    let mut rows = Vec::new();
    for (row, number) in Rows::open(input)?.zip(1..) {
        let row = row?;
        summary.traces += 1;
        let open = match row.open(&plan.judge) {
            Ok(open) => open,
            Err(reason) => {
                let place = || Place::new(input, number);
                summary.left_out.add(reason.as_str(), place);
                continue;
            }
        };
        summary.judged += 1;
        let question_id = prompt_id(&open.question);
        let Settled {
            verdict,
            votes,
            error,
        } = replies.settled(&question_id);
        match verdict {
            Some(verdict) => *summary.verdicts.entry(verdict).or_default() += 1,
            None => summary.failed += 1,
        }
        rows.push(Judged {
            trace_id: row.trace_id,
            prompt_id: row.prompt_id,
            sample_index: row.sample_index,
            rule_verdict: open.rule_verdict.as_str().to_owned(),
            verdict: verdict.map(|verdict| verdict.as_str().to_owned()),
            votes: votes.iter().map(|vote| vote.as_str().to_owned()).collect(),
            question_id,
            judge: plan.judge.teacher.model.to_string(),
            error,
        });
        if rows.len() == WRITE_ROWS {
            writer.write(&judged::to_batch(&rows)?)?;
            rows.clear();
        }
    }
    writer.write(&judged::to_batch(&rows)?)?;
    writer.finish()?;
    Ok(())
}

/// Removes the tables of parts that are no longer there.
fn remove_others(dir: &Path, tables: &[PathBuf]) -> Result<()> {
    for path in parquet_file::files(dir, "verdicts-")? {
        if !tables.contains(&path) {
            std::fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
        }
    }
    Ok(())
}
