//! How fast a shape is trained, and in what memory: the engine's own steps, without data files and export.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::DType;
use model::config::ModelConfig;
use model::decoder::{Decoder, Mode};
use model::lora::LoraConfig;
use ops::device;
use serde_json::json;
use stillroom_trainer::batch::MicroBatch;
use stillroom_trainer::clip::clip_global_norm;
use stillroom_trainer::config::TrainConfig;
use stillroom_trainer::example::TrainingExample;
use stillroom_trainer::objective::Objective;
use stillroom_trainer::optimizer::{AdamW, AdamWConfig};
use stillroom_trainer::step::{Models, PassSettings, accumulate};
use stillroom_trainer::{Error, Place};

#[derive(clap::Args)]
pub struct Arguments {
    /// A config.json
    #[arg(long)]
    config: PathBuf,
    /// TOKENS:STEPS,…: tokens of the one document in a step, and how many steps
    #[arg(long)]
    runs: String,
    #[arg(long, default_value_t = 16)]
    rank: usize,
    #[arg(long)]
    checkpointing: bool,
    /// f32 or bf16
    #[arg(long, default_value = "bf16")]
    precision: String,
    #[arg(long, default_value = "cuda")]
    device: Place,
}

/// Tokens before the first that is supervised.
const PROMPT: usize = 16;

/// Token `i` of step `step`, the same in scripts/gpu/torch_peer.py.
fn token(step: usize, i: usize, vocabulary: usize) -> u32 {
    let mixed = (i as u64 * 2_654_435_761 + step as u64 * 40_503 + 12_345) % 4_294_967_296;
    (mixed % vocabulary as u64) as u32
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let text = std::fs::read_to_string(&arguments.config)
        .with_context(|| arguments.config.display().to_string())?;
    let config = ModelConfig::from_json(&text, &arguments.config)?;
    let dtype = match arguments.precision.as_str() {
        "f32" => DType::F32,
        "bf16" => DType::BF16,
        other => bail!("--precision {other}: not f32 or bf16"),
    };
    let place = arguments.device.open()?;
    let lora = LoraConfig {
        rank: arguments.rank,
        alpha: 2.0 * arguments.rank as f64,
        ..LoraConfig::default()
    };
    let mode = Mode::Lora {
        config: &lora,
        seed: 0,
    };
    let clock = Instant::now();
    let vocabulary = config.vocab_size;
    let decoder = Decoder::random(config, 0, mode, dtype, &place)?;
    println!(
        "{}",
        json!({"loaded_seconds": clock.elapsed().as_secs_f64()})
    );
    let trainable = decoder.trainable().to_vec();
    let adamw = AdamWConfig {
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.0,
    };
    let mut optimizer = AdamW::new(trainable.clone(), adamw)?;
    let settings = PassSettings {
        checkpointing: arguments.checkpointing,
        dropout_key: None,
    };
    let objective = Objective::new(&TrainConfig::default());
    let models = Models {
        student: &decoder,
        teacher: None,
    };
    for run in arguments.runs.split(',') {
        let (tokens, steps) = run.split_once(':').context("--runs TOKENS:STEPS,…")?;
        let (tokens, steps): (usize, usize) = (tokens.parse()?, steps.parse()?);
        device::forget_peak(&place)?;
        for step in 0..steps {
            let ids: Vec<u32> = (0..tokens).map(|i| token(step, i, vocabulary)).collect();
            let prompt = PROMPT.min(tokens);
            let example = TrainingExample {
                id: String::new(),
                prompt_ids: ids[..prompt].to_vec(),
                completion_ids: ids[prompt..].to_vec(),
                context: Vec::new(),
                top: None,
            };
            let batch = MicroBatch::new(&[(0, example)]);
            let clock = Instant::now();
            let never = AtomicBool::new(false);
            let found = accumulate(
                models,
                &objective,
                &trainable,
                [Ok(batch)],
                &settings,
                &never,
            );
            if let Err(Error::GpuMemory { .. }) = found {
                println!("{}", json!({"n_tokens": tokens, "out_of_memory": true}));
                break;
            }
            let (sums, gradients) = found?.context("stopped")?;
            let clipped = clip_global_norm(&gradients, sums.n_supervised, 1.0)?;
            optimizer.update(&gradients, clipped.scale, 1e-4)?;
            drop(gradients);
            place.synchronize()?;
            let line = json!({
                "n_tokens": tokens,
                "step": step + 1,
                "seconds": clock.elapsed().as_secs_f64(),
                "loss": sums.loss / sums.n_supervised as f64,
                "grad_norm": clipped.norm,
                "peak_memory_bytes": device::peak_memory(&place)?,
            });
            println!("{line}");
        }
    }
    Ok(())
}
