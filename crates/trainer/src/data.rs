//! Rows of Parquet or JSONL files, as token ids checked against the student's tokenizer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use model::tokenizer::Tokenizer;
use records::Message;
use records::example::{self, Example};
use records::parquet_file::Reader;
use records::top_k::TopK;
use serde::Deserialize;

use crate::Error;
use crate::config::{Long, PromptTemplate};
use crate::error::io;
use crate::loss::divergence::log_add;

/// Teacher mass at one position that may lie on ids the student does not have; it joins the tail.
const STRAY_MASS: f64 = 1e-4;

const OPEN_THINK: &str = "<think>\n";

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
        self.completion_ids.len()
            - usize::from(self.prompt_ids.is_empty() && !self.completion_ids.is_empty())
    }
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

/// What was read.
#[derive(Debug, Default)]
pub struct Loaded {
    pub examples: Vec<TrainingExample>,
    pub rows: u64,
    /// Rows left out, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Rows cut to `max_length`.
    pub truncated: u64,
}

impl Loaded {
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        self.examples
            .iter()
            .map(|example| example.n_tokens() as u64)
            .sum()
    }

    #[must_use]
    pub fn n_supervised(&self) -> u64 {
        self.examples
            .iter()
            .map(|example| example.n_supervised() as u64)
            .sum()
    }
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

