//! Rows of Parquet or JSONL files, as token ids checked against the student's tokenizer.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use model::tokenizer::Tokenizer;
use records::column::Columns;
use records::example::{self, Example};
use records::parquet_file::Reader;
use records::top_k::TopK;
use records::trace::TOP_K_COLUMNS;
use records::{LeftOut, Message, Place, SCORED_BY};
use serde::Deserialize;

use crate::Error;
use crate::config::{Long, PromptTemplate};
use crate::error::io;
use crate::store::{ExampleStore, StoreWriter};

mod vocabulary;

use vocabulary::{Vocabulary, without_strays};

const OPEN_THINK: &str = "<think>\n";

/// The reason of rows that are longer than `max_length` and not cut.
pub const TOO_LONG: &str = "too_long";

/// One conversation to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingExample {
    pub id: String,
    pub prompt_ids: Vec<u32>,
    /// Supervised, every one of them that has a token before it.
    pub completion_ids: Vec<u32>,
    /// One position per completion id; only loaded where the loss needs it.
    pub top: Option<TopK>,
}

impl TrainingExample {
    /// Prompt and completion together.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.prompt_ids.len() + self.completion_ids.len()
    }

    /// Completion tokens that are predicted from something.
    #[must_use]
    pub fn n_supervised(&self) -> usize {
        n_supervised(self.prompt_ids.len(), self.completion_ids.len())
    }
}

/// Without a prompt nothing predicts the first token.
pub(crate) fn n_supervised(n_prompt: usize, n_completion: usize) -> usize {
    n_completion - usize::from(n_prompt == 0 && n_completion > 0)
}

/// How rows become examples.
pub struct LoadOptions<'a> {
    pub tokenizer: &'a Tokenizer,
    /// Rows of the student's head; ids at or above it, or above the tokenizer's, are not the student's.
    pub head_rows: usize,
    /// Of the model that sampled the rows, to compare ids by their bytes when fingerprints differ.
    pub teacher_tokenizer: Option<&'a Tokenizer>,
    pub prompt_template: PromptTemplate,
    /// In tokens.
    pub max_length: usize,
    pub long: Long,
    pub needs_top_k: bool,
}

/// What one pass over the rows found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub rows: u64,
    pub examples: u64,
    /// Prompt and completion tokens of all examples.
    pub n_tokens: u64,
    pub n_supervised: u64,
    /// Tokens of the longest example.
    pub longest: u64,
    /// Tokens of the longest row before it was cut or left out for its length.
    pub longest_row: u64,
    /// Rows left out, by reason.
    pub dropped: LeftOut,
    /// Rows cut to `max_length`.
    pub truncated: u64,
}

/// Examples on disk, and what was read to get them.
#[derive(Debug)]
pub struct Loaded {
    pub examples: ExampleStore,
    pub counts: Counts,
}

/// Files that `pattern` (a path or a glob) names, sorted.
///
/// # Errors
/// [`Error::DataPattern`] where it is no pattern, or nothing matches.
pub fn files(key: &'static str, pattern: &str) -> Result<Vec<PathBuf>, Error> {
    let bad = |problem: String| Error::DataPattern {
        key,
        pattern: pattern.to_owned(),
        problem,
    };
    if Path::new(pattern).is_file() {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let mut paths = Vec::new();
    for entry in glob::glob(pattern).map_err(|error| bad(format!("not a glob: {error}")))? {
        let path = entry.map_err(|error| bad(error.to_string()))?;
        if path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(bad("no file matches; give a Parquet or JSONL file, or a glob such as `data/train-*.parquet`".into()));
    }
    paths.sort();
    Ok(paths)
}

/// Reads `paths` (`.parquet`, `.jsonl`) in order and keeps their examples in a file without a name in `folder`.
///
/// # Errors
/// Those of [`count`], and [`Error::Store`] where `folder` has no room.
pub fn load(paths: &[PathBuf], options: &LoadOptions<'_>, folder: &Path) -> Result<Loaded, Error> {
    let mut store = StoreWriter::create(folder)?;
    let counts = read(paths, options, &mut |example| store.push(&example))?;
    Ok(Loaded {
        examples: store.finish()?,
        counts,
    })
}

/// Reads and checks `paths` as [`load`] does, and keeps nothing.
///
/// # Errors
/// [`Error::Row`] for a row that cannot be trained on, with its file and number from 1; [`Error::Tokenizer`] for ids
/// of another vocabulary; [`Error::NoExamples`] when nothing is left.
pub fn count(paths: &[PathBuf], options: &LoadOptions<'_>) -> Result<Counts, Error> {
    read(paths, options, &mut |_| Ok(()))
}

fn read(
    paths: &[PathBuf],
    options: &LoadOptions<'_>,
    keep: &mut dyn FnMut(TrainingExample) -> Result<(), Error>,
) -> Result<Counts, Error> {
    let mut reading = Reading {
        options,
        keep,
        counts: Counts::default(),
    };
    for path in paths {
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        match extension {
            "parquet" => reading.parquet(path)?,
            "jsonl" | "ndjson" => reading.jsonl(path)?,
            _ => {
                return Err(Error::Row {
                    path: path.clone(),
                    row: 0,
                    problem: format!(
                        "`.{extension}` files are not read; give `.parquet` or `.jsonl`"
                    ),
                });
            }
        }
    }
    let counts = reading.counts;
    if counts.examples > 0 {
        return Ok(counts);
    }
    let dropped = if counts.dropped.is_empty() {
        "none left out".to_owned()
    } else {
        format!("left out: {}", counts.dropped.lines().join("; "))
    };
    Err(Error::NoExamples {
        read: counts.rows,
        dropped,
    })
}

/// One line of a JSONL file; keys it does not name are not read.
#[derive(Deserialize)]
struct JsonRow {
    id: Option<String>,
    #[serde(default)]
    messages: Vec<Message>,
    prompt_token_ids: Option<Vec<u32>>,
    token_ids: Option<Vec<u32>>,
    finish_reason: Option<String>,
}

/// One pass over the files, a batch of rows in memory at a time.
struct Reading<'a> {
    options: &'a LoadOptions<'a>,
    keep: &'a mut dyn FnMut(TrainingExample) -> Result<(), Error>,
    counts: Counts,
}

