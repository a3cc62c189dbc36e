//! The stage: asks a teacher for every sample that is missing, and seals the answers.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use model::sampling::request_seed;
use records::Located;
use records::atomic;
use records::hash::{self, FileStamp};
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::prompt::Prompt;
use records::trace::{Trace, trace_id};

use crate::config::{GenerateConfig, PromptsConfig, TeacherConfig};
use crate::error::{Error, Result};
use crate::in_flight::InFlight;
use crate::journal::{self, Finished, Journal, Rows};
use crate::key::{SamplingKey, differences, sampling_key, with_request};
use crate::load;
use crate::openai::secret::Secret;
use crate::prompts::PromptSet;
use crate::seal;
use crate::status::{Live, Progress, State, Status};
use crate::teacher::{
    Description, EncodedPrompt, FailureKind, Outcome as Sampled, SampleRequest, SamplingConfig,
    Teacher,
};

/// Finished rows that wait for the disk before the teacher has to wait too, and the most that
/// one transaction takes.
const GROUP: usize = 64;

/// The manifest's count of samples whose server failed to the last attempt.
pub const EXHAUSTED: &str = FailureKind::Exhausted.as_str();

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
    /// What the progress display calls the rows.
    pub noun: &'static str,
    pub quiet: bool,
}

/// What the folder holds when the stage ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Samples that the recipe asks for.
    pub requested: u64,
    /// Rows of the folder, those that the recipe no longer asks for included.
    pub done: u64,
    pub failed: u64,
    pub failures: BTreeMap<String, u64>,
    /// Rows that the recipe no longer asks for.
    pub not_in_recipe: u64,
    /// Rows that this start added.
    pub added: u64,
    /// Completion tokens of all rows.
    pub tokens: u64,
    pub parts: Vec<PathBuf>,
}

