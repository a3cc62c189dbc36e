#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::ModelConfig;
use crate::export::{AdapterExport, save_adapter};
use crate::lora::Targets;
use crate::merge::Merge;
use crate::parameters::parameter_names;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Folder of the adapter and of its base, made by scripts/fixtures/make_model_fixtures.py with PEFT 0.21.2.
const ADAPTERS: [(&str, &str); 3] = [
    ("adapter", "llama-linear-bias"),
    ("adapter-dora", "qwen3-yarn"),
    ("adapter-tied", "qwen2"),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/model")
        .join(name)
}

fn model(name: &str) -> ModelConfig {
    ModelConfig::from_dir(&fixture(name)).unwrap()
}

/// The adapter of a folder, checked against the model, with everything it holds by the trained names.
fn open(dir: &Path, model: &ModelConfig) -> (Adapter, Vec<(String, Tensor)>) {
    let adapter = Adapter::open(dir).unwrap();
    let modules = adapter.config.modules(model).unwrap();
    let saved = adapter.config.saved_modules(model).unwrap();
    adapter.check(&modules, &saved).unwrap();
    let mut tensors = Vec::new();
    for module in &modules {
        let (a, b) = adapter.pair(module).unwrap();
        tensors.extend([(module.a_name(), a), (module.b_name(), b)]);
        let magnitude = adapter.magnitude(module).unwrap();
        assert_eq!(magnitude.is_some(), adapter.config.use_dora);
        tensors.extend(magnitude.map(|m| (module.magnitude_name(), m)));
    }
    for module in &saved {
        tensors.push((module.peft_name.clone(), adapter.saved(module).unwrap()));
    }
    (adapter, tensors)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let pairs = values(a).into_iter().zip(values(b));
    pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs()))
}

#[test]
fn peft_adapters_merge_as_in_peft() {
    for (folder, base) in ADAPTERS {
        let model = model(base);
        let (adapter, _) = open(&fixture(folder), &model);
        let merge = Merge::new(&adapter.config, &model).unwrap();
        let base = Weights::open(&fixture(base)).unwrap();
        let merged = fixture(folder).join("merged.safetensors");
        let expected = Weights::open_file(&merged).unwrap();
        assert!(expected.names().count() >= 4);
        for name in expected.names() {
            let weight = base.tensor(name, DType::F32).unwrap();
            let found = merge
                .tensor(name, || Ok(weight.clone()), |name| adapter.tensor(name))
                .unwrap();
            let expected = expected.tensor(name, DType::F32).unwrap();
            let error = largest_difference(&found, &expected);
            assert!(error < 1e-6, "{folder}, {name}: {error}");
            // What no adapter reaches stays as it was; everything else has moved.
            let moved = largest_difference(&expected, &weight) > 1e-2;
            assert_eq!(
                moved,
                !(folder == "adapter" && name.ends_with("bias")),
                "{name}"
            );
        }
    }
}

#[test]
fn settings_are_read_from_peft() {
    let config = |folder: &str| Adapter::open(&fixture(folder)).unwrap().config;
    let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let plain = config("adapter");
    let projections = names(&["q_proj", "down_proj"]);
    assert_eq!(plain.targets, Targets::Names(projections));
    assert!(plain.use_rslora && !plain.use_dora);
    let dora = config("adapter-dora");
    assert!(dora.use_dora && !dora.use_rslora);
    assert!(matches!(dora.targets, Targets::Pattern(_)));
    assert_eq!(dora.modules_to_save, ["embed_tokens", "lm_head", "norm"]);
    let ranks: Vec<_> = dora
        .modules(&model("qwen3-yarn"))
        .unwrap()
        .into_iter()
        .map(|m| {
            (
                m.name.trim_start_matches("model.layers.").to_owned(),
                m.rank,
                m.scaling,
            )
        })
        .collect();
    let expected = [
        ("0.self_attn.q_proj", 4, 1.5),
        ("0.self_attn.k_proj", 2, 3.0),
        ("0.self_attn.v_proj", 4, 1.5),
        ("0.mlp.up_proj", 4, 1.25),
        ("1.self_attn.q_proj", 3, 2.0),
        ("1.self_attn.k_proj", 3, 2.0),
        ("1.self_attn.v_proj", 3, 2.0),
        ("1.mlp.up_proj", 3, 5.0 / 3.0),
    ];
    assert_eq!(ranks, expected.map(|(name, r, s)| (name.to_owned(), r, s)));
    let tied = config("adapter-tied");
    assert_eq!(tied.dropout, 0.1);
    assert_eq!(tied.modules(&model("qwen2")).unwrap().len(), 13);
    assert!(tied.saved_modules(&model("qwen2")).unwrap()[0].tied);
}

