#![allow(clippy::unwrap_used)]
use super::*;
use crate::training_text::{Training, TrainingOptions};
use serde_json::json;

const FOLDERS: [&str; 3] = ["tokenizer-qwen", "tokenizer-r1", "tokenizer-llama"];
const THOUGHT: &str = "<think>\nTwo and two.\n</think>\n\nFour.";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/model")
        .join(name)
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_dir(&folder(name)).unwrap()
}

fn expected(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder(name).join("expected.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Prompt and completion of a conversation that ends with the assistant's turn.
fn training_ids(tokenizer: &Tokenizer, messages: &[Message]) -> Result<(Vec<u32>, Vec<u32>)> {
    let conversation = messages.to_vec().into();
    match tokenizer.training(&conversation, TrainingOptions::default())? {
        Training::Sequences(mut sequences) => {
            let ids = sequences.pop().unwrap();
            Ok((ids.prompt_ids, ids.completion_ids))
        }
        Training::Nothing(reason) => panic!("{reason}"),
    }
}

/// Made by scripts/fixtures/make_model_fixtures.py with transformers' apply_chat_template.
#[test]
fn conversations_render_as_in_transformers() {
    for name in FOLDERS {
        let tokenizer = tokenizer(name);
        let expected = expected(name);
        let cases = expected["renderings"].as_array().unwrap();
        assert_eq!(cases.len(), 8);
        for case in cases {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let prompt = case["add_generation_prompt"].as_bool().unwrap();
            let text = tokenizer.render(&messages, prompt, None).unwrap();
            assert_eq!(text, case["text"].as_str().unwrap(), "{name}");
            assert_eq!(
                tokenizer.encode(&text).unwrap(),
                ids(&case["ids"]),
                "{name}"
            );
        }
    }
}

#[test]
fn texts_encode_and_decode_as_in_transformers() {
    for name in FOLDERS {
        let tokenizer = tokenizer(name);
        for case in expected(name)["texts"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let found = tokenizer.encode(text).unwrap();
            assert_eq!(found, ids(&case["ids"]), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&found, true), text);
            assert_eq!(
                tokenizer.decode(&found, false),
                case["without_special"].as_str().unwrap()
            );
            let bytes: Vec<u8> = found
                .iter()
                .flat_map(|id| tokenizer.token_bytes(*id).unwrap())
                .collect();
            assert_eq!(bytes, text.as_bytes());
        }
    }
}

#[test]
fn completions_keep_the_thought_and_end_with_the_end_of_turn() {
    let messages = [
        Message::new("user", "2+2?"),
        Message::new("assistant", THOUGHT),
    ];
    for (name, prompt_end, completion) in [
        (
            "tokenizer-qwen",
            "<|im_start|>assistant\n",
            format!("{THOUGHT}<|im_end|>"),
        ),
        // The template's tail opened the thought, and its body would have cut it.
        (
            "tokenizer-r1",
            "<|Assistant|><think>\n",
            format!("{}<|end|>", &THOUGHT["<think>\n".len()..]),
        ),
        (
            "tokenizer-llama",
            "<|end_header_id|>\n\n",
            format!("{THOUGHT}<|eot_id|>"),
        ),
    ] {
        let tokenizer = tokenizer(name);
        let (prompt, answer) = training_ids(&tokenizer, &messages).unwrap();
        let prompt = tokenizer.decode(&prompt, true);
        assert!(prompt.ends_with(prompt_end), "{prompt:?}");
        assert_eq!(prompt, tokenizer.render_prompt(&messages[..1]).unwrap());
        assert_eq!(tokenizer.opens_think(&prompt), name == "tokenizer-r1");
        assert_eq!(tokenizer.decode(&answer, true), completion);
        assert_eq!(answer.last().copied(), tokenizer.end_of_turn_id());
    }
}

#[test]
fn an_end_that_is_written_out_is_not_doubled() {
    let tokenizer = tokenizer("tokenizer-qwen");
    let messages = [
        Message::new("user", "a"),
        Message::new("assistant", "b<|im_end|>"),
    ];
    let (_, answer) = training_ids(&tokenizer, &messages).unwrap();
    assert_eq!(tokenizer.decode(&answer, true), "b<|im_end|>");
    for messages in [&messages[..1], &[]] {
        assert!(
            training_ids(&tokenizer, messages)
                .unwrap_err()
                .to_string()
                .contains("assistant")
        );
    }
}

#[test]
fn every_end_is_known() {
    for (name, ends) in [
        // The EOS token of a base checkpoint, and what its template closes turns with.
        ("tokenizer-qwen", ["<|endoftext|>", "<|im_end|>"].as_slice()),
        ("tokenizer-r1", &["<|end|>"]),
        ("tokenizer-llama", &["<|end_of_text|>", "<|eot_id|>"]),
    ] {
        let tokenizer = tokenizer(name);
        let ids: Vec<u32> = ends
            .iter()
            .map(|t| tokenizer.token_to_id(t).unwrap())
            .collect();
        assert_eq!(tokenizer.eos_ids(), ids, "{name}");
    }
}

#[test]
fn fingerprints_name_vocabularies() {
    let (qwen, r1) = (tokenizer("tokenizer-qwen"), tokenizer("tokenizer-r1"));
    assert_eq!(
        qwen.fingerprint(),
        tokenizer("tokenizer-qwen").fingerprint()
    );
    assert_ne!(qwen.fingerprint(), r1.fingerprint());
    assert_eq!(qwen.fingerprint().len(), 64);
    let text = qwen.encode("hello two worlds").unwrap();
    qwen.compatible(&r1, text.iter().copied()).unwrap();
    let end = qwen.token_to_id("<|endoftext|>").unwrap();
    let message = qwen
        .compatible(&r1, text.into_iter().chain([end, end + 1]))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(&format!("token id {end} is \"<|endoftext|>\"")),
        "{message}"
    );
    assert!(message.contains("\"<|begin|>\""), "{message}");
    assert!(
        qwen.compatible(&r1, [100_000])
            .unwrap_err()
            .to_string()
            .contains("unused")
    );
}