/// Samples what is missing in the folder.
///
/// # Errors
/// [`Error::KeyChanged`] for a folder with other settings, [`Error::InUse`] where another
/// process works, and whatever keeps the teacher from being loaded or rows from being kept.
pub fn run(plan: &GenTraces, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    let known = journal::saved(&plan.dir)?.map_or_else(Vec::new, |saved| saved.teacher_files);
    let files = load::files(&plan.teacher, &known)?;
    let description = load::describe(&plan.teacher, &files);
    let load = |spent: f64| {
        let options = SamplingConfig::from(&plan.generate);
        load::teacher(&plan.teacher, options, plan.secret.clone(), &files, spent)
    };
    run_with(plan, &description, files.clone(), load, stop)
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
    let key = sampling_key(description, &plan.prompts, &plan.generate, plan.seed);
    let key = with_request(key, &plan.teacher);
    let mut journal = Journal::open(&plan.dir)?;
    let kept = journal.key()?;
    journal.check_meta()?;
    compare(&plan.dir, kept.as_ref(), &key)?;
    seal::check(&plan.dir, &journal)?;
    // From here on the stage counts as unfinished until its manifest is written again.
    Manifest::remove(&plan.dir)?;
    atomic::remove_stale_temporaries(&plan.dir)?;
    if kept.is_none() {
        journal.set_key(&key)?;
    }
    journal.set_teacher_files(&teacher_files)?;
    let fingerprint = journal.meta("tokenizer")?;
    seal::recover(&plan.dir, &mut journal, fingerprint.as_deref())?;
    let again = FailureKind::asked_again(plan.retry_failed);
    seal::reopen_failed(&plan.dir, &mut journal, again)?;

    let missing = missing(plan, &mut journal)?;
    let n_missing = missing.len() as u64;
    let counts = journal.counts()?;
    let requested =
        plan.prompt_set.prompts.len() as u64 * u64::from(plan.generate.samples_per_prompt);
    let not_in_recipe = (counts.done + counts.failed + n_missing).saturating_sub(requested);
    let progress = Progress::new(Status {
        done: counts.done,
        failed: counts.failed,
        total: requested + not_in_recipe,
        tokens: counts.tokens,
        failures: journal.failures()?.into_iter().collect(),
        input_tokens: journal.input_tokens()?,
        lost_tokens: journal.lost_tokens()?,
        started_at,
        ..Status::default()
    })
    .named(plan.noun)
    .with_prices(plan.teacher.price_per_million);

    let mut tokens_sampled = 0;
    if !missing.is_empty() && !stop.load(Ordering::Relaxed) {
        let teacher = load(progress.status(0).cost.unwrap_or(0.0))?;
        if let Some(fingerprint) = teacher.tokenizer_fingerprint() {
            journal.set_meta("tokenizer", &fingerprint)?;
        }
        let sampled = teacher.probe().and_then(|lines| {
            say(&lines, plan.quiet);
            sample(
                plan,
                description,
                teacher.as_ref(),
                &missing,
                &mut journal,
                &progress,
                stop,
            )
        });
        tokens_sampled = teacher.tokens_sampled();
        if let Err(error) = sampled {
            // The error that ended the sampling is the one to report.
            let _ = progress.close(&plan.dir, State::Stopped, tokens_sampled, plan.quiet);
            let _ = journal.close();
            return Err(error);
        }
    }
    let counts = journal.counts()?;
    if counts.done + counts.failed < requested + not_in_recipe {
        journal.close()?;
        progress.close(&plan.dir, State::Interrupted, tokens_sampled, plan.quiet)?;
        return Ok(Outcome::Interrupted);
    }
    let fingerprint = journal.meta("tokenizer")?;
    for rows in [Rows::Done, Rows::Failed] {
        seal::seal_all(
            &plan.dir,
            &mut journal,
            fingerprint.as_deref(),
            seal::PART_BYTES,
            rows,
        )?;
    }
    let parts = journal.parts()?;
    let summary = Summary {
        requested,
        done: counts.done,
        failed: counts.failed,
        failures: journal.failures()?.into_iter().collect(),
        not_in_recipe,
        added: n_missing,
        tokens: counts.tokens,
        parts: parts
            .iter()
            .map(|part| seal::part_path(&plan.dir, part.number))
            .collect(),
    };
    let (input_tokens, lost_tokens) = (journal.input_tokens()?, journal.lost_tokens()?);
    journal.close()?;
    progress.close(
        &plan.dir,
        State::Done,
        tokens_sampled,
        plan.quiet || n_missing == 0,
    )?;

    let mut manifest = Manifest::new("traces", plan.recipe.clone(), started_at);
    let prompt_files = plan.prompt_set.files.iter();
    manifest.inputs = prompt_files
        .map(Located::stamp)
        .collect::<records::Result<_>>()?;
    manifest.inputs.extend(teacher_files);
    manifest.outputs = stamps(&summary.parts)?;
    let exhausted = summary.failures.get(EXHAUSTED).copied().unwrap_or(0);
    let counted = [
        ("prompts", plan.prompt_set.prompts.len() as u64),
        ("requested", summary.requested),
        ("done", summary.done),
        ("failed", summary.failed),
        // Of the failed ones those that the next start asks for again.
        (EXHAUSTED, exhausted),
        ("not_in_recipe", summary.not_in_recipe),
    ];
    manifest.counts = counted
        .into_iter()
        .map(|(name, n)| (name.to_owned(), n))
        .collect();
    manifest.set_left_out(&plan.prompt_set.left_out);
    manifest
        .tokens
        .insert("completion".to_owned(), summary.tokens);
    manifest.tokens.insert("prompt".to_owned(), input_tokens);
    if lost_tokens > 0 {
        // Of answers that could not be used; those of their prompts are among the prompts'.
        manifest.tokens.insert("lost".to_owned(), lost_tokens);
    }
    if let Some(prices) = &plan.teacher.price_per_million {
        manifest.cost = Some(prices.of(input_tokens, summary.tokens + lost_tokens));
    }
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.dir)?;
    Ok(Outcome::Complete(summary))
}

/// Says before anything is loaded whether a traces folder can be extended with these settings.
/// Reads only; a folder without traces takes any.
pub fn check_key(
    dir: &Path,
    teacher: &TeacherConfig,
    prompts: &PromptsConfig,
    generate: &GenerateConfig,
    seed: u64,
) -> Result<()> {
    let Some(saved) = journal::saved(dir)? else {
        return Ok(());
    };
    let files = load::files(teacher, &saved.teacher_files)?;
    let key = sampling_key(&load::describe(teacher, &files), prompts, generate, seed);
    let key = with_request(key, teacher);
    compare(dir, Some(&saved.key), &key)
}

