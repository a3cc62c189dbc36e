//! Which traces are shown: some of every kind, chosen by a hash of their names, so that the same run shows the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use records::column::Columns;
use records::parquet_file::Reader;
use records::run_dir::RunDir;
use records::stats::Split;
use records::{Role, example, files, trace};
use serde::Serialize;
use verify::think;

use crate::error::Result;
use crate::words::{excerpt, word};

/// Traces of the training split that are shown, of every reason against a trace, and altogether.
const KEPT: usize = 12;
const PER_REASON: usize = 4;
const ALL: usize = 48;

/// Characters that are shown of each part.
const PROBLEM: usize = 2000;
const THOUGHT: usize = 5000;
const ANSWER: usize = 2000;

/// A trace on the page.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    pub id: String,
    /// `train`, `validation`, `rejected`; empty where there is no dataset yet.
    pub split: &'static str,
    /// Why it was left out.
    pub reason: Option<String>,
    pub verdict: Option<String>,
    pub judge_verdict: Option<String>,
    pub finish_reason: Option<String>,
    pub n_tokens: Option<u32>,
    pub pass_rate: Option<String>,
    pub source: Option<String>,
    pub gold: Option<String>,
    pub problem: String,
    pub thought: Option<String>,
    pub answer: Option<String>,
    /// Why there is no text.
    pub error: Option<String>,
}

/// A kind of trace: what makes rows comparable when some of each are chosen.
type Kind = Option<String>;

/// The first hash bits of a row's name, its file and its place there.
type Ticket = (u64, usize, u64);

/// A file of rows with what all of them are.
struct File {
    path: PathBuf,
    split: &'static str,
}

/// The rows of each file that are shown.
type Chosen = BTreeMap<usize, Vec<Range<u64>>>;

/// The traces to show: of the dataset where there is one, else of the traces as they came.
pub fn choose(run: &RunDir) -> Result<Vec<Sample>> {
    let mut files = Vec::new();
    for split in [Split::Train, Split::Rejected] {
        let found = files::split_files(&run.dataset(), split)?.into_iter();
        let split = split.as_str();
        files.extend(found.map(|path| File { path, split }));
    }
    if !files.is_empty() {
        let columns = ["id", "reject_reason"];
        let chosen = draw(&files, columns, |split, n_kinds| match split {
            "train" => KEPT,
            _ => PER_REASON.min(((ALL - KEPT) / n_kinds.max(1)).max(1)),
        })?;
        return read(&files, &chosen, &EXAMPLE, examples);
    }
    let parts = files::trace_parts(&run.traces())?.into_iter();
    let files: Vec<_> = parts.map(|path| File { path, split: "" }).collect();
    let chosen = draw(&files, ["trace_id", "finish_reason"], |_, _| KEPT)?;
    read(&files, &chosen, &TRACE, traces)
}

/// The rows of each file that are shown. `columns` are a row's name and its kind; of each kind come as many as `most`
/// says for the split and the number of kinds, those with the smallest hashes.
fn draw(
    files: &[File],
    [name, kind]: [&str; 2],
    most: impl Fn(&str, usize) -> usize,
) -> Result<Chosen> {
    let mut kinds: BTreeMap<(&str, Kind), (u64, BTreeSet<Ticket>)> = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        let mut row = 0;
        for batch in Reader::open_columns(&file.path, Some(&[name, kind]))? {
            let batch = batch?;
            let columns = Columns(&batch);
            let of_kind = columns.optional_strings(kind)?;
            for (name, kind) in columns.strings(name)?.iter().zip(of_kind) {
                let (n, tickets) = kinds.entry((file.split, kind)).or_default();
                *n += 1;
                let hash = blake3::hash(name.as_bytes());
                let (bits, _) = hash.as_bytes().split_at(8);
                let bits = bits.try_into().map_or(0, u64::from_be_bytes);
                tickets.insert((bits, number, row));
                if tickets.len() > KEPT {
                    tickets.pop_last();
                }
                row += 1;
            }
        }
    }
    let n_kinds = kinds.len();
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    // The kinds with the most rows, where there are more than the page has room for.
    kinds.sort_by_key(|((split, _), (n, _))| (*split == "rejected", u64::MAX - n));
    let mut chosen: Chosen = BTreeMap::new();
    let mut room = ALL;
    for ((split, _), (_, tickets)) in kinds {
        let most = most(split, n_kinds).min(room);
        for (_, number, row) in tickets.into_iter().take(most) {
            chosen.entry(number).or_default().push(row..row + 1);
            room -= 1;
        }
    }
    chosen
        .values_mut()
        .for_each(|rows| rows.sort_unstable_by_key(|row| row.start));
    Ok(chosen)
}

