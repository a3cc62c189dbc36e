//! The data of a run's two control arms: the same rows with what should teach taken away. A
//! student that learns from them too has learned something else than the teacher's reasoning.

use std::path::{Path, PathBuf};

use records::example::{self, Example};
use records::parquet_file::{Reader, Writer};
use records::run_dir::RunDir;
use records::stats::Split;
use records::{Message, TOKENIZER_KEY};

use anyhow::{Context, Result, bail};

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The thinking: an empty thought, then the answer. Only messages remain, as the teacher's
    /// distributions belong to the text that followed its thought.
    AnswersOnly,
    /// The connection: every problem gets another problem's completion, with its token ids and
    /// its top-k, so that the same losses can be computed.
    Shuffled,
}

/// Reads the run's dataset and writes `train.parquet`, and `validation.parquet` where the run has
/// a validation split. Returns the files with their rows.
pub fn write(run_dir: &Path, out: &Path, kind: Kind) -> Result<Vec<(PathBuf, u64)>> {
    let dataset = RunDir::new(run_dir).dataset();
    let mut written = Vec::new();
    for split in [Split::Train, Split::Validation] {
        let (rows, tokenizer) = read_split(&dataset, split)?;
        if rows.is_empty() {
            continue;
        }
        let rows = match kind {
            Kind::AnswersOnly => rows.iter().map(answer_only).collect::<Result<Vec<_>>>()?,
            Kind::Shuffled => shuffled(&rows)?,
        };
        let metadata: Vec<(String, String)> = tokenizer
            .into_iter()
            .map(|fingerprint| (TOKENIZER_KEY.to_owned(), fingerprint))
            .collect();
        let mut writer = Writer::create(
            &out.join(format!("{}.parquet", split.as_str())),
            example::schema(),
            &metadata,
        )?;
        for rows in rows.chunks(256) {
            writer.write(&example::to_batch(rows, &example::schema())?)?;
        }
        let file = writer.finish()?;
        written.push((file.path, file.rows));
    }
    if written.is_empty() {
        bail!(
            "{}: holds no dataset; run the recipe first, its run folder is the first argument",
            dataset.join("data").display()
        );
    }
    Ok(written)
}

/// The rows of a split in their order, and the tokenizer their ids belong to.
fn read_split(dataset: &Path, split: Split) -> Result<(Vec<Example>, Option<String>)> {
    let (mut rows, mut tokenizer) = (Vec::new(), None);
    for path in records::files::split_files(dataset, split)? {
        let reader = Reader::open(&path)?;
        tokenizer = tokenizer.or_else(|| reader.metadata(TOKENIZER_KEY));
        for batch in reader {
            rows.extend(example::from_batch(&batch?).map_err(|error| error.in_file(&path))?);
        }
    }
    Ok((rows, tokenizer))
}

fn split_completion(row: &Example) -> Result<(&[Message], &Message)> {
    match row.messages.split_last() {
        Some((completion, prompt)) if completion.role == "assistant" => Ok((prompt, completion)),
        _ => bail!(
            "row {} does not end with an assistant's message; control data is made from a dataset that build-dataset wrote",
            row.id
        ),
    }
}

/// The row's prompt and answer, with an empty thought between.
fn answer_only(row: &Example) -> Result<Example> {
    let (prompt, completion) = split_completion(row)?;
    let answer = verify::think::split(&completion.content, false)
        .answer
        .unwrap_or_default();
    let mut messages = prompt.to_vec();
    messages.push(Message::new(
        "assistant",
        format!("<think>\n\n</think>\n\n{answer}"),
    ));
    Ok(Example {
        id: row.id.clone(),
        prompt_id: row.prompt_id.clone(),
        sample_index: row.sample_index,
        messages,
        source: row.source.clone(),
        gold_answer: row.gold_answer.clone(),
        ..Example::default()
    })
}