#[test]
fn adapters_survive_writing() {
    for (folder, base) in ADAPTERS {
        let model = model(base);
        let (adapter, tensors) = open(&fixture(folder), &model);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("adapter");
        let export = AdapterExport {
            lora: &adapter.config,
            model: &model,
            base_model: Some("base"),
            revision: None,
            base_dir: None,
        };
        save_adapter(&out, &export, &tensors).unwrap();
        let (again, same) = open(&out, &model);
        let (before, after) = (adapter.config.modules(&model), again.config.modules(&model));
        assert_eq!(before.unwrap(), after.unwrap());
        for ((name, a), (_, b)) in tensors.iter().zip(&same) {
            assert_eq!(values(a), values(b), "{name}");
        }
        // The same file as PEFT's, and every key of its settings with its value where both say the same.
        let file = |dir: &Path| Weights::open_file(&dir.join(ADAPTER_WEIGHTS)).unwrap();
        let (theirs, ours) = (file(&fixture(folder)), file(&out));
        assert!(theirs.names().eq(ours.names()), "{folder}");
        for name in theirs.names() {
            let error = largest_difference(
                &theirs.tensor(name, DType::F32).unwrap(),
                &ours.tensor(name, DType::F32).unwrap(),
            );
            assert_eq!(error, 0.0, "{name}");
        }
        let theirs = read_json(&fixture(folder).join(ADAPTER_CONFIG)).unwrap();
        let ours = read_json(&out.join(ADAPTER_CONFIG)).unwrap();
        for (key, value) in theirs.as_object().unwrap() {
            match key.as_str() {
                "base_model_name_or_path" => assert_eq!(ours[key], "base"),
                "target_modules" | "modules_to_save" => {
                    assert_eq!(as_set(&ours[key]), as_set(value), "{folder}: {key}");
                }
                _ => assert_eq!(&ours[key], value, "{folder}: {key}"),
            }
        }
        let keys = |json: &Value| json.as_object().unwrap().len();
        assert_eq!(keys(&ours), keys(&theirs));
    }
}

fn as_set(json: &Value) -> std::collections::BTreeSet<String> {
    match json {
        Value::Array(items) => items.iter().map(|item| item.to_string()).collect(),
        other => [other.to_string()].into(),
    }
}

/// A copy of the fixture `adapter` whose settings are changed.
fn changed(changes: Value) -> (tempfile::TempDir, Result<Adapter>) {
    let dir = tempfile::tempdir().unwrap();
    let from = fixture("adapter");
    std::fs::copy(from.join(ADAPTER_WEIGHTS), dir.path().join(ADAPTER_WEIGHTS)).unwrap();
    let mut config = read_json(&from.join(ADAPTER_CONFIG)).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(dir.path().join(ADAPTER_CONFIG), config.to_string()).unwrap();
    let adapter = Adapter::open(dir.path());
    (dir, adapter)
}

/// peft#1626: over the base that it names such an adapter is another model.
#[test]
fn adapters_that_changed_their_base_are_refused_with_the_way_out() {
    for start in [
        "pissa",
        "pissa_niter_16",
        "olora",
        "OLoRA",
        "corda",
        "lora_ga",
        "loftq",
        "something_new",
    ] {
        let message = changed(json!({"init_lora_weights": start}))
            .1
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("`init_lora_weights`"), "{message}");
        assert!(
            message.contains("base") && message.contains("merge"),
            "{message}"
        );
        let converts = message.contains("path_initial_model_for_weight_conversion");
        assert_eq!(converts, start != "loftq", "{message}");
    }
    for start in [
        json!(true),
        json!(false),
        json!(null),
        json!("gaussian"),
        json!("eva"),
        json!("orthogonal"),
        json!("mica"),
    ] {
        assert!(
            changed(json!({"init_lora_weights": start})).1.is_ok(),
            "{start}"
        );
    }
}

