//! The loop: from a plan to an adapter, a merged checkpoint and a manifest.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use candle_core::Var;
use model::decoder::Decoder;
use ops::dropout::key;
use records::atomic;
use records::hash::FileStamp;
use records::manifest::Manifest;
use records::metric::{Split, StepMetrics};
use records::outcome::Outcome;
use records::stamps;

use crate::Error;
use crate::batch::{MicroBatch, Packing};
use crate::checkpoint::{Best, Checkpoints};
use crate::clip::{Clipped, clip_global_norm, norm};
use crate::config::Method;
use crate::data;
use crate::error::io;
use crate::failed_batch;
use crate::feed::Feed;
use crate::metrics::{MetricsLog, peak_memory_bytes};
use crate::objective::Objective;
use crate::optimizer::{AdamW, AdamWConfig};
use crate::plan::{Plan, Prepared};
use crate::progress::Progress;
use crate::schedule::LearningRate;
use crate::step::{Gradients, Models, PassSettings, Sums, accumulate, evaluate};
use crate::store::ExampleStore;
use crate::student;
use crate::tensorboard::EventLog;

/// Sets dropout's keys apart from what else the seed is used for.
const DROPOUT: u64 = 1;

/// Validation examples that are laid into passes together.
const VALIDATION_GROUP: usize = 256;

/// What a finished run has to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub steps: u64,
    /// Step this process began after: 0, or a checkpoint's.
    pub resumed_from: u64,
    pub examples: u64,
    pub trainable_parameters: u64,
    /// Mean loss of the last optimizer step; none where every step was done before.
    pub last_loss: Option<f64>,
    pub validation_loss: Option<f64>,
    pub merged: PathBuf,
    /// None after full fine-tuning.
    pub adapter: Option<PathBuf>,
}

/// Trains the student of `plan`, from its newest checkpoint where there is one.
///
/// # Errors
/// See [`Error`]; nothing that was there before is lost, and calling again goes on from the last checkpoint.
pub fn run(plan: &Plan, stop: &AtomicBool) -> Result<Outcome<Summary>, Error> {
    let prepared = plan.prepare()?;
    let models = load(plan, &prepared)?;
    train(plan, &prepared, models, stop)
}

/// The models of a run in memory.
pub struct Loaded {
    /// With what is trained marked.
    student: Decoder,
    /// Reads beside the student.
    teacher: Option<Decoder>,
}

/// What [`train`] starts from.
///
/// # Errors
/// Those of the checkpoints, or of the adapter that the student continues.
pub fn load(plan: &Plan, prepared: &Prepared) -> Result<Loaded, Error> {
    Ok(Loaded {
        student: student::load(plan, prepared.config.clone())?,
        teacher: student::load_teacher(plan)?,
    })
}

struct Run<'a> {
    plan: &'a Plan,
    prepared: &'a Prepared,
    stop: &'a AtomicBool,
    models: Loaded,
    trainable: Vec<(String, Var)>,
    optimizer: AdamW,
    objective: Objective,
    /// The run's, where adapters drop anything out.
    dropout_key: Option<u64>,
    rate: LearningRate,
    checkpoints: Checkpoints,
    metrics: MetricsLog,
    events: EventLog,
    best: Option<Best>,
    /// Steps whose checkpoint is on disk.
    saved: Option<u64>,
    last_loss: Option<f64>,
    validation_loss: Option<f64>,
}

