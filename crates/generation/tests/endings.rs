//! How answers of servers end and what stands beside them: each kind as it comes over the wire, and what is made of it.
#![allow(clippy::unwrap_used)]

use model::sampling::SamplingParams;
use records::Message;
use serde_json::{Value, json};
use stillroom_generation::config::Dialect;
use stillroom_generation::openai::answer::{Answers, Expected};
use stillroom_generation::openai::dialect::Ask;
use stillroom_generation::openai::dialect_of as of;
use stillroom_generation::teacher::{Completion, SampleRequest, SamplingConfig};

const EOS: u32 = 9;

/// What a dialect makes of an answer in pieces; an error is the server's, or of the answer.
fn read(kind: Dialect, top_k: u16, pieces: &[Value]) -> Result<Completion, String> {
    let texts: Vec<String> = pieces.iter().map(Value::to_string).collect();
    read_text(
        kind,
        top_k,
        &texts.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn read_text(kind: Dialect, top_k: u16, pieces: &[&str]) -> Result<Completion, String> {
    let dialect = of(kind);
    let mut answers = Answers::default();
    for piece in pieces {
        let mut bytes = piece.as_bytes().to_vec();
        dialect.reading().read(&mut bytes, &mut answers)?;
    }
    if let Some(error) = &answers.error {
        return Err(format!("error: {}", error.words));
    }
    if let Some(words) = answers.broken() {
        return Err(format!("broken: {words}"));
    }
    let expected = Expected {
        top_k,
        logprob_space: dialect.logprob_space(),
        ids: dialect.gives_ids(),
        eos_ids: &[EOS],
        gaps: dialect.leaves_gaps(),
    };
    let answer = answers.exactly(1)?.remove(0);
    answer.complete(&expected).map_err(|problem| problem.words)
}

/// A piece of a chat's stream.
fn delta(delta: Value, finish_reason: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})
}

/// A whole chat completion.
fn message(message: Value, finish_reason: Value) -> Value {
    json!({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]})
}

/// A whole completion of each dialect that ends with a word.
fn ended(kind: Dialect, word: &str) -> Value {
    match kind {
        Dialect::Vllm => {
            json!({"choices": [{"text": "a", "token_ids": [1], "finish_reason": word}]})
        }
        Dialect::Sglang => json!({"text": "a", "output_ids": [1], "meta_info": {
            "finish_reason": {"type": word, "message": "words of the server"}, "completion_tokens": 1}}),
        Dialect::Llamacpp => {
            json!({"content": "a", "tokens": [1], "stop": true, "stop_type": word})
        }
        Dialect::Deepseek | Dialect::Openai => message(json!({"content": "a"}), json!(word)),
    }
}

const ALL: [Dialect; 5] = [
    Dialect::Vllm,
    Dialect::Sglang,
    Dialect::Llamacpp,
    Dialect::Deepseek,
    Dialect::Openai,
];

#[test]
fn g1_only_documented_words_end_a_completion() {
    for kind in ALL {
        for (word, expected) in [("stop", "stop"), ("length", "length"), ("limit", "length")] {
            let found = read(kind, 0, &[ended(kind, word)]).unwrap();
            assert_eq!(found.finish_reason, expected, "{kind:?} {word}");
        }
        for word in [
            "error",
            "abort",
            "insufficient_system_resource",
            "none",
            "cancelled",
            "unheard_of",
        ] {
            let found = read(kind, 0, &[ended(kind, word)]).unwrap_err();
            assert!(
                found.starts_with("broken: ") && found.contains(word),
                "{found}"
            );
        }
    }
    let words = read(Dialect::Sglang, 0, &[ended(Dialect::Sglang, "abort")]).unwrap_err();
    assert!(words.contains("words of the server"), "{words}");
    // What OpenAI and DeepSeek document ends a completion, in its own word.
    for word in ["content_filter", "tool_calls"] {
        let found = read(Dialect::Deepseek, 0, &[ended(Dialect::Deepseek, word)]).unwrap();
        assert_eq!(found.finish_reason, word);
        assert!(read(Dialect::Vllm, 0, &[ended(Dialect::Vllm, word)]).is_err());
    }
}