fn read(
    files: &[File],
    chosen: &Chosen,
    columns: &[&str],
    samples: fn(&Columns<'_>) -> records::Result<Vec<Sample>>,
) -> Result<Vec<Sample>> {
    let mut all = Vec::new();
    for (&number, rows) in chosen {
        let Some(file) = files.get(number) else {
            continue;
        };
        for batch in Reader::open_rows(&file.path, columns, rows)? {
            let batch = batch?;
            let read = samples(&Columns(&batch)).map_err(|error| error.in_file(&file.path))?;
            all.extend(read.into_iter().map(|sample| Sample {
                split: file.split,
                ..sample
            }));
        }
    }
    Ok(all)
}

const EXAMPLE: [&str; 10] = [
    "id",
    "messages",
    "finish_reason",
    "n_tokens",
    "source",
    "gold_answer",
    "verdict",
    "pass_rate",
    "quality",
    "reject_reason",
];

fn examples(columns: &Columns<'_>) -> records::Result<Vec<Sample>> {
    let rows = example::from_batch(columns.0)?;
    let sample = |row: example::Example| {
        let last = row
            .messages
            .last()
            .filter(|turn| turn.role == Role::Assistant);
        let asked = row.messages.iter().rfind(|turn| turn.role == Role::User);
        let said = last.map(|turn| think::split(&turn.content, false));
        Sample {
            id: word(&row.id),
            reason: row.reject_reason.as_deref().map(word),
            verdict: row.verdict.as_deref().map(word),
            judge_verdict: row
                .quality
                .and_then(|quality| Some(word(&quality.judge_verdict?))),
            finish_reason: row.finish_reason.as_deref().map(word),
            n_tokens: row.n_tokens,
            pass_rate: row.pass_rate.map(|rate| format!("{rate:.2}")),
            source: row.source.as_deref().map(word),
            gold: row.gold_answer.as_deref().map(word),
            problem: asked.map_or_else(String::new, |turn| excerpt(&turn.content, PROBLEM)),
            thought: said
                .and_then(|said| said.reasoning)
                .map(|text| excerpt(text, THOUGHT)),
            answer: said
                .and_then(|said| said.answer)
                .map(|text| excerpt(text, ANSWER)),
            ..Sample::default()
        }
    };
    Ok(rows.into_iter().map(sample).collect())
}

const TRACE: [&str; 16] = [
    "trace_id",
    "prompt_id",
    "sample_index",
    "source",
    "problem",
    "gold_answer",
    "prompt_messages",
    "reasoning",
    "answer",
    "text",
    "finish_reason",
    "n_completion_tokens",
    "teacher",
    "teacher_revision",
    "created_at",
    "error",
];

fn traces(columns: &Columns<'_>) -> records::Result<Vec<Sample>> {
    let rows = trace::from_batch(columns.0)?;
    let sample = |row: trace::Trace| {
        let gold = row.gold_answer.as_deref().unwrap_or_default();
        let verdict = verify::verify_answer(gold, row.answer.as_deref());
        Sample {
            id: word(&row.trace_id),
            verdict: row.text.is_some().then(|| verdict.as_str().to_owned()),
            finish_reason: row.finish_reason.as_deref().map(word),
            n_tokens: row.n_completion_tokens,
            source: Some(word(&row.source)),
            gold: row.gold_answer.as_deref().map(word),
            problem: excerpt(&row.problem, PROBLEM),
            thought: row.reasoning.map(|text| excerpt(&text, THOUGHT)),
            answer: row.answer.map(|text| excerpt(&text, ANSWER)),
            error: row.error.map(|text| excerpt(&text, ANSWER)),
            ..Sample::default()
        }
    };
    Ok(rows.into_iter().map(sample).collect())
}