/// [`run`] from where `plan` has been prepared and its models loaded.
///
/// # Errors
/// As [`run`].
pub fn train(
    plan: &Plan,
    prepared: &Prepared,
    models: Loaded,
    stop: &AtomicBool,
) -> Result<Outcome<Summary>, Error> {
    let clock = Instant::now();
    let config = &plan.train;
    let inputs = plan.stamps(&prepared.files)?;
    Manifest::remove(&plan.output)?;
    atomic::remove_stale_temporaries(&plan.output)?;
    failed_batch::remove(&plan.output)?;

    let trainable = models.student.trainable().to_vec();
    let adamw = AdamWConfig {
        betas: config.betas,
        eps: config.eps,
        weight_decay: config.weight_decay,
    };
    let mut optimizer = AdamW::new(trainable.clone(), adamw)?;
    if let (Method::Lora, Some(ratio)) = (config.method, config.lora().loraplus_lr_ratio) {
        optimizer = optimizer.with_loraplus(ratio);
    }
    let checkpoints = Checkpoints::new(
        plan.output.join("checkpoints"),
        plan.identity(&inputs)?,
        config.keep,
    );
    let (mut resumed_from, mut best) = (0, None);
    // What is moved or missing is said to the quiet too: it is no progress.
    let mut say = |line: &str| eprintln!("training: {line}");
    let metrics = plan.output.join("metrics.jsonl");
    let newest = checkpoints.newest(&mut say)?;
    if let (Some(replaced), None) = (&newest.replaced, &newest.found) {
        // The measurements belong to the checkpoints that were moved.
        EventLog::move_to(&plan.output, replaced)?;
        if metrics.exists() {
            atomic::publish(&metrics, &replaced.join("metrics.jsonl"))?;
        }
    }
    if let Some((state, tensors)) = newest.found {
        optimizer.restore(&tensors, state.step)?;
        (resumed_from, best) = (state.step, state.best);
    }
    let metrics = MetricsLog::resume(&metrics, resumed_from, &mut say)?;
    let events = EventLog::resume(&plan.output, resumed_from)?;
    let drops = config.method == Method::Lora && config.lora().dropout > 0.0;
    let mut run = Run {
        plan,
        prepared,
        stop,
        models,
        trainable,
        optimizer,
        objective: Objective::new(config),
        dropout_key: drops.then(|| key(DROPOUT, plan.seed)),
        rate: LearningRate::new(
            config.schedule,
            config.learning_rate,
            config.warmup_ratio,
            config.min_lr_ratio,
            prepared.total_steps,
        ),
        checkpoints,
        metrics,
        events,
        best,
        saved: (resumed_from > 0).then_some(resumed_from),
        last_loss: None,
        validation_loss: None,
    };
    if !run.steps(resumed_from)? {
        run.save()?;
        return Ok(Outcome::Interrupted);
    }
    let (last_loss, validation_loss) = (run.last_loss, run.validation_loss);
    let trainable = run.into_trainable();
    let exported = student::export(plan, prepared, &trainable)?;
    let summary = Summary {
        steps: prepared.total_steps,
        resumed_from,
        examples: prepared.data.counts.examples,
        trainable_parameters: trainable
            .iter()
            .map(|(_, variable)| variable.elem_count() as u64)
            .sum(),
        last_loss,
        validation_loss,
        merged: exported.merged,
        adapter: exported.adapter,
    };
    let mut manifest = Manifest::new("student", plan.recipe.clone(), prepared.started_at);
    manifest.inputs = inputs;
    manifest.outputs = outputs(&plan.output, &summary)?;
    fill_counts(&mut manifest, prepared, &summary);
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.output)?;
    Ok(Outcome::Complete(summary))
}

