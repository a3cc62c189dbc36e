//! Rows as people have them: what each kind teaches, and which are refused with file, row and field.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema;
use model::tokenizer::Tokenizer;
use model::training_text::{MissingThought, Turns};
use records::parquet_file::Writer;
use serde_json::{Value, json};
use stillroom_trainer::Error;
use stillroom_trainer::config::{Long, PromptTemplate};
use stillroom_trainer::data::{LoadOptions, Loaded, load};
use stillroom_trainer::example::TrainingExample;

/// Opens the thought at the generation prompt, and cuts thoughts of earlier turns.
const R1: &str = "{% for message in messages %}{% if message.role == 'assistant' %}<|im_start|>assistant\n\
    {{ message.content.split('</think>')[-1] }}<|im_end|>\n{% else %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";

/// Reads the thought's own field, and gives the last turn an empty thought where it has none.
const QWEN3: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' and loop.last %}\
    <think>\n{{ (message.reasoning_content or '') | trim }}\n</think>\n\n{% endif %}{{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}";

struct Student {
    dir: tempfile::TempDir,
    tokenizer: Tokenizer,
}

impl Student {
    fn new() -> Self {
        Self::with_template(None)
    }

    fn with_template(template: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let student = dir.path().join("student");
        world::write_student(&student, "qwen3", true);
        if let Some(template) = template {
            fs::write(student.join("chat_template.jinja"), template).unwrap();
        }
        let tokenizer = Tokenizer::from_dir(&student).unwrap();
        Self { dir, tokenizer }
    }

    fn thinking(mut self, on: bool) -> Self {
        let kwargs = json!({"enable_thinking": on}).as_object().unwrap().clone();
        self.tokenizer = self.tokenizer.with_chat_template_kwargs(kwargs).unwrap();
        self
    }

    fn options(&self) -> LoadOptions<'_> {
        LoadOptions {
            tokenizer: &self.tokenizer,
            head_rows: world::VOCAB_SIZE,
            teacher_tokenizer: None,
            prompt_template: PromptTemplate::Student,
            max_length: 4096,
            long: Long::Drop,
            needs_top_k: false,
            turns: Turns::Last,
            missing_thought: MissingThought::Template,
            max_bad_rows: 0.0,
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn jsonl(&self, rows: &[Value]) -> PathBuf {
        let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
        self.write("rows.jsonl", &lines.concat())
    }

    fn load(&self, path: &Path, options: &LoadOptions<'_>) -> Result<Loaded, Error> {
        load(&[path.to_path_buf()], options, self.dir.path())
    }

    /// The completion that one row teaches, and what it follows.
    fn learnt(&self, row: &Value, options: &LoadOptions<'_>) -> Result<(String, String), String> {
        let loaded = self.load(&self.jsonl(std::slice::from_ref(row)), options);
        let loaded = loaded.map_err(|error| error.to_string())?;
        let example = loaded.examples.get(0).unwrap();
        Ok((
            self.text(&example.prompt_ids),
            self.text(&example.completion_ids),
        ))
    }

    fn completion(&self, row: &Value) -> String {
        self.learnt(row, &self.options()).unwrap().1
    }

    fn text(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true)
    }
}

fn row(assistant: Value) -> Value {
    json!({"messages": [{"role": "user", "content": "q"}, assistant]})
}

fn examples(loaded: &Loaded) -> Vec<TrainingExample> {
    (0..loaded.examples.len())
        .map(|at| loaded.examples.get(at).unwrap())
        .collect()
}