impl Reading<'_> {
    fn parquet(&mut self, path: &Path) -> Result<(), Error> {
        let reader = open(path, self.options.needs_top_k)?;
        let fingerprint = reader.metadata(records::TOKENIZER_KEY);
        let foreign = fingerprint
            .is_some_and(|fingerprint| fingerprint != self.options.tokenizer.fingerprint());
        let vocabulary = if foreign {
            Vocabulary::shared_with_teacher(path, self.options)?
        } else {
            Vocabulary::own(self.options)
        };
        let named = reader.schema().field_with_name("id").is_ok();
        let asked = reader.schema().field_with_name(SCORED_BY).is_ok();
        let mut row = 0;
        for batch in reader {
            let batch = batch?;
            let in_file = |error: records::Error| error.in_file(path);
            let mut scorers = Columns(&batch)
                .optional_strings(SCORED_BY)
                .map_err(in_file)?
                .into_iter();
            for mut example in example::from_batch(&batch).map_err(in_file)? {
                row += 1;
                // What could not be scored says why beside it.
                if scorers.next().flatten().is_none() && asked {
                    self.counts.rows += 1;
                    self.drop_row("not_scored", path, row);
                    continue;
                }
                if !named {
                    example.id = unnamed(path, row);
                }
                self.push(path, row, example, &vocabulary)?;
            }
        }
        Ok(())
    }

    fn jsonl(&mut self, path: &Path) -> Result<(), Error> {
        let vocabulary = Vocabulary::own(self.options);
        let file = File::open(path).map_err(io(path))?;
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(io(path))?;
            if line.trim().is_empty() {
                continue;
            }
            let row = index + 1;
            let read: JsonRow = serde_json::from_str(&line).map_err(|error| Error::Row {
                path: path.to_path_buf(),
                row,
                problem: error.to_string(),
            })?;
            let example = Example {
                id: read.id.unwrap_or_else(|| unnamed(path, row)),
                messages: read.messages,
                prompt_token_ids: read.prompt_token_ids,
                token_ids: read.token_ids,
                finish_reason: read.finish_reason,
                ..Example::default()
            };
            self.push(path, row, example, &vocabulary)?;
        }
        Ok(())
    }

    /// Turns a row into an example and keeps it, or counts why not.
    fn push(
        &mut self,
        path: &Path,
        row: usize,
        example: Example,
        vocabulary: &Vocabulary,
    ) -> Result<(), Error> {
        self.counts.rows += 1;
        let checked = checked(example, vocabulary, self.options);
        let mut example = checked.map_err(|problem| Error::Row {
            path: path.to_path_buf(),
            row,
            problem,
        })?;
        let max_length = self.options.max_length;
        let longest_row = &mut self.counts.longest_row;
        *longest_row = (*longest_row).max(example.n_tokens() as u64);
        let mut truncated = false;
        if example.n_tokens() > max_length {
            let room = max_length.saturating_sub(example.prompt_ids.len());
            if self.options.long == Long::Drop || room == 0 {
                self.drop_row(TOO_LONG, path, row);
                return Ok(());
            }
            example.completion_ids.truncate(room);
            example.top = example.top.map(|top| top.truncated(room));
            truncated = true;
        }
        if example.n_supervised() == 0 {
            self.drop_row("empty_completion", path, row);
            return Ok(());
        }
        let counts = &mut self.counts;
        counts.truncated += u64::from(truncated);
        counts.examples += 1;
        counts.n_tokens += example.n_tokens() as u64;
        counts.n_supervised += example.n_supervised() as u64;
        counts.longest = counts.longest.max(example.n_tokens() as u64);
        (self.keep)(example)
    }

    fn drop_row(&mut self, reason: &str, path: &Path, row: usize) {
        let place = || Place::new(path, row as u64);
        self.counts.dropped.add(reason, place);
    }
}

