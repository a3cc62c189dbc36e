//! The tensors a checkpoint holds, by the names transformers gives them.

use crate::config::ModelConfig;

pub const EMBEDDING: &str = "model.embed_tokens.weight";
pub const FINAL_NORM: &str = "model.norm.weight";
pub const HEAD: &str = "lm_head.weight";

/// The linear layers of one decoder layer, by the ends of their names; LoRA's default targets.
pub const PROJECTIONS: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

/// A module of a decoder layer that has parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Within its layer: `self_attn.q_proj`.
    pub path: &'static str,
    pub kind: Kind,
}

/// What a module computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A weight `[rows, columns]`, which is `[out, in]`, and perhaps a bias `[rows]`.
    Linear {
        rows: usize,
        columns: usize,
        bias: bool,
    },
    /// A weight `[size]`.
    Norm { size: usize },
}

/// The modules of one decoder layer. What is loaded, adapted, estimated and exported follows from this list.
pub fn layer_modules(config: &ModelConfig) -> Vec<Module> {
    let (d, inner) = (config.hidden_size, config.intermediate_size);
    let queries = config.n_heads * config.head_dim;
    let keys = config.n_kv_heads * config.head_dim;
    let linear = |path, (rows, columns), bias| Module {
        path,
        kind: Kind::Linear {
            rows,
            columns,
            bias,
        },
    };
    let norm = |path, size| Module {
        path,
        kind: Kind::Norm { size },
    };
    let mut modules = vec![
        linear("self_attn.q_proj", (queries, d), config.qkv_bias),
        linear("self_attn.k_proj", (keys, d), config.qkv_bias),
        linear("self_attn.v_proj", (keys, d), config.qkv_bias),
        linear("self_attn.o_proj", (d, queries), config.o_bias),
        linear("mlp.gate_proj", (inner, d), config.mlp_bias),
        linear("mlp.up_proj", (inner, d), config.mlp_bias),
        linear("mlp.down_proj", (d, inner), config.mlp_bias),
    ];
    if config.qk_norm {
        modules.push(norm("self_attn.q_norm", config.head_dim));
        modules.push(norm("self_attn.k_norm", config.head_dim));
    }
    modules.push(norm("input_layernorm", d));
    modules.push(norm("post_attention_layernorm", d));
    modules
}

impl Module {
    /// `model.layers.{layer}.self_attn.q_proj` and its like.
    pub fn name(&self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.path)
    }

    fn parameters(&self, layer: usize) -> Vec<(String, Vec<usize>)> {
        let name = self.name(layer);
        let (weight, bias) = match self.kind {
            Kind::Linear {
                rows,
                columns,
                bias,
            } => (vec![rows, columns], bias.then(|| vec![rows])),
            Kind::Norm { size } => (vec![size], None),
        };
        let bias = bias.map(|shape| (format!("{name}.bias"), shape));
        std::iter::once((format!("{name}.weight"), weight))
            .chain(bias)
            .collect()
    }
}

/// Every parameter of the model with its shape, in the order of its modules.
///
/// A tied head is the embedding and has no name of its own.
pub fn parameter_names(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let d = config.hidden_size;
    let modules = layer_modules(config);
    let layers = (0..config.n_layers).flat_map(|layer| {
        modules
            .iter()
            .flat_map(move |module| module.parameters(layer))
    });
    let head = (!config.tie_word_embeddings).then(|| (HEAD.to_owned(), vec![config.vocab_size, d]));
    std::iter::once((EMBEDDING.to_owned(), vec![config.vocab_size, d]))
        .chain(layers)
        .chain([(FINAL_NORM.to_owned(), vec![d])])
        .chain(head)
        .collect()
}
