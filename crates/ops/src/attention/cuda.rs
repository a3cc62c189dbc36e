//! Rotary attention: the rotation, then causal attention within documents.

use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig};
use candle_core::{DType, Result, Tensor, bail};
use half::bf16;

use super::{Attended, Attention, AttentionGradients, Heads};
use crate::cuda::Gpu;
use crate::cuda::kernel::{In, Out, Variant, by_value, grid, int, kernels, read, word, write};
use crate::element::by_element;

// Beside those for either type there are those for heads of 64 and 128 in bf16.
kernels! { "attention":
    fn attention<V>(
        q: In<V::Value>[sizes.queries()],
        k: In<V::Value>[sizes.keys()],
        v: In<V::Value>[sizes.keys()],
        starts: In<u32>[sizes.tokens()],
        out: Out<V::Value>[sizes.queries()],
        log_sums: Out<f32>[sizes.rows()],
        sizes: Sizes,
    );
    fn attention_deltas<E>(
        out: In<E>[sizes.queries()],
        grad: In<E>[sizes.queries()],
        deltas: Out<f32>[sizes.rows()],
        sizes: Sizes,
    );
    fn attention_backward_keys<V>(
        q: In<V::Value>[sizes.queries()],
        k: In<V::Value>[sizes.keys()],
        v: In<V::Value>[sizes.keys()],
        grad: In<V::Value>[sizes.queries()],
        log_sums: In<f32>[sizes.rows()],
        deltas: In<f32>[sizes.rows()],
        ends: In<u32>[sizes.tokens()],
        dk: Out<V::Value>[sizes.keys()],
        dv: Out<V::Value>[sizes.keys()],
        sizes: Sizes,
    );
    fn attention_backward_queries<V>(
        q: In<V::Value>[sizes.queries()],
        k: In<V::Value>[sizes.keys()],
        v: In<V::Value>[sizes.keys()],
        grad: In<V::Value>[sizes.queries()],
        log_sums: In<f32>[sizes.rows()],
        deltas: In<f32>[sizes.rows()],
        starts: In<u32>[sizes.tokens()],
        dq: Out<V::Value>[sizes.queries()],
        sizes: Sizes,
    );
}

/// Tensor cores, for heads of `C` in bf16.
enum Cores<const C: usize> {}

impl Variant for Cores<64> {
    const SUFFIX: &'static str = "64";
    type Value = bf16;
}

impl Variant for Cores<128> {
    const SUFFIX: &'static str = "128";
    type Value = bf16;
}

/// Threads of a block: four warps.
const THREADS: u32 = 128;
/// As in attention.cu.
const FORWARD_QUERIES: usize = 128;
const TILE: usize = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct Sizes {
    n: i32,
    heads: i32,
    kv_heads: i32,
    head_dim: i32,
    scale: f32,
}

// SAFETY: five words, laid out as in attention.cu.
unsafe impl DeviceRepr for Sizes {}
by_value!(Sizes);

impl Sizes {
    fn tokens(&self) -> usize {
        self.n as usize
    }

    /// Values of the queries, [N, H·C].
    fn queries(&self) -> usize {
        self.rows() * self.head_dim as usize
    }

    /// Values of the keys, [N, G·C].
    fn keys(&self) -> usize {
        self.tokens() * self.kv_heads as usize * self.head_dim as usize
    }

    /// Rows of scores, [H, N].
    fn rows(&self) -> usize {
        self.tokens() * self.heads as usize
    }
}

/// How a layer's kernels are launched.
struct Plan {
    sizes: Sizes,
    /// bf16 heads of 64 or 128 go through tensor cores.
    tensor_cores: Option<usize>,
}

impl Plan {
    fn new(heads: Heads, n: usize, dtype: DType) -> Result<Self> {
        if heads.head_dim > 256 || !heads.head_dim.is_multiple_of(4) {
            bail!(
                "attention on the GPU takes heads of a size up to 256 that 4 divides, got {}",
                heads.head_dim
            );
        }
        let fits = dtype == DType::BF16 && [64, 128].contains(&heads.head_dim);
        Ok(Self {
            sizes: Sizes {
                n: int(n)?,
                heads: int(heads.n_heads)?,
                kv_heads: int(heads.n_kv_heads)?,
                head_dim: int(heads.head_dim)?,
                scale: heads.scale,
            },
            tensor_cores: fits.then_some(heads.head_dim),
        })
    }

