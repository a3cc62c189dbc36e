#![allow(clippy::unwrap_used)]

mod presets;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{
    Array as _, ArrayRef, DictionaryArray, Int64Array, LargeListBuilder, LargeStringArray,
    LargeStringBuilder, ListBuilder, RecordBatch, StringArray, StringBuilder, StringViewArray,
    StructArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Int32Type};
use records::column;
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::parquet_file::{Reader, Writer};
use records::prompt::prompt_id;
use records::trace::{self, Trace};
use records::{Located, Message};
use serde_json::json;

use super::stage::{MAX_TEXT, run_with};
use super::{ImportTraces, Summary, check};
use crate::config::{TraceFormat, TracesConfig};
use crate::error::{Error, Result};

struct Set {
    folder: tempfile::TempDir,
    config: TracesConfig,
}

impl Set {
    fn new(format: TraceFormat) -> Self {
        let config = TracesConfig {
            source: "set".into(),
            format: Some(format),
            ..TracesConfig::default()
        };
        Self {
            folder: tempfile::tempdir().unwrap(),
            config,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn jsonl(self, name: &str, lines: &[serde_json::Value]) -> Self {
        let lines: Vec<_> = lines.iter().map(|line| format!("{line}\n")).collect();
        self.bytes(name, lines.concat().as_bytes())
    }

    fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        std::fs::write(self.path(name), bytes).unwrap();
        self
    }

    fn parquet(self, name: &str, columns: Vec<(&str, ArrayRef)>) -> Self {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns
                .into_iter()
                .map(|(name, column)| (name, column, true)),
        )
        .unwrap();
        let mut writer = Writer::create(&self.path(name), batch.schema(), &[]).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        self
    }

    fn plan(&self) -> ImportTraces {
        let mut files: Vec<_> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        ImportTraces {
            dir: self.path("traces"),
            files: files.into_iter().map(Located::from).collect(),
            traces: self.config.clone(),
            format: self.config.format.unwrap(),
            recipe: json!({"traces": {}}),
            quiet: true,
        }
    }

    fn import(&self) -> Result<(Summary, Vec<Trace>)> {
        match run_with(&self.plan(), &AtomicBool::new(false), 128 << 20)? {
            Outcome::Complete(summary) => {
                let mut traces = read(&summary.parts);
                traces.sort_by_key(|trace| (trace.problem.clone(), trace.sample_index));
                Ok((summary, traces))
            }
            Outcome::Interrupted => panic!("nothing stopped it"),
        }
    }

    fn refused(&self) -> String {
        let error = self.import().unwrap_err();
        assert_eq!(Manifest::read(&self.path("traces")).unwrap(), None);
        error.to_string()
    }
}

fn read(parts: &[PathBuf]) -> Vec<Trace> {
    let batches = parts.iter().flat_map(|part| Reader::open(part).unwrap());
    batches
        .flat_map(|batch| trace::from_batch(&batch.unwrap()).unwrap())
        .collect()
}

