//! What a run would do, for `--dry-run`.

use model::config::ModelConfig;
use model::layers::mlp::{TOGETHER, TOGETHER_ON_GPU};
use model::parameters::parameter_names;
use ops::device::Place;
use records::LeftOut;

use crate::Error;
use crate::config::{Method, Precision};
use crate::data::Counts;
use crate::plan::Plan;
use crate::step::{CHUNK_ROWS, GPU_CHUNK_BYTES};
use crate::student;

/// Counts of a run that has not started.
#[derive(Clone, Debug)]
pub struct Estimate {
    pub trainable_parameters: u64,
    pub parameters: u64,
    pub examples: u64,
    pub validation_examples: u64,
    /// Tokens of the longest example.
    pub longest: u64,
    /// What becomes of rows that are longer than the student takes.
    pub long_rows: Option<String>,
    /// What of the tokenizer's folder and of the rows is read otherwise than it stands, or not read.
    pub notes: Vec<String>,
    /// Rows left out, by reason; those of the validation data are `validation_…`.
    pub dropped: LeftOut,
    pub tokens_per_epoch: u64,
    pub supervised_tokens_per_epoch: u64,
    pub optimizer_steps: u64,
    /// What the process will hold at its peak; on a GPU what it will hold there.
    pub peak_memory_bytes: u64,
}

/// Reads the data and the student's configuration, but no weights; writes nothing.
///
/// # Errors
/// Those that [`run`](crate::run) would stop with before it loads the student.
pub fn estimate(plan: &Plan) -> Result<Estimate, Error> {
    let inputs = plan.inputs()?;
    let (data, validation) = plan.count(&inputs)?;
    let sampler = plan.sampler(data.examples);
    let parameters = size(&parameter_names(&inputs.config));
    let trainable_parameters = match plan.train.method {
        Method::Full => parameters,
        Method::Lora => size(&plan.train.lora().trained(&inputs.config)?),
    };
    let peak_memory_bytes = Memory::new(plan, &inputs.config, &data)?.peak(trainable_parameters);
    let mut dropped = data.dropped.clone();
    if let Some(validation) = &validation {
        dropped.add_under("validation_", &validation.dropped);
    }
    Ok(Estimate {
        peak_memory_bytes,
        trainable_parameters,
        parameters,
        examples: data.examples,
        validation_examples: validation.map_or(0, |counts| counts.examples),
        longest: data.longest,
        tokens_per_epoch: data.n_tokens,
        supervised_tokens_per_epoch: data.n_supervised,
        optimizer_steps: plan.total_steps(&sampler),
        long_rows: plan.long_rows(&data, inputs.max_length),
        notes: [
            inputs.config.notices.as_slice(),
            inputs.tokenizer.notices(),
            &data.notes.lines(),
        ]
        .concat(),
        dropped,
    })
}

/// Elements of all of them.
fn size(shapes: &[(String, Vec<usize>)]) -> u64 {
    let elements = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    shapes.iter().map(|(_, shape)| elements(shape)).sum()
}

fn teacher_bytes(plan: &Plan, tokens: u64) -> Result<u64, Error> {
    let (Some(teacher), Some(dir)) = (&plan.train.teacher, &plan.online_teacher_dir) else {
        return Ok(0);
    };
    let config = ModelConfig::from_dir(dir)?;
    let weights = element(teacher.precision) * size(&parameter_names(&config));
    Ok(weights + 4 * config.vocab_size as u64 * tokens.min(CHUNK_ROWS as u64))
}

/// Bytes of an element.
fn element(precision: Precision) -> u64 {
    student::dtype(precision).size_in_bytes() as u64
}

/// What the process itself holds, and what its allocator keeps between blocks: as measured.
const PROCESS_BYTES: u64 = 96 << 20;
/// The same, of the copies that bf16 products make of operands in f32.
const BF16_BYTES: u64 = 48 << 20;

/// The sizes that a step's memory follows from. Bytes per element are those of activations, 4 or 2, where not said
/// otherwise.
struct Memory {
    element: u64,
    /// N of the largest pass.
    tokens: u64,
    layers: u64,
    hidden: u64,
    /// H·C and G·C.
    queries: u64,
    keys: u64,
    inner: u64,
    vocabulary: u64,
    /// Parameters of the base.
    parameters: u64,
    /// Σ of the ranks of adapters in a layer, on average; those of o_proj and down_proj alone where activations are
    /// checkpointed.
    ranks: u64,
    checkpointing: bool,
    full: bool,
    on_gpu: bool,
    /// Weights of a teacher that reads beside the student, and a chunk of its logits, in bytes.
    teacher: u64,
}