pub(crate) fn compare(dir: &Path, kept: Option<&SamplingKey>, key: &SamplingKey) -> Result<()> {
    let differences = kept.map_or_else(Vec::new, |kept| differences(kept, key));
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::KeyChanged {
        dir: dir.to_path_buf(),
        differences,
    })
}

/// What servers have said of themselves. Warnings are said whoever is quiet.
pub(crate) fn say(lines: &[String], quiet: bool) {
    for line in lines {
        if !quiet || line.starts_with("warning:") {
            eprintln!("{line}");
        }
    }
}

pub(crate) fn stamps(files: &[PathBuf]) -> Result<Vec<FileStamp>> {
    Ok(files
        .iter()
        .map(|path| hash::stamp(path))
        .collect::<records::Result<_>>()?)
}

/// Index of the prompt, and sample index.
type Missing = (usize, u32);

fn missing(plan: &GenTraces, journal: &mut Journal) -> Result<Vec<Missing>> {
    let samples = plan.generate.samples_per_prompt;
    let prompts = plan.prompt_set.prompts.iter().enumerate();
    journal.plan(prompts.flat_map(|(at, prompt)| {
        let id = prompt.prompt_id.as_str();
        (0..samples).map(move |sample| {
            (
                (at, sample),
                id,
                sample,
                request_seed(plan.seed, id, sample),
            )
        })
    }))
}

/// Runs the teacher on this thread, with one beside it that keeps what it answers and one that
/// shows how far it is.
fn sample(
    plan: &GenTraces,
    description: &Description,
    teacher: &dyn Teacher,
    missing: &[Missing],
    journal: &mut Journal,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<()> {
    let in_flight = InFlight::new(plan.generate.concurrency);
    let mut requests = Requests {
        plan,
        teacher,
        missing: missing.iter(),
        encoded: None,
        failed: RefCell::new(None),
        in_flight: &in_flight,
    };
    let (sender, receiver) = sync_channel::<(SampleRequest, Sampled)>(GROUP);
    let keeper = Keeper {
        plan,
        description,
        teacher,
        prompts: plan
            .prompt_set
            .prompts
            .iter()
            .map(|p| (p.prompt_id.as_str(), p))
            .collect(),
        progress,
    };
    std::thread::scope(|scope| {
        let in_flight = &in_flight;
        let keeping = scope.spawn(move || {
            let _closing = in_flight.closing();
            keeper.keep(journal, &receiver, in_flight)
        });
        let showing = scope.spawn(|| {
            progress.show(&plan.dir, &|| Live::of(teacher), plan.quiet);
        });
        let sampled = teacher.sample(
            &mut requests,
            &mut |request, outcome| {
                sender
                    .send((request, outcome))
                    .map_err(|_| Error::WriterGone)
            },
            stop,
        );
        drop(sender);
        let kept = keeping.join().unwrap_or(Err(Error::WriterGone));
        progress.end();
        let _ = showing.join();
        // A keeper that failed is why sampling failed.
        kept?;
        sampled
    })?;
    requests.failed.take().map_or(Ok(()), Err)
}

/// The missing requests, each made when the teacher asks for it.
struct Requests<'a> {
    plan: &'a GenTraces,
    teacher: &'a dyn Teacher,
    missing: std::slice::Iter<'a, Missing>,
    /// The prompt encoded last: its samples follow each other.
    encoded: Option<(usize, EncodedPrompt)>,
    failed: RefCell<Option<Error>>,
    in_flight: &'a InFlight,
}

impl Iterator for Requests<'_> {
    type Item = SampleRequest;

    fn next(&mut self) -> Option<SampleRequest> {
        let &(at, sample_index) = self.missing.next()?;
        let prompt = self.plan.prompt_set.prompts.get(at)?;
        if self
            .encoded
            .as_ref()
            .is_none_or(|(encoded, _)| *encoded != at)
        {
            match self.teacher.encode(&prompt.messages) {
                Ok(encoded) => self.encoded = Some((at, encoded)),
                Err(error) => {
                    self.failed.replace(Some(error));
                    self.missing = [].iter();
                    return None;
                }
            }
        }
        let (_, encoded) = self.encoded.as_ref()?;
        self.in_flight.enter();
        Some(SampleRequest {
            prompt_id: prompt.prompt_id.clone(),
            sample_index,
            messages: prompt.messages.clone(),
            prompt_token_ids: encoded.token_ids.clone(),
            prompt_text_opens_think: encoded.opens_think,
            seed: request_seed(self.plan.seed, &prompt.prompt_id, sample_index),
        })
    }
}