#[test]
fn g1_an_error_beside_choices_is_the_servers_word() {
    let error = json!({"message": "provider disconnected", "code": 502});
    let start = delta(json!({"content": "2"}), Value::Null);
    for pieces in [
        // Mid-stream, beside a choice (OpenRouter), within it, by itself, and in a body of its own.
        vec![
            start.clone(),
            json!({"error": error, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}),
        ],
        vec![
            start.clone(),
            json!({"choices": [{"delta": {"content": ""}, "finish_reason": "error", "error": error}]}),
        ],
        vec![start.clone(), json!({"error": error})],
        vec![
            start.clone(),
            delta(json!({}), json!("stop")),
            json!({"error": error, "choices": []}),
        ],
        vec![
            json!({"error": error, "choices": [{"message": {"content": "2"}, "finish_reason": "stop"}]}),
        ],
    ] {
        let found = read(Dialect::Openai, 0, &pieces).unwrap_err();
        assert_eq!(found, "error: provider disconnected", "{pieces:?}");
    }
    // An error that is null, as routers write it into every event, is none.
    let mut fine = message(json!({"content": "2"}), json!("stop"));
    fine["error"] = Value::Null;
    assert_eq!(read(Dialect::Openai, 0, &[fine]).unwrap().text, "2");
    for kind in ALL {
        let found = read(kind, 0, &[json!({"error": "engine is dead"})]).unwrap_err();
        assert_eq!(found, "error: engine is dead", "{kind:?}");
    }
}

/// SGLang's events of three tokens: `upto` is how many of them each event has said, `from` where it begins.
fn sglang(from: usize, upto: usize, finish: Value, logprobs_from: usize) -> Value {
    let (texts, ids) = (["Tw", "o", ""], [77, 79, 9]);
    let entry = |at: usize| json!([-0.25 * (at + 1) as f64, ids[at], null]);
    let top = |at: usize| json!([entry(at), [-3.0, 50 + at, null]]);
    json!({
        "text": texts[from..upto].concat(),
        "output_ids": ids[from..upto],
        "meta_info": {
            "finish_reason": finish,
            "prompt_tokens": 2,
            "completion_tokens": upto,
            "output_token_logprobs": (logprobs_from..upto).map(entry).collect::<Vec<_>>(),
            "output_top_logprobs": (logprobs_from..upto).map(top).collect::<Vec<_>>(),
        },
    })
}

#[test]
fn g3_sglang_is_asked_for_whole_answers_and_both_kinds_of_streams_are_read() {
    let stop = json!({"type": "stop", "matched": 9});
    let whole = read(Dialect::Sglang, 2, &[sglang(0, 3, stop.clone(), 0)]).unwrap();
    assert_eq!(
        (whole.text.as_str(), whole.finish_reason.as_str()),
        ("Two", "stop")
    );
    assert_eq!(whole.token_ids.as_deref(), Some(&[77, 79, 9][..]));
    assert_eq!(
        whole.token_logprobs.as_deref(),
        Some(&[-0.25, -0.5, -0.75][..])
    );
    let pieces = |repeats: [bool; 2]| -> Vec<Value> {
        let begin = |at: usize, repeats: bool| if repeats { 0 } else { at };
        (0..3)
            .map(|at| {
                let finish = if at == 2 { stop.clone() } else { Value::Null };
                sglang(begin(at, repeats[0]), at + 1, finish, begin(at, repeats[1]))
            })
            .collect()
    };
    // Repeating, `--incremental-streaming-output`, and incremental with log-probabilities that repeat.
    for repeats in [[true, true], [false, false], [false, true]] {
        let found = read(Dialect::Sglang, 2, &pieces(repeats)).unwrap();
        assert_eq!(found, whole, "{repeats:?}");
    }
    // A last event with nothing new.
    let mut pieces = pieces([false, false]);
    pieces[2]["meta_info"]["finish_reason"] = Value::Null;
    pieces.push(json!({"text": "", "output_ids": [], "meta_info": {"finish_reason": stop, "prompt_tokens": 2, "completion_tokens": 3}}));
    assert_eq!(read(Dialect::Sglang, 2, &pieces).unwrap(), whole);
    assert_eq!(body(Dialect::Sglang)["stream"], json!(false));
}