#[test]
fn kwargs_reach_every_rendering() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(folder("tokenizer-qwen").join(file), dir.path().join(file)).unwrap();
    }
    let template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}{{ '<think>' if thinking is not false else '<think></think>' }}{% endif %}";
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let given = |kwargs: Value| {
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        tokenizer.with_chat_template_kwargs(kwargs.as_object().unwrap().clone())
    };
    let messages = [Message::new("user", "a")];
    let prompt = |tokenizer: &Tokenizer| tokenizer.render_prompt(&messages).unwrap();
    let plain = given(json!({})).unwrap();
    assert_eq!(prompt(&plain), "<|im_start|>a<|im_end|><think>");
    let without = given(json!({"thinking": false, "thinkin": 1})).unwrap();
    assert_eq!(prompt(&without), "<|im_start|>a<|im_end|><think></think>");
    assert_eq!(without.chat_template_kwargs()["thinking"], false);
    let [notice] = without.notices() else {
        panic!("{:?}", without.notices())
    };
    assert!(notice.contains("never reads `thinkin`"), "{notice}");
    let refused = given(json!({"messages": []})).err().unwrap().to_string();
    assert!(refused.contains("chat_template_kwargs"), "{refused}");
}

/// Made by scripts/fixtures/make_added_token_fixtures.py with transformers.
#[test]
fn tokens_beside_tokenizer_json_are_whole_tokens_or_refused() {
    let path = "../../tests/fixtures/model/added_tokens.json";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let n = file["n"].as_u64().unwrap();
    let open = |config: &Value, added: &Value| {
        let dir = tempfile::tempdir().unwrap();
        let from = folder("tokenizer-qwen").join("tokenizer.json");
        std::fs::copy(from, dir.path().join("tokenizer.json")).unwrap();
        for (name, value) in [
            ("tokenizer_config.json", config),
            ("added_tokens.json", added),
        ] {
            if !value.is_null() {
                std::fs::write(dir.path().join(name), value.to_string()).unwrap();
            }
        }
        Tokenizer::from_dir(dir.path())
    };
    for case in file["cases"].as_array().unwrap() {
        let tokenizer = open(&case["tokenizer_config"], &case["added_tokens"]).unwrap();
        for text in case["texts"].as_array().unwrap() {
            let found = tokenizer.encode(text["text"].as_str().unwrap()).unwrap();
            assert_eq!(found, ids(&text["ids"]), "{case}");
            let decoded = tokenizer.decode(&found, false);
            assert_eq!(decoded, text["without_special"].as_str().unwrap(), "{case}");
        }
    }
    let decoder = |id: u64, content: &str| json!({"added_tokens_decoder": {id.to_string(): {"content": content, "special": true}}});
    for (config, added, part) in [
        (
            decoder(n + 1, "<tool>"),
            Value::Null,
            "the first free one is",
        ),
        (decoder(3, "<tool>"), Value::Null, "in tokenizer.json"),
        (
            decoder(n, "<|im_end|>"),
            Value::Null,
            "but tokenizer.json gives it",
        ),
        (
            Value::Null,
            json!({"<tool>": n + 5}),
            "the first free one is",
        ),
        (
            Value::Null,
            json!({"<tool>": "x"}),
            "is no token with an id",
        ),
    ] {
        let message = open(&config, &added).err().unwrap().to_string();
        assert!(message.contains(part), "{message}");
    }
    let config = json!({"additional_special_tokens": ["<|im_end|>", "<nowhere>"]});
    let tokenizer = open(&config, &Value::Null).unwrap();
    assert_eq!(tokenizer.notices().len(), 1);
    assert!(tokenizer.notices()[0].contains("`<nowhere>`"));
}

#[test]
fn a_missing_template_is_told_when_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let from = folder("tokenizer-qwen").join("tokenizer.json");
    std::fs::copy(from, dir.path().join("tokenizer.json")).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let message = tokenizer.require_chat_template().unwrap_err().to_string();
    assert!(
        message.contains(&dir.path().display().to_string()),
        "{message}"
    );
    assert!(message.contains("chat_template.jinja"), "{message}");
    assert!(tokenizer.prompt_ids(&[Message::new("user", "a")]).is_err());

    let missing = Tokenizer::from_dir(&dir.path().join("none"))
        .err()
        .unwrap()
        .to_string();
    assert!(missing.contains("tokenizer.json"), "{missing}");
}
