//! Rows of files as examples on disk: what is read, cut, left out and refused.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::path::{Path, PathBuf};

use model::tokenizer::Tokenizer;
use model::training_text::{MissingThought, Turns};
use records::example::{self, Example};
use records::parquet_file::Writer;
use serde_json::{Value, json};
use stillroom_trainer::Error;
use stillroom_trainer::config::{Long, PromptTemplate};
use stillroom_trainer::data::{LoadOptions, Loaded, count, load};
use stillroom_trainer::example::TrainingExample;

const EOS: u32 = 258;

struct Files {
    dir: tempfile::TempDir,
    tokenizer: Tokenizer,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        world::write_student(&dir.path().join("student"), "qwen3", true);
        let tokenizer = Tokenizer::from_dir(&dir.path().join("student")).unwrap();
        Self { dir, tokenizer }
    }

    fn options(&self, max_length: usize, long: Long) -> LoadOptions<'_> {
        LoadOptions {
            tokenizer: &self.tokenizer,
            head_rows: world::VOCAB_SIZE,
            teacher_tokenizer: None,
            prompt_template: PromptTemplate::Teacher,
            max_length,
            long,
            needs_top_k: false,
            turns: Turns::Last,
            missing_thought: MissingThought::Template,
            max_bad_rows: 0.0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self, path: PathBuf, options: &LoadOptions<'_>) -> Result<Loaded, Error> {
        let loaded = load(std::slice::from_ref(&path), options, self.dir.path());
        if let Ok(loaded) = &loaded {
            assert_eq!(count(&[path], options).unwrap(), loaded.counts);
        }
        loaded
    }
}

/// A row with `n` completion ids, the last of them EOS.
fn row(i: u32, n: u32) -> Example {
    let completion = (0..n - 1).map(|t| (i + t) % 256).chain([EOS]);
    Example {
        id: format!("row-{i}"),
        prompt_token_ids: Some(vec![257, i % 256, 258]),
        token_ids: Some(completion.collect()),
        ..Example::default()
    }
}

fn write_parquet(path: &Path, rows: &[Example], tokenizer: Option<&str>) {
    let metadata: Vec<(String, String)> = tokenizer
        .map(|fingerprint| (records::TOKENIZER_KEY.to_owned(), fingerprint.to_owned()))
        .into_iter()
        .collect();
    let mut writer = Writer::create(path, example::schema(), &metadata).unwrap();
    for rows in rows.chunks(100) {
        let batch = example::to_batch(rows, &example::schema()).unwrap();
        writer.write(&batch).unwrap();
    }
    writer.finish().unwrap();
}

fn examples(loaded: &Loaded) -> Vec<TrainingExample> {
    (0..loaded.examples.len())
        .map(|i| loaded.examples.get(i).unwrap())
        .collect()
}

#[test]
fn rows_of_many_batches_come_in_order_from_either_format() {
    let files = Files::new();
    let rows: Vec<Example> = (0..1500).map(|i| row(i, 1 + i % 9)).collect();
    write_parquet(&files.path("rows.parquet"), &rows, None);
    let lines: String = rows
        .iter()
        .map(|row| {
            let line = json!({"id": row.id, "prompt_token_ids": row.prompt_token_ids, "token_ids": row.token_ids});
            line.to_string() + "\n"
        })
        .collect();
    fs::write(files.path("rows.jsonl"), lines).unwrap();
    let options = files.options(256, Long::Drop);
    for name in ["rows.parquet", "rows.jsonl"] {
        let loaded = files.load(files.path(name), &options).unwrap();
        let expected = rows.iter().map(|row| TrainingExample {
            id: row.id.clone(),
            prompt_ids: row.prompt_token_ids.clone().unwrap(),
            completion_ids: row.token_ids.clone().unwrap(),
            context: Vec::new(),
            top: None,
        });
        assert!(examples(&loaded).into_iter().eq(expected), "{name}");
        let counts = loaded.counts;
        assert_eq!(
            (counts.rows, counts.examples, counts.longest),
            (1500, 1500, 12)
        );
        let n_supervised: u64 = (0..1500).map(|i| 1 + i % 9).sum();
        assert_eq!(counts.n_supervised, n_supervised);
        assert_eq!(counts.n_tokens, n_supervised + 3 * 1500);
    }
}

