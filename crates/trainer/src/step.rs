//! Forward and backward over the passes of one optimizer step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Tensor, Var};
use model::decoder::{Decoder, Keeping};
use model::gradients::Gradients as Accumulator;
use model::taps::Tapped;
use ops::rows;
use ops::segments::Segments;

use crate::Error;
use crate::batch::MicroBatch;
use crate::loss::{LogitRows, WithoutGradient};
use crate::objective::{Objective, Signal};

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// What is minimised.
    pub loss: f64,
    /// What else the terms measure, by the names of [`records::metric`].
    pub measures: BTreeMap<&'static str, f64>,
    pub n_supervised: u64,
    pub n_tokens: u64,
}

impl Sums {
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        for (name, value) in &other.measures {
            *self.measures.entry(name).or_default() += value;
        }
        self.n_supervised += other.n_supervised;
        self.n_tokens += other.n_tokens;
    }
}

/// The student, and the teacher that reads beside it.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    pub student: &'a Decoder,
    pub teacher: Option<&'a Decoder>,
}

impl<'a> Models<'a> {
    /// The teacher's hidden states of a pass's supervised rows [S, D of the teacher], where a term asks for its logits.
    fn read(
        &self,
        objective: &Objective,
        batch: &MicroBatch,
        segments: &Segments,
    ) -> Result<Option<(&'a Decoder, Tensor)>, Error> {
        let Some(teacher) = self.teacher.filter(|_| objective.signal == Signal::Online) else {
            return Ok(None);
        };
        let hidden = teacher.forward(&batch.ids, segments)?; // [N, D]
        let rows = rows::gather(&hidden, &batch.rows, hidden.dtype())?;
        Ok(Some((teacher, rows)))
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
    models: Models<'_>,
    objective: &Objective,
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
            forward_and_backward(models, objective, &batch, settings, &mut gradients)
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
    models: Models<'_>,
    objective: &Objective,
    batch: &MicroBatch,
    settings: &PassSettings,
    gradients: &mut Accumulator,
) -> Result<Sums, Error> {
    let segments = Segments::new(batch.lengths.clone());
    let keeping = Keeping {
        checkpointing: settings.checkpointing,
        row_keys: settings.dropout_key.map(|key| batch.row_keys(key)),
    };
    let decoder = models.student;
    // Before the student's tape is there: its own activations are gone again by then.
    let teacher = models.read(objective, batch, &segments)?;
    let mut taps = Tapped::default();
    let (hidden, tape) = decoder.forward_with_tape(&batch.ids, &segments, keeping, &mut taps)?; // [N, D]
    let supervised = rows::gather(&hidden, &batch.rows, hidden.dtype())?; // [S, D]
    let loss = decoder.head_loss(
        &supervised,
        teacher.as_ref().map(|(teacher, rows)| (*teacher, rows)),
        &logit_rows(objective, batch),
        chunk_rows(decoder),
        Some(gradients),
    )?;
    drop((supervised, teacher));
    if let Some(d_rows) = loss.d_hidden {
        let d_hidden = rows::scatter(&d_rows, &batch.rows, batch.ids.len())?; // [N, D]
        drop((hidden, d_rows));
        decoder.backward(tape, d_hidden, Tapped::default(), gradients)?;
    }
    Ok(sums(objective, batch, &loss.sums))
}

fn logit_rows<'a>(objective: &Objective, batch: &'a MicroBatch) -> LogitRows<'a> {
    LogitRows {
        loss: objective.logits,
        targets: &batch.targets,
        teacher: &batch.stored,
    }
}

/// `found` is what the head has summed.
fn sums(objective: &Objective, batch: &MicroBatch, found: &[f64]) -> Sums {
    let named = objective.measured().zip(found);
    Sums {
        loss: found.first().copied().unwrap_or_default(),
        measures: named
            .filter_map(|(name, &value)| Some((name?, value)))
            .collect(),
        n_supervised: batch.targets.len() as u64,
        n_tokens: batch.ids.len() as u64,
    }
}

/// Sums losses over `passes` without gradients; `None` when `stop` was raised before the last.
///
/// # Errors
/// Those of the forward pass; a pass's own.
pub fn evaluate(
    models: Models<'_>,
    objective: &Objective,
    passes: impl IntoIterator<Item = Result<MicroBatch, Error>>,
    stop: &AtomicBool,
) -> Result<Option<Sums>, Error> {
    let mut sums = Sums::default();
    for pass in passes {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let batch = pass?;
        sums.add(&rayon::scope(|_| forward(models, objective, &batch))?);
    }
    Ok(Some(sums))
}

fn forward(models: Models<'_>, objective: &Objective, batch: &MicroBatch) -> Result<Sums, Error> {
    let segments = Segments::new(batch.lengths.clone());
    let decoder = models.student;
    let teacher = models.read(objective, batch, &segments)?;
    let hidden = decoder.forward(&batch.ids, &segments)?; // [N, D]
    let supervised = rows::gather(&hidden, &batch.rows, hidden.dtype())?; // [S, D]
    let loss = decoder.head_loss(
        &supervised,
        teacher.as_ref().map(|(teacher, rows)| (*teacher, rows)),
        &WithoutGradient(logit_rows(objective, batch)),
        chunk_rows(decoder),
        None,
    )?;
    Ok(sums(objective, batch, &loss.sums))
}