#[test]
fn g5_empty_reasoning_fields_are_absent_and_tags_are_not_doubled() {
    let check = |fields: Value, text: &str, split: Option<(&str, &str)>| {
        let found = read(
            Dialect::Openai,
            0,
            &[message(fields.clone(), json!("stop"))],
        )
        .unwrap();
        assert_eq!(found.text, text, "{fields}");
        let split = split.map(|(thought, answer)| (thought.to_owned(), Some(answer.to_owned())));
        assert_eq!(found.split, split, "{fields}");
    };
    let joined = "<think>\nhm\n</think>\n\n2";
    let apart = Some(("hm", "2"));
    check(
        json!({"content": joined, "reasoning_content": ""}),
        joined,
        None,
    );
    check(
        json!({"content": joined, "reasoning_content": "\n", "reasoning": ""}),
        joined,
        None,
    );
    check(
        json!({"content": "2", "reasoning_content": "", "reasoning": "hm"}),
        joined,
        apart,
    );
    check(
        json!({"content": "2", "reasoning_content": "hm", "reasoning": "hm"}),
        joined,
        apart,
    );
    check(
        json!({"content": "2", "reasoning_content": null, "reasoning": "hm"}),
        joined,
        apart,
    );
    check(
        json!({"content": joined, "reasoning_content": "hm"}),
        joined,
        apart,
    );
    check(
        json!({"content": "</think>\n\n2", "reasoning_content": "hm"}),
        joined,
        apart,
    );
    check(
        json!({"content": "2", "reasoning_content": "<think>\nhm\n</think>"}),
        joined,
        apart,
    );
    check(json!({"content": "2", "reasoning_content": ""}), "2", None);
    // The same in a stream whose events all have both fields.
    let pieces = [
        delta(
            json!({"content": "", "reasoning_content": "", "reasoning": "h"}),
            Value::Null,
        ),
        delta(
            json!({"content": "", "reasoning_content": "", "reasoning": "m"}),
            Value::Null,
        ),
        delta(
            json!({"content": "2", "reasoning_content": "", "reasoning": ""}),
            json!("stop"),
        ),
    ];
    assert_eq!(read(Dialect::Openai, 0, &pieces).unwrap().text, joined);
}

#[test]
fn g10_an_empty_word_is_no_end() {
    for none in [json!(""), json!("null"), Value::Null] {
        let pieces = [
            delta(json!({"role": "assistant", "content": "1"}), none.clone()),
            delta(json!({"content": "2"}), none.clone()),
            delta(json!({"content": ""}), json!("stop")),
        ];
        let found = read(Dialect::Openai, 0, &pieces).unwrap();
        assert_eq!(
            (found.text.as_str(), found.finish_reason.as_str()),
            ("12", "stop"),
            "{none}"
        );
        let problem = read(Dialect::Openai, 0, &pieces[..2]).unwrap_err();
        assert!(problem.contains("before it is finished"), "{problem}");
    }
    let vllm = |text: &str, id: u32, word: &str| json!({"choices": [{"text": text, "token_ids": [id], "finish_reason": word}]});
    let found = read(Dialect::Vllm, 0, &[vllm("a", 1, ""), vllm("b", 9, "stop")]).unwrap();
    assert_eq!(found.token_ids.unwrap(), [1, 9]);
}

#[test]
fn g12_a_cut_inside_a_separated_thought_is_an_unfinished_thought() {
    for content in [json!(null), json!("")] {
        let fields = json!({"content": content, "reasoning_content": "one and"});
        let found = read(Dialect::Deepseek, 0, &[message(fields, json!("length"))]).unwrap();
        assert_eq!(found.text, "<think>\none and");
        assert_eq!(found.split, Some(("one and".into(), None)));
        assert_eq!(found.finish_reason, "length");
    }
    let pieces = [
        delta(json!({"reasoning": "one "}), Value::Null),
        delta(json!({"reasoning": "and"}), json!("length")),
    ];
    let found = read(Dialect::Openai, 0, &pieces).unwrap();
    assert_eq!(found.text, "<think>\none and");
    // Cut inside the answer, the thought has its end.
    let fields = json!({"content": "It is", "reasoning_content": "one and one"});
    let found = read(Dialect::Deepseek, 0, &[message(fields, json!("length"))]).unwrap();
    assert_eq!(found.text, "<think>\none and one\n</think>\n\nIt is");
}

