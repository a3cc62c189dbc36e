//! A world of a few kilobytes: random models with a byte tokenizer, a handful of problems, and a
//! recipe that goes the whole way in seconds. What the models say is noise; what is tested is
//! everything around them.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use model::config::ModelConfig;
use model::init::initial_tensor;
use model::parameters::parameter_names;
use serde_json::{Value, json};

pub struct World {
    folder: tempfile::TempDir,
}

pub const RECIPE: &str = r#"
name = "tiny"
seed = 3

[prompts]
source = "train.jsonl"
answer = "answer"
template = "{problem}"

[teacher]
model = "teacher"

[generate]
samples_per_prompt = 2
temperature = 1.0
top_p = 1.0
max_new_tokens = 12
top_k_logits = 4
concurrency = 3

[dataset]
filter = "n_tokens > 0"
validation_fraction = 0.2

[student]
model = "student"

[train]
epochs = 2
learning_rate = 1e-3
batch_size = 4
micro_batch_tokens = 64
save_every = 1

[train.lora]
rank = 2
alpha = 4

[train.loss]
kind = "mixed"

[eval]
benchmarks = [{ name = "held out", source = "heldout.jsonl" }]
samples = 2
temperature = 1.0
top_p = 1.0
max_new_tokens = 8
compare = ["base", "student", "teacher"]
"#;

impl World {
    pub fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        world.write("recipe.toml", RECIPE);
        world.write("train.jsonl", &problems(0..12));
        world.write("heldout.jsonl", &problems(100..104));
        write_model(&world.path("teacher"), 1);
        write_model(&world.path("student"), 2);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Replaces `old` in the recipe, where it must stand.
    pub fn edit_recipe(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.path("recipe.toml")).unwrap();
        assert!(text.contains(old), "no `{old}` in the recipe");
        self.write("recipe.toml", &text.replacen(old, new, 1));
    }

    /// A command of the `stillroom` binary, started in the world's folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillroom"));
        command.args(args).current_dir(self.folder.path());
        // No test asks the real Hub, nor finds what was fetched from it.
        command.env("HF_HUB_OFFLINE", "1");
        command.env("HF_HOME", self.path("hf"));
        command
    }

    pub fn stillroom(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must work; returns its stdout and stderr.
    pub fn works(&self, args: &[&str]) -> (String, String) {
        let output = self.stillroom(args);
        let (out, err) = texts(&output);
        assert!(
            output.status.success(),
            "{args:?}: {:?}\n{err}",
            output.status
        );
        (out, err)
    }

    /// Every file under a folder with its contents.
    pub fn files(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let root = self.path(folder);
        let mut folders = vec![root.clone()];
        let mut found = BTreeMap::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).unwrap().to_owned();
                    found.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
        found
    }
}

pub fn texts(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn problems(numbers: std::ops::Range<u32>) -> String {
    numbers
        .map(|n| {
            json!({"problem": format!("What is {n} plus one?"), "answer": (n + 1).to_string()})
                .to_string()
                + "\n"
        })
        .collect()
}

const SPECIAL: [&str; 5] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
];

/// A checkpoint folder in Hugging Face layout with random weights.
fn write_model(dir: &Path, seed: u64) {
    std::fs::create_dir_all(dir).unwrap();
    let write = |name: &str, value: &Value| {
        std::fs::write(dir.join(name), serde_json::to_vec_pretty(value).unwrap()).unwrap();
    };
    write(
        "config.json",
        &json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
            // No padding rows: an untrained teacher would put mass on them, which training refuses.
            "vocab_size": 256 + SPECIAL.len(),
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "hidden_act": "silu", "initializer_range": 0.1,
        }),
    );
    let config = ModelConfig::from_dir(dir).unwrap();
    let tensors: HashMap<String, candle_core::Tensor> = parameter_names(&config)
        .into_iter()
        .map(|(name, shape)| {
            let tensor = initial_tensor(&config, &name, &shape, seed).unwrap();
            (name, tensor)
        })
        .collect();
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).unwrap();

    let mut vocabulary = serde_json::Map::new();
    for (id, letter) in byte_letters().into_iter().enumerate() {
        vocabulary.insert(letter.to_string(), id.into());
    }
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(index, token)| {
            json!({"id": 256 + index, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": index < 3})
        })
        .collect();
    write(
        "tokenizer.json",
        &json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "vocab": vocabulary, "merges": []},
        }),
    );
    write(
        "tokenizer_config.json",
        &json!({
            "eos_token": "<|im_end|>",
            "chat_template": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        }),
    );
    write("generation_config.json", &json!({"eos_token_id": [258]}));
}

/// GPT-2's byte alphabet: printable bytes stand for themselves, the others for letters from 256 on.
fn byte_letters() -> Vec<char> {
    let mut next = 256;
    (0..=255u32)
        .map(|byte| {
            let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
            let code = if printable {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}
