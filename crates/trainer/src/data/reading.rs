//! One pass over the files, a batch of rows in memory at a time.

use std::path::{Path, PathBuf};

use model::training_text::EMPTY_COMPLETION;
use records::column::{Columns, each_row, holds_turns};
use records::conversation::{COLUMNS, Layout};
use records::example::{self, Example};
use records::parquet_file::Reader;
use records::table::{self, Item};
use records::trace::TOP_K_COLUMNS;
use records::{Place, SCORED_BY};
use serde_json::{Map, Value};

use super::row::{self, Fit};
use super::vocabulary::Vocabulary;
use super::{Counts, LoadOptions, NAMED_ROWS, TOO_LONG};
use crate::Error;
use crate::config::Long;
use crate::example::TrainingExample;

/// Columns of rows that have their token ids.
const IDS: [&str; 2] = ["prompt_token_ids", "token_ids"];

/// The columns that a dataset of ours has beside those that training reads.
const OWN: [&str; 16] = [
    "prompt_id",
    "sample_index",
    "token_logprobs",
    "top_k",
    "top_ids",
    "top_logprobs",
    "tail_logprobs",
    "top_counts",
    "logprob_space",
    "temperature",
    "teacher",
    "n_tokens",
    "source",
    "gold_answer",
    "verdict",
    "pass_rate",
];

type Keep<'a> = &'a mut dyn FnMut(TrainingExample) -> Result<(), Error>;