/// Reads `paths` (`.parquet`, `.jsonl`) in order.
///
/// # Errors
/// [`Error::Row`] for a row that cannot be trained on, with its file and number from 1; [`Error::Tokenizer`] for ids
/// of another vocabulary; [`Error::NoExamples`] when nothing is left.
pub fn load(paths: &[PathBuf], options: &LoadOptions<'_>) -> Result<Loaded, Error> {
    let mut loaded = Loaded::default();
    for path in paths {
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        match extension {
            "parquet" => read_parquet(path, options, &mut loaded)?,
            "jsonl" | "ndjson" => read_jsonl(path, options, &mut loaded)?,
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
    if loaded.examples.is_empty() {
        let dropped: Vec<String> = loaded
            .dropped
            .iter()
            .map(|(reason, n)| format!("{n} {reason}"))
            .collect();
        let dropped = if dropped.is_empty() {
            "none dropped".to_owned()
        } else {
            format!("dropped: {}", dropped.join(", "))
        };
        return Err(Error::NoExamples {
            read: loaded.rows,
            dropped,
        });
    }
    Ok(loaded)
}

fn read_parquet(path: &Path, options: &LoadOptions<'_>, loaded: &mut Loaded) -> Result<(), Error> {
    let reader = Reader::open(path)?;
    let fingerprint = reader.metadata(records::TOKENIZER_KEY);
    let foreign =
        fingerprint.is_some_and(|fingerprint| fingerprint != options.tokenizer.fingerprint());
    let vocabulary = if foreign {
        Vocabulary::shared_with_teacher(path, options)?
    } else {
        Vocabulary::own(options)
    };
    let mut row = 0;
    for batch in reader {
        for example in example::from_batch(&batch?).map_err(|error| error.in_file(path))? {
            row += 1;
            push(path, row, example, &vocabulary, options, loaded)?;
        }
    }
    Ok(())
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

fn read_jsonl(path: &Path, options: &LoadOptions<'_>, loaded: &mut Loaded) -> Result<(), Error> {
    let vocabulary = Vocabulary::own(options);
    let file = File::open(path).map_err(io(path))?;
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(io(path))?;
        if line.trim().is_empty() {
            continue;
        }
        let bad = |problem: String| Error::Row {
            path: path.to_path_buf(),
            row: index + 1,
            problem,
        };
        let row: JsonRow = serde_json::from_str(&line).map_err(|error| bad(error.to_string()))?;
        let example = Example {
            id: row
                .id
                .unwrap_or_else(|| format!("{}:{}", path.display(), index + 1)),
            messages: row.messages,
            prompt_token_ids: row.prompt_token_ids,
            token_ids: row.token_ids,
            finish_reason: row.finish_reason,
            ..Example::default()
        };
        push(path, index + 1, example, &vocabulary, options, loaded)?;
    }
    Ok(())
}

/// Which ids a file's teacher and the student agree on.
struct Vocabulary {
    /// Ids at or above it are not the student's.
    limit: u32,
    /// By id, where the file's tokenizer is another than the student's.
    shared: Option<Vec<bool>>,
}

impl Vocabulary {
    fn own(options: &LoadOptions<'_>) -> Self {
        let limit = options.head_rows.min(options.tokenizer.vocab_size());
        Self {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            shared: None,
        }
    }

    /// For a file whose fingerprint is not the student's.
    fn shared_with_teacher(path: &Path, options: &LoadOptions<'_>) -> Result<Self, Error> {
        let Some(teacher) = options.teacher_tokenizer else {
            return Err(Error::Tokenizer {
                path: path.to_path_buf(),
                problem: format!(
                    "its token ids come from another tokenizer than {}'s, and the teacher's is not at hand to \
                     compare them; name the teacher in `[teacher] model`, or train on rows with `messages` only",
                    options.tokenizer.dir().display()
                ),
            });
        };
        let own = Self::own(options);
        let shared = (0..own.limit)
            .map(|id| teacher.token_bytes(id) == options.tokenizer.token_bytes(id))
            .collect();
        Ok(Self {
            shared: Some(shared),
            ..own
        })
    }

    fn holds(&self, id: u32) -> bool {
        id < self.limit
            && self
                .shared
                .as_ref()
                .is_none_or(|shared| shared[id as usize])
    }

    /// Refuses the first id that is not the student's.
    fn check(&self, ids: &[u32], options: &LoadOptions<'_>) -> Result<(), String> {
        let Some(&id) = ids.iter().find(|&&id| !self.holds(id)) else {
            return Ok(());
        };
        if let (true, Some(teacher)) = (id < self.limit, options.teacher_tokenizer) {
            teacher
                .compatible(options.tokenizer, [id])
                .map_err(|error| error.to_string())?;
        }
        let student = options.tokenizer.dir().display();
        Err(format!(
            "token id {id} is beyond {student}'s vocabulary of {}",
            self.limit
        ))
    }
}

/// Turns a row into an example and keeps it, or counts why not.
fn push(
    path: &Path,
    row: usize,
    example: Example,
    vocabulary: &Vocabulary,
    options: &LoadOptions<'_>,
    loaded: &mut Loaded,
) -> Result<(), Error> {
    loaded.rows += 1;
    let bad = |problem: String| Error::Row {
        path: path.to_path_buf(),
        row,
        problem,
    };
    let top = if options.needs_top_k {
        Some(stored_top_k(&example).map_err(bad)?)
    } else {
        None
    };
    let (prompt_ids, completion_ids) = match (&example.token_ids, &example.prompt_token_ids) {
        (Some(completion), Some(prompt)) => {
            with_template(prompt, completion, &example.messages, options).map_err(bad)?
        }
        _ if example.messages.is_empty() => {
            return Err(bad(
                "has neither `messages` nor `prompt_token_ids` with `token_ids`".into(),
            ));
        }
        _ => tokenised(&example, options).map_err(bad)?,
    };
    for ids in [&prompt_ids, &completion_ids] {
        vocabulary.check(ids, options).map_err(bad)?;
    }
    let top = match top {
        Some(top) => {
            // A think opening that the student's template leaves to the completion has no stored distribution.
            if top.len() != completion_ids.len() {
                return Err(bad(format!(
                    "stores the teacher's top-k for {} positions of {} completion tokens; with `student.prompt_template = \
                     \"teacher\"` the ids are used as they were sampled",
                    top.len(),
                    completion_ids.len()
                )));
            }
            Some(without_strays(&top, vocabulary).map_err(bad)?)
        }
        None => None,
    };
    let mut example = TrainingExample {
        id: example.id,
        prompt_ids,
        completion_ids,
        top,
    };
    if example.n_tokens() > options.max_length {
        let room = options.max_length.saturating_sub(example.prompt_ids.len());
        if options.long == Long::Drop || room == 0 {
            return drop_row(loaded, "too_long");
        }
        example.completion_ids.truncate(room);
        example.top = example.top.map(|top| top.truncated(room));
        loaded.truncated += 1;
    }
    if example.n_supervised() == 0 {
        return drop_row(loaded, "empty_completion");
    }
    loaded.examples.push(example);
    Ok(())
}

fn drop_row(loaded: &mut Loaded, reason: &str) -> Result<(), Error> {
    *loaded.dropped.entry(reason.to_owned()).or_default() += 1;
    Ok(())
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

/// `top` without ids the student lacks and without repeated ids; what they carried is the tail's.
fn without_strays(top: &TopK, vocabulary: &Vocabulary) -> Result<TopK, String> {
    top.validate().map_err(|error| error.to_string())?;
    let mut kept = TopK {
        counts: Some(Vec::with_capacity(top.len())),
        k: top.k,
        ids: Vec::new(),
        logprobs: Vec::new(),
        tail_logprobs: Vec::new(),
    };
    let mut changed = false;
    for (position, (ids, logprobs, tail)) in top.positions().enumerate() {
        let mut seen = BTreeSet::new();
        let (mut stray, mut tail, mut count) = (0.0, f64::from(tail), 0u16);
        for (&id, &logprob) in ids.iter().zip(logprobs) {
            let value = f64::from(logprob.to_f32());
            if value.is_nan() || value > 1e-2 {
                return Err(format!(
                    "position {position}: {value} is no log-probability"
                ));
            }
            if !vocabulary.holds(id) {
                stray += value.exp();
                tail = log_add(tail, value);
            } else if seen.insert(id) {
                kept.ids.push(id);
                kept.logprobs.push(logprob);
                count += 1;
                continue;
            }
            changed = true;
        }
        if stray > STRAY_MASS {
            return Err(format!(
                "position {position}: the teacher puts {stray:.2e} on token ids that are not the student's"
            ));
        }
        if tail.is_nan() {
            return Err(format!(
                "position {position}: `tail_logprobs` is not a number"
            ));
        }
        kept.tail_logprobs.push(tail as f32);
        if let Some(counts) = &mut kept.counts {
            counts.push(count);
        }
    }
    Ok(if changed { kept } else { top.clone() })
}