fn text(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn turns(turns: &[(&str, &str)]) -> Vec<Message> {
    turns
        .iter()
        .map(|(role, content)| Message::new(*role, *content))
        .collect()
}

const WHOLE: &str = "<think>\na\n</think>\n\n\\boxed{2}";

fn check_openr1(set: &Set) {
    let (summary, traces) = set.import().unwrap();
    assert_eq!((summary.rows, summary.traces, summary.failed), (2, 4, 2));
    assert_eq!(summary.prompts, 2);
    let first = &traces[0];
    assert_eq!(first.prompt_id, prompt_id("1+1"));
    assert_eq!(first.trace_id, format!("{}-0", first.prompt_id));
    assert_eq!(first.gold_answer.as_deref(), Some("2"));
    assert_eq!(first.prompt_messages, turns(&[("user", "1+1")]));
    assert_eq!(first.text.as_deref(), Some(WHOLE));
    assert_eq!(first.reasoning.as_deref(), Some("a"));
    assert_eq!(first.finish_reason.as_deref(), Some("stop"));
    assert_eq!(
        (first.source.as_str(), first.teacher.as_str()),
        ("olympiads", "DeepSeek-R1")
    );
    assert_eq!(first.n_completion_tokens, None);
    assert_eq!(traces[1].finish_reason.as_deref(), Some("length"));
    assert_eq!(traces[1].answer, None);
    assert_eq!(
        traces[2].error.as_deref(),
        Some("generation 2 is null or empty")
    );
    assert_eq!((&traces[2].text, traces[2].sample_index), (&None, 2));
    assert_eq!(
        traces[3].error.as_deref(),
        Some("`generations` is null or empty")
    );
    assert_eq!(traces[3].gold_answer, None);
}

/// The most frequent of the reasons for which rows were left out, with its first row.
fn first_reason(summary: &Summary) -> String {
    summary.dropped.lines().remove(0)
}

#[test]
fn openr1_has_a_trace_for_each_generation_in_every_arrow_layout() {
    let generations = [Some("<think>a</think>\\boxed{2}"), Some("<think>b"), None];
    let set = Set::new(TraceFormat::OpenR1).jsonl(
        "a.jsonl",
        &[
            json!({"problem": "1+1", "answer": 2, "generations": generations, "source": "olympiads",
                "finish_reasons": ["stop", "length", null], "correctness_math_verify": [true, false, false]}),
            json!({"problem": "2+2", "answer": null, "generations": null}),
        ],
    );
    check_openr1(&set);

    let mut plain = ListBuilder::new(StringBuilder::new());
    plain.append_value(generations);
    plain.append_null();
    let mut reasons = ListBuilder::new(StringBuilder::new());
    reasons.append_value([Some("stop"), Some("length"), None]);
    reasons.append_null();
    let source: DictionaryArray<Int32Type> = [Some("olympiads"), None].into_iter().collect();
    let source: ArrayRef = Arc::new(source);
    let set = Set::new(TraceFormat::OpenR1).parquet(
        "a.parquet",
        vec![
            ("uuid", text(&[None, None])),
            ("problem", text(&[Some("1+1"), Some("2+2")])),
            ("answer", text(&[Some("2"), None])),
            ("generations", Arc::new(plain.finish())),
            ("finish_reasons", Arc::new(reasons.finish())),
            ("correctness_count", Arc::new(Int64Array::from(vec![1, 0]))),
            ("source", source.clone()),
        ],
    );
    check_openr1(&set);

    let mut large = LargeListBuilder::new(LargeStringBuilder::new());
    large.append_value(generations);
    large.append_null();
    let problems = StringViewArray::from(vec!["1+1", "2+2"]);
    let set = Set::new(TraceFormat::OpenR1).parquet(
        "a.parquet",
        vec![
            ("problem", Arc::new(problems)),
            ("answer", Arc::new(Int64Array::from(vec![Some(2), None]))),
            ("generations", Arc::new(large.finish())),
            ("source", source),
        ],
    );
    check_openr1(&set);
}

#[test]
fn both_openthoughts_sets_are_read() {
    let tagged = "<|begin_of_thought|>\n\na\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n\\boxed{2}\n\n<|end_of_solution|>";
    let roles = text(&[Some("user"), Some("assistant")]);
    let values: ArrayRef = Arc::new(LargeStringArray::from(vec!["1+1", tagged]));
    let turn = StructArray::from(vec![
        (Arc::new(Field::new("from", DataType::Utf8, true)), roles),
        (
            Arc::new(Field::new("value", DataType::LargeUtf8, true)),
            values,
        ),
    ]);
    let field = Arc::new(Field::new("item", turn.data_type().clone(), true));
    let list = arrow::array::ListArray::new(
        field,
        OffsetBuffer::new(ScalarBuffer::from(vec![0, 2, 2])),
        Arc::new(turn),
        None,
    );
    let set = Set::new(TraceFormat::OpenThoughts).parquet(
        "a.parquet",
        vec![
            ("system", text(&[Some("be brief"), Some("be brief")])),
            ("conversations", Arc::new(list)),
        ],
    );
    let (summary, traces) = set.import().unwrap();
    assert_eq!(traces[0].text.as_deref(), Some(WHOLE));
    let prompt = turns(&[("system", "be brief"), ("user", "1+1")]);
    assert_eq!(traces[0].prompt_messages, prompt);
    assert_eq!(traces[0].problem, "1+1");
    // The empty conversation has no problem, and so no name.
    assert_eq!(summary.dropped.total(), 1);
    assert!(first_reason(&summary).ends_with("a.parquet, row 2"));

    let set = Set::new(TraceFormat::OpenThoughts).jsonl(
        "b.jsonl",
        &[
            json!({"problem": "1+1", "deepseek_reasoning": "a", "deepseek_solution": "\\boxed{2}",
                "ground_truth_solution": "2", "source": "math", "domain": "math"}),
            json!({"problem": "2+2", "deepseek_reasoning": null, "deepseek_solution": null,
                "ground_truth_solution": null}),
        ],
    );
    let (summary, traces) = set.import().unwrap();
    assert_eq!((summary.traces, summary.failed), (2, 1));
    assert_eq!(traces[0].text.as_deref(), Some(WHOLE));
    assert_eq!(traces[0].gold_answer.as_deref(), Some("2"));
    assert_eq!(traces[0].source, "math");
}

#[test]
fn s1k_has_a_trace_for_each_teacher() {
    let set = Set::new(TraceFormat::S1k).jsonl(
        "a.jsonl",
        &[
            json!({"question": "1+1", "solution": "2", "source_type": "aime", "metadata": "{}",
            "gemini_thinking_trajectory": null, "gemini_attempt": null,
            "deepseek_thinking_trajectory": "a", "deepseek_attempt": "\\boxed{2}"}),
        ],
    );
    let (summary, traces) = set.import().unwrap();
    assert_eq!((summary.traces, summary.failed), (2, 1));
    assert_eq!(traces[0].text.as_deref(), Some(WHOLE));
    let named: Vec<_> = traces
        .iter()
        .map(|t| (t.teacher.as_str(), t.source.as_str()))
        .collect();
    assert_eq!(named, [("deepseek", "aime"), ("gemini", "aime")]);
    assert!(
        traces[1]
            .error
            .as_ref()
            .unwrap()
            .contains("`gemini_attempt` are null")
    );
}

#[test]
fn conversations_keep_their_turns_and_name_what_they_lack() {
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let set = Set::new(TraceFormat::Messages).jsonl(
        "a.jsonl",
        &[
            json!({"messages": [turn("system", "s"), turn("user", "1+1"), turn("assistant", "<think>a</think>\\boxed{2}")],
                "model": "r1", "answer": "2", "finish_reason": "eos"}),
            json!({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"},
                {"from": "human", "value": "why?"}, {"from": "gpt", "value": "because"}]}),
            json!({"messages": [turn("user", "no reply")]}),
            json!({"messages": [turn("user", "null turn"), null, turn("assistant", "x")]}),
            json!({"messages": [turn("user", "blank"), turn("assistant", " ")]}),
            json!({"messages": [], "problem": "named"}),
            json!({"messages": null}),
        ],
    );
    let (summary, traces) = set.import().unwrap();
    assert_eq!((summary.rows, summary.traces, summary.failed), (7, 6, 4));
    let of = |problem: &str| {
        traces
            .iter()
            .find(|trace| trace.problem == problem)
            .unwrap()
    };
    let first = of("1+1");
    assert_eq!(
        first.prompt_messages,
        turns(&[("system", "s"), ("user", "1+1")])
    );
    assert_eq!(
        (first.teacher.as_str(), first.gold_answer.as_deref()),
        // Nobody has said that `answer` is a gold one: in many sets it is the model's own.
        ("r1", None)
    );
    assert_eq!(first.finish_reason.as_deref(), Some("eos"));
    let several = of("user: q\n\nassistant: r\n\nuser: why?");
    let prompt = turns(&[("user", "q"), ("assistant", "r"), ("user", "why?")]);
    assert_eq!(several.prompt_messages, prompt);
    assert_eq!(several.text.as_deref(), Some("because"));
    assert_eq!(several.reasoning, None);
    let failed = |problem: &str, reason: &str| {
        let error = of(problem).error.as_deref().unwrap();
        assert!(error.contains(reason), "{error}");
    };
    failed("no reply", "no assistant turn");
    failed("null turn", "`messages[1]` is null, not a turn");
    failed("blank", "assistant turn is empty");
    failed("named", "null or empty");
    assert!(first_reason(&summary).starts_with("1 × no problem, first: "));

    let set = Set::new(TraceFormat::OpenThoughts3).parquet(
        "a.parquet",
        vec![
            ("difficulty", Arc::new(Int64Array::from(vec![3]))),
            ("source", text(&[Some("org")])),
            (
                "conversations",
                column::messages(
                    [
                        turns(&[("human", "1+1"), ("gpt", "<think>a</think>\\boxed{2}")])
                            .as_slice(),
                    ]
                    .into_iter(),
                ),
            ),
        ],
    );
    let (_, traces) = set.import().unwrap();
    assert_eq!(
        (traces[0].text.as_deref(), traces[0].teacher.as_str()),
        (Some(WHOLE), "QwQ-32B")
    );
}