#[test]
fn a_row_without_an_id_is_called_by_its_place() {
    let files = Files::new();
    let line = json!({"prompt_token_ids": [257], "token_ids": [50, EOS]}).to_string();
    let path = files.path("rows.jsonl");
    fs::write(&path, format!("{line}\n\n{line}\n")).unwrap();
    let loaded = files
        .load(path.clone(), &files.options(256, Long::Drop))
        .unwrap();
    let ids: Vec<String> = examples(&loaded).into_iter().map(|e| e.id).collect();
    let expected = [1, 3].map(|line| format!("{}:{line}", path.display()));
    assert_eq!(ids, expected);
}

#[test]
fn an_example_that_is_cut_never_teaches_to_stop() {
    let files = Files::new();
    let path = files.path("rows.parquet");
    // Of 3 + 7 tokens fits exactly, 3 + 8 loses its EOS, a prompt of 10 leaves no room.
    let no_room = Example {
        prompt_token_ids: Some(vec![65; 10]),
        ..row(3, 2)
    };
    write_parquet(&path, &[row(1, 7), row(2, 8), no_room], None);
    let cut = files
        .load(path.clone(), &files.options(10, Long::Truncate))
        .unwrap();
    let kept = examples(&cut);
    assert_eq!(kept[0].completion_ids, row(1, 7).token_ids.unwrap());
    assert_eq!(kept[1].completion_ids, row(2, 8).token_ids.unwrap()[..7]);
    assert_eq!(kept[1].n_tokens(), 10);
    assert!(!kept[1].completion_ids.contains(&EOS));
    assert_eq!((kept.len(), cut.counts.truncated), (2, 1));
    assert_eq!(cut.counts.dropped.count("too_long"), 1);

    let dropped = files.load(path, &files.options(10, Long::Drop)).unwrap();
    assert_eq!(examples(&dropped), kept[..1]);
    assert_eq!(dropped.counts.dropped.count("too_long"), 2);
    assert_eq!(dropped.counts.truncated, 0);
}

#[test]
fn text_of_a_trace_that_was_cut_off_has_no_end_either() {
    let files = Files::new();
    let path = files.path("rows.jsonl");
    let lines: String = ["stop", "length"]
        .map(|finish| {
            let messages =
                json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
            json!({"messages": messages, "finish_reason": finish}).to_string() + "\n"
        })
        .concat();
    fs::write(&path, lines).unwrap();
    let loaded = files.load(path, &files.options(256, Long::Drop)).unwrap();
    let ends: Vec<bool> = examples(&loaded)
        .iter()
        .map(|example| example.completion_ids.contains(&EOS))
        .collect();
    assert_eq!(ends, [true, false]);
}

#[test]
fn ids_of_another_tokenizer_are_compared_with_the_students() {
    let files = Files::new();
    let path = files.path("rows.parquet");
    write_parquet(&path, &[row(1, 4), row(40, 4)], Some("another"));
    // Nothing to compare with.
    let mut options = files.options(256, Long::Drop);
    let message = files.load(path.clone(), &options).unwrap_err().to_string();
    for part in [
        "rows.parquet",
        "another tokenizer",
        "[teacher] model",
        "student",
    ] {
        assert!(message.contains(part), "no `{part}` in {message}");
    }

    // A teacher that spells ids 41 and 200 the other way round.
    let teacher = files.path("teacher");
    world::write_student(&teacher, "qwen3", true);
    let text = fs::read_to_string(teacher.join("tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    for id in tokenizer["model"]["vocab"]
        .as_object_mut()
        .unwrap()
        .values_mut()
    {
        if *id == 41 {
            *id = json!(200);
        } else if *id == 200 {
            *id = json!(41);
        }
    }
    fs::write(teacher.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let teacher = Tokenizer::from_dir(&teacher).unwrap();
    options.teacher_tokenizer = Some(&teacher);
    let message = files.load(path.clone(), &options).unwrap_err().to_string();
    for part in ["rows.parquet, row 2", "41"] {
        assert!(message.contains(part), "no `{part}` in {message}");
    }
    // Ids that mean the same in both are trained on.
    write_parquet(&path, &[row(1, 4), row(50, 4)], Some("another"));
    let loaded = files.load(path.clone(), &options).unwrap();
    assert_eq!(loaded.counts.examples, 2);
    // And without the key, or with the student's own, ids are trusted.
    options.teacher_tokenizer = None;
    for fingerprint in [None, Some(files.tokenizer.fingerprint().to_string())] {
        write_parquet(&path, &[row(40, 4)], fingerprint.as_deref());
        let loaded = files.load(path.clone(), &options).unwrap();
        assert_eq!(loaded.counts.examples, 1);
    }
}
