//! The decoder against transformers on tiny random models of every architecture and rope scaling.
//!
//! Reference values: scripts/fixtures/make_model_fixtures.py (transformers 5.23.0, torch 2.15.0).
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use candle_core::DType;
use ops::segments::Segments;
use serde_json::Value;
use stillroom_model::decoder::{Decoder, Feed, Mode};
use stillroom_model::kv_cache::KvCache;
use stillroom_model::weights::Weights;

const MODELS: [&str; 4] = ["qwen2", "qwen3-yarn", "llama-llama3", "llama-linear-bias"];

/// Largest difference from torch's f32 logits, whose own size is around 10.
const TOLERANCE: f32 = 1e-4;

struct Reference {
    dir: PathBuf,
    ids: Vec<u32>,
    /// [N, V]
    logits: Vec<Vec<f32>>,
}

fn reference(name: &str) -> Reference {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/model")
        .join(name);
    let expected: Value =
        serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
    let tensors = Weights::open_file(&dir.join("expected.safetensors")).unwrap();
    Reference {
        ids: serde_json::from_value(expected["input_ids"].clone()).unwrap(),
        logits: tensors
            .tensor("logits", DType::F32)
            .unwrap()
            .to_vec2()
            .unwrap(),
        dir,
    }
}

fn assert_close(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= TOLERANCE,
            "{name}: logit {i} is {f}, expected {e}"
        );
    }
}

#[test]
fn forward_gives_the_logits_of_every_position() {
    for name in MODELS {
        let reference = reference(name);
        for mode in [Mode::Full, Mode::Inference] {
            let decoder = Decoder::load(&reference.dir, mode).unwrap();
            let hidden = decoder
                .forward(&reference.ids, &Segments::single(reference.ids.len()))
                .unwrap();
            let logits: Vec<Vec<f32>> = decoder.logits(&hidden).unwrap().to_vec2().unwrap();
            for (found, expected) in logits.iter().zip(&reference.logits) {
                assert_close(name, found, expected);
            }
        }
    }
}

#[test]
fn packed_documents_do_not_see_each_other() {
    for name in MODELS {
        let reference = reference(name);
        let decoder = Decoder::load(&reference.dir, Mode::Full).unwrap();
        let n = reference.ids.len();
        // A foreign document, then the reference's own, which must not notice.
        let mut ids: Vec<u32> = reference.ids.iter().rev().take(7).copied().collect();
        ids.extend(&reference.ids);
        let hidden = decoder.forward(&ids, &Segments::new(vec![7, n])).unwrap();
        let logits: Vec<Vec<f32>> = decoder.logits(&hidden).unwrap().to_vec2().unwrap();
        for (found, expected) in logits[7..].iter().zip(&reference.logits) {
            assert_close(name, found, expected);
        }
    }
}

#[test]
fn the_cache_gives_the_same_logits() {
    for name in MODELS {
        let reference = reference(name);
        let decoder = Decoder::load(&reference.dir, Mode::Inference).unwrap();
        let mut cache = KvCache::new(decoder.config(), 2);
        // A prompt at once, then token by token.
        let (prompt, rest) = reference.ids.split_at(11);
        let mut logits = decoder
            .decode(
                &[Feed {
                    slot: 1,
                    ids: prompt,
                }],
                &mut cache,
            )
            .unwrap();
        assert_close(name, &logits[0], &reference.logits[10]);
        for (i, id) in rest.iter().enumerate() {
            logits = decoder
                .decode(
                    &[Feed {
                        slot: 1,
                        ids: &[*id],
                    }],
                    &mut cache,
                )
                .unwrap();
            assert_close(name, &logits[0], &reference.logits[11 + i]);
        }
        assert_eq!(cache.len(1), reference.ids.len());
    }
}

#[test]
fn decoding_has_the_same_bits_in_any_batch() {
    for name in MODELS {
        let reference = reference(name);
        let decoder = Decoder::load(&reference.dir, Mode::Inference).unwrap();
        let run = |others: usize| {
            let mut cache = KvCache::new(decoder.config(), others + 1);
            let mut all = Vec::new();
            for chunk in [
                &reference.ids[..9],
                &reference.ids[9..10],
                &reference.ids[10..],
            ] {
                let mut feeds: Vec<Feed> = (0..others)
                    .map(|slot| Feed {
                        slot,
                        ids: &reference.ids[slot..2 * slot + 1],
                    })
                    .collect();
                feeds.push(Feed {
                    slot: others,
                    ids: chunk,
                });
                all.push(decoder.decode(&feeds, &mut cache).unwrap().pop().unwrap());
            }
            all
        };
        let alone = run(0);
        for others in [1, 5] {
            assert!(
                run(others) == alone,
                "{name}: differs beside {others} others"
            );
        }
    }
}