impl Memory {
    fn new(plan: &Plan, config: &ModelConfig, data: &Counts) -> Result<Self, Error> {
        let train = &plan.train;
        let checkpointing = train.activation_checkpointing;
        let full = train.method == Method::Full;
        let batch = train.batch_size as u64 * data.longest;
        let tokens = match train.packing {
            true => data.longest.max(batch.min(train.micro_batch_tokens as u64)),
            false => data.longest,
        };
        let kept =
            |name: &str| !checkpointing || name.ends_with("o_proj") || name.ends_with("down_proj");
        let ranks: u64 = match full {
            true => 0,
            false => train
                .lora()
                .modules(config)?
                .iter()
                .filter(|module| kept(&module.name))
                .map(|module| module.rank as u64)
                .sum(),
        };
        let layers = config.n_layers as u64;
        Ok(Self {
            element: element(train.precision),
            tokens,
            layers,
            hidden: config.hidden_size as u64,
            queries: (config.n_heads * config.head_dim) as u64,
            keys: (config.n_kv_heads * config.head_dim) as u64,
            inner: config.intermediate_size as u64,
            vocabulary: config.vocab_size as u64,
            parameters: size(&parameter_names(config)),
            ranks: ranks / layers.max(1),
            checkpointing,
            full,
            on_gpu: plan.device != Place::Cpu,
            teacher: teacher_bytes(plan, tokens)?,
        })
    }

    /// In the last block's backward pass, everything before it still being kept.
    fn peak(&self, trainable: u64) -> u64 {
        let Self {
            element,
            tokens: n,
            layers,
            hidden: d,
            queries,
            keys,
            inner,
            vocabulary,
            ..
        } = *self;
        // A parameter, its gradient and its two moments, f32.
        let trained = 16 * trainable;
        let frozen = if self.full {
            0
        } else {
            element * self.parameters
        };
        let kept = if self.checkpointing {
            d + queries
        } else {
            2 * d + 2 * queries + 2 * keys + 2 * inner
        };
        let tape = layers * n * (element * kept + 4 * self.ranks);
        let together = match (self.full, self.on_gpu) {
            (true, _) => n,
            (false, true) => n.min(TOGETHER_ON_GPU as u64),
            (false, false) => n.min(TOGETHER as u64),
        };
        // The gradients of embedding and head while they are added up.
        let summed = if self.full { 3 * 4 * vocabulary * d } else { 0 };
        let held = trained + frozen + tape + summed + self.teacher;
        if self.on_gpu {
            return held + self.transient_on_gpu(together);
        }
        // Gradients of the attention's inputs and output and of the residual stream, beside what is computed again.
        let whole = n * element * (2 * queries + 4 * keys + 5 * d);
        // Gate, up, their product, and their gradients.
        let transient = whole + together * element * 6 * inner;
        let logits = 4 * vocabulary * n.min(CHUNK_ROWS as u64);
        let fixed = PROCESS_BYTES + if element == 2 { BF16_BYTES } else { 0 };
        held + transient + logits + fixed
    }

    /// The most of three that are never there together: what freed memory was is taken again.
    fn transient_on_gpu(&self, together: u64) -> u64 {
        let Self {
            element,
            tokens: n,
            hidden: d,
            queries,
            keys,
            inner,
            vocabulary,
            checkpointing,
            ..
        } = *self;
        let chunk = 4 * vocabulary * n;
        let logits = match GPU_CHUNK_BYTES as u64 {
            // Two chunks, and one's gradient in the activations' type.
            most if chunk > most => 2 * most + if element == 2 { most / 2 } else { 0 },
            _ => chunk + if element == 2 { chunk / 2 } else { 0 },
        };
        let again = u64::from(checkpointing);
        // Rotated queries, the gradient before and after it is turned back, and the output's; the same of keys.
        let attention = n * element * ((4 + again) * queries + (4 + 2 * again) * keys + 3 * d);
        // Gradients of gate, up and their product, beside gate and up where they are computed again.
        let mlp = together * element * (3 + 2 * again) * inner + n * element * 4 * d;
        logits.max(attention).max(mlp)
    }
}