pub(super) struct Reading<'a> {
    options: &'a LoadOptions<'a>,
    keep: Keep<'a>,
    counts: Counts,
    /// Rows that cannot be trained on.
    n_bad: u64,
    /// The first of them, each with its problem.
    bad: Vec<(Place, String)>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(options: &'a LoadOptions<'a>, keep: Keep<'a>) -> Self {
        Self {
            options,
            keep,
            counts: Counts::default(),
            n_bad: 0,
            bad: Vec::new(),
        }
    }

    /// Reads the files in order.
    pub(super) fn all(mut self, paths: &[PathBuf]) -> Result<Counts, Error> {
        for path in paths {
            let kind = table::Kind::of(path);
            // The rows of a JSON file may differ in their columns.
            let columns = match kind {
                Some(table::Kind::Json) => None,
                _ => Some(table::columns(path)?),
            };
            let has = |name: &str| columns.iter().flatten().any(|column| column == name);
            let by_ids = kind == Some(table::Kind::Parquet) && IDS.into_iter().all(has);
            if let (Some(columns), false) = (&columns, by_ids)
                && Layout::of(has).is_none()
            {
                return Err(no_layout(path, columns));
            }
            let whole = match by_ids {
                true => self.ids(path)?,
                false => self.rows(path)?,
            };
            if !whole {
                break;
            }
        }
        let limit = match self.options.max_bad_rows {
            share if share < 1.0 => share * self.counts.rows as f64,
            number => number,
        };
        if self.n_bad as f64 > limit {
            return Err(Error::BadRows {
                n: self.n_bad,
                rows: self.counts.rows,
                first: self.bad,
            });
        }
        let counts = self.counts;
        if counts.examples > 0 {
            return Ok(counts);
        }
        let dropped = match counts.dropped.is_empty() {
            true => "none left out".to_owned(),
            false => format!("left out: {}", counts.dropped.lines().join("; ")),
        };
        Err(Error::NoExamples {
            read: counts.rows,
            dropped,
        })
    }

    /// A Parquet file with token ids, by its columns. Gives whether reading goes on.
    fn ids(&mut self, path: &Path) -> Result<bool, Error> {
        let reader = open(path, self.options.needs_top_k)?;
        let fingerprint = reader.metadata(records::TOKENIZER_KEY);
        let foreign = fingerprint
            .is_some_and(|fingerprint| fingerprint != self.options.tokenizer.fingerprint());
        let vocabulary = if foreign {
            Vocabulary::shared_with_teacher(path, self.options)?
        } else {
            Vocabulary::own(self.options)
        };
        let names: Vec<&str> = reader
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let named = names.contains(&"id");
        let asked = names.contains(&SCORED_BY);
        let mut number = 0;
        for batch in reader {
            let batch = batch?;
            let mut scorers = match asked {
                true => Columns(&batch)
                    .optional_strings(SCORED_BY)
                    .map_err(|error| error.in_file(path))?
                    .into_iter(),
                false => Vec::new().into_iter(),
            };
            for example in each_row(&batch, example::from_batch) {
                number += 1;
                self.counts.rows += 1;
                let place = Place::new(path, number);
                // What could not be scored says why beside it.
                if asked && scorers.next().flatten().is_none() {
                    self.leave_out("not_scored", place);
                    continue;
                }
                let fit = match example {
                    Ok(mut example) => {
                        if !named {
                            example.id = unnamed(path, number);
                        }
                        row::example(example, None, &vocabulary, self.options)
                    }
                    Err(error) => Err(error.to_string()),
                };
                if !self.take(fit, place)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Any other file, row by row. Gives whether reading goes on.
    fn rows(&mut self, path: &Path) -> Result<bool, Error> {
        let vocabulary = Vocabulary::own(self.options);
        let columns: Vec<&str> = ["id", "finish_reason"]
            .into_iter()
            .chain(IDS)
            .chain(COLUMNS)
            .collect();
        let seen = table::read::<Error>(path, Some(&columns), |number, item| {
            self.counts.rows += 1;
            let place = Place::new(path, number);
            let fit = match item {
                Item::Row(fields) => self.row(&fields, path, number, &vocabulary),
                Item::Unreadable { problem, .. } => Err(problem),
            };
            self.take(fit, place)
        })?;
        let notes = &mut self.counts.notes;
        seen.note_mended(path, notes);
        for column in seen
            .unread
            .iter()
            .filter(|column| !OWN.contains(&column.as_str()))
        {
            notes.add(&format!("column `{column}` is not read"), || {
                Place::new(path, 1)
            });
        }
        Ok(seen.whole)
    }

    fn row(
        &mut self,
        fields: &Map<String, Value>,
        path: &Path,
        number: u64,
        vocabulary: &Vocabulary,
    ) -> Result<Fit, String> {
        let text = |name: &str| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => records::benchmark::text_of(value).map(Some).ok_or_else(|| {
                format!(
                    "`{name}` is {}, not text",
                    records::conversation::kind(value)
                )
            }),
        };
        let [prompt_token_ids, token_ids] = IDS.map(|name| ids_of(name, fields.get(name)));
        let (prompt_token_ids, token_ids) = (prompt_token_ids?, token_ids?);
        let has_ids = prompt_token_ids.is_some() && token_ids.is_some();
        let conversation =
            match Layout::of(|name| fields.get(name).is_some_and(|value| !value.is_null())) {
                Some(layout) => layout.read(fields)?,
                None if has_ids => Default::default(),
                None => return Err(row::NOTHING.into()),
            };
        row::note_unread(
            &conversation,
            self.options.tokenizer,
            &mut self.counts.notes,
            || Place::new(path, number),
        );
        let example = Example {
            id: text("id")?.unwrap_or_else(|| unnamed(path, number)),
            finish_reason: text("finish_reason")?.map(Into::into),
            messages: conversation.messages,
            prompt_token_ids,
            token_ids,
            ..Example::default()
        };
        row::example(example, conversation.tools, vocabulary, self.options)
    }

    /// Keeps what a row teaches, or counts why it teaches nothing. Gives whether reading goes on.
    fn take(&mut self, fit: Result<Fit, String>, place: Place) -> Result<bool, Error> {
        let examples = match fit {
            Ok(Fit::Examples(examples)) => examples,
            Ok(Fit::Nothing(reason)) => {
                self.leave_out(reason, place);
                return Ok(true);
            }
            Err(problem) => return Ok(self.bad_row(problem, place)),
        };
        for mut example in examples {
            let max_length = self.options.max_length;
            let n_tokens = example.n_tokens();
            self.counts.longest_row = self.counts.longest_row.max(n_tokens as u64);
            let truncated = n_tokens > max_length;
            if truncated {
                let room = max_length.saturating_sub(example.prompt_ids.len());
                if self.options.long == Long::Drop || room == 0 {
                    self.leave_out(TOO_LONG, place.clone());
                    continue;
                }
                example.truncate(room);
            }
            if example.n_supervised() == 0 {
                self.leave_out(EMPTY_COMPLETION, place.clone());
                continue;
            }
            let counts = &mut self.counts;
            counts.truncated += u64::from(truncated);
            counts.examples += 1;
            counts.n_tokens += example.n_tokens() as u64;
            counts.n_supervised += example.n_supervised() as u64;
            counts.longest = counts.longest.max(example.n_tokens() as u64);
            (self.keep)(example)?;
        }
        Ok(true)
    }

    /// Counts a row that cannot be trained on. Gives whether reading goes on: not once the first are known of too many.
    fn bad_row(&mut self, problem: String, place: Place) -> bool {
        self.n_bad += 1;
        let reason = match self.bad.len() < NAMED_ROWS {
            true => format!("bad row: {problem}"),
            false => "bad row".to_owned(),
        };
        self.leave_out(&reason, place.clone());
        if self.bad.len() < NAMED_ROWS {
            self.bad.push((place, problem));
        }
        let limit = self.options.max_bad_rows;
        let counted = limit == 0.0 || limit >= 1.0;
        !(counted && self.n_bad as f64 > limit && self.bad.len() == NAMED_ROWS)
    }

    fn leave_out(&mut self, reason: &str, place: Place) {
        self.counts.dropped.add(reason, || place);
    }
}

fn unnamed(path: &Path, row: u64) -> String {
    format!("{}:{row}", path.display())
}

/// Token ids of JSON.
fn ids_of(name: &str, value: Option<&Value>) -> Result<Option<Vec<u32>>, String> {
    let items = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(other) => {
            return Err(format!(
                "`{name}` is {}, not a list of token ids",
                records::conversation::kind(other)
            ));
        }
    };
    let ids = items.iter().enumerate().map(|(at, item)| {
        let id = item.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| format!("`{name}[{at}]` is {item}, which is no token id"))
    });
    ids.collect::<Result<_, _>>().map(Some)
}

/// That no columns of a table are a conversation.
fn no_layout(path: &Path, columns: &[String]) -> Error {
    let error = records::Error::MissingColumn {
        column: "messages (or conversations, prompt and completion, instruction and output, prompt_token_ids and token_ids)".into(),
        present: columns.join(", "),
    };
    error.in_file(path).into()
}

/// Opens a file with token ids for the columns that training reads.
fn open(path: &Path, needs_top_k: bool) -> Result<Reader, Error> {
    let mut columns = vec!["id", "finish_reason"];
    columns.extend(IDS);
    let schema = Reader::open(path)?;
    let messages = schema.schema().field_with_name("messages");
    // Ids do not need what they were made of.
    if messages.is_ok_and(|field| holds_turns(field.data_type())) {
        columns.push("messages");
    }
    if needs_top_k {
        columns.extend(TOP_K_COLUMNS);
        columns.extend(["logprob_space", SCORED_BY]);
    }
    Ok(Reader::open_columns(path, Some(&columns))?)
}
