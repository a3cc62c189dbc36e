//! Forward and backward over the passes of one optimizer step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Tensor, Var};
use model::decoder::{Decoder, Keeping};
use model::gradients::Gradients as Accumulator;
use ops::head_loss::N_PARTS;
use ops::rows;
use ops::segments::Segments;

use crate::Error;
use crate::batch::MicroBatch;
use crate::loss::{Parts, WithoutGradient};

/// Rows of the head that are materialised at once: [chunk, V] f32.
pub(crate) const CHUNK_ROWS: usize = 320;
/// Bytes of such a chunk on a GPU, which holds two.
pub(crate) const GPU_CHUNK_BYTES: usize = 512 << 20;

fn chunk_rows(decoder: &Decoder) -> usize {
    if decoder.device().is_cuda() {
        GPU_CHUNK_BYTES / (4 * decoder.config().vocab_size.max(1))
    } else {
        CHUNK_ROWS
    }
}

/// Sums over the tokens of some passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub parts: Parts,
    pub n_supervised: u64,
    pub n_tokens: u64,
}

impl Sums {
    pub fn add(&mut self, other: &Self) {
        self.parts.add(&other.parts);
        self.n_supervised += other.n_supervised;
        self.n_tokens += other.n_tokens;
    }
}

/// How the passes of a step are computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassSettings {
    pub checkpointing: bool,
    /// The step's, from which every token's key follows; nothing is dropped out without.
    pub dropout_key: Option<u64>,
}

/// Gradients of the summed loss by parameter name, detached, f32.
pub type Gradients = BTreeMap<String, Tensor>;

/// Sums losses and gradients over `passes`; `None` when `stop` was raised before the last.
///
/// # Errors
/// [`Error::MissingGradient`] for a trainable tensor that a pass does not reach; a pass's own.
pub fn accumulate(
    decoder: &Decoder,
    trainable: &[(String, Var)],
    passes: impl IntoIterator<Item = Result<MicroBatch, Error>>,
    settings: &PassSettings,
    stop: &AtomicBool,
) -> Result<Option<(Sums, Gradients)>, Error> {
    let mut sums = Sums::default();
    let mut gradients = Accumulator::default();
    for pass in passes {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let batch = pass?;
        // On one of the pool's threads: from outside it, every operation would wake them and wait.
        sums.add(&rayon::scope(|_| {
            forward_and_backward(decoder, &batch, settings, &mut gradients)
        })?);
    }
    let gradients = gradients.into_map();
    for (name, _) in trainable {
        if !gradients.contains_key(name) {
            return Err(Error::MissingGradient { name: name.clone() });
        }
    }
    Ok(Some((sums, gradients)))
}

fn forward_and_backward(
    decoder: &Decoder,
    batch: &MicroBatch,
    settings: &PassSettings,
    gradients: &mut Accumulator,
) -> Result<Sums, Error> {
    let segments = Segments::new(batch.lengths.clone());
    let keeping = Keeping {
        checkpointing: settings.checkpointing,
        row_keys: settings.dropout_key.map(|key| batch.row_keys(key)),
    };
    let (hidden, tape) = decoder.forward_with_tape(&batch.ids, &segments, keeping)?; // [N, D]
    let supervised = rows::gather(&hidden, &batch.rows, hidden.dtype())?; // [S, D]
    let loss = decoder.head_loss(
        &supervised,
        &batch.supervised,
        chunk_rows(decoder),
        Some(gradients),
    )?;
    drop(supervised);
    if let Some(d_rows) = loss.d_hidden {
        let d_hidden = rows::scatter(&d_rows, &batch.rows, batch.ids.len())?; // [N, D]
        drop((hidden, d_rows));
        decoder.backward(tape, &d_hidden, gradients)?;
    }
    Ok(sums(batch, loss.parts))
}

fn sums(batch: &MicroBatch, parts: [f64; N_PARTS]) -> Sums {
    Sums {
        parts: Parts::from_array(parts),
        n_supervised: batch.supervised.targets.len() as u64,
        n_tokens: batch.ids.len() as u64,
    }
}

/// Sums losses over `passes` without gradients; `None` when `stop` was raised before the last.
///
/// # Errors
/// Those of the forward pass; a pass's own.
pub fn evaluate(
    decoder: &Decoder,
    passes: impl IntoIterator<Item = Result<MicroBatch, Error>>,
    stop: &AtomicBool,
) -> Result<Option<Sums>, Error> {
    let mut sums = Sums::default();
    for pass in passes {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let batch = pass?;
        sums.add(&rayon::scope(|_| forward(decoder, &batch))?);
    }
    Ok(Some(sums))
}

fn forward(decoder: &Decoder, batch: &MicroBatch) -> Result<Sums, Error> {
    let segments = Segments::new(batch.lengths.clone());
    let hidden = decoder.forward(&batch.ids, &segments)?; // [N, D]
    let supervised = rows::gather(&hidden, &batch.rows, hidden.dtype())?; // [S, D]
    let loss = decoder.head_loss(
        &supervised,
        &WithoutGradient(&batch.supervised),
        chunk_rows(decoder),
        None,
    )?;
    Ok(sums(batch, loss.parts))
}