#[test]
fn settings_that_change_nothing_are_accepted_and_others_applied_or_refused() {
    let model = model("llama-linear-bias");
    let modules = |changes: Value| {
        let adapter = changed(changes).1?;
        let modules = adapter.config.modules(&model)?;
        let names = modules
            .iter()
            .map(|module| module.name.replace("model.layers.", ""));
        Ok::<Vec<String>, Error>(names.collect())
    };
    let all = modules(json!({})).unwrap();
    assert_eq!(all.len(), 4);
    for changes in [
        json!({"exclude_modules": []}),
        json!({"exclude_modules": ["lm_head", "k_proj"]}),
        json!({"exclude_modules": "lm_head"}),
        json!({"layers_to_transform": [0, 1], "layers_pattern": "layers"}),
        json!({"layers_to_transform": [], "layers_pattern": null}),
        json!({"modules_to_save": [], "alora_invocation_tokens": null, "trainable_token_indices": null}),
        json!({"corda_config": null, "eva_config": {"rho": 2.0}, "loftq_config": {}, "megatron_config": null}),
        json!({"megatron_core": "megatron.core", "use_qalora": false, "a_key_of_tomorrow": null, "another": false}),
        json!({"runtime_config": {"ephemeral_gpu_offload": false}, "trainable_token_indices": {}}),
    ] {
        let text = changes.to_string();
        assert_eq!(modules(changes).unwrap(), all, "{text}");
    }
    // The rules of PEFT's check_target_module_exists.
    let (q0, d0, q1, d1) = (
        "0.self_attn.q_proj",
        "0.mlp.down_proj",
        "1.self_attn.q_proj",
        "1.mlp.down_proj",
    );
    for (changes, expected) in [
        (json!({"layers_to_transform": [0]}), vec![q0, d0]),
        (
            json!({"layers_to_transform": 1, "layers_pattern": ["h", "layers"]}),
            vec![q1, d1],
        ),
        (json!({"exclude_modules": ["down_proj"]}), vec![q0, q1]),
        (
            json!({"exclude_modules": ["layers.1.mlp.down_proj"]}),
            vec![q0, d0, q1],
        ),
        (json!({"exclude_modules": r".*\.1\..*"}), vec![q0, d0]),
        (
            json!({"layers_to_transform": [1], "target_modules": ["model.layers.0.self_attn.q_proj", "down_proj"]}),
            vec![q0, d1],
        ),
    ] {
        // The patterns of the fixture name a layer that may be left out.
        let mut changes = changes;
        changes["rank_pattern"] = json!({});
        changes["alpha_pattern"] = json!({});
        let text = changes.to_string();
        assert_eq!(modules(changes).unwrap(), expected, "{text}");
    }
    for (changes, key) in [
        (
            json!({"trainable_token_indices": [1]}),
            "trainable_token_indices",
        ),
        (
            json!({"alora_invocation_tokens": [1]}),
            "alora_invocation_tokens",
        ),
        (json!({"megatron_config": {"a": 1}}), "megatron_config"),
        (
            json!({"use_dora_of_tomorrow": true}),
            "use_dora_of_tomorrow",
        ),
        (
            json!({"layers_to_transform": [0], "target_modules": ".*q_proj"}),
            "layers_to_transform",
        ),
        (json!({"layers_to_transform": "x"}), "layers_to_transform"),
    ] {
        let message = modules(changes).unwrap_err().to_string();
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
    // Continued by a recipe that targets more than the adapter has.
    let (_dir, adapter) = changed(json!({"layers_to_transform": [0]}));
    let adapter = adapter.unwrap();
    let mut config = adapter.config.clone();
    config.reach = Default::default();
    let modules = config.modules(&model).unwrap();
    let message = adapter.check(&modules, &[]).unwrap_err().to_string();
    assert!(message.contains("layer"), "{message}");
}

#[test]
fn an_adapter_is_continued_only_as_it_was_trained() {
    let refused = |folder: &str, base: &str, change: &dyn Fn(&mut LoraConfig), part: &str| {
        let adapter = Adapter::open(&fixture(folder)).unwrap();
        let mut config = adapter.config.clone();
        change(&mut config);
        let model = model(base);
        let modules = config.modules(&model).unwrap();
        let saved = config.saved_modules(&model).unwrap();
        let message = adapter.check(&modules, &saved).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    let [plain, dora, tied] = ADAPTERS;
    refused(plain.0, plain.1, &|c| c.alpha = 60.0, "scaling");
    refused(plain.0, plain.1, &|c| c.use_rslora = false, "scaling");
    refused(plain.0, plain.1, &|c| c.use_dora = true, "without use_dora");
    refused(plain.0, plain.1, &|c| c.rank_pattern.clear(), "scaling");
    refused(
        plain.0,
        plain.1,
        &|c| c.modules_to_save = vec!["lm_head".into()],
        "`base_model.model.lm_head.weight` is missing",
    );
    refused(dora.0, dora.1, &|c| c.use_dora = false, "with use_dora");
    refused(
        dora.0,
        dora.1,
        &|c| c.modules_to_save.retain(|name| name != "norm"),
        "belongs to no targeted or saved module",
    );
    refused(
        tied.0,
        tied.1,
        &|c| c.modules_to_save = vec!["layers.1.self_attn.v_proj".into()],
        "belongs to no targeted or saved module",
    );
}

#[test]
fn patterns_count_in_the_order_of_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(ADAPTER_CONFIG);
    std::fs::copy(
        fixture("adapter").join(ADAPTER_WEIGHTS),
        dir.path().join(ADAPTER_WEIGHTS),
    )
    .unwrap();
    let mut settings = read_json(&fixture("adapter").join(ADAPTER_CONFIG)).unwrap();
    // PEFT goes by the first, we by the longest: read as ours, layer 0 would have another scaling.
    settings["alpha_pattern"] = serde_json::json!({"q_proj": 3, "layers.0.self_attn.q_proj": 9});
    std::fs::write(&path, settings.to_string()).unwrap();
    let adapter = Adapter::open(dir.path()).unwrap();
    let modules = adapter.config.modules(&model("llama-linear-bias")).unwrap();
    let message = adapter.check(&modules, &[]).unwrap_err().to_string();
    assert!(message.contains("scaling 1.5"), "{message}");
}

#[test]
fn an_embedding_trained_apart_from_its_tied_head_is_refused() {
    let (folder, base) = ADAPTERS[2];
    let model = model(base);
    let weights = Weights::open_file(&fixture(folder).join(ADAPTER_WEIGHTS)).unwrap();
    let mut tensors: HashMap<String, Tensor> = weights
        .names()
        .map(|name| (name.to_owned(), weights.tensor(name, DType::F32).unwrap()))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        fixture(folder).join(ADAPTER_CONFIG),
        dir.path().join(ADAPTER_CONFIG),
    )
    .unwrap();
    let mut refused = |change: &mut dyn FnMut(&mut HashMap<String, Tensor>)| {
        change(&mut tensors);
        candle_core::safetensors::save(&tensors, dir.path().join(ADAPTER_WEIGHTS)).unwrap();
        let adapter = Adapter::open(dir.path()).unwrap();
        let modules = adapter.config.modules(&model).unwrap();
        let saved = adapter.config.saved_modules(&model).unwrap();
        let message = adapter.check(&modules, &saved).unwrap_err().to_string();
        assert!(message.contains("ensure_weight_tying"), "{message}");
    };
    let head = "base_model.model.lm_head.weight";
    refused(&mut |tensors| {
        let other = (&tensors[head] + 1.0).unwrap();
        tensors.insert(head.into(), other);
    });
    refused(&mut |tensors| {
        tensors.remove(head);
    });
}