/// The same rows as a Parquet file with structs.
fn parquet(path: &Path, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    let lines = lines.concat();
    let (schema, _) = infer_json_schema(lines.as_bytes(), None).unwrap();
    let mut reader = ReaderBuilder::new(Arc::new(schema))
        .build(lines.as_bytes())
        .unwrap();
    let batch = reader.next().unwrap().unwrap();
    let mut writer = Writer::create(path, batch.schema(), &[]).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_thought_in_a_field_of_its_own_is_learnt() {
    let plain = Student::new();
    for field in ["reasoning_content", "reasoning", "thinking"] {
        let row = row(json!({"role": "assistant", field: "two and two", "content": "4"}));
        let whole = "<think>\ntwo and two\n</think>\n\n4<|im_end|>";
        assert_eq!(plain.completion(&row), whole, "{field}");
        // A template that knows the field writes it itself; one that opens the thought is joined once.
        assert_eq!(Student::with_template(Some(QWEN3)).completion(&row), whole);
        let r1 = Student::with_template(Some(R1));
        let (prompt, completion) = r1.learnt(&row, &r1.options()).unwrap();
        assert!(prompt.ends_with("<think>\n"), "{prompt}");
        assert_eq!(completion, "two and two\n</think>\n\n4<|im_end|>");
        let path = plain.dir.path().join("rows.parquet");
        parquet(&path, &[row.clone(), row.clone()]);
        let loaded = plain.load(&path, &plain.options()).unwrap();
        assert_eq!(loaded.counts.examples, 2);
        assert_eq!(plain.text(&examples(&loaded)[1].completion_ids), whole);
    }
}

#[test]
fn parts_are_joined_and_a_part_that_is_no_text_is_a_bad_row() {
    let student = Student::new();
    let parts = row(
        json!({"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
    );
    assert_eq!(student.completion(&parts), "ab<|im_end|>");
    let path = student.dir.path().join("rows.parquet");
    let mut whole = parts.clone();
    whole["messages"][0]["content"] = json!([{"type": "text", "text": "q"}]);
    parquet(&path, &[whole]);
    let loaded = student.load(&path, &student.options()).unwrap();
    assert_eq!(
        student.text(&examples(&loaded)[0].completion_ids),
        "ab<|im_end|>"
    );

    let picture = json!({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]});
    let picture = json!({"messages": [picture, {"role": "assistant", "content": "a"}]});
    let path = student.jsonl(&[parts.clone(), picture]);
    let message = student
        .load(&path, &student.options())
        .unwrap_err()
        .to_string();
    assert!(
        message
            .contains("rows.jsonl, row 2: `messages[0].content[0]` is a part of type `image_url`"),
        "{message}"
    );
    let options = LoadOptions {
        max_bad_rows: 0.5,
        ..student.options()
    };
    let loaded = student.load(&path, &options).unwrap();
    assert_eq!((loaded.counts.rows, loaded.counts.examples), (2, 1));
    assert!(
        loaded.counts.dropped.lines()[0].contains("image_url"),
        "{:?}",
        loaded.counts.dropped
    );
}

#[test]
fn what_the_prompt_opened_is_joined_once_and_closed() {
    let student = Student::with_template(Some(R1));
    let learnt = |content: &str| {
        student.learnt(
            &row(json!({"role": "assistant", "content": content})),
            &student.options(),
        )
    };
    for content in [
        "<think>\nt\n</think>\n\na",
        " \n<think>\nt\n</think>\n\na",
        "<think>t\n</think>\n\na",
    ] {
        let (prompt, completion) = learnt(content).unwrap();
        assert!(prompt.ends_with("<think>\n"));
        assert_eq!(completion, "t\n</think>\n\na<|im_end|>", "{content:?}");
    }
    // Words before the tag belong to the thought: the tag stands once.
    let (_, completion) = learnt("Let me see. <think>\nt\n</think>\n\na").unwrap();
    assert_eq!(completion, "Let me see.\nt\n</think>\n\na<|im_end|>");
    let message = learnt("a").unwrap_err();
    assert!(
        message.contains("rows.jsonl, row 1: the answer has no thought; train.missing_thought"),
        "{message}"
    );
    let options = LoadOptions {
        missing_thought: MissingThought::Empty,
        ..student.options()
    };
    let (prompt, completion) = student
        .learnt(&row(json!({"role": "assistant", "content": "a"})), &options)
        .unwrap();
    let whole = prompt + &completion;
    assert!(
        whole.ends_with("assistant\n<think>\n\n</think>\n\na<|im_end|>"),
        "{whole}"
    );
}

#[test]
fn ids_follow_the_same_rule_as_text() {
    let student = Student::with_template(Some(R1));
    let bytes = |text: &str| student.tokenizer.encode(text).unwrap();
    let learnt = |completion: &str, missing_thought| {
        let row = json!({
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": completion}],
            "prompt_token_ids": bytes("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"),
            "token_ids": bytes(&format!("{completion}<|im_end|>")),
        });
        let options = LoadOptions {
            missing_thought,
            ..student.options()
        };
        student.learnt(&row, &options)
    };
    for completion in ["<think>\nt\n</think>\n\na", "\n <think>\nt\n</think>\n\na"] {
        let (prompt, completion) = learnt(completion, MissingThought::Template).unwrap();
        assert!(prompt.ends_with("<think>\n"));
        assert_eq!(completion, "t\n</think>\n\na<|im_end|>");
    }
    let message = learnt("a", MissingThought::Template).unwrap_err();
    assert!(message.contains("does not begin with"), "{message}");
    let (_, completion) = learnt("a", MissingThought::Empty).unwrap();
    assert_eq!(completion, "\n</think>\n\na<|im_end|>");
}

#[test]
fn answers_without_a_thought_take_what_template_and_recipe_say() {
    let bare = row(json!({"role": "assistant", "content": "a"}));
    let thinking = Student::with_template(Some(QWEN3));
    assert_eq!(
        thinking.completion(&bare),
        "<think>\n\n</think>\n\na<|im_end|>"
    );
    let direct = Student::with_template(Some(QWEN3)).thinking(false);
    let (prompt, completion) = direct.learnt(&bare, &direct.options()).unwrap();
    assert!(prompt.ends_with("<think>\n\n</think>\n\n"), "{prompt}");
    assert_eq!(completion, "a<|im_end|>");
    let thought = row(json!({"role": "assistant", "reasoning": "t", "content": "a"}));
    let message = direct.learnt(&thought, &direct.options()).unwrap_err();
    assert!(message.contains("enable_thinking"), "{message}");
    let plain = Student::new();
    let check = |missing_thought, expected: &str| {
        let options = LoadOptions {
            missing_thought,
            ..plain.options()
        };
        let found = plain.learnt(&bare, &options);
        let found = found.map_or_else(|message| message, |(_, completion)| completion);
        assert!(found.contains(expected), "{found}");
    };
    check(MissingThought::Template, "a<|im_end|>");
    check(MissingThought::Empty, "<think>\n\n</think>\n\na<|im_end|>");
    check(MissingThought::Refuse, "has no thought");
}

#[test]
fn every_layout_that_imports_read_can_be_trained_on() {
    let student = Student::new();
    let turns = json!([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]);
    let lines = [
        json!({"id": 7, "conversations": turns}),
        json!({"prompt": "q", "completion": "a"}),
        json!({"instruction": "q", "input": "", "output": "a"}),
        json!({"messages": turns.to_string()}),
    ];
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
    let bom = format!("\u{feff}{}", lines.concat());
    let array = format!("[{}]", lines.join(","));
    for (name, text) in [
        ("a.jsonl", bom.as_str()),
        ("b.json", &array),
        ("c.ndjson", &lines.concat()),
    ] {
        let path = student.write(name, text);
        let loaded = student.load(&path, &student.options()).unwrap();
        assert_eq!(loaded.counts.examples, 4, "{name}");
        let found = examples(&loaded);
        assert_eq!(found[0].id, "7");
        for example in &found {
            assert_eq!(student.text(&example.completion_ids), "a<|im_end|>");
            assert!(
                student
                    .text(&example.prompt_ids)
                    .contains("user\nq<|im_end|>")
            );
        }
    }
    let path = student.write("t.txt", "x");
    let message = student
        .load(&path, &student.options())
        .unwrap_err()
        .to_string();
    assert!(message.contains(".jsonl.zst"), "{message}");
}

#[test]
fn an_answer_that_says_nothing_is_left_out() {
    let student = Student::new();
    let rows = [
        row(json!({"role": "assistant", "content": ""})),
        row(json!({"role": "assistant", "content": " \n"})),
        row(json!({"role": "assistant", "reasoning": "t", "content": ""})),
        row(json!({"role": "assistant", "content": "a"})),
    ];
    let loaded = student
        .load(&student.jsonl(&rows), &student.options())
        .unwrap();
    assert_eq!(loaded.counts.examples, 1);
    assert_eq!(loaded.counts.dropped.count("empty_completion"), 3);
    // A thought that was cut off is one all the same.
    let mut cut = row(json!({"role": "assistant", "reasoning": "t", "content": null}));
    cut["finish_reason"] = json!("length");
    assert_eq!(student.completion(&cut), "<think>\nt");
}

#[test]
fn weights_mask_turns_and_tools_reach_the_template() {
    let template = "{% if tools %}TOOLS {{ tools | length }}\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
        {% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{% endfor %}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let student = Student::with_template(Some(template));
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let turns = json!([
        {"role": "user", "content": "q"}, call,
        {"role": "tool", "content": "42", "name": "f"},
        {"role": "assistant", "content": "a"},
    ]);
    let row = json!({"messages": turns, "tools": tools.to_string()});
    let options = LoadOptions {
        turns: Turns::All,
        ..student.options()
    };
    let loaded = student
        .load(&student.jsonl(std::slice::from_ref(&row)), &options)
        .unwrap();
    let example = loaded.examples.get(0).unwrap();
    let whole = student.text(&[&example.prompt_ids[..], &example.completion_ids].concat());
    assert!(whole.starts_with("TOOLS 1\n"), "{whole}");
    let learnt: Vec<u32> = example
        .completion_ids
        .iter()
        .zip(example.supervised())
        .filter_map(|(id, learnt)| learnt.then_some(*id))
        .collect();
    assert_eq!(student.text(&learnt), "CALL f<|im_end|>a<|im_end|>");
    assert_eq!(loaded.counts.n_supervised, learnt.len() as u64);
    // What no template reads is said, not ignored.
    let plain = Student::new();
    let loaded = plain.load(&plain.jsonl(&[row]), &plain.options()).unwrap();
    let notes = loaded.counts.notes.lines().join("\n");
    assert!(
        notes.contains("`tool_calls`") && notes.contains("`tools`"),
        "{notes}"
    );

    let masked = json!({"messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "bad", "weight": 0},
        {"role": "user", "content": "r"}, {"role": "assistant", "content": "good", "train": true},
    ]});
    let options = LoadOptions {
        turns: Turns::All,
        ..plain.options()
    };
    let (prompt, completion) = plain.learnt(&masked, &options).unwrap();
    assert!(prompt.contains("bad"));
    assert_eq!(completion, "good<|im_end|>");
    let mut none = masked;
    none["messages"][3]["train"] = json!(false);
    let message = plain.learnt(&none, &options).unwrap_err();
    assert!(message.contains("1 × masked"), "{message}");
}

#[test]
fn all_turns_are_learnt_in_one_text_or_apart_where_thoughts_are_dropped() {
    let turns = json!({"messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\ns\n</think>\n\na"},
        {"role": "user", "content": "r"}, {"role": "assistant", "content": "<think>\nt\n</think>\n\nb"},
        {"role": "user", "content": "unanswered"},
    ]});
    let learn = |template: Option<&str>, turns_of: Turns| {
        let student = Student::with_template(template);
        let options = LoadOptions {
            turns: turns_of,
            ..student.options()
        };
        let loaded = student
            .load(&student.jsonl(std::slice::from_ref(&turns)), &options)
            .unwrap();
        assert!(loaded.counts.notes.lines()[0].contains("turns after the assistant's last"));
        let texts = examples(&loaded).into_iter().map(|example| {
            let learnt = example.completion_ids.iter().zip(example.supervised());
            let learnt: Vec<u32> = learnt
                .filter_map(|(id, learnt)| learnt.then_some(*id))
                .collect();
            student.text(&learnt)
        });
        texts.collect::<Vec<_>>()
    };
    let (first, second) = (
        "<think>\ns\n</think>\n\na<|im_end|>",
        "<think>\nt\n</think>\n\nb<|im_end|>",
    );
    assert_eq!(learn(None, Turns::Last), [second]);
    assert_eq!(learn(None, Turns::All), [format!("{first}{second}")]);
    let cut = |text: &str| text["<think>\n".len()..].to_owned();
    assert_eq!(learn(Some(R1), Turns::All), [cut(first), cut(second)]);
}

