//! The decoder: one forward pass for training over packed documents and for decoding with a
//! cache, for every architecture of [`crate::config`].

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use ops::attention::Heads;
use ops::cached_attention::{Reader, cached_attention};
use ops::packed::PackedMatrix;
use ops::rope::RopeTable;
use ops::segments::Segments;

use crate::config::ModelConfig;
use crate::kv_cache::KvCache;
use crate::layers::block::Block;
use crate::layers::builder::{Builder, Source, pack};
use crate::parameters::{EMBEDDING, FINAL_NORM, HEAD};
use crate::weights::Weights;
use crate::{Error, Result, init};

pub use crate::layers::builder::Mode;

/// A model with its weights in f32 on the CPU.
pub struct Decoder {
    config: ModelConfig,
    inverse_frequencies: Vec<f32>,
    rope_scaling: f32,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Head,
    trainable: Vec<(String, Var)>,
}

enum Head {
    Packed(Arc<PackedMatrix>),
    Tensor(Tensor),
}

/// New tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Feed<'a> {
    pub slot: usize,
    /// At least one id; the positions follow what the slot already holds.
    pub ids: &'a [u32],
}

impl Decoder {
    /// Loads a checkpoint folder.
    pub fn load(dir: &Path, mode: Mode<'_>) -> Result<Self> {
        Self::load_with(ModelConfig::from_dir(dir)?, dir, mode)
    }

    /// Loads a checkpoint folder's weights under a changed configuration.
    pub fn load_with(config: ModelConfig, dir: &Path, mode: Mode<'_>) -> Result<Self> {
        let weights = Weights::open(dir)?;
        weights.check(&config)?;
        Self::build(
            config,
            &|name, shape| weights.tensor_of_shape(name, shape, DType::F32),
            mode,
        )
    }

    /// Fresh weights, the same for the same configuration and seed; see [`init`].
    pub fn random(config: ModelConfig, seed: u64, mode: Mode<'_>) -> Result<Self> {
        let fresh = config.clone();
        Self::build(
            config,
            &|name, shape| init::initial_tensor(&fresh, name, shape, seed),
            mode,
        )
    }