#[test]
fn prompts_and_completions_are_texts_or_messages() {
    let set = Set::new(TraceFormat::PromptCompletion).jsonl(
        "a.jsonl",
        &[
            json!({"prompt": "1+1", "completion": "<think>a</think>\\boxed{2}"}),
            json!({"prompt": [{"role": "user", "content": "1+1"}],
                "completion": [{"role": "assistant", "content": "<think>a</think>\\boxed{2}"}]}),
            json!({"prompt": "2+2", "completion": null}),
        ],
    );
    let (summary, traces) = set.import().unwrap();
    assert_eq!((summary.traces, summary.failed, summary.prompts), (3, 1, 2));
    assert_eq!(traces[0].text, traces[1].text);
    assert_eq!(traces[0].prompt_messages, traces[1].prompt_messages);
    assert_eq!((traces[0].sample_index, traces[1].sample_index), (0, 1));
}

#[test]
fn lines_that_are_no_rows_are_counted_with_their_numbers() {
    let good = b"{\"prompt\":\"p\",\"completion\":\"c\"}\n";
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    bytes.extend(good);
    bytes.extend(b"\n\xff\xfe\n[1]\n{\"prompt\": NaN}\n\"text\"\n");
    bytes.extend(good);
    bytes.extend(&good[..good.len() - 5]);
    let set = Set::new(TraceFormat::PromptCompletion).bytes("a.jsonl", &bytes);
    let (summary, traces) = set.import().unwrap();
    assert_eq!((summary.rows, traces.len()), (7, 2));
    let name = set.path("a.jsonl").display().to_string();
    let mut dropped = summary.dropped.lines();
    dropped.sort();
    assert_eq!(
        dropped,
        [
            format!("1 × invalid UTF-8, first: {name}, row 3"),
            format!("1 × no JSON, first: {name}, row 8"),
            // Its prompt is NaN, which is null.
            format!("1 × no problem, first: {name}, row 5"),
            format!("2 × no JSON object, first: {name}, row 4"),
        ]
    );
    let manifest = Manifest::read(&set.path("traces")).unwrap().unwrap();
    assert_eq!(manifest.left_out(), summary.dropped);
    assert_eq!(manifest.inputs.len(), 1);

    let array = b"[{\"prompt\":\"p\",\"completion\":\"c\"}, {}]";
    let (summary, traces) = Set::new(TraceFormat::PromptCompletion)
        .bytes("a.json", array)
        .import()
        .unwrap();
    assert_eq!((summary.rows, traces.len()), (2, 1));
    let set = Set::new(TraceFormat::PromptCompletion).bytes("a.jsonl", b"");
    assert!(set.refused().contains("none of its 0 rows"));
}