/// Opens a file for the columns that training reads.
fn open(path: &Path, needs_top_k: bool) -> Result<Reader, Error> {
    let mut columns = vec![
        "id",
        "messages",
        "prompt_token_ids",
        "token_ids",
        "finish_reason",
    ];
    if needs_top_k {
        columns.extend(TOP_K_COLUMNS);
        columns.extend(["logprob_space", SCORED_BY]);
    }
    let reader = Reader::open_columns(path, Some(&columns))?;
    let has = |name: &str| reader.schema().field_with_name(name).is_ok();
    if has("messages") || (has("prompt_token_ids") && has("token_ids")) {
        return Ok(reader);
    }
    // The whole table, so that the error lists every column that is there.
    Ok(Reader::open(path)?)
}

fn unnamed(path: &Path, row: usize) -> String {
    format!("{}:{row}", path.display())
}

/// The example of a row, whole, or what is wrong with it.
fn checked(
    example: Example,
    vocabulary: &Vocabulary,
    options: &LoadOptions<'_>,
) -> Result<TrainingExample, String> {
    let top = if options.needs_top_k {
        Some(stored_top_k(&example)?)
    } else {
        None
    };
    let (prompt_ids, completion_ids) = match (&example.token_ids, &example.prompt_token_ids) {
        (Some(completion), Some(prompt)) => {
            with_template(prompt, completion, &example.messages, options)?
        }
        _ if example.messages.is_empty() => {
            return Err("has neither `messages` nor `prompt_token_ids` with `token_ids`".into());
        }
        _ => tokenised(&example, options)?,
    };
    for ids in [&prompt_ids, &completion_ids] {
        vocabulary.check(ids, options)?;
    }
    let top = match top {
        // A think opening that the student's template leaves to the completion has no stored distribution.
        Some(top) if top.len() != completion_ids.len() => {
            return Err(format!(
                "stores the teacher's top-k for {} positions of {} completion tokens; with `student.prompt_template = \
                 \"teacher\"` the ids are used as they were sampled",
                top.len(),
                completion_ids.len()
            ));
        }
        Some(top) => Some(without_strays(top, vocabulary)?),
        None => None,
    };
    Ok(TrainingExample {
        id: example.id,
        prompt_ids,
        completion_ids,
        top,
    })
}

fn stored_top_k(example: &Example) -> Result<TopK, String> {
    let top = example.top.as_ref().ok_or(
        "has no stored top-k, which `train.loss.kind` needs; sample with `generate.top_k_logits`, or use kind = \"hard\"",
    )?;
    match example.logprob_space.as_deref() {
        None | Some("raw") => Ok(top.clone()),
        Some(other) => Err(format!(
            "its log-probabilities are `{other}`; soft losses need raw ones (log-softmax of the unchanged logits)"
        )),
    }
}

/// The ids of a row that has them, its prompt rendered as the recipe asks.
fn with_template(
    prompt: &[u32],
    completion: &[u32],
    messages: &[Message],
    options: &LoadOptions<'_>,
) -> Result<(Vec<u32>, Vec<u32>), String> {
    let as_sampled = || (prompt.to_vec(), completion.to_vec());
    if options.prompt_template == PromptTemplate::Teacher {
        return Ok(as_sampled());
    }
    // Rows of ids alone cannot be rendered again.
    let Some((last, before)) = messages.split_last() else {
        return Ok(as_sampled());
    };
    if last.role != "assistant" || before.is_empty() {
        return Ok(as_sampled());
    }
    let text = options
        .tokenizer
        .render_prompt(before)
        .map_err(|error| error.to_string())?;
    let rendered = options
        .tokenizer
        .encode(&text)
        .map_err(|error| error.to_string())?;
    if rendered == prompt {
        return Ok(as_sampled());
    }
    let student_opens = options.tokenizer.opens_think(&text);
    let teacher_opens = options
        .tokenizer
        .opens_think(&options.tokenizer.decode(prompt, true));
    let opening = options
        .tokenizer
        .encode(OPEN_THINK)
        .map_err(|error| error.to_string())?;
    let completion = match (teacher_opens, student_opens) {
        (true, false) => opening.iter().chain(completion).copied().collect(),
        (false, true) => completion.strip_prefix(opening.as_slice()).map(<[u32]>::to_vec).ok_or(
            "the student's template opens `<think>`, which the completion does not begin with; use \
             `student.prompt_template = \"teacher\"`",
        )?,
        _ => completion.to_vec(),
    };
    Ok((rendered, completion))
}

fn tokenised(example: &Example, options: &LoadOptions<'_>) -> Result<(Vec<u32>, Vec<u32>), String> {
    let (prompt, mut completion) = options
        .tokenizer
        .training_ids(&example.messages)
        .map_err(|error| error.to_string())?;
    // The template closes every turn; a trace that was cut off must not teach to stop there.
    let cut = example.finish_reason.as_deref() == Some("length");
    if cut
        && completion
            .last()
            .is_some_and(|last| options.tokenizer.eos_ids().contains(last))
    {
        completion.pop();
    }
    Ok((prompt, completion))
}
