//! A student small enough to train in a test: folder, tokenizer and conversations.
// Each test target uses its own part of it.
#![allow(dead_code)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

pub const VOCAB_SIZE: usize = 260;

/// Writes a folder with `config.json` and a byte-level tokenizer with a chat template; no weights.
pub fn write_student(dir: &Path, architecture: &str, tied: bool) {
    fs::create_dir_all(dir).unwrap();
    fs::write(
        dir.join("config.json"),
        config(architecture, tied).to_string(),
    )
    .unwrap();
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let mut vocab = serde_json::Map::new();
    for (id, letter) in byte_letters().into_iter().enumerate() {
        vocab.insert(letter.to_string(), json!(id));
    }
    let added: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(i, content)| {
            json!({"id": 256 + i, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let template = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let settings = json!({"eos_token": "<|im_end|>", "chat_template": template});
    fs::write(dir.join("tokenizer_config.json"), settings.to_string()).unwrap();
}

pub fn config(architecture: &str, tied: bool) -> Value {
    json!({
        "model_type": architecture, "vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": tied, "initializer_range": 0.1
    })
}

/// `n` conversations of different lengths, as JSONL.
pub fn write_conversations(path: &Path, n: usize) {
    let lines: String = (0..n)
        .map(|i| {
            let messages = json!([
                {"role": "user", "content": format!("{i}+{}", i % 7)},
                {"role": "assistant", "content": "1".repeat(1 + i % 5) + &format!(" {}", i + i % 7)},
            ]);
            json!({"id": format!("row-{i}"), "messages": messages}).to_string() + "\n"
        })
        .collect();
    fs::write(path, lines).unwrap();
}

/// GPT-2's printable stand-ins for the 256 bytes.
fn byte_letters() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut spare = 256;
    (0..256u32)
        .map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                spare += 1;
                spare - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}
