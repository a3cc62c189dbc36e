//! Writing checkpoints that transformers, vLLM and PEFT read.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use serde_json::{Map, Value, json};

use crate::adapter;
use crate::checkpoint::TOKENIZER_FILES;
use crate::config::ModelConfig;
use crate::error::{Error, Result, io, read_json_if_present};
use crate::lora::{LoraConfig, LoraModule, SavedModule};
use crate::parameters::{HEAD, parameter_names};
use crate::safetensors_file;

/// What a complete checkpoint folder is made from, its tensors aside.
pub struct Export<'a> {
    pub config: &'a ModelConfig,
    /// Where the tokenizer's files and generation_config.json are copied from.
    pub base_dir: &'a Path,
    /// F32, F16 or BF16.
    pub dtype: DType,
    /// Every id that ends a completion, the trained one first; see `Tokenizer::eos_ids`.
    pub eos_ids: &'a [u32],
    /// Weights beyond this are split into files with an index; [`MAX_SHARD_BYTES`].
    pub max_shard_bytes: usize,
}

/// transformers' default, decimal as there.
pub const MAX_SHARD_BYTES: usize = 5_000_000_000;

/// Writes a complete checkpoint folder; `tensor` gives each parameter by its name, once.
///
/// The folder appears whole: it is built beside `out` and takes its place at the end, whatever
/// stood there before. One tensor at a time is held; the same inputs give the same bytes.
pub fn save_merged(
    out: &Path,
    export: &Export,
    tensor: &mut dyn FnMut(&str) -> Result<Tensor>,
) -> Result<()> {
    replace_folder(out, |dir| {
        write_weights(dir, export, tensor)?;
        write_json(&dir.join("config.json"), &config_json(export))?;
        write_json(
            &dir.join("generation_config.json"),
            &generation_config(export)?,
        )?;
        copy_tokenizer(export.base_dir, dir)
    })
}

/// What an adapter folder is made from, its tensors aside.
pub struct AdapterExport<'a> {
    pub lora: &'a LoraConfig,
    pub model: &'a ModelConfig,
    /// What PEFT is to load the base from.
    pub base_model: Option<&'a str>,
    /// Of the base model on the Hub; a commit.
    pub revision: Option<&'a str>,
    /// Where the tokenizer's files are copied from.
    pub base_dir: Option<&'a Path>,
}

/// Writes an adapter folder in PEFT's format, with the tokenizer's files where `base_dir` has them.
///
/// `tensors` are PEFT's names (`base_model.model.….lora_A.weight`) and F32 values: pairs, DoRA's magnitudes
/// and parameters trained whole. A tied head that was trained is written under both its names.
///
/// # Errors
/// [`Error::MissingTensor`] when `tensors` lack what the settings train; those of writing.
pub fn save_adapter(
    out: &Path,
    export: &AdapterExport,
    tensors: &[(String, Tensor)],
) -> Result<()> {
    let modules = export.lora.modules(export.model)?;
    let saved = export.lora.saved_modules(export.model)?;
    let by_name: BTreeMap<&str, &Tensor> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    // Each tensor's name in the file, and among `tensors`.
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    let mut shapes: Vec<(String, Vec<usize>)> =
        modules.iter().flat_map(LoraModule::tensors).collect();
    for module in saved {
        if module.tied {
            let head = SavedModule::new(HEAD.into(), module.shape.clone(), false);
            sources.insert(head.peft_name.clone(), module.peft_name.clone());
            shapes.push((head.peft_name, head.shape));
        }
        shapes.push((module.peft_name, module.shape));
    }
    replace_folder(out, |dir| {
        let path = dir.join(adapter::ADAPTER_WEIGHTS);
        safetensors_file::write(&path, &shapes, DType::F32, &mut |name| {
            let source = sources.get(name).map_or(name, String::as_str);
            by_name
                .get(source)
                .map(|t| (*t).clone())
                .ok_or_else(|| Error::MissingTensor {
                    path: path.clone(),
                    name: source.into(),
                })
        })?;
        let text = export
            .lora
            .peft_text(export.model, export.base_model, export.revision)
            + "\n";
        records::atomic::write(&dir.join(adapter::ADAPTER_CONFIG), text.as_bytes())?;
        match export.base_dir {
            Some(base_dir) => copy_tokenizer(base_dir, dir),
            None => Ok(()),
        }
    })
}