impl Run<'_> {
    /// What was trained. All else is let go: an export beside the student would be the peak of the run's memory.
    fn into_trainable(self) -> Vec<(String, Var)> {
        self.trainable
    }

    /// Trains to the last step; false when `stop` was raised before it.
    fn steps(&mut self, done: u64) -> Result<bool, Error> {
        let prepared = self.prepared;
        let total = prepared.total_steps;
        let mut progress = Progress::new(total, done, self.plan.quiet);
        if done > 0 {
            progress.note(&format!("training: going on after step {done} of {total}"));
        }
        // A run that was stopped while it validated still owes that validation.
        if self.validates_after(done)
            && !self.metrics.validated(done)
            && !self.validate(done, &progress)?
        {
            return Ok(false);
        }
        let packing = self.packing();
        std::thread::scope(|scope| {
            let batches = prepared.sampler.batches(done, total);
            let examples = &prepared.data.examples;
            let mut feed = Feed::start(scope, examples, batches, packing)?;
            self.train_on(&mut feed, done, &mut progress)
        })
    }

    /// As [`Run::steps`], the passes of each step coming from `feed`.
    fn train_on(
        &mut self,
        feed: &mut Feed,
        done: u64,
        progress: &mut Progress,
    ) -> Result<bool, Error> {
        let total = self.prepared.total_steps;
        let mut clock = Instant::now();
        for step in done..total {
            let Some((sums, grad_norm)) = self.step(step, feed)? else {
                return Ok(false);
            };
            let seconds = clock.elapsed().as_secs_f64();
            clock = Instant::now();
            let metrics = self.step_metrics(
                Split::Train,
                step + 1,
                &sums,
                seconds,
                Some((grad_norm, self.rate.at(step))),
            );
            self.last_loss = Some(metrics.loss);
            self.record(&metrics)?;
            progress.step(&metrics);
            let last = step + 1 == total;
            if self.validates_after(step + 1) {
                if !self.validate(step + 1, progress)? {
                    return Ok(false);
                }
                clock = Instant::now();
            }
            if last || (step + 1).is_multiple_of(self.plan.train.save_every) {
                self.save()?;
            }
        }
        Ok(true)
    }

    /// Of the GPU the student is on, else of the process.
    fn peak_memory_bytes(&self) -> u64 {
        match ops::device::peak_memory(self.models.student.device()) {
            Ok(Some(peak)) => peak,
            Ok(None) => peak_memory_bytes(),
            Err(_) => 0,
        }
    }

    fn models(&self) -> Models<'_> {
        Models {
            student: &self.models.student,
            teacher: self.models.teacher.as_ref(),
        }
    }

    fn packing(&self) -> Packing {
        Packing {
            max_tokens: self.plan.train.micro_batch_tokens,
            packing: self.plan.train.packing,
        }
    }

    fn validates_after(&self, step: u64) -> bool {
        let due = self
            .plan
            .train
            .eval_every
            .is_some_and(|every| step.is_multiple_of(every));
        step > 0 && (due || step == self.prepared.total_steps)
    }

    /// One optimizer step; `None` when `stop` was raised within it, the weights then being as before.
    fn step(&mut self, step: u64, feed: &mut Feed) -> Result<Option<(Sums, f64)>, Error> {
        let config = &self.plan.train;
        let mut batch = Vec::new();
        let passes = noting(feed.group(), &mut batch);
        let accumulated = accumulate(
            self.models(),
            &self.objective,
            &self.trainable,
            passes,
            &PassSettings {
                checkpointing: config.activation_checkpointing,
                dropout_key: self.dropout_key.map(|run| key(run, step)),
            },
            self.stop,
        )?;
        let Some((sums, gradients)) = accumulated else {
            return Ok(None);
        };
        let failed = |what: String| {
            let examples = &self.prepared.data.examples;
            failed_batch::save(&self.plan.output, step + 1, what, examples, &batch)
        };
        if !sums.loss.is_finite() {
            return Err(failed("the loss".into())?);
        }
        let Clipped { norm, scale } =
            clip_global_norm(&gradients, sums.n_supervised, config.max_grad_norm)?;
        if !norm.is_finite() {
            return Err(failed(culprit(&gradients)?)?);
        }
        self.optimizer
            .update(&gradients, scale, self.rate.at(step))?;
        Ok(Some((sums, norm)))
    }

    /// Validates after `step` steps; false when `stop` was raised within it.
    fn validate(&mut self, step: u64, progress: &Progress) -> Result<bool, Error> {
        let Some(data::Loaded { examples, .. }) = &self.prepared.validation else {
            return Ok(true);
        };
        let clock = Instant::now();
        let Some(sums) = self.validation_sums(step, examples)? else {
            return Ok(false);
        };
        let metrics = self.step_metrics(
            Split::Validation,
            step,
            &sums,
            clock.elapsed().as_secs_f64(),
            None,
        );
        self.record(&metrics)?;
        progress.note(&format!(
            "validation after step {step}: loss {:.4}",
            metrics.loss
        ));
        self.validation_loss = Some(metrics.loss);
        if self.best.is_none_or(|best| metrics.loss < best.loss) {
            self.best = Some(Best {
                step,
                loss: metrics.loss,
            });
            // The best can only stay if it is there, and is known to be the best.
            self.saved = None;
            self.save()?;
        }
        Ok(true)
    }

    /// The losses of all validation examples; `None` when `stop` was raised.
    fn validation_sums(&self, step: u64, examples: &ExampleStore) -> Result<Option<Sums>, Error> {
        let n = examples.len();
        let groups = (0..n)
            .step_by(VALIDATION_GROUP)
            .map(|start| (start..n.min(start + VALIDATION_GROUP)).collect());
        std::thread::scope(|scope| {
            let mut feed = Feed::start(scope, examples, groups, self.packing())?;
            let mut sums = Sums::default();
            for _ in 0..n.div_ceil(VALIDATION_GROUP) {
                let mut group = Vec::new();
                let passes = noting(feed.group(), &mut group);
                let measured = evaluate(self.models(), &self.objective, passes, self.stop)?;
                let Some(measured) = measured else {
                    return Ok(None);
                };
                if !measured.loss.is_finite() {
                    let what = "the validation loss".into();
                    let output = &self.plan.output;
                    return Err(failed_batch::save(output, step, what, examples, &group)?);
                }
                sums.add(&measured);
            }
            Ok(Some(sums))
        })
    }

    fn record(&mut self, metrics: &StepMetrics) -> Result<(), Error> {
        self.metrics.write(metrics)?;
        self.events.write(metrics)
    }

    fn save(&mut self) -> Result<(), Error> {
        let step = self.optimizer.step();
        if step == 0 || self.saved == Some(step) {
            return Ok(());
        }
        self.metrics.sync()?;
        self.checkpoints
            .save(step, self.best, &self.optimizer.state())?;
        self.saved = Some(step);
        Ok(())
    }

    fn step_metrics(
        &self,
        split: Split,
        step: u64,
        sums: &Sums,
        seconds: f64,
        update: Option<(f64, f64)>,
    ) -> StepMetrics {
        let tokens = sums.n_supervised.max(1) as f64;
        let measures = sums.measures.iter();
        StepMetrics {
            split,
            step,
            epoch: step as f64 / self.prepared.sampler.steps_per_epoch() as f64,
            loss: sums.loss / tokens,
            measures: measures
                .map(|(&name, value)| (name, value / tokens))
                .collect(),
            grad_norm: update.map(|(grad_norm, _)| grad_norm),
            learning_rate: update.map(|(_, rate)| rate),
            n_supervised_tokens: sums.n_supervised,
            n_tokens: sums.n_tokens,
            seconds,
            tokens_per_second: sums.n_tokens as f64 / seconds.max(1e-9),
            peak_memory_bytes: self.peak_memory_bytes(),
        }
    }
}

