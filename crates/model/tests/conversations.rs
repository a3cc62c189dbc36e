//! What conversations teach, against transformers and TRL: scripts/fixtures/make_conversation_fixtures.py says how
//! tests/fixtures/conversations was made and what its fields mean. Cases that neither decides are left out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ops::segments::Segments;
use records::conversation::{Conversation, Layout};
use serde_json::{Map, Value};
use stillroom_model::decoder::{Decoder, Mode};
use stillroom_model::tokenizer::Tokenizer;
use stillroom_model::training_text::{
    MissingThought, Training, TrainingIds, TrainingOptions, Turns,
};

/// 2026-02-03T04:05:06Z, the fixtures' `now`.
const NOW: i64 = 1_770_091_506;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/conversations")
}

fn rows() -> BTreeMap<String, Map<String, Value>> {
    let lines = std::fs::read_to_string(root().join("rows.jsonl")).unwrap();
    let rows = lines.lines().map(|line| {
        let row: Map<String, Value> = serde_json::from_str(line).unwrap();
        (row["id"].as_str().unwrap().to_owned(), row)
    });
    rows.collect()
}

fn kinds() -> Vec<(String, Value)> {
    let mut kinds = Vec::new();
    for entry in std::fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path().join("expected.json");
        if path.is_file() {
            let name = path.parent().unwrap().file_name().unwrap();
            let expected = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            kinds.push((name.to_str().unwrap().to_owned(), expected));
        }
    }
    assert_eq!(kinds.len(), 11);
    kinds
}

fn tokenizer(kind: &str, row: &Map<String, Value>) -> Tokenizer {
    let tokenizer = Tokenizer::from_dir(&root().join(kind))
        .unwrap()
        .with_time(NOW);
    match row.get("chat_template_kwargs") {
        Some(kwargs) => tokenizer
            .with_chat_template_kwargs(kwargs.as_object().unwrap().clone())
            .unwrap(),
        None => tokenizer,
    }
}

fn conversation(row: &Map<String, Value>) -> Result<Conversation, String> {
    Layout::Turns("messages").read(row)
}