#[test]
fn a_template_without_a_generation_prompt_has_its_header_learnt() {
    let template =
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    let student = Student::with_template(Some(template));
    let notices = student.tokenizer.notices();
    assert!(
        notices.len() == 1 && notices[0].contains("\"<|im_start|>assistant\\n\" is learnt"),
        "{notices:?}"
    );
    assert!(Student::new().tokenizer.notices().is_empty());
    let (prompt, completion) = student
        .learnt(
            &row(json!({"role": "assistant", "content": "a"})),
            &student.options(),
        )
        .unwrap();
    assert_eq!(prompt, "<|im_start|>user\nq<|im_end|>\n");
    assert_eq!(completion, "<|im_start|>assistant\na<|im_end|>");
}

#[test]
fn bad_rows_are_named_by_file_row_and_field_however_far_down() {
    let student = Student::new();
    let mut rows = vec![row(json!({"role": "assistant", "content": "a"})); 1200];
    rows[1000] = json!({"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "a"}]});
    let message = student
        .load(&student.jsonl(&rows), &student.options())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("rows.jsonl, row 1001: `messages[0].content` is null"),
        "{message}"
    );
    let path = student.dir.path().join("rows.parquet");
    parquet(&path, &rows);
    let message = student
        .load(&path, &student.options())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("rows.parquet, row 1001: `messages[0].content` is null"),
        "{message}"
    );

    // The first ten of more than are allowed.
    for at in 0..30 {
        rows[40 * at] = json!({"messages": "nonsense"});
    }
    let path = student.jsonl(&rows);
    let message = student
        .load(&path, &student.options())
        .unwrap_err()
        .to_string();
    assert_eq!(message.lines().count(), 11, "{message}");
    assert!(
        message.contains("row 361:") && !message.contains("row 401:"),
        "{message}"
    );
    for (max_bad_rows, taken) in [(30.0, true), (29.0, false), (0.03, true), (0.01, false)] {
        let options = LoadOptions {
            max_bad_rows,
            ..student.options()
        };
        let loaded = student.load(&path, &options);
        assert_eq!(loaded.is_ok(), taken, "{max_bad_rows}");
        if let Ok(loaded) = loaded {
            assert_eq!(loaded.counts.examples, 1200 - 30);
            assert_eq!(loaded.counts.dropped.total(), 30);
        }
    }
}

#[test]
fn columns_that_nobody_reads_are_named() {
    let student = Student::new();
    let mut line = row(json!({"role": "assistant", "content": "a", "mood": "glad"}));
    line["category"] = json!("math");
    let loaded = student
        .load(&student.jsonl(&[line]), &student.options())
        .unwrap();
    let notes = loaded.counts.notes.lines().join("\n");
    assert!(notes.contains("column `category` is not read"), "{notes}");
    assert!(
        notes.contains("`mood` in a message, which the chat template does not read"),
        "{notes}"
    );
    let table: [(&str, ArrayRef); 1] = [("text", Arc::new(StringArray::from(vec!["x"])))];
    let batch = RecordBatch::try_from_iter(table).unwrap();
    let path = student.dir.path().join("text.parquet");
    let mut writer = Writer::create(&path, batch.schema(), &[]).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let message = student
        .load(&path, &student.options())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("text.parquet") && message.contains("the columns are text"),
        "{message}"
    );
}