/// `passes`, the examples in each being added to `seen`.
fn noting<'a>(
    passes: impl Iterator<Item = Result<MicroBatch, Error>> + 'a,
    seen: &'a mut Vec<usize>,
) -> impl Iterator<Item = Result<MicroBatch, Error>> + 'a {
    passes.inspect(|pass| {
        if let Ok(pass) = pass {
            seen.extend_from_slice(&pass.examples);
        }
    })
}

/// Names the first gradient that is not finite.
fn culprit(gradients: &Gradients) -> Result<String, Error> {
    for (name, gradient) in gradients {
        if !norm(gradient)?.is_finite() {
            return Ok(format!("the gradient of `{name}`"));
        }
    }
    Ok("the gradient norm".into())
}

fn outputs(output: &Path, summary: &Summary) -> Result<Vec<FileStamp>, Error> {
    let mut paths = vec![output.join("metrics.jsonl")];
    for folder in summary.adapter.iter().chain([&summary.merged]) {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(io(folder))? {
            files.push(entry.map_err(io(folder))?.path());
        }
        files.sort();
        paths.extend(files);
    }
    Ok(stamps::stamp_all(&paths)?)
}

fn fill_counts(manifest: &mut Manifest, prepared: &Prepared, summary: &Summary) {
    let data = &prepared.data.counts;
    let validation = prepared.validation.as_ref().map(|loaded| &loaded.counts);
    let mut count = |name: &str, value: u64| manifest.counts.insert(name.to_owned(), value);
    count("rows", data.rows);
    count("examples", summary.examples);
    count("truncated", data.truncated);
    count(
        "validation_examples",
        validation.map_or(0, |counts| counts.examples),
    );
    count("optimizer_steps", summary.steps);
    count("trainable_parameters", summary.trainable_parameters);
    let mut left_out = data.dropped.clone();
    if let Some(validation) = validation {
        left_out.add_under("validation_", &validation.dropped);
    }
    manifest.set_left_out(&left_out);
    manifest.tokens.insert("per_epoch".into(), data.n_tokens);
    manifest
        .tokens
        .insert("supervised_per_epoch".into(), data.n_supervised);
}
