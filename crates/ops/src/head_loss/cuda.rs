//! The head with its loss on the GPU.
//!
//! The vocabulary-sized passes are kernels; what a row's loss makes of its few stored entries is [`RowLoss::charge`], on
//! the host. A chunk's logits are under way while the chunk before is charged.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, DeviceRepr, result, sys};
use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use super::{Factors, Found, HeadLoss, Rest, RowLoss, Wanted, add_measures};
use crate::cuda::Gpu;
use crate::cuda::gpu::pointer;
use crate::cuda::kernel::{Array, In, Int, Out, blocks, kernels, read, write};
use crate::cuda::staging::Pinned;
use crate::element::by_element;
use crate::element::cuda::cast;
use crate::gemm::Arithmetic;
use crate::linear::cuda::multiply;
use crate::linear::{Form, Product};

kernels! { "head_loss":
    fn loss_rest[rows](
        logits: Out<f32>[rows * v],
        ids: In<u32>[rows * taken],
        scales: In<f32>[rows],
        values: Out<f32>[rows * taken],
        rests: Out<Rest>[rows],
        v: Int,
        taken: Int,
    );
    fn loss_gradient<E>[rows](
        logits: In<f32>[rows * v],
        ids: In<u32>[rows * taken],
        factors: In<Factors>[rows],
        values: In<f32>[rows * taken],
        gradient: Out<E>[rows * v],
        v: Int,
        taken: Int,
    );
}

/// Stands for no id, as in head_loss.cu.
const NO_ID: u32 = u32::MAX;
const THREADS: u32 = 1024;

// SAFETY: four words, laid out as in head_loss.cu.
unsafe impl DeviceRepr for Factors {}
// SAFETY: as above.
unsafe impl DeviceRepr for Rest {}

/// A chunk whose logits are under way.
struct Pending {
    first: usize,
    rows: usize,
    /// f32 [rows, V].
    logits: Tensor,
    /// [rows · taken].
    ids: Array<u32>,
    /// The logits of `ids`, then a [`Rest`] per row, as they arrive.
    found: Option<Pinned>,
    arrived: CudaEvent,
}

impl Drop for Pending {
    fn drop(&mut self) {
        // What is copied to must not be freed before.
        let _ = self.arrived.synchronize();
    }
}

struct Head<'a> {
    gpu: Gpu,
    hidden: &'a Tensor,
    /// Of the type it is multiplied in.
    weight: Tensor,
    loss: &'a dyn RowLoss,
    /// Ids taken out of each row, the target last.
    taken: usize,
    v: usize,
}

/// See [`crate::head_loss::head_loss`]; two chunks exist at a time.
pub fn head_loss(
    hidden: &Tensor,
    weight: &Tensor,
    teacher: Option<super::Head<'_>>,
    loss: &dyn RowLoss,
    chunk_rows: usize,
    wanted: Wanted,
) -> Result<HeadLoss> {
    if teacher.is_some() {
        bail!("head-loss: a teacher's logits beside the student's are computed on the CPU only");
    }
    let (s, d) = hidden.dims2()?;
    let v = weight.dim(0)?;
    let gpu = Gpu::of(hidden)?;
    let d_hidden = wanted
        .hidden
        .then(|| gpu.uninitialised(hidden.dtype(), (s, d)))
        .transpose()?;
    let d_weight = wanted
        .weight
        .then(|| gpu.uninitialised(DType::F32, (v, d)))
        .transpose()?;
    if let Some(d_weight) = &d_weight {
        gpu.zero(d_weight)?;
    }
    let head = Head {
        weight: cast(&gpu, weight, hidden.dtype())?,
        taken: 1
            + (0..s)
                .map(|row| loss.taken(row).ids.len())
                .max()
                .unwrap_or(0),
        gpu,
        hidden,
        loss,
        v,
    };
    let mut sums = vec![0.0; loss.n_measures()];
    let mut pending: Option<Pending> = None;
    let mut starts = (0..s).step_by(chunk_rows);
    loop {
        let next = match starts.next() {
            Some(first) => Some(head.start(first, chunk_rows.min(s - first))?),
            None => None,
        };
        let ended = next.is_none();
        if let Some(pending) = std::mem::replace(&mut pending, next) {
            let measures = head.end(pending, d_hidden.as_ref(), d_weight.as_ref())?;
            add_measures(&mut sums, &measures);
        }
        if ended {
            break;
        }
    }
    Ok(HeadLoss {
        sums,
        d_hidden,
        d_weight,
    })
}