/// Fills a temporary folder beside `out` and puts it in `out`'s place.
fn replace_folder(out: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = records::atomic::temporary_path(out);
    remove_folder(&temporary)?;
    std::fs::create_dir_all(&temporary).map_err(io(&temporary))?;
    if let Err(error) = fill(&temporary) {
        // The error matters more than what it leaves; a stage removes stale temporaries anyway.
        let _ = remove_folder(&temporary);
        return Err(error);
    }
    remove_folder(out)?;
    Ok(records::atomic::publish(&temporary, out)?)
}

fn remove_folder(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(dir)(error)),
        _ => Ok(()),
    }
}

fn write_weights(
    dir: &Path,
    export: &Export,
    tensor: &mut dyn FnMut(&str) -> Result<Tensor>,
) -> Result<()> {
    let size = safetensors_file::element_size(export.dtype)?;
    let bytes = |shape: &[usize]| shape.iter().product::<usize>() * size;
    let mut shards: Vec<Vec<(String, Vec<usize>)>> = vec![Vec::new()];
    let (mut filled, mut total, mut n_parameters) = (0, 0, 0);
    for (name, shape) in parameter_names(export.config) {
        let more = bytes(&shape);
        if filled + more > export.max_shard_bytes && filled > 0 {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += more;
        total += more;
        n_parameters += shape.iter().product::<usize>();
        if let Some(shard) = shards.last_mut() {
            shard.push((name, shape));
        }
    }
    if let [only] = shards.as_slice() {
        return safetensors_file::write(&dir.join("model.safetensors"), only, export.dtype, tensor);
    }
    let n = shards.len();
    let mut weight_map = BTreeMap::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{n:05}.safetensors", i + 1);
        safetensors_file::write(&dir.join(&file), shard, export.dtype, tensor)?;
        weight_map.extend(shard.iter().map(|(name, _)| (name.clone(), file.clone())));
    }
    let index = json!({
        "metadata": {"total_parameters": n_parameters, "total_size": total},
        "weight_map": weight_map,
    });
    write_json(&dir.join("model.safetensors.index.json"), &index)
}

/// The base's file with the dtype that was written; no other key is touched.
fn config_json(export: &Export) -> Value {
    let mut config = export.config.raw.clone();
    let name = match export.dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    };
    // transformers 5 writes `dtype`, 4 wrote `torch_dtype`; both read the older name.
    let mut known = false;
    for key in ["dtype", "torch_dtype"] {
        if config.get(key).is_some() {
            config[key] = name.into();
            known = true;
        }
    }
    if !known {
        config["torch_dtype"] = name.into();
    }
    config
}

/// The base's file with every id that ends a completion; else a new one from config.json's ids.
fn generation_config(export: &Export) -> Result<Value> {
    let base = read_json_if_present(&export.base_dir.join("generation_config.json"))?;
    let mut config = base.unwrap_or_else(|| {
        let mut map = Map::new();
        for key in ["bos_token_id", "pad_token_id"] {
            if let Some(id) = export.config.raw.get(key).filter(|id| !id.is_null()) {
                map.insert(key.into(), id.clone());
            }
        }
        Value::Object(map)
    });
    match export.eos_ids {
        [] => {}
        [only] => config["eos_token_id"] = json!(only),
        several => config["eos_token_id"] = json!(several),
    }
    Ok(config)
}

fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    for name in TOKENIZER_FILES {
        let path = from.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => records::atomic::write(&to.join(name), &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(&path)(error)),
        }
    }
    Ok(())
}