#[test]
fn texts_beyond_the_limit_are_failed_rows_and_problems_are_counted() {
    let huge = "x".repeat(MAX_TEXT + 1);
    let hundred = "y".repeat(100 << 20);
    let set = Set::new(TraceFormat::PromptCompletion).jsonl(
        "a.jsonl",
        &[
            json!({"prompt": "p", "completion": hundred}),
            json!({"prompt": huge, "completion": "c"}),
            json!({"prompt": "p", "completion": "c"}),
        ],
    );
    let (summary, traces) = set.import().unwrap();
    assert_eq!((summary.traces, summary.failed), (2, 1));
    assert!(traces[0].error.as_ref().unwrap().contains("64 MiB"));
    assert!(first_reason(&summary).contains("more than 64 MiB"));
}

#[test]
fn wrong_columns_are_named_with_their_file() {
    let wrong = |set: Set, words: &[&str]| {
        let message = set.refused();
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message}");
        }
    };
    let row = json!({"problem": 3, "generations": ["a"]});
    wrong(
        Set::new(TraceFormat::OpenR1).jsonl("a.jsonl", &[row]),
        &["a.jsonl, row 1", "`problem` holds a number, expected text"],
    );
    let row = json!({"messages": [{"role": "user", "content": [1]}]});
    wrong(
        Set::new(TraceFormat::Messages).jsonl("a.jsonl", &[row]),
        &[
            "a.jsonl, row 1",
            "`messages[0].content[0]` is a number, not a part",
        ],
    );
    wrong(
        Set::new(TraceFormat::Messages).jsonl("a.jsonl", &[json!({"text": "x"})]),
        &[
            "a.jsonl",
            "`messages` or `conversations`",
            "the columns are text",
        ],
    );
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    wrong(
        Set::new(TraceFormat::PromptCompletion).parquet(
            "a.parquet",
            vec![
                ("prompt", number.clone()),
                ("completion", text(&[Some("c")])),
            ],
        ),
        &[
            "a.parquet",
            "`prompt` holds Int64, expected text, or a list",
        ],
    );
    wrong(
        Set::new(TraceFormat::OpenR1).parquet("a.parquet", vec![("problem", number)]),
        &[
            "a.parquet",
            "no column `generations`",
            "the columns are problem",
        ],
    );
    let mut named = Set::new(TraceFormat::PromptCompletion)
        .jsonl("a.jsonl", &[json!({"prompt": "p", "completion": "c"})]);
    named.config.answer = Some("gold".into());
    wrong(named, &["no column `gold`"]);
}

