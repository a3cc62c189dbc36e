//! The in-process teacher on a tiny random model: a completion depends on its request alone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use model::config::ModelConfig;
use model::decoder::{Decoder, Mode};
use model::sampling::SamplingParams;
use model::tokenizer::Tokenizer;
use serde_json::json;
use stillroom_generation::candle::CandleTeacher;
use stillroom_generation::teacher::{
    Completion, FailureKind, SampleRequest, SamplingConfig, Teacher,
};

fn teacher(dir: &Path, concurrency: usize) -> CandleTeacher {
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 32,
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "max_position_embeddings": 40, "tie_word_embeddings": true,
        "hidden_act": "silu", "attention_bias": false
    });
    let mut vocab: BTreeMap<String, u32> = (2..32).map(|id| (format!("w{id}"), id)).collect();
    vocab.extend([("<eos>".into(), 0), ("</think>".into(), 1)]);
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(0, "<eos>"), special(1, "</think>")],
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w2"}
    });
    let settings = json!({"eos_token": "<eos>",
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"});
    for (name, value) in [
        ("config.json", &config),
        ("tokenizer.json", &tokenizer),
        ("tokenizer_config.json", &settings),
    ] {
        std::fs::write(dir.join(name), value.to_string()).unwrap();
    }
    let decoder = Decoder::random(
        ModelConfig::from_dir(dir).unwrap(),
        3,
        Mode::Inference,
        candle_core::DType::F32,
        &candle_core::Device::Cpu,
    )
    .unwrap();
    let options = SamplingConfig {
        params: SamplingParams {
            temperature: 1.0,
            top_p: 0.95,
            top_k: None,
            min_p: None,
        },
        max_new_tokens: 24,
        top_k_logits: 5,
        concurrency,
        samples_per_request: 1,
    };
    CandleTeacher::new(dir, decoder, Tokenizer::from_dir(dir).unwrap(), options)
}

fn sample(
    teacher: &CandleTeacher,
    requests: Vec<SampleRequest>,
) -> BTreeMap<u32, Result<Completion, FailureKind>> {
    let mut answers = BTreeMap::new();
    let mut done = |request: SampleRequest, outcome: Result<Completion, _>| {
        let outcome = outcome.map(|completion| Completion {
            latency: Default::default(),
            ..completion
        });
        answers.insert(
            request.sample_index,
            outcome.map_err(|f: stillroom_generation::teacher::Failure| f.kind),
        );
        Ok(())
    };
    let stop = AtomicBool::new(false);
    teacher
        .sample(&mut requests.into_iter().map(Ok), &mut done, &stop)
        .unwrap();
    answers
}

#[test]
fn a_trace_sampled_alone_equals_one_sampled_in_any_batch_and_order() {
    let dir = tempfile::tempdir().unwrap();
    let requests: Vec<_> = (0..40)
        .map(|index| SampleRequest {
            prompt_id: "p".into(),
            sample_index: index,
            messages: Vec::new(),
            prompt_token_ids: vec![2 + index % 7; 1 + index as usize],
            prompt_text_opens_think: false,
            seed: u64::from(index),
        })
        .collect();
    let alone = sample(&teacher(dir.path(), 1), requests.clone());
    let mut reversed = requests.clone();
    reversed.reverse();
    assert_eq!(sample(&teacher(dir.path(), 64), requests), alone);
    assert_eq!(sample(&teacher(dir.path(), 7), reversed), alone);
    assert_eq!(alone[&39], Err(FailureKind::PromptTooLong));
    let mut reasons = BTreeMap::new();
    for completion in alone.values().flatten() {
        let token_ids = completion.token_ids.as_ref().unwrap();
        let n = token_ids.len();
        let top = completion.top.as_ref().unwrap();
        top.validate().unwrap();
        assert_eq!(
            (top.len(), completion.token_logprobs.as_ref().unwrap().len()),
            (n, n)
        );
        let stopped = completion.finish_reason == "stop";
        assert_eq!(token_ids.last() == Some(&0), stopped);
        assert!(!completion.text.contains("<eos>"));
        let thought_ends = token_ids.contains(&1);
        assert_eq!(completion.text.contains("</think>"), thought_ends);
        *reasons.entry(completion.finish_reason.clone()).or_insert(0) += 1;
    }
    assert_eq!(reasons.len(), 2, "{reasons:?}");
}

#[test]
fn samples_of_a_prompt_share_its_prefill_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = [(3, 9), (4, 12), (3, 9), (5, 1), (6, 39)];
    let prompts = prompts.into_iter().zip([5, 3, 9, 7, 2]);
    let requests: Vec<_> = prompts
        .flat_map(|((id, n), samples)| vec![vec![id; n]; samples])
        .zip(0..)
        .map(|(prompt_token_ids, index)| SampleRequest {
            prompt_id: "p".into(),
            sample_index: index,
            messages: Vec::new(),
            prompt_token_ids,
            prompt_text_opens_think: false,
            seed: u64::from(index),
        })
        .collect();
    // One slot has nobody to share with.
    let alone = sample(&teacher(dir.path(), 1), requests.clone());
    assert_eq!(alone.len(), 26);
    for concurrency in [2, 3, 7, 64] {
        let shared = sample(&teacher(dir.path(), concurrency), requests.clone());
        assert_eq!(shared, alone, "{concurrency}");
    }
}
