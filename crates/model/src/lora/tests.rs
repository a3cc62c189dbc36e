//! Which modules settings mean, and what is refused. PEFT's files are read in `adapter`'s tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn model(name: &str) -> ModelConfig {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/model");
    ModelConfig::from_dir(&fixtures.join(name)).unwrap()
}

fn untied() -> ModelConfig {
    model("llama-linear-bias")
}

fn config(json: Value) -> LoraConfig {
    serde_json::from_value(json).unwrap()
}

fn names(json: Value) -> Vec<String> {
    let modules = config(json).modules(&untied()).unwrap();
    modules.into_iter().map(|module| module.name).collect()
}

#[test]
fn targets_are_names_all_linear_or_a_regular_expression() {
    let all = names(json!({}));
    assert_eq!(all.len(), 14);
    assert_eq!(names(json!({"targets": "all-linear"})), all);
    assert_eq!(names(json!({"targets": "All-Linear"})), all);
    let only = ["model.layers.1.mlp.up_proj"];
    assert_eq!(names(json!({"targets": ["layers.1.mlp.up_proj"]})), only);
    assert_eq!(names(json!({"targets": ["1.mlp.up_proj"]})), only);
    assert_eq!(
        names(json!({"targets": r"model\.layers\.1\.mlp\.up_proj"})),
        only
    );
    assert_eq!(
        names(json!({"targets": r".*\.0\.(self_attn\.(q|v)_proj|mlp\.down_proj)"})),
        [
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.v_proj",
            "model.layers.0.mlp.down_proj"
        ]
    );
}

#[test]
fn patterns_are_suffixes_and_the_longest_wins() {
    let config = config(json!({
        "rank": 8, "alpha": 16.0, "targets": ["q_proj", "up_proj"],
        "rank_pattern": {"q_proj": 4, "layers.1.self_attn.q_proj": 2},
        "alpha_pattern": {"up_proj": 8.0}
    }));
    let found: Vec<_> = config
        .modules(&untied())
        .unwrap()
        .into_iter()
        .map(|m| (m.name, m.rank, m.scaling))
        .collect();
    let expected = [
        ("model.layers.0.self_attn.q_proj", 4, 4.0),
        ("model.layers.0.mlp.up_proj", 8, 1.0),
        ("model.layers.1.self_attn.q_proj", 2, 8.0),
        ("model.layers.1.mlp.up_proj", 8, 1.0),
    ];
    assert_eq!(
        found,
        expected.map(|(name, rank, scaling)| (name.to_string(), rank, scaling))
    );
}

#[test]
fn patterns_are_regular_expressions_for_the_end_of_a_name() {
    let check = |pattern: &str, expected: &[&str]| {
        let config = config(json!({"rank": 8, "rank_pattern": {pattern: 3}}));
        let modules = config.modules(&untied()).unwrap();
        let found: Vec<_> = modules
            .iter()
            .filter(|module| module.rank == 3)
            .map(|module| module.name.as_str())
            .collect();
        assert_eq!(found, expected, "{pattern}");
    };
    check(
        r"layers\.0\..*_attn\.[qk]_proj",
        &[
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.k_proj",
        ],
    );
    // Both sides of the alternative are whole ends, as in PEFT's group.
    check(
        r"0\.self_attn\.q_proj|1\.mlp\.up_proj",
        &[
            "model.layers.0.self_attn.q_proj",
            "model.layers.1.mlp.up_proj",
        ],
    );
    check(
        "^model.layers.1.self_attn.o_proj",
        &["model.layers.1.self_attn.o_proj"],
    );
}

fn saved(json: Value, model: &ModelConfig) -> Vec<String> {
    let modules = config(json).saved_modules(model).unwrap();
    modules.into_iter().map(|module| module.parameter).collect()
}