/// vLLM's answer of one token with two entries.
fn logprobs(own: Value, first: Value, second: Value) -> Value {
    json!({"choices": [{"text": "a", "token_ids": [1], "finish_reason": "length", "logprobs": {
        "tokens": ["token_id:1"], "token_logprobs": [own],
        "top_logprobs": [{"token_id:1": first, "token_id:2": second}]}}]})
}

#[test]
fn g14_logits_are_no_log_probabilities() {
    for (own, first, second) in [(21.5, 21.5, 18.0), (-0.1, -0.1, -0.2), (0.5, -1.0, -2.0)] {
        let answer = logprobs(json!(own), json!(first), json!(second));
        let problem = read(Dialect::Vllm, 2, &[answer]).unwrap_err();
        assert!(
            problem.contains("--logprobs-mode raw_logprobs"),
            "{problem}"
        );
    }
    let body = json!({"content": "a", "tokens": [1], "stop": true, "stop_type": "eos",
        "completion_probabilities": [{"id": 1, "logprob": 3.5, "top_logprobs": [{"id": 1, "logprob": 3.5}]}]});
    assert!(read(Dialect::Llamacpp, 1, &[body]).is_err());
    let chat = json!({"choices": [{"message": {"content": "a"}, "finish_reason": "stop",
        "logprobs": {"content": [{"token": "a", "logprob": 7.0}]}}]});
    assert!(
        read(Dialect::Openai, 1, &[chat])
            .unwrap_err()
            .contains("above 0")
    );
    // Rounding is no logit: bfloat16 has eight bits.
    for (first, second) in [(-0.0001, -9.0), (0.003, -6.0), (-0.69, -0.69)] {
        read(
            Dialect::Vllm,
            2,
            &[logprobs(json!(first), json!(first), json!(second))],
        )
        .unwrap();
    }
}

#[test]
fn g22_a_null_log_probability_is_no_mass() {
    let found = read(
        Dialect::Vllm,
        2,
        &[logprobs(json!(null), json!(null), json!(-0.5))],
    )
    .unwrap();
    assert_eq!(found.token_logprobs.unwrap(), [f32::NEG_INFINITY]);
    let top = found.top.unwrap();
    assert_eq!((top.k, top.ids.as_slice()), (1, &[2][..]));
    let body = json!({"text": "a", "output_ids": [1], "meta_info": {"finish_reason": {"type": "length"},
        "completion_tokens": 1, "output_token_logprobs": [[null, 1, null]],
        "output_top_logprobs": [[[null, 1, null], [-0.5, 2, null]]]}});
    let found = read(Dialect::Sglang, 2, &[body]).unwrap();
    assert_eq!(found.token_logprobs.unwrap(), [f32::NEG_INFINITY]);
    let body = json!({"content": "a", "tokens": [1], "stop": true, "stop_type": "limit",
        "completion_probabilities": [{"id": 1, "logprob": null, "top_logprobs": [{"id": 2, "logprob": -0.5}, {"id": 1, "logprob": null}]}]});
    let found = read(Dialect::Llamacpp, 2, &[body]).unwrap();
    assert_eq!(found.top.unwrap().ids, [2]);
    let chat = json!({"choices": [{"message": {"content": "a"}, "finish_reason": "stop",
        "logprobs": {"content": [{"token": "a", "logprob": null}]}}]});
    let found = read(Dialect::Openai, 1, &[chat]).unwrap();
    assert_eq!(found.token_logprobs.unwrap(), [f32::NEG_INFINITY]);
    // As Python's json writes it.
    let bare = logprobs(json!("x"), json!("x"), json!(-0.5))
        .to_string()
        .replace("\"x\"", "-Infinity");
    let found = read_text(Dialect::Vllm, 2, &[&bare]).unwrap();
    assert_eq!(found.token_logprobs.unwrap(), [f32::NEG_INFINITY]);
}