fn learn(
    kind: &str,
    row: &Map<String, Value>,
    options: TrainingOptions,
) -> Result<Training, String> {
    let conversation = conversation(row)?;
    tokenizer(kind, row)
        .training(&conversation, options)
        .map_err(|error| error.to_string())
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// What is wrong with what was learnt, where something is.
fn difference(kind: &str, found: Result<Training, String>, case: &Value) -> Option<String> {
    match (case["outcome"].as_str().unwrap(), found) {
        ("trained", Ok(Training::Sequences(sequences))) => {
            let TrainingIds {
                prompt_ids,
                completion_ids,
                ..
            } = sequences.last().unwrap();
            let expected = (ids(&case["prompt_ids"]), ids(&case["completion_ids"]));
            if (prompt_ids, completion_ids) == (&expected.0, &expected.1) {
                return None;
            }
            // The header that the prompt lacks is learnt, as TRL does, whose completion begins with it.
            if kind == "chatml-no-generation-prompt" {
                let tokenizer = tokenizer(kind, &Map::new());
                let found =
                    tokenizer.decode(prompt_ids, true) + &tokenizer.decode(completion_ids, true);
                let expected = tokenizer.decode(&expected.0, true)
                    + "<|im_start|>assistant\n"
                    + &tokenizer.decode(&expected.1, true);
                let (found, expected) = (found.replace('\n', ""), expected.replace('\n', ""));
                return (found != expected)
                    .then(|| format!("found {found:?}\n    expected {expected:?}"));
            }
            let tokenizer = Tokenizer::from_dir(&root().join(kind)).unwrap();
            Some(format!(
                "found {:?} + {:?}\n    expected {} + {}",
                tokenizer.decode(prompt_ids, true),
                tokenizer.decode(completion_ids, true),
                case["prompt_text"],
                case["completion_text"]
            ))
        }
        ("refused", Err(_)) | ("dropped", Ok(Training::Nothing(_))) => None,
        (expected, found) => Some(format!("{expected} ({}), found {found:?}", case["reason"])),
    }
}

#[test]
fn rows_teach_what_transformers_and_trl_make_of_them() {
    let rows = rows();
    let (mut n, mut wrong) = (0, Vec::new());
    for (kind, expected) in kinds() {
        for case in expected["cases"].as_array().unwrap() {
            let name = case["row"].as_str().unwrap();
            let row = &rows[name];
            let mut check = |case: &Value, options: TrainingOptions| {
                // A thought that never ends is refused, whether the template knows thoughts or not.
                if case.get("decision").is_some() || name == "tag-never-closed" {
                    return;
                }
                n += 1;
                let found = learn(&kind, row, options);
                if let Some(difference) = difference(&kind, found, case) {
                    wrong.push(format!("{kind}, {name}, {options:?}:\n    {difference}"));
                }
            };
            check(case, TrainingOptions::default());
            if let Some(empty) = case.get("empty_thought").filter(|empty| !empty.is_null()) {
                let mut empty = empty.clone();
                let fields = empty.as_object_mut().unwrap();
                fields.entry("outcome").or_insert("trained".into());
                if let Some(decision) = case.get("decision") {
                    fields.insert("decision".into(), decision.clone());
                }
                let options = TrainingOptions {
                    missing_thought: MissingThought::Empty,
                    ..TrainingOptions::default()
                };
                check(&empty, options);
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {n} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(n > 500, "{n}");
}

/// The mean loss over the learnt tokens of the fixtures' random model, and their number.
#[test]
fn losses_and_token_counts_are_those_of_transformers() {
    let rows = rows();
    let decoder = Decoder::load(&root().join("model"), Mode::Full).unwrap();
    let mut n = 0;
    for (kind, expected) in kinds() {
        // Its header is learnt here, as in TRL, and not in the fixtures.
        if kind == "chatml-no-generation-prompt" {
            continue;
        }
        for case in expected["cases"].as_array().unwrap() {
            let name = case["row"].as_str().unwrap();
            let refused = name == "tag-never-closed";
            if case.get("decision").is_some() || refused || case["outcome"] != "trained" {
                continue;
            }
            let found = learn(&kind, &rows[name], TrainingOptions::default()).unwrap();
            let Training::Sequences(sequences) = found else {
                panic!("{kind}, {name}: nothing is learnt");
            };
            let TrainingIds {
                prompt_ids,
                completion_ids,
                ..
            } = sequences.last().unwrap();
            let ids = [&prompt_ids[..], completion_ids].concat();
            assert_eq!(
                ids.len() as u64,
                case["n_tokens"].as_u64().unwrap(),
                "{kind}, {name}"
            );
            let hidden = decoder.forward(&ids, &Segments::single(ids.len())).unwrap();
            let logits: Vec<Vec<f32>> = decoder.logits(&hidden).unwrap().to_vec2().unwrap();
            let loss = |(at, id): (usize, &u32)| {
                let row = &logits[prompt_ids.len() + at - 1];
                let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
                sum.ln() - f64::from(row[*id as usize])
            };
            let total: f64 = completion_ids.iter().enumerate().map(loss).sum();
            let mean = total / completion_ids.len() as f64;
            let expected = case["loss"].as_f64().unwrap();
            assert!(
                (mean - expected).abs() < 1e-5,
                "{kind}, {name}: {mean}, expected {expected}"
            );
            n += 1;
        }
    }
    assert!(n > 300, "{n}");
}

/// Turn by turn, each behind the conversation up to it, whichever of them share a text.
#[test]
fn all_turns_teach_what_each_teaches_by_itself() {
    let rows = rows();
    let (mut n, mut wrong) = (0, Vec::new());
    for (kind, expected) in kinds() {
        for case in expected["cases"].as_array().unwrap() {
            let Some(turns) = case["all"].get("turns").and_then(Value::as_array) else {
                continue;
            };
            if turns.iter().any(|turn| turn["outcome"] != "trained") {
                continue;
            }
            n += 1;
            let name = case["row"].as_str().unwrap();
            let options = TrainingOptions {
                turns: Turns::All,
                ..TrainingOptions::default()
            };
            let tokenizer = tokenizer(&kind, &rows[name]);
            let found = match learn(&kind, &rows[name], options) {
                Ok(Training::Sequences(sequences)) => sequences,
                other => {
                    wrong.push(format!("{kind}, {name}: {other:?}"));
                    continue;
                }
            };
            let learnt = found.iter().map(|ids| {
                let learnt = ids.completion_ids.iter().enumerate();
                let learnt =
                    learnt.filter(|(at, _)| !ids.context.iter().any(|range| range.contains(at)));
                let learnt: Vec<u32> = learnt.map(|(_, id)| *id).collect();
                tokenizer.decode(&learnt, true)
            });
            let header = match kind.as_str() {
                "chatml-no-generation-prompt" => "<|im_start|>assistant\n",
                _ => "",
            };
            let texts = turns
                .iter()
                .map(|turn| header.to_owned() + turn["completion_text"].as_str().unwrap());
            let (learnt, texts) = (learnt.collect::<String>(), texts.collect::<String>());
            // SentencePiece's decoder takes the space that a text begins with for its own.
            let (learnt, texts) = match kind.starts_with("sentencepiece") {
                true => (learnt.replace(' ', ""), texts.replace(' ', "")),
                false => (learnt, texts),
            };
            if learnt != texts {
                wrong.push(format!(
                    "{kind}, {name}:\n    found {learnt:?}\n    expected {texts:?}"
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {n} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(n > 40, "{n}");
}
