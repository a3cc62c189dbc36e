//! Reads an adapter and writes it again, and the checkpoint it makes with its base: what
//! `scripts/check_adapters.py` compares with PEFT.
//!
//! ```sh
//! cargo run --release -p stillroom-model --example merge -- MODEL_DIR ADAPTER_DIR OUT_DIR [MAX_SHARD_BYTES]
//! ```
//!
//! OUT_DIR gets `adapter/` and `merged/`.

use std::error::Error;
use std::path::Path;

use candle_core::{DType, Tensor};
use stillroom_model::adapter::Adapter;
use stillroom_model::config::ModelConfig;
use stillroom_model::export::{AdapterExport, Export, MAX_SHARD_BYTES, save_adapter, save_merged};
use stillroom_model::merge::Merge;
use stillroom_model::weights::Weights;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (base, adapter, out, max_shard_bytes) = match arguments.as_slice() {
        [base, adapter, out] => (base, adapter, out, MAX_SHARD_BYTES),
        [base, adapter, out, bytes] => (base, adapter, out, bytes.parse()?),
        _ => return Err("usage: merge MODEL_DIR ADAPTER_DIR OUT_DIR [MAX_SHARD_BYTES]".into()),
    };
    let (base, out) = (Path::new(base), Path::new(out));
    let config = ModelConfig::from_dir(base)?;
    let weights = Weights::open(base)?;
    let adapter = Adapter::open(Path::new(adapter))?;
    let lora = &adapter.config;
    let (modules, saved) = (lora.modules(&config)?, lora.saved_modules(&config)?);
    adapter.check(&modules, &saved)?;

    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for module in &modules {
        let (a, b) = adapter.pair(module)?;
        tensors.extend([(module.a_name(), a), (module.b_name(), b)]);
        let magnitude = adapter.magnitude(module)?;
        tensors.extend(magnitude.map(|m| (module.magnitude_name(), m)));
    }
    for module in &saved {
        tensors.push((module.peft_name.clone(), adapter.saved(module)?));
    }
    let export = AdapterExport {
        lora,
        model: &config,
        base_model: base.to_str(),
        revision: None,
        base_dir: None,
    };
    save_adapter(&out.join("adapter"), &export, &tensors)?;

    let merge = Merge::new(lora, &config)?;
    let export = Export {
        config: &config,
        base_dir: base,
        dtype: weights.dtype()?,
        eos_ids: &[],
        max_shard_bytes,
    };
    save_merged(&out.join("merged"), &export, &mut |name| {
        merge.tensor(
            name,
            || weights.tensor(name, DType::F32),
            |name| adapter.tensor(name),
        )
    })?;
    Ok(())
}