impl Head<'_> {
    fn start(&self, first: usize, rows: usize) -> Result<Pending> {
        let (gpu, taken) = (&self.gpu, self.taken);
        let logits = gpu.uninitialised(DType::F32, (rows, self.v))?;
        let hidden = self.hidden.narrow(0, first, rows)?;
        let product = Product {
            a: &hidden,
            b: &self.weight,
            form: Form::Nt,
            arithmetic: Arithmetic::F32,
        };
        multiply(gpu, &product, 1.0, false, &logits)?;
        let mut ids = vec![NO_ID; rows * taken];
        let mut scales = Vec::with_capacity(rows);
        for (row, slots) in ids.chunks_exact_mut(taken).enumerate() {
            let wanted = self.loss.taken(first + row);
            slots[..wanted.ids.len()].copy_from_slice(wanted.ids);
            if !wanted.ids.contains(&wanted.target) {
                slots[taken - 1] = wanted.target;
            }
            scales.push(wanted.scale);
        }
        let (ids, scales) = (Array::upload(gpu, &ids)?, Array::upload(gpu, &scales)?);
        let values = gpu.uninitialised(DType::F32, rows * taken)?;
        let rests = Array::<Rest>::uninitialised(gpu, rows)?;
        loss_rest(
            gpu,
            blocks(rows, THREADS)?,
            write(&logits)?,
            ids.read()?,
            scales.read()?,
            write(&values)?,
            rests.write()?,
            self.v,
            taken,
        )?;
        let mut found = gpu.with_staging(|staging| staging.take(rows * (taken + 4) * 4))?;
        let (to_values, to_rests) = found.bytes().split_at_mut(rows * taken * 4);
        let stream = gpu.stream.cu_stream();
        // SAFETY: `found` outlives the copies: `end` waits for the event behind them, and so does dropping a `Pending`.
        unsafe {
            result::memcpy_dtoh_async(to_values, pointer(&values)?, stream).w()?;
            result::memcpy_dtoh_async(&mut to_rests[..rows * 16], rests.address()?, stream).w()?;
        }
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let arrived = gpu.stream.record_event(Some(flags)).w()?;
        Ok(Pending {
            first,
            rows,
            logits,
            ids,
            found: Some(found),
            arrived,
        })
    }

    fn end(
        &self,
        mut pending: Pending,
        d_hidden: Option<&Tensor>,
        d_weight: Option<&Tensor>,
    ) -> Result<Vec<f64>> {
        let (gpu, taken) = (&self.gpu, self.taken);
        let (first, rows) = (pending.first, pending.rows);
        pending.arrived.synchronize().w()?;
        let Some(mut found) = pending.found.take() else {
            bail!("a chunk's logits were taken before");
        };
        let words = |bytes: &[u8]| -> Vec<f32> {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().map(|&word| f32::from_ne_bytes(word)).collect()
        };
        let (values, rests) = found.bytes().split_at(rows * taken * 4);
        let (values, rests) = (words(values), words(&rests[..rows * 16]));
        let n_measures = self.loss.n_measures();
        let mut gradients = vec![0f32; rows * taken];
        let mut measures = vec![0.0; rows * n_measures];
        let factors: Vec<Factors> = values
            .par_chunks_exact(taken)
            .zip(rests.par_chunks_exact(4))
            .zip(gradients.par_chunks_exact_mut(taken))
            .zip(measures.par_chunks_exact_mut(n_measures))
            .enumerate()
            .map(|(row, (((logits, rest), gradient), measures))| {
                let n_ids = self.loss.taken(first + row).ids.len();
                let found = Found {
                    logits: &logits[..n_ids],
                    target_logit: logits[taken - 1],
                    rest: Rest {
                        most: rest[0],
                        at: rest[1].to_bits(),
                        sum: rest[2],
                        scaled_sum: rest[3],
                    },
                };
                let (gradient, target) = gradient.split_at_mut(taken - 1);
                let (gradient, target) = (&mut gradient[..n_ids], &mut target[0]);
                self.loss
                    .charge(first + row, &found, gradient, target, measures)
            })
            .collect();
        if d_hidden.is_some() || d_weight.is_some() {
            let gradient = match self.hidden.dtype() {
                DType::F32 => pending.logits.clone(),
                dtype => gpu.uninitialised(dtype, (rows, self.v))?,
            };
            let factors = Array::upload(gpu, &factors)?;
            let values = Array::upload(gpu, &gradients)?;
            by_element!(
                gradient.dtype(),
                loss_gradient(
                    gpu,
                    blocks(rows, THREADS)?,
                    read(&pending.logits)?,
                    pending.ids.read()?,
                    factors.read()?,
                    values.read()?,
                    write(&gradient)?,
                    self.v,
                    taken,
                )
            )?;
            let product = |b, form| Product {
                a: &gradient,
                b,
                form,
                arithmetic: Arithmetic::F32,
            };
            if let Some(d_hidden) = d_hidden {
                let out = d_hidden.narrow(0, first, rows)?;
                multiply(gpu, &product(&self.weight, Form::Nn), 1.0, false, &out)?;
            }
            if let Some(d_weight) = d_weight {
                let hidden = self.hidden.narrow(0, first, rows)?;
                multiply(gpu, &product(&hidden, Form::Tn), 1.0, true, d_weight)?;
            }
        }
        gpu.with_staging(|staging| {
            staging.give(found);
            Ok(())
        })?;
        Ok(measures)
    }
}
