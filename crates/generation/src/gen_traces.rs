//! The stage: asks a teacher for every sample that is missing, and seals the answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use records::Located;
use records::hash::FileStamp;
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::stamps;

use crate::config::{GenerateConfig, PromptsConfig, TeacherConfig, Wording};
use crate::error::Result;
use crate::journal;
use crate::key::sampling_key;
use crate::load::Source;
use crate::openai::secret::Secret;
use crate::prompts::PromptSet;
use crate::sample::{Sampling, compare, sample};
use crate::teacher::{Description, SamplingConfig, Teacher};

pub use crate::sample::{EXHAUSTED, Summary};

/// What the stage reads, writes and is told.
#[derive(Debug, Clone)]
pub struct GenTraces {
    /// The traces folder.
    pub dir: PathBuf,
    pub prompt_set: Arc<PromptSet>,
    pub prompts: PromptsConfig,
    pub teacher: TeacherConfig,
    /// Of its servers.
    pub secret: Option<Secret>,
    /// Asks again for what servers refused.
    pub retry_failed: bool,
    pub generate: GenerateConfig,
    pub seed: u64,
    /// The recipe sections that decide the output, for the manifest.
    pub recipe: serde_json::Value,
    pub quiet: bool,
}

/// Samples what is missing in the folder.
///
/// # Errors
/// Those of [`sample`].
pub fn run(plan: &GenTraces, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    let known = journal::saved(&plan.dir)?.map_or_else(Vec::new, |saved| saved.teacher_files);
    let source = Source::new(&plan.teacher, plan.secret.clone(), &known)?;
    let load = |spent| source.load(SamplingConfig::from(&plan.generate), spent);
    run_with(plan, &source.description, source.files.clone(), load, stop)
}

/// [`run`] with a teacher of the caller's; `load` is called only if something is missing, with what earlier starts
/// have spent. `teacher_files` become inputs of the manifest.
pub fn run_with<'t>(
    plan: &GenTraces,
    description: &Description,
    teacher_files: Vec<FileStamp>,
    load: impl FnOnce(f64) -> Result<Box<dyn Teacher + 't>>,
    stop: &AtomicBool,
) -> Result<Outcome<Summary>> {
    let (started_at, clock) = (now_micros(), Instant::now());
    plan.generate.validate()?;
    let prompts = &plan.prompt_set.prompts;
    let sampling = Sampling {
        dir: &plan.dir,
        prompts,
        key: sampling_key(
            description,
            &plan.teacher,
            plan.prompts.wording(),
            &plan.generate,
            plan.seed,
        ),
        teacher: description,
        teacher_files: &teacher_files,
        config: &SamplingConfig::from(&plan.generate),
        seed: plan.seed,
        prices: plan.teacher.price_per_million,
        retry_failed: plan.retry_failed,
        noun: "traces",
        quiet: plan.quiet,
    };
    let samples = plan.generate.samples_per_prompt;
    let requests = (0..prompts.len()).flat_map(|at| (0..samples).map(move |sample| (at, sample)));
    let summary = match sample(&sampling, requests, load, stop)? {
        Outcome::Complete(summary) => summary,
        Outcome::Interrupted => return Ok(Outcome::Interrupted),
    };

    let mut manifest = Manifest::new("traces", plan.recipe.clone(), started_at);
    let prompt_files = plan.prompt_set.files.iter();
    manifest.inputs = prompt_files
        .map(Located::stamp)
        .collect::<records::Result<_>>()?;
    manifest.inputs.extend(teacher_files);
    manifest.outputs = stamps::stamp_all(&summary.parts)?;
    let counted = [
        ("prompts", plan.prompt_set.prompts.len() as u64),
        ("requested", summary.requested),
        ("done", summary.done),
        ("failed", summary.failed),
        // Of the failed ones those that the next start asks for again.
        (EXHAUSTED, summary.exhausted()),
        ("not_in_recipe", summary.not_in_recipe),
    ];
    manifest.counts = counted
        .into_iter()
        .map(|(name, n)| (name.to_owned(), n))
        .collect();
    manifest.set_left_out(&plan.prompt_set.left_out);
    summary.account(&mut manifest, plan.teacher.price_per_million);
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.dir)?;
    Ok(Outcome::Complete(summary))
}

/// Says before anything is loaded whether a traces folder can be extended with these settings.
/// Reads only; a folder without traces takes any.
pub fn check_key(
    dir: &Path,
    teacher: &TeacherConfig,
    wording: Wording<'_>,
    generate: &GenerateConfig,
    seed: u64,
) -> Result<()> {
    let Some(saved) = journal::saved(dir)? else {
        return Ok(());
    };
    let source = Source::new(teacher, None, &saved.teacher_files)?;
    let key = sampling_key(&source.description, teacher, wording, generate, seed);
    compare(dir, Some(&saved.key), &key)
}