/// Makes rows of answers and keeps them.
struct Keeper<'a> {
    plan: &'a GenTraces,
    description: &'a Description,
    teacher: &'a dyn Teacher,
    prompts: HashMap<&'a str, &'a Prompt>,
    progress: &'a Progress,
}

impl Keeper<'_> {
    /// Takes all that has come in since the last transaction into the next one: the slower the
    /// disk, the larger the groups.
    fn keep(
        &self,
        journal: &mut Journal,
        receiver: &Receiver<(SampleRequest, Sampled)>,
        in_flight: &InFlight,
    ) -> Result<()> {
        let fingerprint = journal.meta("tokenizer")?;
        let mut unsealed = journal.payload_bytes()?;
        let mut lost = [0, 0];
        while let Ok(first) = receiver.recv() {
            let mut rows = vec![self.row(first)];
            while rows.len() < GROUP
                && let Ok(next) = receiver.try_recv()
            {
                rows.push(self.row(next));
            }
            unsealed += journal.commit(&rows)?;
            self.keep_lost(journal, &mut lost)?;
            in_flight.leave(rows.len());
            for row in &rows {
                self.progress
                    .count([row.input_tokens, row.output_tokens], row.failure);
            }
            if unsealed >= seal::PART_BYTES {
                let dir = &self.plan.dir;
                unsealed = seal::seal_full(dir, journal, fingerprint.as_deref(), seal::PART_BYTES)?;
            }
        }
        self.keep_lost(journal, &mut lost)
    }

    /// Counts what was paid for and came to nothing, beyond what is `kept` already.
    fn keep_lost(&self, journal: &mut Journal, kept: &mut [u64; 2]) -> Result<()> {
        let now = self.teacher.tokens_lost();
        if now != *kept {
            let more = [now[0] - kept[0], now[1] - kept[1]];
            journal.count_lost(more)?;
            self.progress.lose(more);
            *kept = now;
        }
        Ok(())
    }

    fn row(&self, (request, outcome): (SampleRequest, Sampled)) -> Finished {
        let prompt = self.prompts.get(request.prompt_id.as_str());
        let generate = &self.plan.generate;
        let mut trace = Trace {
            trace_id: trace_id(&request.prompt_id, request.sample_index),
            source: prompt.map_or_else(String::new, |prompt| prompt.source.clone()),
            problem: prompt.map_or_else(String::new, |prompt| prompt.problem.clone()),
            gold_answer: prompt.and_then(|prompt| prompt.gold_answer.clone()),
            prompt_messages: prompt.map_or_else(Vec::new, |prompt| prompt.messages.clone()),
            prompt_id: request.prompt_id,
            sample_index: request.sample_index,
            temperature: Some(generate.temperature as f32),
            top_p: Some(generate.top_p as f32),
            seed: Some(request.seed),
            teacher: self.description.model.clone(),
            teacher_revision: self.description.revision.clone(),
            created_at: now_micros(),
            ..Trace::default()
        };
        if !request.prompt_token_ids.is_empty() {
            trace.n_prompt_tokens = Some(request.prompt_token_ids.len() as u32);
            trace.prompt_token_ids = Some(request.prompt_token_ids);
        }
        match outcome {
            Ok(completion) => {
                let (paid, shares_prompt) = (completion.paid, completion.shares_prompt);
                completion.record(&mut trace, request.prompt_text_opens_think);
                let counted = [trace.n_prompt_tokens, trace.n_completion_tokens];
                let [input_tokens, output_tokens] =
                    paid.unwrap_or_else(|| counted.map(|n| n.unwrap_or(0)));
                let input_tokens = match shares_prompt {
                    true => 0,
                    false => input_tokens,
                };
                Finished {
                    trace,
                    failure: None,
                    input_tokens,
                    output_tokens,
                }
            }
            Err(failure) => {
                trace.error = Some(failure.message);
                Finished {
                    trace,
                    failure: Some(failure.kind.as_str()),
                    input_tokens: 0,
                    output_tokens: 0,
                }
            }
        }
    }
}
