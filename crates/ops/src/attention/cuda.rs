//! Rotary attention: the rotation, then causal attention within documents.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig, sys};
use candle_core::{DType, Result, Tensor, bail};

use super::{Attended, Attention, AttentionGradients, Heads};
use crate::cuda::gpu::{Gpu, Module, for_type, launch, module, pointer};

const ATTENTION: Module = module!("attention");

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
                n: n as i32,
                heads: heads.n_heads as i32,
                kv_heads: heads.n_kv_heads as i32,
                head_dim: heads.head_dim as i32,
                scale: heads.scale,
            },
            tensor_cores: fits.then_some(heads.head_dim),
        })
    }

    /// Blocks of `tokens` tokens of every head, with `rows` rows and `words` words of shared memory; the plain kernels
    /// have 4 tokens to a block and no dynamic memory.
    fn blocks(&self, heads: i32, tokens: usize, rows: usize, words: usize) -> LaunchConfig {
        let (tokens, shared) = match self.tensor_cores {
            Some(c) => (tokens, rows * c * 2 + words * 4),
            None => (4, 0),
        };
        LaunchConfig {
            grid_dim: (
                (self.sizes.n as usize).div_ceil(tokens) as u32,
                heads as u32,
                1,
            ),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: shared as u32,
        }
    }
}

/// The name of a kernel: for tensor cores with the size of a head, else with the type.
macro_rules! kernel {
    ($name:literal, $plan:expr, $dtype:expr) => {
        match $plan.tensor_cores {
            Some(64) => concat!($name, "_64"),
            Some(_) => concat!($name, "_128"),
            None => for_type!($name, $dtype),
        }
    };
}

/// Lets a kernel take more shared memory than the 48 KiB every kernel may have.
fn allow(gpu: &Gpu, name: &'static str, blocks: LaunchConfig) -> Result<()> {
    let bytes = blocks.shared_mem_bytes as i32;
    if bytes > 48 << 10 {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        gpu.function(&ATTENTION, name)?
            .set_attribute(attribute, bytes)
            .w()?;
    }
    Ok(())
}

pub fn forward(attention: &Attention<'_>, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Attended> {
    let gpu = Gpu::of(q)?;
    let n = q.dim(0)?;
    let plan = Plan::new(attention.heads, n, q.dtype())?;
    let (q, k) = turned(&gpu, attention, q, k)?;
    let out = gpu.uninitialised(q.dtype(), q.shape())?;
    let log_sums = gpu.uninitialised(DType::F32, (attention.heads.n_heads, n))?;
    if n > 0 {
        let name = kernel!("attention", plan, q.dtype());
        let blocks = plan.blocks(
            plan.sizes.heads,
            FORWARD_QUERIES,
            FORWARD_QUERIES + 2 * TILE,
            0,
        );
        allow(&gpu, name, blocks)?;
        let bounds = attention.segments.bounds(&gpu)?;
        launch!(
            gpu,
            ATTENTION,
            name,
            blocks,
            (
                pointer(&q)?,
                pointer(&k)?,
                pointer(v)?,
                pointer(&bounds.starts)?,
                pointer(&out)?,
                pointer(&log_sums)?,
                plan.sizes
            )
        );
    }
    Ok(Attended { out, log_sums })
}

pub fn backward(
    attention: &Attention<'_>,
    [q, k, v]: [&Tensor; 3],
    attended: &Attended,
    grad: &Tensor,
) -> Result<AttentionGradients> {
    let gpu = Gpu::of(q)?;
    let n = q.dim(0)?;
    let plan = Plan::new(attention.heads, n, q.dtype())?;
    let (q, k) = turned(&gpu, attention, q, k)?;
    let like = |x: &Tensor| gpu.uninitialised(x.dtype(), x.shape());
    let (dq, dk, dv) = (like(&q)?, like(&k)?, like(v)?);
    if n > 0 {
        let deltas = gpu.uninitialised(DType::F32, (attention.heads.n_heads, n))?;
        let rows = LaunchConfig {
            grid_dim: (n.div_ceil(4) as u32, plan.sizes.heads as u32, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        launch!(
            gpu,
            ATTENTION,
            for_type!("attention_deltas", q.dtype()),
            rows,
            (
                pointer(&attended.out)?,
                pointer(grad)?,
                pointer(&deltas)?,
                plan.sizes
            )
        );
        let bounds = attention.segments.bounds(&gpu)?;
        let name = kernel!("attention_backward_keys", plan, q.dtype());
        // Keys and values, and two tiles of queries and gradients with their log-sums and deltas.
        let blocks = plan.blocks(plan.sizes.kv_heads, TILE, 6 * TILE, 4 * TILE);
        allow(&gpu, name, blocks)?;
        launch!(
            gpu,
            ATTENTION,
            name,
            blocks,
            (
                pointer(&q)?,
                pointer(&k)?,
                pointer(v)?,
                pointer(grad)?,
                pointer(&attended.log_sums)?,
                pointer(&deltas)?,
                pointer(&bounds.ends)?,
                pointer(&dk)?,
                pointer(&dv)?,
                plan.sizes
            )
        );
        let name = kernel!("attention_backward_queries", plan, q.dtype());
        // Queries and gradients, and two tiles of keys and values.
        let blocks = plan.blocks(plan.sizes.heads, TILE, 6 * TILE, 0);
        allow(&gpu, name, blocks)?;
        launch!(
            gpu,
            ATTENTION,
            name,
            blocks,
            (
                pointer(&q)?,
                pointer(&k)?,
                pointer(v)?,
                pointer(grad)?,
                pointer(&attended.log_sums)?,
                pointer(&deltas)?,
                pointer(&bounds.starts)?,
                pointer(&dq)?,
                plan.sizes
            )
        );
    }
    let tables = attention.rope.on_gpu(&gpu)?;
    let c = attention.heads.head_dim;
    Ok(AttentionGradients {
        q: tables.rotate(&gpu, &dq, c, true)?,
        k: tables.rotate(&gpu, &dk, c, true)?,
        v: dv,
    })
}

fn turned(
    gpu: &Gpu,
    attention: &Attention<'_>,
    q: &Tensor,
    k: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (tables, c) = (attention.rope.on_gpu(gpu)?, attention.heads.head_dim);
    Ok((
        tables.rotate(gpu, q, c, false)?,
        tables.rotate(gpu, k, c, false)?,
    ))
}