/// What PEFT 0.21.2 made trainable with the same settings.
#[test]
fn saved_modules_are_those_of_peft() {
    assert_eq!(
        saved(
            json!({"modules_to_save": ["embed_tokens", "lm_head", "norm"]}),
            &untied()
        ),
        [
            "model.embed_tokens.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.post_attention_layernorm.weight",
            "model.layers.1.input_layernorm.weight",
            "model.layers.1.post_attention_layernorm.weight",
            "model.norm.weight",
            "lm_head.weight",
        ]
    );
    let settings = json!({"modules_to_save": ["input_layernorm", "layers.1.mlp.up_proj"]});
    assert_eq!(
        saved(settings.clone(), &untied()),
        [
            "model.layers.0.input_layernorm.weight",
            "model.layers.1.mlp.up_proj.weight",
            "model.layers.1.mlp.up_proj.bias",
            "model.layers.1.input_layernorm.weight",
        ]
    );
    // What is saved has no adapter beside.
    let adapted = names(settings);
    assert_eq!(adapted.len(), 13);
    assert!(!adapted.contains(&"model.layers.1.mlp.up_proj".to_owned()));
    assert_eq!(
        saved(json!({"modules_to_save": ["self_attn"]}), &model("qwen2")).len(),
        14
    );
    assert_eq!(names(json!({"modules_to_save": ["self_attn"]})).len(), 6);
    assert!(saved(json!({}), &untied()).is_empty());
}

#[test]
fn a_tied_head_is_saved_once_whichever_name_it_is_given() {
    for name in ["lm_head", "embed_tokens", "model.embed_tokens"] {
        let config = config(json!({"modules_to_save": [name]}));
        let saved = config.saved_modules(&model("qwen2")).unwrap();
        assert_eq!(saved.len(), 1, "{name}");
        assert_eq!(saved[0].parameter, "model.embed_tokens.weight");
        assert_eq!(
            saved[0].peft_name,
            "base_model.model.model.embed_tokens.weight"
        );
        assert!(saved[0].tied);
        assert!(!config.saved_modules(&untied()).unwrap()[0].tied);
    }
}

fn values(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_fresh_adapter_is_kaiming_and_zero() {
    let modules = LoraConfig::default().modules(&untied()).unwrap();
    let module = &modules[6];
    assert_eq!((module.in_features, module.out_features), (48, 32));
    let a = module.initial_a(1).unwrap();
    assert_eq!(a.dims(), [16, 48]);
    let bound = 1.0 / 48f32.sqrt();
    let largest = values(&a).iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest <= bound && largest > 0.9 * bound);
    assert_eq!(values(&a), values(&module.initial_a(1).unwrap()));
    assert_ne!(values(&a), values(&modules[13].initial_a(1).unwrap()));
    assert!(
        values(&module.initial_b().unwrap())
            .iter()
            .all(|v| *v == 0.0)
    );
}

#[test]
fn a_fresh_dora_adapter_changes_nothing() {
    let config = config(json!({"use_dora": true, "targets": ["q_proj"]}));
    let module = &config.modules(&untied()).unwrap()[0];
    let weight = module.initial_a(3).unwrap();
    let mut module = module.clone();
    (module.out_features, module.rank) = (weight.dims()[0], 2);
    let (a, b) = (module.initial_a(1).unwrap(), module.initial_b().unwrap());
    let magnitude = module.initial_magnitude(&weight).unwrap();
    assert_eq!(magnitude.dims(), [module.out_features]);
    let merged = module.merge(&weight, &a, &b, Some(&magnitude)).unwrap();
    for (found, expected) in values(&merged).iter().zip(values(&weight)) {
        assert!((found - expected).abs() < 1e-7);
    }
    // Half the magnitude is half the row.
    let half = (magnitude * 0.5).unwrap();
    let merged = module.merge(&weight, &a, &b, Some(&half)).unwrap();
    for (found, expected) in values(&merged).iter().zip(values(&weight)) {
        assert!((found - 0.5 * expected).abs() < 1e-7);
    }
    let message = module.merge(&weight, &a, &b, None).unwrap_err().to_string();
    assert!(
        message.contains("use_dora needs its magnitudes"),
        "{message}"
    );
}