/// Two spaces and a final newline, as transformers writes its files.
fn write_json(path: &Path, value: &Value) -> Result<()> {
    Ok(records::atomic::write(
        path,
        format!("{value:#}\n").as_bytes(),
    )?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::read_json;
    use crate::weights::Weights;
    use std::path::PathBuf;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/model")
            .join(name)
    }

    fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        for (name, tokenizer) in [
            ("qwen2", "tokenizer-llama"),
            ("llama-linear-bias", "tokenizer-qwen"),
        ] {
            let base = fixture(name);
            let config = ModelConfig::from_dir(&base).unwrap();
            let weights = Weights::open(&base).unwrap();
            let tokenizer = fixture(tokenizer);
            for dtype in [DType::F32, DType::BF16] {
                let export = Export {
                    config: &config,
                    base_dir: &tokenizer,
                    dtype,
                    eos_ids: &[7, 5],
                    max_shard_bytes: MAX_SHARD_BYTES,
                };
                let save =
                    |out: &Path| save_merged(out, &export, &mut |n| weights.tensor(n, DType::F32));
                let out = dir.path().join("merged");
                save(&out).unwrap();
                let again = Weights::open(&out).unwrap();
                assert_eq!(again.dtype().unwrap(), dtype);
                assert_eq!(again.names().count(), parameter_names(&config).len());
                again.check(&config).unwrap();
                for (name, _) in parameter_names(&config) {
                    let rounded = weights
                        .tensor(&name, dtype)
                        .unwrap()
                        .to_dtype(DType::F32)
                        .unwrap();
                    let error = (again.tensor(&name, DType::F32).unwrap() - rounded).unwrap();
                    let error = error
                        .abs()
                        .unwrap()
                        .max_all()
                        .unwrap()
                        .to_scalar::<f32>()
                        .unwrap();
                    assert_eq!(error, 0.0, "{name}");
                }
                let written = read_json(&out.join("config.json")).unwrap();
                let name = if dtype == DType::BF16 {
                    "bfloat16"
                } else {
                    "float32"
                };
                assert_eq!(written["dtype"], name);
                assert_eq!(written["rope_parameters"], config.raw["rope_parameters"]);
                let generation = read_json(&out.join("generation_config.json")).unwrap();
                assert_eq!(generation["eos_token_id"], json!([7, 5]));
                crate::tokenizer::Tokenizer::from_dir(&out)
                    .unwrap()
                    .require_chat_template()
                    .unwrap();

                // Written over itself, and byte for byte the same.
                let first = files(&out);
                save(&out).unwrap();
                assert_eq!(files(&out), first);
            }
        }
        assert_eq!(files_beside(dir.path()), ["merged"]);
    }

    fn files_beside(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn large_checkpoints_are_sharded() {
        let base = fixture("qwen3-yarn");
        let config = ModelConfig::from_dir(&base).unwrap();
        let weights = Weights::open(&base).unwrap();
        let export = Export {
            config: &config,
            base_dir: &base,
            dtype: DType::F32,
            eos_ids: &[],
            max_shard_bytes: 30_000,
        };
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("merged");
        save_merged(&out, &export, &mut |n| weights.tensor(n, DType::F32)).unwrap();
        assert!(out.join("model-00001-of-00004.safetensors").exists());
        let again = Weights::open(&out).unwrap();
        again.check(&config).unwrap();
        let index = read_json(&out.join("model.safetensors.index.json")).unwrap();
        let parameters: usize = parameter_names(&config)
            .iter()
            .map(|(_, s)| s.iter().product::<usize>())
            .sum();
        assert_eq!(index["metadata"]["total_size"], json!(4 * parameters));
        assert!(!out.join("model.safetensors").exists());
        // In fewer, larger files over the old ones, none of which stays.
        let export = Export {
            max_shard_bytes: 100_000,
            ..export
        };
        save_merged(&out, &export, &mut |n| weights.tensor(n, DType::F32)).unwrap();
        assert!(!out.join("model-00001-of-00004.safetensors").exists());
        let fewer = Weights::open(&out).unwrap();
        for (name, _) in parameter_names(&config) {
            let values = |w: &Weights| w.tensor(&name, DType::F32).unwrap().flatten_all().unwrap();
            assert_eq!(
                values(&fewer).to_vec1::<f32>().unwrap(),
                values(&weights).to_vec1::<f32>().unwrap()
            );
        }
    }

    /// vllm#51063: the head was ignored, and an export dropped it.
    #[test]
    fn a_head_of_its_own_beside_tied_embeddings_is_used_and_exported() {
        let base = fixture("qwen2");
        let weights = Weights::open(&base).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let copy = |name: &str, factor: f64| {
            let to = dir.path().join(name);
            std::fs::create_dir(&to).unwrap();
            std::fs::copy(base.join("config.json"), to.join("config.json")).unwrap();
            let tied = ModelConfig::from_dir(&base).unwrap();
            let mut tensors = parameter_names(&tied);
            tensors.push((HEAD.into(), vec![tied.vocab_size, tied.hidden_size]));
            safetensors_file::write(
                &to.join("model.safetensors"),
                &tensors,
                DType::F32,
                &mut |name| match name {
                    HEAD => {
                        Ok((weights.tensor(crate::parameters::EMBEDDING, DType::F32)? * factor)?)
                    }
                    name => weights.tensor(name, DType::F32),
                },
            )
            .unwrap();
            to
        };
        let same = ModelConfig::from_dir(&copy("same", 1.0)).unwrap();
        assert!(same.tie_word_embeddings && same.notices.is_empty());

        let own = copy("own", 2.0);
        let config = ModelConfig::from_dir(&own).unwrap();
        assert!(!config.tie_word_embeddings);
        assert!(
            config.notices[0].contains("the head in the file is used"),
            "{:?}",
            config.notices
        );
        let weights = Weights::open(&own).unwrap();
        let export = Export {
            config: &config,
            base_dir: &own,
            dtype: DType::F32,
            eos_ids: &[],
            max_shard_bytes: MAX_SHARD_BYTES,
        };
        let out = dir.path().join("merged");
        save_merged(&out, &export, &mut |n| weights.tensor(n, DType::F32)).unwrap();
        assert_eq!(
            read_json(&out.join("config.json")).unwrap()["tie_word_embeddings"],
            false
        );
        let again = ModelConfig::from_dir(&out).unwrap();
        assert!(!again.tie_word_embeddings && again.notices.is_empty());
        let head = |dir: &Path| {
            let weights = Weights::open(dir).unwrap();
            weights.check(&config).unwrap();
            let head = weights.tensor(HEAD, DType::F32).unwrap();
            head.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(head(&out), head(&own));

        // The other way round there is nothing to use.
        let message = Weights::open(&base)
            .unwrap()
            .check(&config)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`lm_head.weight` is missing; set `tie_word_embeddings`"),
            "{message}"
        );
    }

    #[test]
    fn a_failed_export_leaves_what_stood_there() {
        let base = fixture("qwen2");
        let config = ModelConfig::from_dir(&base).unwrap();
        let export = Export {
            config: &config,
            base_dir: &base,
            dtype: DType::F32,
            eos_ids: &[],
            max_shard_bytes: MAX_SHARD_BYTES,
        };
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("merged");
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("kept"), "x").unwrap();
        let missing = |name: &str| {
            Err(Error::MissingTensor {
                path: "base".into(),
                name: name.into(),
            })
        };
        let error = save_merged(&out, &export, &mut |name| missing(name)).unwrap_err();
        assert!(
            error.to_string().contains("lm_head") || error.to_string().contains("model."),
            "{error}"
        );
        assert_eq!(files_beside(dir.path()), ["merged"]);
        assert!(out.join("kept").exists());
    }
}