#[test]
fn g22_half_a_character_loses_no_answer() {
    let text = r#"{"choices":[{"index":0,"message":{"content":"a \ud83d b \ud83d\ude00"},"finish_reason":"stop"}]}"#;
    let found = read_text(Dialect::Openai, 0, &[text]).unwrap();
    assert_eq!(found.text, "a \u{fffd} b \u{1f600}");
    let vllm = r#"{"choices":[{"text":"\udc00","token_ids":[9],"finish_reason":"stop"}]}"#;
    let found = read_text(Dialect::Vllm, 0, &[vllm]).unwrap();
    assert_eq!(
        (found.text.as_str(), found.token_ids.unwrap()),
        ("\u{fffd}", vec![9])
    );
}

#[test]
fn g19_content_may_be_a_list_of_parts() {
    let parts = json!([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "2"}]);
    let found = read(
        Dialect::Openai,
        0,
        &[message(json!({"content": parts}), json!("stop"))],
    )
    .unwrap();
    assert_eq!(found.split, Some(("hm".into(), Some("2".into()))));
    assert_eq!(found.text, "<think>\nhm\n</think>\n\n2");
    let pieces = [
        delta(
            json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]}),
            Value::Null,
        ),
        delta(
            json!({"content": [{"type": "thinking", "thinking": "m"}]}),
            Value::Null,
        ),
        delta(
            json!({"content": [{"type": "text", "text": "2"}, {"type": "image_url", "image_url": {}}, "!"]}),
            json!("stop"),
        ),
    ];
    let found = read(Dialect::Openai, 0, &pieces).unwrap();
    assert_eq!(found.text, "<think>\nhm\n</think>\n\n2!");
    let refusal = json!({"content": null, "refusal": "I will not."});
    let found = read(Dialect::Openai, 0, &[message(refusal, json!("stop"))]).unwrap();
    assert_eq!(found.text, "I will not.");
}

#[test]
fn g6_a_count_of_zero_is_no_count() {
    let mut whole = message(json!({"content": "2"}), json!("stop"));
    whole["usage"] = json!({"prompt_tokens": 0, "completion_tokens": 0});
    let found = read(Dialect::Openai, 0, &[whole.clone()]).unwrap();
    assert_eq!(
        (found.n_prompt_tokens, found.n_completion_tokens),
        (None, None)
    );
    whole["usage"] = json!(null);
    assert_eq!(
        read(Dialect::Openai, 0, &[whole]).unwrap().n_prompt_tokens,
        None
    );
}

#[test]
fn g11_pieces_that_are_no_answer_are_skipped() {
    for kind in ALL {
        let dialect = of(kind);
        let mut answers = Answers::default();
        for piece in [json!({"status": "queued"}), json!({"type": "ping"})] {
            let mut bytes = piece.to_string().into_bytes();
            dialect.reading().read(&mut bytes, &mut answers).unwrap();
        }
        assert!(answers.is_empty() && answers.skipped == 2, "{kind:?}");
    }
}

fn body(kind: Dialect) -> Value {
    let request = SampleRequest {
        prompt_id: "p".into(),
        sample_index: 0,
        messages: vec![Message::new("user", "1+1?")],
        prompt_token_ids: vec![5, 6],
        prompt_text_opens_think: true,
        seed: 7,
    };
    let options = SamplingConfig {
        params: SamplingParams {
            temperature: 0.6,
            top_p: 0.95,
            top_k: None,
            min_p: None,
        },
        max_new_tokens: 64,
        top_k_logits: 2,
        concurrency: 8,
        samples_per_request: 1,
    };
    of(kind).body(&Ask {
        model: "r1",
        request: &request,
        n: 1,
        options: &options,
    })
}

#[test]
fn g20_llama_cpp_is_told_the_model() {
    assert_eq!(body(Dialect::Llamacpp)["model"], "r1");
    for kind in [Dialect::Vllm, Dialect::Deepseek, Dialect::Openai] {
        assert_eq!(body(kind)["model"], "r1");
    }
}
