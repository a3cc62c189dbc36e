//! The tensors a checkpoint holds, by the names transformers gives them.

use crate::config::ModelConfig;

/// Every parameter of the model with its shape, in the order of its modules.
///
/// Linear weights are `[out, in]`. A tied head is the embedding and has no name of its own.
pub fn parameter_names(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let d = config.hidden_size;
    let mut names = vec![(EMBEDDING.to_string(), vec![config.vocab_size, d])];
    for layer in 0..config.n_layers {
        let prefix = format!("model.layers.{layer}.");
        for projection in PROJECTIONS {
            let (rows, columns) = projection_shape(config, projection);
            let module = projection_module(layer, projection);
            names.push((format!("{module}.weight"), vec![rows, columns]));
            if has_bias(config, projection) {
                names.push((format!("{module}.bias"), vec![rows]));
            }
        }
        if config.qk_norm {
            for norm in ["q_norm", "k_norm"] {
                names.push((
                    format!("{prefix}self_attn.{norm}.weight"),
                    vec![config.head_dim],
                ));
            }
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            names.push((format!("{prefix}{norm}.weight"), vec![d]));
        }
    }
    names.push((FINAL_NORM.to_string(), vec![d]));
    if !config.tie_word_embeddings {
        names.push((HEAD.to_string(), vec![config.vocab_size, d]));
    }
    names
}

pub const EMBEDDING: &str = "model.embed_tokens.weight";
pub const FINAL_NORM: &str = "model.norm.weight";
pub const HEAD: &str = "lm_head.weight";

/// The linear layers of one decoder layer; LoRA's default targets.
pub const PROJECTIONS: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

/// `model.layers.{layer}.self_attn.q_proj` and its like.
pub fn projection_module(layer: usize, projection: &str) -> String {
    let block = match projection {
        "gate_proj" | "up_proj" | "down_proj" => "mlp",
        _ => "self_attn",
    };
    format!("model.layers.{layer}.{block}.{projection}")
}

/// `(out, in)` of one of [`PROJECTIONS`].
pub fn projection_shape(config: &ModelConfig, projection: &str) -> (usize, usize) {
    let d = config.hidden_size;
    let queries = config.n_heads * config.head_dim;
    match projection {
        "q_proj" => (queries, d),
        "k_proj" | "v_proj" => (config.n_kv_heads * config.head_dim, d),
        "o_proj" => (d, queries),
        "down_proj" => (d, config.intermediate_size),
        _ => (config.intermediate_size, d),
    }
}

/// Whether one of [`PROJECTIONS`] has a bias.
pub fn has_bias(config: &ModelConfig, projection: &str) -> bool {
    match projection {
        "q_proj" | "k_proj" | "v_proj" => config.qkv_bias,
        "o_proj" => config.o_bias,
        _ => config.mlp_bias,
    }
}
