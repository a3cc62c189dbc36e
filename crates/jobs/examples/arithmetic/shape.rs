//! The two models' shapes: complete Qwen3 configurations.

use serde_json::{Value, json};

use crate::tokenizer::special_ids;

/// Rows of the embedding: the tokenizer's entries, padded as real checkpoints are.
pub const VOCABULARY: usize = 384;

/// What differs between the world's two models.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The folder that the model's files lie in.
    pub name: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    key_value_heads: usize,
    intermediate: usize,
}

/// 1.17 million weights.
pub const TEACHER: Shape = Shape {
    name: "teacher",
    hidden: 160,
    layers: 4,
    heads: 5,
    key_value_heads: 1,
    intermediate: 448,
};

/// 0.74 million weights.
pub const STUDENT: Shape = Shape {
    name: "student",
    hidden: 128,
    layers: 4,
    heads: 4,
    key_value_heads: 2,
    intermediate: 320,
};

/// Size of one attention head.
const HEAD_DIM: usize = 32;

impl Shape {
    /// The contents of `config.json`.
    pub fn config_json(&self) -> Value {
        let ids = special_ids();
        json!({
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": ids.padding,
            "eos_token_id": ids.end_of_turn,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 512,
            "max_window_layers": self.layers,
            "model_type": "qwen3",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.key_value_heads,
            "pad_token_id": ids.padding,
            "rms_norm_eps": 1e-6,
            "rope_scaling": null,
            "rope_theta": 10000.0,
            "sliding_window": null,
            "tie_word_embeddings": true,
            "torch_dtype": "float32",
            "use_cache": true,
            "use_sliding_window": false,
            "vocab_size": VOCABULARY,
        })
    }

    /// Weights of the model, tied embedding counted once.
    #[cfg(test)]
    fn n_parameters(&self) -> usize {
        let queries = self.heads * HEAD_DIM;
        let keys = self.key_value_heads * HEAD_DIM;
        let attention = self.hidden * (2 * queries + 2 * keys) + 2 * HEAD_DIM;
        let feed_forward = 3 * self.hidden * self.intermediate;
        let norms = 2 * self.hidden;
        self.layers * (attention + feed_forward + norms) + self.hidden * (VOCABULARY + 1)
    }
}

/// The contents of `generation_config.json`, which is the same for both models.
pub fn generation_config_json() -> Value {
    let ids = special_ids();
    json!({
        "bos_token_id": ids.padding,
        "do_sample": true,
        "eos_token_id": [ids.end_of_turn, ids.padding],
        "pad_token_id": ids.padding,
        "temperature": 0.6,
        "top_p": 0.95,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_student_is_clearly_smaller() {
        assert_eq!(TEACHER.n_parameters(), 1_169_056);
        assert_eq!(STUDENT.n_parameters(), 738_688);
    }

    #[test]
    fn a_config_names_what_loaders_need() {
        let config = TEACHER.config_json();
        assert_eq!(config["model_type"], "qwen3");
        assert_eq!(config["torch_dtype"], "float32");
        assert_eq!(config["tie_word_embeddings"], true);
        assert_eq!(config["head_dim"], 32);
    }
}
