//! The decoder: one forward pass for training over packed documents and for decoding with a
//! cache, for every architecture of [`crate::config`].

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use ops::attention::{Attention, Heads};
use ops::cached_attention::{Reader, cached_attention};
use ops::head_loss::{Head, HeadLoss, RowLoss, Wanted, head_loss};
use ops::linear::{Finish, Form, Product};
use ops::packed::PackedMatrix;
use ops::rope::RopeTable;
use ops::rows;
use ops::segments::Segments;

use crate::config::ModelConfig;
use crate::gradients::Gradients;
use crate::kv_cache::KvCache;
use crate::layers::block::{Block, BlockTape, Pass};
use crate::layers::builder::{Builder, Source, pack};
use crate::layers::linear::arithmetic;
use crate::layers::norm::Norm;
use crate::parameters::{EMBEDDING, FINAL_NORM, HEAD};
use crate::taps::{Tap, Tapped};
use crate::weights::Weights;
use crate::{Error, Result, init};

pub use crate::layers::builder::Mode;

/// A model with its weights.
pub struct Decoder {
    config: ModelConfig,
    device: Device,
    /// Of activations and frozen matrices.
    dtype: DType,
    inverse_frequencies: Vec<f32>,
    rope_scaling: f32,
    embedding: Table,
    /// What their gradients go by where they are trained; the same for a tied head.
    embedding_name: Option<String>,
    head_name: Option<String>,
    blocks: Vec<Block>,
    norm: Norm,
    head: Table,
    trainable: Vec<(String, Var)>,
}

/// A matrix with a row for each token [V, D].
#[derive(Clone)]
enum Table {
    Packed(Arc<PackedMatrix>),
    Tensor(Tensor),
}

/// How a model's forward pass is kept for its backward pass.
#[derive(Clone, Debug, Default)]
pub struct Keeping {
    /// Keeps less, part of which is then computed again.
    pub checkpointing: bool,
    /// One key per token: what adapters drop out follows from them, see [`ops::dropout`]. Nothing is without.
    pub row_keys: Option<Vec<u64>>,
}