#[test]
fn everything_trained_is_listed() {
    let config = config(json!({
        "rank": 4, "targets": ["q_proj"], "use_dora": true, "modules_to_save": ["model.norm"]
    }));
    let trained = config.trained(&untied()).unwrap();
    let shapes: Vec<_> = trained.iter().map(|(_, shape)| shape.as_slice()).collect();
    let pair: [&[usize]; 3] = [&[4, 32], &[32, 4], &[32]];
    assert_eq!(shapes, [&pair[..], &pair[..], &[&[32]]].concat());
    assert!(trained[2].0.ends_with("q_proj.lora_magnitude_vector"));
    let missing = LoraConfig {
        init_from: Some("nowhere".into()),
        ..config
    };
    let message = missing.trained(&untied()).unwrap_err().to_string();
    assert!(message.contains("nowhere"), "{message}");
}

#[test]
fn what_cannot_be_is_refused_with_its_key() {
    for (bad, key, part) in [
        (json!({"rank": 0}), "rank", "at least 1"),
        (
            json!({"rank_pattern": {"q_proj": 0}}),
            "rank_pattern",
            "at least 1",
        ),
        (json!({"alpha": -1.0}), "alpha", "above 0"),
        (
            json!({"alpha_pattern": {"q_proj": 0.0}}),
            "alpha_pattern",
            "above 0",
        ),
        (
            json!({"targets": ["lm_head"]}),
            "targets",
            "modules_to_save",
        ),
        (json!({"targets": ["mlp"]}), "targets", "must end in one of"),
        (json!({"targets": []}), "targets", "at least one"),
        (
            json!({"targets": ["layers.2.mlp.up_proj"]}),
            "targets",
            "matches no linear layer",
        ),
        (
            json!({"targets": "q_proj"}),
            "targets",
            "write a list for names",
        ),
        (json!({"targets": ".*(q_proj"}), "targets", "unclosed group"),
        (
            json!({"targets": "a)|(b"}),
            "targets",
            "no regular expression",
        ),
        (
            json!({"targets": r".*\.mlp.*"}),
            "targets",
            "also matches `model.layers.0.mlp`",
        ),
        (
            json!({"targets": ".*_proj|lm_head"}),
            "targets",
            "also matches `lm_head`",
        ),
        (json!({"dropout": 1.0}), "dropout", "below 1"),
        (json!({"dropout": -0.1}), "dropout", "at least 0"),
        (
            json!({"loraplus_lr_ratio": 0.5}),
            "loraplus_lr_ratio",
            "at least 1",
        ),
        (
            json!({"modules_to_save": [""]}),
            "modules_to_save",
            "dotted name",
        ),
        (
            json!({"modules_to_save": ["lm_.*"]}),
            "modules_to_save",
            "no regular expression",
        ),
        (
            json!({"modules_to_save": ["score"]}),
            "modules_to_save",
            "matches no module",
        ),
        (
            json!({"modules_to_save": ["layers"]}),
            "modules_to_save",
            "method = \"full\"",
        ),
        (
            json!({"modules_to_save": ["_proj"]}),
            "modules_to_save",
            "has an adapter",
        ),
        (
            json!({"targets": ["q_proj"], "modules_to_save": ["self_attn"]}),
            "modules_to_save",
            "none is left",
        ),
        (
            json!({"rank_pattern": {"(q_proj": 4}}),
            "rank_pattern",
            "unclosed group",
        ),
        (
            json!({"rank_pattern": {"(?!q)_proj": 4}}),
            "rank_pattern",
            "look-around",
        ),
        (
            json!({"targets": ["q_proj"], "alpha_pattern": {"up_proj": 4.0}}),
            "alpha_pattern",
            "matches no targeted module",
        ),
    ] {
        let config = config(bad.clone());
        let error = config
            .modules(&untied())
            .and_then(|_| config.saved_modules(&untied()))
            .unwrap_err();
        assert!(
            matches!(error, Error::Setting { key: k, .. } if k == key),
            "{bad}: {error}"
        );
        let message = error.to_string();
        assert!(message.contains(part), "{bad}: {message}");
    }
    let parse = |json: Value| serde_json::from_value::<LoraConfig>(json);
    assert!(parse(json!({"ranks": 4})).is_err());
    let message = parse(json!({"targets": 3})).unwrap_err().to_string();
    assert!(message.contains("a list of projections"), "{message}");
}