#[test]
fn damaged_parquet_files_are_named() {
    let whole = || {
        Set::new(TraceFormat::PromptCompletion).parquet(
            "a.parquet",
            vec![
                ("prompt", text(&[Some("p")])),
                ("completion", text(&[Some("c")])),
            ],
        )
    };
    let set = whole();
    let bytes = std::fs::read(set.path("a.parquet")).unwrap();
    let set = set.bytes("a.parquet", &bytes[..bytes.len() - 9]);
    let message = set.refused();
    assert!(
        message.contains("a.parquet: cannot be read as Parquet"),
        "{message}"
    );

    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 2]));
    // SAFETY: nothing looks at these bytes as text before they are in the file; that they are none is the test.
    let broken =
        unsafe { StringArray::new_unchecked(offsets, Buffer::from(&b"\xff\xfe"[..]), None) };
    let set = Set::new(TraceFormat::PromptCompletion).parquet(
        "a.parquet",
        vec![
            ("prompt", text(&[Some("p")])),
            ("completion", Arc::new(broken)),
        ],
    );
    let message = set.refused();
    assert!(
        message.contains("a.parquet, row 1 or later: cannot be read"),
        "{message}"
    );
}

#[test]
fn samples_are_numbered_over_all_files_and_sorted_in_each_part() {
    let rows = |n: usize| -> Vec<_> {
        (0..n)
            .map(|at| json!({"prompt": format!("p{}", at % 7), "completion": format!("c{at}")}))
            .collect()
    };
    let set = Set::new(TraceFormat::PromptCompletion)
        .jsonl("a.jsonl", &rows(20))
        .jsonl("b.jsonl", &rows(15));
    let import = || match run_with(&set.plan(), &AtomicBool::new(false), 4096).unwrap() {
        Outcome::Complete(summary) => summary,
        Outcome::Interrupted => panic!("nothing stopped it"),
    };
    let summary = import();
    assert!(summary.parts.len() > 2, "{:?}", summary.parts);
    for part in &summary.parts {
        let traces = read(std::slice::from_ref(part));
        assert!(traces.is_sorted_by_key(|t| (t.prompt_id.clone(), t.sample_index)));
    }
    let traces = read(&summary.parts);
    let mut ids: Vec<_> = traces.iter().map(|trace| trace.trace_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 35);
    let again = read(&import().parts);
    let named = |traces: &[Trace]| -> Vec<_> {
        traces
            .iter()
            .map(|t| (t.trace_id.clone(), t.text.clone()))
            .collect()
    };
    assert_eq!(named(&again), named(&traces));

    let stopped = run_with(&set.plan(), &AtomicBool::new(true), 4096).unwrap();
    assert_eq!(stopped, Outcome::Interrupted);
    assert_eq!(std::fs::read_dir(set.path("traces")).unwrap().count(), 0);
}

#[test]
fn a_folder_of_sampled_traces_is_left_alone() {
    let set = Set::new(TraceFormat::PromptCompletion)
        .jsonl("a.jsonl", &[json!({"prompt": "p", "completion": "c"})]);
    let plan = set.plan();
    let occupied = |name: &str| {
        let path: &Path = &plan.dir.join(name);
        std::fs::create_dir_all(path).unwrap();
        let found = check(&plan.dir, &plan.files, &plan.traces, plan.format);
        assert!(matches!(found, Err(Error::Parts { .. })), "{found:?}");
        std::fs::remove_dir(path).unwrap();
    };
    occupied("journal.sqlite");
    occupied("shard-0-of-2");
}
