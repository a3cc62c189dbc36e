//! Writes our logits for given token ids, to be compared with another implementation's.
//!
//! ```sh
//! cargo run --release -p stillroom-model --example logits -- MODEL_DIR IDS.jsonl OUT.safetensors [ADAPTER_DIR]
//! ```
//!
//! Each line of IDS.jsonl is a JSON array of ids; OUT gets one f32 tensor `row-N` [T, V] per line.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;

use ops::segments::Segments;
use stillroom_model::adapter::Adapter;
use stillroom_model::decoder::{Decoder, Mode};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (model, ids, out, adapter) = match arguments.as_slice() {
        [model, ids, out] => (model, ids, out, None),
        [model, ids, out, adapter] => (model, ids, out, Some(adapter)),
        _ => return Err("usage: logits MODEL_DIR IDS.jsonl OUT.safetensors [ADAPTER_DIR]".into()),
    };
    let decoder = match adapter {
        None => Decoder::load(model, Mode::Inference)?,
        Some(dir) => {
            let mut config = Adapter::open(dir)?.config;
            config.init_from = Some(dir.display().to_string().into());
            let mode = Mode::Lora {
                config: &config,
                seed: 0,
            };
            Decoder::load(model, mode)?
        }
    };
    let mut tensors = HashMap::new();
    for (index, line) in std::fs::read_to_string(ids)?.lines().enumerate() {
        let ids: Vec<u32> = serde_json::from_str(line)?;
        let hidden = decoder.forward(&ids, &Segments::single(ids.len()))?;
        tensors.insert(format!("row-{index}"), decoder.logits(&hidden.detach())?);
    }
    Ok(candle_core::safetensors::save(&tensors, out)?)
}