/// Row *i* with the completion of row *i + n/2* (the first distance from there on at which no row
/// meets its own problem). Rows are sorted by prompt id, which is a hash, so a rotation is as
/// good as a random permutation, and the same every time.
fn shuffled(rows: &[Example]) -> Result<Vec<Example>> {
    let n = rows.len();
    let distance = (0..n)
        .map(|step| (n / 2 + step) % n)
        .find(|distance| (0..n).all(|i| rows[i].prompt_id != rows[(i + distance) % n].prompt_id))
        .context(
            "the traces cannot be permuted so that every problem gets another's; \
             the dataset needs traces of at least two problems, none with more than half of the rows",
        )?;
    (0..n)
        .map(|i| {
            let (prompt_row, row) = (&rows[i], &rows[(i + distance) % n]);
            let mut messages = split_completion(prompt_row)?.0.to_vec();
            messages.push(split_completion(row)?.1.clone());
            Ok(Example {
                id: prompt_row.id.clone(),
                prompt_id: prompt_row.prompt_id.clone(),
                sample_index: prompt_row.sample_index,
                messages,
                prompt_token_ids: prompt_row.prompt_token_ids.clone(),
                source: prompt_row.source.clone(),
                gold_answer: prompt_row.gold_answer.clone(),
                verdict: None,
                pass_rate: None,
                quality: None,
                ..row.clone()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(problem: u32, sample: u32) -> Example {
        Example {
            id: format!("p{problem}-{sample}"),
            prompt_id: Some(format!("p{problem}")),
            sample_index: Some(sample),
            messages: vec![
                Message::new("user", format!("problem {problem}")),
                Message::new(
                    "assistant",
                    format!("<think>\nthought {problem}\n</think>\n\n\\boxed{{{problem}}}"),
                ),
            ],
            prompt_token_ids: Some(vec![problem]),
            token_ids: Some(vec![100 + problem, sample]),
            verdict: Some("correct".into()),
            ..Example::default()
        }
    }

    fn run_with(rows: &[Example]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dataset/data/train-00000-of-00001.parquet");
        let metadata = [(TOKENIZER_KEY.to_owned(), "abc".to_owned())];
        let mut writer = Writer::create(&path, example::schema(), &metadata).unwrap();
        writer
            .write(&example::to_batch(rows, &example::schema()).unwrap())
            .unwrap();
        writer.finish().unwrap();
        dir
    }

    fn control(rows: &[Example], kind: Kind) -> Vec<Example> {
        let run = run_with(rows);
        let out = run.path().join("out");
        let written = write(run.path(), &out, kind).unwrap();
        assert_eq!(written, [(out.join("train.parquet"), rows.len() as u64)]);
        let reader = Reader::open(&written[0].0).unwrap();
        assert_eq!(reader.metadata(TOKENIZER_KEY).as_deref(), Some("abc"));
        reader
            .flat_map(|batch| example::from_batch(&batch.unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn answers_only_keeps_the_answer_and_nothing_of_the_thought() {
        let rows = control(&[row(1, 0), row(2, 0)], Kind::AnswersOnly);
        assert_eq!(rows[0].messages[0].content, "problem 1");
        assert_eq!(
            rows[0].messages[1].content,
            "<think>\n\n</think>\n\n\\boxed{1}"
        );
        assert_eq!(rows[0].token_ids, None);
    }

    #[test]
    fn shuffled_gives_every_problem_the_completion_of_another() {
        let before: Vec<Example> = (0..5).flat_map(|p| [row(p, 0), row(p, 1)]).collect();
        let after = control(&before, Kind::Shuffled);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.prompt_id, before.prompt_id);
            assert_eq!(after.messages[0], before.messages[0]);
            assert_eq!(after.prompt_token_ids, before.prompt_token_ids);
            assert_ne!(after.messages[1], before.messages[1]);
            assert_ne!(
                after.token_ids.as_ref().unwrap()[0],
                before.token_ids.as_ref().unwrap()[0]
            );
        }
        let sorted = |rows: &[Example]| {
            let mut all: Vec<_> = rows.iter().map(|row| row.token_ids.clone()).collect();
            all.sort();
            all
        };
        assert_eq!(sorted(&before), sorted(&after));
    }

    #[test]
    fn too_little_data_is_said() {
        let run = run_with(&[row(1, 0), row(1, 1)]);
        let error = write(run.path(), &run.path().join("out"), Kind::Shuffled).unwrap_err();
        assert!(error.to_string().contains("permuted"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        let error = write(empty.path(), &empty.path().join("out"), Kind::Shuffled).unwrap_err();
        assert!(error.to_string().contains("holds no dataset"), "{error}");
    }
}
