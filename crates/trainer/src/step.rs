//! Forward and backward over the passes of one optimizer step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor, Var};
use model::decoder::Decoder;
use ops::head_loss::head_loss;
use ops::segments::Segments;

use crate::Error;
use crate::batch::MicroBatch;
use crate::loss::Parts;

/// Rows of the head that are materialised at once: [chunk, V] f32.
const CHUNK_ROWS: usize = 256;

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
    stop: &AtomicBool,
) -> Result<Option<(Sums, Gradients)>, Error> {
    let mut sums = Sums::default();
    let mut gradients = Gradients::new();
    for pass in passes {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let loss = forward(decoder, pass?, &mut sums)?;
        let mut store = loss.backward()?;
        for (name, variable) in trainable {
            let gradient = store
                .remove(variable)
                .ok_or_else(|| Error::MissingGradient { name: name.clone() })?;
            // What comes out of the store still tracks: adding it up undetached keeps every pass alive, and a
            // gradient that is read again would be differentiated.
            let gradient = gradient.detach().to_dtype(DType::F32)?;
            match gradients.get_mut(name) {
                Some(sum) => *sum = (&*sum + gradient)?,
                None => {
                    gradients.insert(name.clone(), gradient);
                }
            }
        }
    }
    Ok(Some((sums, gradients)))
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
        forward(decoder, pass?, &mut sums)?;
    }
    Ok(Some(sums))
}

/// The summed loss of one pass, differentiable; its parts are added to `sums`.
fn forward(decoder: &Decoder, batch: MicroBatch, sums: &mut Sums) -> Result<Tensor, Error> {
    let segments = Segments::new(batch.lengths);
    let hidden = decoder.forward(&batch.ids, &segments)?; // [N, D]
    let rows = Tensor::new(batch.rows.as_slice(), hidden.device())?; // [S]
    let hidden = hidden.index_select(&rows, 0)?; // [S, D]
    sums.n_supervised += batch.supervised.targets.len() as u64;
    sums.n_tokens += batch.ids.len() as u64;
    let weight = decoder.head_weight().ok_or(Error::NotTrainable)?; // [V, D]
    let output = head_loss(&hidden, weight, Arc::new(batch.supervised), CHUNK_ROWS)?;
    sums.parts.add(&Parts::from_array(output.parts));
    Ok(output.loss)
}

/// Divides the summed gradients by the supervised tokens of the whole step.
///
/// # Errors
/// Those of the tensor operations.
pub fn mean_gradients(gradients: &mut Gradients, n_supervised: u64) -> Result<(), Error> {
    for gradient in gradients.values_mut() {
        *gradient = (&*gradient / n_supervised as f64)?;
    }
    Ok(())
}