/// Everything an untouched model has, through a merge that changes it.
#[test]
fn a_merge_asks_for_one_parameter_at_a_time() {
    let model = model("qwen3-yarn");
    let config = LoraConfig {
        modules_to_save: vec!["lm_head".into()],
        ..LoraConfig::default()
    };
    let merge = Merge::new(&config, &model).unwrap();
    for (name, shape) in parameter_names(&model) {
        let zeros = Tensor::zeros(shape.as_slice(), DType::F32, &candle_core::Device::Cpu);
        let asked = std::cell::RefCell::new(Vec::new());
        let trained = |name: &str| {
            asked.borrow_mut().push(name.to_owned());
            let shape = match name {
                name if name.contains("lora_A") => vec![16, *shape.last().unwrap()],
                name if name.contains("lora_B") => vec![shape[0], 16],
                _ => shape.clone(),
            };
            Ok(Tensor::zeros(shape, DType::F32, &candle_core::Device::Cpu)?)
        };
        let found = merge.tensor(&name, || Ok(zeros.unwrap()), trained).unwrap();
        assert_eq!(found.dims(), shape.as_slice());
        let expected = match name.as_str() {
            "lm_head.weight" => 1,
            name if name.contains("_proj") => 2,
            _ => 0,
        };
        assert_eq!(asked.borrow().len(), expected, "{name}");
    }
}