    fn build(config: ModelConfig, source: Source<'_>, mode: Mode<'_>) -> Result<Self> {
        let mut builder = Builder::new(&config, source, mode)?;
        let matrix = [config.vocab_size, config.hidden_size];
        let embedding = builder.tensor(EMBEDDING, &matrix)?;
        let blocks = (0..config.n_layers)
            .map(|layer| builder.block(layer))
            .collect::<Result<_>>()?;
        let norm = builder.tensor(FINAL_NORM, &[config.hidden_size])?;
        let head = if config.tie_word_embeddings {
            embedding.clone()
        } else {
            builder.tensor(HEAD, &matrix)?
        };
        let trainable = builder.trainable;
        let head = match mode {
            Mode::Inference => Head::Packed(pack(&head)?),
            _ => Head::Tensor(head),
        };
        let (inverse_frequencies, rope_scaling) = config.rope.inv_freq();
        Ok(Self {
            config,
            inverse_frequencies,
            rope_scaling,
            embedding,
            blocks,
            norm,
            head,
            trainable,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What is trained: Hugging Face parameter names, or PEFT's names of the adapters.
    pub fn trainable(&self) -> &[(String, Var)] {
        &self.trainable
    }

    /// Hidden states after the final norm, with gradients to what is trained.
    ///
    /// # Shapes
    /// ids [N] laid out as `segments` says → [N, D].
    pub fn forward(&self, ids: &[u32], segments: &Segments) -> Result<Tensor> {
        let rope = Arc::new(self.rope_table(&segments.positions()));
        let segments = Arc::new(segments.clone());
        let heads = self.heads();
        let mut x = self.embed(ids)?;
        for block in &self.blocks {
            x = block.forward(&x, &mut |q, k, v| {
                ops::attention::attention(q, k, v, heads, &rope, &segments)
            })?;
        }
        self.final_norm(&x)
    }

    /// The head's weight [V, D], tracked when it is trained; `None` in inference mode, where
    /// it exists packed only.
    pub fn head_weight(&self) -> Option<&Tensor> {
        match &self.head {
            Head::Packed(_) => None,
            Head::Tensor(weight) => Some(weight),
        }
    }

    /// Logits of hidden states, without the gradient of [`ops::head_loss`].
    ///
    /// # Shapes
    /// hidden [N, D] → [N, V].
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(match &self.head {
            Head::Packed(weight) => ops::linear::packed(hidden, weight)?,
            Head::Tensor(weight) => ops::linear::frozen(hidden, weight)?,
        })
    }

    /// Feeds new tokens of several sequences and returns, for each feed, the logits [V] after
    /// its last token.
    ///
    /// In inference mode a sequence's logits have the same bits whatever else is fed beside it
    /// and however its tokens are split over calls.
    pub fn decode(&self, feeds: &[Feed<'_>], cache: &mut KvCache) -> Result<Vec<Vec<f32>>> {
        self.check(feeds, cache)?;
        let ids: Vec<u32> = feeds.iter().flat_map(|feed| feed.ids).copied().collect();
        let positions: Vec<usize> = feeds
            .iter()
            .flat_map(|feed| (0..feed.ids.len()).map(|i| cache.len(feed.slot) + i))
            .collect();
        let rope = self.rope_table(&positions);
        let mut x = self.embed(&ids)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &mut |q, k, v| {
                self.attend_cached(layer, q, k, v, feeds, &positions, &rope, cache)
            })?;
        }
        for feed in feeds {
            cache.advance(feed.slot, feed.ids.len());
        }
        let last: Vec<u32> = feeds
            .iter()
            .scan(0, |end, feed| {
                *end += feed.ids.len() as u32;
                Some(*end - 1)
            })
            .collect();
        let last = Tensor::new(last, &Device::Cpu)?;
        let hidden = self.final_norm(&x.index_select(&last, 0)?)?;
        Ok(self.logits(&hidden)?.to_vec2()?)
    }

    #[allow(clippy::too_many_arguments)]
    fn attend_cached(
        &self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        feeds: &[Feed<'_>],
        positions: &[usize],
        rope: &RopeTable,
        cache: &mut KvCache,
    ) -> candle_core::Result<Tensor> {
        let heads = self.heads();
        let shape = q.shape().clone();
        let rotated = |x: &Tensor| -> candle_core::Result<Vec<f32>> {
            let columns = x.dim(1)?;
            let mut rows = x.flatten_all()?.to_vec1::<f32>()?;
            rows.chunks_exact_mut(columns)
                .enumerate()
                .for_each(|(token, row)| rope.rotate(token, row));
            Ok(rows)
        };
        let (q, k) = (rotated(q)?, rotated(k)?);
        let v = v.flatten_all()?.to_vec1::<f32>()?;
        let columns = heads.n_kv_heads * heads.head_dim;
        let mut start = 0;
        for feed in feeds {
            let rows = start * columns..(start + feed.ids.len()) * columns;
            cache.extend(feed.slot, layer, &k[rows.clone()], &v[rows]);
            start += feed.ids.len();
        }
        let slots = feeds
            .iter()
            .flat_map(|feed| feed.ids.iter().map(|_| feed.slot));
        let readers: Vec<_> = slots
            .zip(positions)
            .map(|(slot, position)| Reader {
                cache: cache.layer(slot, layer),
                n_visible: position + 1,
            })
            .collect();
        Tensor::from_vec(cached_attention(&q, heads, &readers), shape, &Device::Cpu)
    }

    fn check(&self, feeds: &[Feed<'_>], cache: &KvCache) -> Result<()> {
        let problem = if feeds.is_empty() || feeds.iter().any(|feed| feed.ids.is_empty()) {
            Some("every feed needs at least one token")
        } else if feeds.iter().any(|feed| feed.slot >= cache.n_slots()) {
            Some("a feed names a slot that the cache does not have")
        } else if (1..feeds.len()).any(|i| feeds[..i].iter().any(|feed| feed.slot == feeds[i].slot))
        {
            Some("two feeds name the same slot")
        } else if cache.n_layers() != self.config.n_layers {
            Some("the cache belongs to another model")
        } else {
            None
        };
        match problem {
            Some(problem) => Err(Error::Candle(candle_core::Error::Msg(format!(
                "decode: {problem}"
            )))),
            None => Ok(()),
        }
    }

    /// [N] → [N, D]; an id beyond the embedding is an error.
    fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let rows = self.config.vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
            let message = format!("token id {id} is outside the embedding's {rows} rows");
            return Err(Error::Candle(candle_core::Error::Msg(message)));
        }
        let ids = Tensor::new(ids, &Device::Cpu)?;
        Ok(self.embedding.index_select(&ids, 0)?)
    }

    fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::norm::rms_norm(
            x,
            &self.norm,
            self.config.rms_norm_eps,
        )?)
    }

    fn rope_table(&self, positions: &[usize]) -> RopeTable {
        RopeTable::new(&self.inverse_frequencies, self.rope_scaling, positions)
    }

    fn heads(&self) -> Heads {
        let head_dim = self.config.head_dim;
        Heads {
            n_heads: self.config.n_heads,
            n_kv_heads: self.config.n_kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
        }
    }
}