    /// Blocks of `tokens` tokens of every head, with `rows` rows and `words` words of shared memory; the plain kernels
    /// have 4 tokens to a block and no dynamic memory.
    fn blocks(
        &self,
        heads: usize,
        tokens: usize,
        rows: usize,
        words: usize,
    ) -> Result<LaunchConfig> {
        let (tokens, shared) = match self.tensor_cores {
            Some(c) => (tokens, rows * c * 2 + words * 4),
            None => (4, 0),
        };
        Ok(LaunchConfig {
            shared_mem_bytes: word(shared)?,
            ..grid(self.sizes.tokens().div_ceil(tokens), heads, THREADS)?
        })
    }
}

/// Calls a kernel for tensor cores where the heads go through them, else the one for the type.
macro_rules! by_plan {
    ($plan:expr, $dtype:expr, $kernel:ident($($argument:expr),* $(,)?)) => {
        match $plan.tensor_cores {
            Some(64) => $kernel::<Cores<64>>($($argument),*),
            Some(_) => $kernel::<Cores<128>>($($argument),*),
            None => by_element!($dtype, $kernel($($argument),*)),
        }
    };
}

pub fn forward(op: &Attention<'_>, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Attended> {
    let gpu = Gpu::of(q)?;
    let n = q.dim(0)?;
    let plan = Plan::new(op.heads, n, q.dtype())?;
    let (q, k) = turned(&gpu, op, q, k)?;
    let out = gpu.uninitialised(q.dtype(), q.shape())?;
    let log_sums = gpu.uninitialised(DType::F32, (op.heads.n_heads, n))?;
    if n > 0 {
        let rows = FORWARD_QUERIES + 2 * TILE;
        let blocks = plan.blocks(op.heads.n_heads, FORWARD_QUERIES, rows, 0)?;
        let bounds = op.segments.bounds(&gpu)?;
        by_plan!(
            plan,
            q.dtype(),
            attention(
                &gpu,
                blocks,
                read(&q)?,
                read(&k)?,
                read(v)?,
                bounds.starts.read()?,
                write(&out)?,
                write(&log_sums)?,
                plan.sizes,
            )
        )?;
    }
    Ok(Attended { out, log_sums })
}

pub fn backward(
    op: &Attention<'_>,
    [q, k, v]: [&Tensor; 3],
    attended: &Attended,
    grad: &Tensor,
) -> Result<AttentionGradients> {
    let gpu = Gpu::of(q)?;
    let n = q.dim(0)?;
    let plan = Plan::new(op.heads, n, q.dtype())?;
    let (q, k) = turned(&gpu, op, q, k)?;
    let like = |x: &Tensor| gpu.uninitialised(x.dtype(), x.shape());
    let (dq, dk, dv) = (like(&q)?, like(&k)?, like(v)?);
    if n > 0 {
        let deltas = gpu.uninitialised(DType::F32, (op.heads.n_heads, n))?;
        by_element!(
            q.dtype(),
            attention_deltas(
                &gpu,
                grid(n.div_ceil(4), op.heads.n_heads, THREADS)?,
                read(&attended.out)?,
                read(grad)?,
                write(&deltas)?,
                plan.sizes,
            )
        )?;
        let bounds = op.segments.bounds(&gpu)?;
        // Keys and values, and two tiles of queries and gradients with their log-sums and deltas.
        let blocks = plan.blocks(op.heads.n_kv_heads, TILE, 6 * TILE, 4 * TILE)?;
        by_plan!(
            plan,
            q.dtype(),
            attention_backward_keys(
                &gpu,
                blocks,
                read(&q)?,
                read(&k)?,
                read(v)?,
                read(grad)?,
                read(&attended.log_sums)?,
                read(&deltas)?,
                bounds.ends.read()?,
                write(&dk)?,
                write(&dv)?,
                plan.sizes,
            )
        )?;
        // Queries and gradients, and two tiles of keys and values.
        let blocks = plan.blocks(op.heads.n_heads, TILE, 6 * TILE, 0)?;
        by_plan!(
            plan,
            q.dtype(),
            attention_backward_queries(
                &gpu,
                blocks,
                read(&q)?,
                read(&k)?,
                read(v)?,
                read(grad)?,
                read(&attended.log_sums)?,
                read(&deltas)?,
                bounds.starts.read()?,
                write(&dq)?,
                plan.sizes,
            )
        )?;
    }
    let tables = op.rope.on_gpu(&gpu)?;
    let c = op.heads.head_dim;
    Ok(AttentionGradients {
        q: tables.rotate(&gpu, &dq, c, true)?,
        k: tables.rotate(&gpu, &dk, c, true)?,
        v: dv,
    })
}

fn turned(gpu: &Gpu, op: &Attention<'_>, q: &Tensor, k: &Tensor) -> Result<(Tensor, Tensor)> {
    let (tables, c) = (op.rope.on_gpu(gpu)?, op.heads.head_dim);
    Ok((
        tables.rotate(gpu, q, c, false)?,
        tables.rotate(gpu, k, c, false)?,
    ))
}