/// What a backward pass needs of its forward pass.
pub struct Tape {
    blocks: Vec<BlockTape>,
    /// The last block's output [N, D].
    last: Tensor,
    ids: Vec<u32>,
    rope: RopeTable,
    segments: Segments,
    keeping: Keeping,
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
        let config = ModelConfig::from_dir(dir)?;
        Self::load_with(config, dir, mode, DType::F32, &Device::Cpu)
    }

    /// Loads a checkpoint folder's weights under a changed configuration. Activations and frozen matrices are of
    /// `dtype`, F32 or BF16; what is trained is f32. All lie on `device`, which for decoding is the CPU.
    pub fn load_with(
        config: ModelConfig,
        dir: &Path,
        mode: Mode<'_>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let weights = Weights::open(dir)?;
        weights.check(&config)?;
        Self::build(
            config,
            &|name, shape, dtype| weights.tensor_of_shape(name, shape, dtype),
            mode,
            dtype,
            device,
        )
    }

    /// Fresh weights, the same for the same configuration and seed; see [`init`]. `dtype` and `device` as for
    /// [`Self::load_with`].
    pub fn random(
        config: ModelConfig,
        seed: u64,
        mode: Mode<'_>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let fresh = config.clone();
        Self::build(
            config,
            &|name, shape, dtype| {
                let tensor = init::initial_tensor(&fresh, name, shape, seed)?;
                Ok(tensor.to_dtype(dtype)?)
            },
            mode,
            dtype,
            device,
        )
    }

    fn build(
        config: ModelConfig,
        source: Source<'_>,
        mode: Mode<'_>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let mut builder = Builder::new(&config, source, mode, dtype, device)?;
        let matrix = [config.vocab_size, config.hidden_size];
        let (embedding, embedding_name) = builder.matrix(EMBEDDING, &matrix)?;
        let blocks = (0..config.n_layers)
            .map(|layer| builder.block(layer))
            .collect::<Result<_>>()?;
        let norm = builder.norm(FINAL_NORM, config.hidden_size)?;
        let (head, head_name) = if config.tie_word_embeddings {
            (embedding.clone(), embedding_name.clone())
        } else {
            builder.matrix(HEAD, &matrix)?
        };
        let trainable = builder.trainable;
        let head = match mode {
            Mode::Inference => Table::Packed(pack(&head)?),
            _ => Table::Tensor(head),
        };
        let embedding = match config.tie_word_embeddings {
            true => head.clone(),
            false => Table::Tensor(embedding),
        };
        let (inverse_frequencies, rope_scaling) = config.rope.inv_freq();
        Ok(Self {
            config,
            device: device.clone(),
            dtype,
            inverse_frequencies,
            rope_scaling,
            embedding,
            embedding_name,
            head_name,
            blocks,
            norm,
            head,
            trainable,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What is trained: Hugging Face parameter names, or PEFT's names of the adapters.
    pub fn trainable(&self) -> &[(String, Var)] {
        &self.trainable
    }

    /// Hidden states after the final norm.
    ///
    /// # Shapes
    /// ids [N] laid out as `segments` says → [N, D].
    pub fn forward(&self, ids: &[u32], segments: &Segments) -> Result<Tensor> {
        self.forward_tapped(ids, segments, &mut Tapped::default())
    }

    /// [`Self::forward`]; `taps` takes what it wants on the way.
    pub fn forward_tapped(
        &self,
        ids: &[u32],
        segments: &Segments,
        taps: &mut Tapped,
    ) -> Result<Tensor> {
        let rope = self.rope_table(&segments.positions());
        let attention = self.attention(&rope, segments);
        let mut x = self.embed(ids)?;
        taps.show(Tap::Embedding, &x);
        for (block, layer) in self.blocks.iter().zip(1..) {
            x = block.forward(&x, &mut |q, k, v| {
                let out = attention.forward(q, k, v)?.out;
                taps.show_attention(layer, [q, k, v], &out);
                Ok(out)
            })?;
            taps.show(Tap::Output(layer), &x);
        }
        let hidden = self.norm.forward(&x)?;
        taps.show(Tap::Final, &hidden);
        Ok(hidden)
    }

    /// [`Self::forward_tapped`], keeping what [`Self::backward`] needs.
    pub fn forward_with_tape(
        &self,
        ids: &[u32],
        segments: &Segments,
        keeping: Keeping,
        taps: &mut Tapped,
    ) -> Result<(Tensor, Tape)> {
        let rope = self.rope_table(&segments.positions());
        let pass = self.pass(&rope, segments, &keeping);
        let mut x = self.embed(ids)?;
        taps.show(Tap::Embedding, &x);
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (block, layer) in self.blocks.iter().zip(1..) {
            let (out, tape) = block.forward_with_tape(&x, &pass, (layer, taps))?;
            blocks.push(tape);
            x = out;
        }
        let hidden = self.norm.forward(&x)?;
        taps.show(Tap::Final, &hidden);
        let tape = Tape {
            blocks,
            last: x,
            ids: ids.to_vec(),
            rope,
            segments: segments.clone(),
            keeping,
        };
        Ok((hidden, tape))
    }

    /// Adds the gradients of everything trained but the head, given that of the hidden states [N, D], and those of what
    /// was tapped.
    pub fn backward(
        &self,
        tape: Tape,
        d_hidden: Tensor,
        mut taps: Tapped,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let pass = self.pass(&tape.rope, &tape.segments, &tape.keeping);
        let d_hidden = taps.with(Tap::Final, d_hidden)?;
        let mut grad = Some(self.norm.backward(&tape.last, &d_hidden, None, gradients)?);
        drop((d_hidden, tape.last));
        for (index, (block, tape)) in self.blocks.iter().zip(tape.blocks).enumerate().rev() {
            // Nothing before the first block is trained with adapters.
            let input = index > 0 || self.embedding_name.is_some();
            if let Some(d_out) = grad.take() {
                let at = (index + 1, &mut taps);
                grad = block.backward(tape, d_out, &pass, input, at, gradients)?;
            }
        }
        if let (Some(name), Some(grad)) = (&self.embedding_name, grad) {
            let grad = taps.with(Tap::Embedding, grad)?;
            let n_rows = self.config.vocab_size;
            gradients.add(name, rows::sum_by_id(&grad, &tape.ids, n_rows)?)?;
        }
        Ok(())
    }

    /// The loss of supervised rows through the head, at most `chunk_rows` rows of logits at a time; with
    /// `gradients`, also the gradient of the rows, and that of the head where it is trained. `teacher` is a decoder
    /// with its own hidden states of the same rows, whose logits the loss is given beside the student's.
    ///
    /// # Shapes
    /// hidden [S, D]; the teacher's [S, D of the teacher].
    ///
    /// # Errors
    /// [`Error::Candle`] in inference mode, where the head exists packed only.
    pub fn head_loss(
        &self,
        hidden: &Tensor,
        teacher: Option<(&Decoder, &Tensor)>,
        loss: &dyn RowLoss,
        chunk_rows: usize,
        gradients: Option<&mut Gradients>,
    ) -> Result<HeadLoss> {
        let student = self.head(hidden)?;
        let teacher = teacher.map(|(teacher, hidden)| teacher.head(hidden));
        let wanted = Wanted {
            hidden: gradients.is_some(),
            weight: gradients.is_some() && self.head_name.is_some(),
        };
        let mut found = head_loss(student, teacher.transpose()?, loss, chunk_rows, wanted)?;
        if let (Some(gradients), Some(d_weight), Some(name)) =
            (gradients, found.d_weight.take(), &self.head_name)
        {
            gradients.add(name, d_weight)?;
        }
        Ok(found)
    }

    fn head<'a>(&'a self, hidden: &'a Tensor) -> Result<Head<'a>> {
        match &self.head {
            Table::Tensor(weight) => Ok(Head {
                hidden,
                weight,
                arithmetic: arithmetic(self.dtype),
            }),
            Table::Packed(_) => {
                let message = "a model loaded for decoding has no loss".into();
                Err(Error::Candle(candle_core::Error::Msg(message)))
            }
        }
    }

    fn pass<'a>(
        &self,
        rope: &'a RopeTable,
        segments: &'a Segments,
        keeping: &'a Keeping,
    ) -> Pass<'a> {
        Pass {
            attention: self.attention(rope, segments),
            checkpointing: keeping.checkpointing,
            row_keys: keeping.row_keys.as_deref(),
        }
    }

    fn attention<'a>(&self, rope: &'a RopeTable, segments: &'a Segments) -> Attention<'a> {
        Attention {
            heads: self.heads(),
            rope,
            segments,
        }
    }

    /// Logits of hidden states, f32.
    ///
    /// # Shapes
    /// hidden [N, D] → [N, V].
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(match &self.head {
            Table::Packed(weight) => ops::linear::packed(hidden, weight)?,
            Table::Tensor(weight) => ops::linear::products(
                &[Product {
                    a: hidden,
                    b: weight,
                    form: Form::Nt,
                    arithmetic: arithmetic(self.dtype),
                }],
                Finish::plain(DType::F32),
            )?,
        })
    }

    /// Feeds new tokens of several sequences and returns, for each feed, the logits [V] after
    /// its last token.
    ///
    /// In inference mode a sequence's logits have the same bits whatever else is fed beside it
    /// and however its tokens are split over calls.
    pub fn decode(&self, feeds: &[Feed<'_>], cache: &mut KvCache) -> Result<Vec<Vec<f32>>> {
        let x = self.feed(feeds, cache)?;
        let last: Vec<u32> = feeds
            .iter()
            .scan(0, |end, feed| {
                *end += feed.ids.len() as u32;
                Some(*end - 1)
            })
            .collect();
        let last = Tensor::new(last, &Device::Cpu)?;
        let hidden = self.norm.forward(&x.index_select(&last, 0)?)?;
        Ok(self.logits(&hidden)?.to_vec2()?)
    }

    /// Feeds new tokens of one sequence and returns the logits [V] after each of its last `keep` tokens, with the bits
    /// that [`Self::decode`] gives them.
    pub fn decode_last(
        &self,
        feed: Feed<'_>,
        keep: usize,
        cache: &mut KvCache,
    ) -> Result<Vec<Vec<f32>>> {
        let x = self.feed(&[feed], cache)?;
        let keep = keep.min(feed.ids.len());
        if keep == 0 {
            return Ok(Vec::new());
        }
        let x = x.narrow(0, feed.ids.len() - keep, keep)?;
        let hidden = self.norm.forward(&x.contiguous()?)?;
        Ok(self.logits(&hidden)?.to_vec2()?)
    }

    /// What the blocks make of new tokens [N, D].
    fn feed(&self, feeds: &[Feed<'_>], cache: &mut KvCache) -> Result<Tensor> {
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
        Ok(x)
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
        let n_rows = self.config.vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= n_rows) {
            let message = format!("token id {id} is outside the embedding's {n_rows} rows");
            return Err(Error::Candle(candle_core::Error::Msg(message)));
        }
        Ok(match &self.embedding {
            Table::Packed(rows) => {
                let shape = (ids.len(), self.config.hidden_size);
                Tensor::from_vec(rows.gather(ids), shape, &self.device)?
            }
            Table::Tensor(rows) => rows::gather(rows, ids, self.dtype)?,
        })
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
