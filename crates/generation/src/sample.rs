//! The one loop that asks a teacher: what is missing is asked for, every answer is kept as it comes, and sealed.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use model::sampling::request_seed;
use records::atomic;
use records::hash::FileStamp;
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::prompt::Prompt;
use records::trace::{Trace, trace_id};

use crate::config::Prices;
use crate::error::{Error, Result};
use crate::in_flight::InFlight;
use crate::journal::{Finished, Journal, Rows};
use crate::key::{SamplingKey, differences};
use crate::seal;
use crate::status::{Live, Progress, State, Status};
use crate::teacher::{
    Description, EncodedPrompt, FailureKind, Outcome as Sampled, SampleRequest, SamplingConfig,
    Teacher,
};

/// Finished rows that wait for the disk before the teacher has to wait too, and the most that
/// one transaction takes.
const GROUP: usize = 64;

/// The name under which samples are counted whose server failed to the last attempt.
pub const EXHAUSTED: &str = FailureKind::Exhausted.as_str();

/// What is sampled from whom, and where it is kept.
#[derive(Debug, Clone)]
pub struct Sampling<'a> {
    /// The folder of the journal, of the parts and of `status.json`.
    pub dir: &'a Path,
    /// Each of its own id.
    pub prompts: &'a [Prompt],
    /// Of one sample: a folder of another key is refused.
    pub key: SamplingKey,
    /// What the rows say of the teacher.
    pub teacher: &'a Description,
    pub teacher_files: &'a [FileStamp],
    pub config: &'a SamplingConfig,
    /// Seeds each request together with its identity.
    pub seed: u64,
    pub prices: Option<Prices>,
    /// Asks again for what servers refused.
    pub retry_failed: bool,
    /// What the progress display calls the rows.
    pub noun: &'a str,
    pub quiet: bool,
}

/// What the folder holds when everything has been asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Samples that were asked for, in this start or in one before.
    pub requested: u64,
    /// Rows of the folder, those that are no longer asked for included.
    pub done: u64,
    pub failed: u64,
    pub failures: BTreeMap<String, u64>,
    /// Rows that are no longer asked for.
    pub not_in_recipe: u64,
    /// Rows that this start added.
    pub added: u64,
    /// Completion tokens of all rows.
    pub tokens: u64,
    /// Prompt tokens of all rows, and of answers that could not be used.
    pub input_tokens: u64,
    /// Completion tokens of answers that could not be used.
    pub lost_tokens: u64,
    /// The words of the last fault that outlasted the attempts in this start.
    pub last_fault: Option<String>,
    pub parts: Vec<PathBuf>,
}

impl Summary {
    /// Samples whose server failed to the last attempt.
    pub fn exhausted(&self) -> u64 {
        self.failures.get(EXHAUSTED).copied().unwrap_or(0)
    }

    /// Writes tokens and costs into the manifest of who has sampled.
    pub(crate) fn account(&self, manifest: &mut Manifest, prices: Option<Prices>) {
        let tokens = [
            ("completion", self.tokens),
            ("prompt", self.input_tokens),
            // Of answers that could not be used; those of their prompts are among the prompts'.
            ("lost", self.lost_tokens),
        ];
        let counted = tokens
            .into_iter()
            .filter(|(name, n)| *name != "lost" || *n > 0);
        manifest.tokens = counted.map(|(name, n)| (name.to_owned(), n)).collect();
        let completions = self.tokens + self.lost_tokens;
        manifest.cost = prices.map(|prices| prices.of(self.input_tokens, completions));
    }
}

/// Samples what the folder lacks of `requests`, each the index of a prompt and of its sample.
///
/// `load` is called only if something is missing, with what earlier starts have spent. The caller writes the manifest.
///
/// # Errors
/// [`Error::KeyChanged`] for a folder of another key, [`Error::InUse`] where another process works, and whatever keeps
/// the teacher from being loaded or rows from being kept.
pub fn sample<'t>(
    plan: &Sampling<'_>,
    requests: impl Iterator<Item = Missing>,
    load: impl FnOnce(f64) -> Result<Box<dyn Teacher + 't>>,
    stop: &AtomicBool,
) -> Result<Outcome<Summary>> {
    let started_at = now_micros();
    let mut journal = Journal::open(plan.dir)?;
    let kept = journal.key()?;
    journal.check_meta()?;
    compare(plan.dir, kept.as_ref(), &plan.key)?;
    seal::check(plan.dir, &journal)?;
    // From here on the folder counts as unfinished until its manifest is written again.
    Manifest::remove(plan.dir)?;
    atomic::remove_stale_temporaries(plan.dir)?;
    if kept.is_none() {
        journal.set_key(&plan.key)?;
    }
    journal.set_teacher_files(plan.teacher_files)?;
    let fingerprint = journal.meta("tokenizer")?;
    seal::recover(plan.dir, &mut journal, fingerprint.as_deref())?;
    let again = FailureKind::asked_again(plan.retry_failed);
    seal::reopen_failed(plan.dir, &mut journal, again)?;

    let mut requested = 0;
    let missing = journal.plan(requests.filter_map(|(at, sample)| {
        let id = plan.prompts.get(at)?.prompt_id.as_str();
        requested += 1;
        Some((
            (at, sample),
            id,
            sample,
            request_seed(plan.seed, id, sample),
        ))
    }))?;
    let n_missing = missing.len() as u64;
    let counts = journal.counts()?;
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
    .with_prices(plan.prices);

    let (mut tokens_sampled, mut last_fault) = (0, None);
    if !missing.is_empty() && !stop.load(Ordering::Relaxed) {
        let teacher = load(progress.status(0).cost.unwrap_or(0.0))?;
        if let Some(fingerprint) = teacher.tokenizer_fingerprint() {
            journal.set_meta("tokenizer", &fingerprint)?;
        }
        let sampled = teacher.probe().and_then(|lines| {
            say(&lines, plan.quiet);
            ask(
                plan,
                teacher.as_ref(),
                &missing,
                &mut journal,
                &progress,
                stop,
            )
        });
        tokens_sampled = teacher.tokens_sampled();
        match sampled {
            Ok(fault) => last_fault = fault,
            Err(error) => {
                // The error that ended the sampling is the one to report.
                let _ = progress.close(plan.dir, State::Stopped, tokens_sampled, plan.quiet);
                let _ = journal.close();
                return Err(error);
            }
        }
    }
    let counts = journal.counts()?;
    if counts.done + counts.failed < requested + not_in_recipe {
        journal.close()?;
        progress.close(plan.dir, State::Interrupted, tokens_sampled, plan.quiet)?;
        return Ok(Outcome::Interrupted);
    }
    let fingerprint = journal.meta("tokenizer")?;
    for rows in [Rows::Done, Rows::Failed] {
        seal::seal_all(
            plan.dir,
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
        input_tokens: journal.input_tokens()?,
        lost_tokens: journal.lost_tokens()?,
        last_fault,
        parts: parts
            .iter()
            .map(|part| seal::part_path(plan.dir, part.number))
            .collect(),
    };
    journal.close()?;
    progress.close(
        plan.dir,
        State::Done,
        tokens_sampled,
        plan.quiet || n_missing == 0,
    )?;
    Ok(Outcome::Complete(summary))
}

/// That a folder begun with `kept` may be extended with `key`.
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

/// Index of the prompt, and sample index.
pub type Missing = (usize, u32);

/// Runs the teacher on this thread, with one beside it that keeps what it answers and one that
/// shows how far it is. Gives the words of the last fault that outlasted the attempts.
fn ask(
    plan: &Sampling<'_>,
    teacher: &dyn Teacher,
    missing: &[Missing],
    journal: &mut Journal,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Option<String>> {
    let in_flight = InFlight::new(plan.config.concurrency);
    let mut requests = Requests {
        plan,
        teacher,
        missing: missing.iter(),
        encoded: None,
        in_flight: &in_flight,
    };
    let (sender, receiver) = sync_channel::<(SampleRequest, Sampled)>(GROUP);
    let prompts = plan.prompts.iter();
    let mut keeper = Keeper {
        plan,
        teacher,
        prompts: prompts.map(|p| (p.prompt_id.as_str(), p)).collect(),
        progress,
        last_fault: None,
    };
    std::thread::scope(|scope| {
        let in_flight = &in_flight;
        let keeping = scope.spawn(move || {
            let _closing = in_flight.closing();
            keeper.keep(journal, &receiver, in_flight)?;
            Ok(keeper.last_fault)
        });
        let showing = scope.spawn(|| {
            progress.show(plan.dir, &|| Live::of(teacher), plan.quiet);
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
        let last_fault = kept?;
        sampled.map(|()| last_fault)
    })
}

/// The missing requests, each made when the teacher asks for it.
struct Requests<'a> {
    plan: &'a Sampling<'a>,
    teacher: &'a dyn Teacher,
    missing: std::slice::Iter<'a, Missing>,
    /// The prompt encoded last: its samples follow each other.
    encoded: Option<(usize, EncodedPrompt)>,
    in_flight: &'a InFlight,
}

impl Iterator for Requests<'_> {
    type Item = Result<SampleRequest>;

    fn next(&mut self) -> Option<Self::Item> {
        let &(at, sample_index) = self.missing.next()?;
        let prompt = self.plan.prompts.get(at)?;
        let known = self.encoded.take().filter(|(encoded, _)| *encoded == at);
        let encoded = match known.map_or_else(
            || self.teacher.encode(&prompt.messages),
            |(_, encoded)| Ok(encoded),
        ) {
            Ok(encoded) => encoded,
            Err(error) => return Some(Err(error)),
        };
        self.in_flight.enter();
        let request = SampleRequest {
            prompt_id: prompt.prompt_id.clone(),
            sample_index,
            messages: prompt.messages.clone(),
            prompt_token_ids: encoded.token_ids.clone(),
            prompt_text_opens_think: encoded.opens_think,
            seed: request_seed(self.plan.seed, &prompt.prompt_id, sample_index),
        };
        self.encoded = Some((at, encoded));
        Some(Ok(request))
    }
}

/// Makes rows of answers and keeps them.
struct Keeper<'a> {
    plan: &'a Sampling<'a>,
    teacher: &'a dyn Teacher,
    prompts: HashMap<&'a str, &'a Prompt>,
    progress: &'a Progress,
    last_fault: Option<String>,
}

impl Keeper<'_> {
    /// Takes all that has come in since the last transaction into the next one: the slower the
    /// disk, the larger the groups.
    fn keep(
        &mut self,
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
                let dir = self.plan.dir;
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

    fn row(&mut self, (request, outcome): (SampleRequest, Sampled)) -> Finished {
        let prompt = self.prompts.get(request.prompt_id.as_str());
        let params = &self.plan.config.params;
        let mut trace = Trace {
            trace_id: trace_id(&request.prompt_id, request.sample_index),
            source: prompt.map_or_else(String::new, |prompt| prompt.source.clone()),
            problem: prompt.map_or_else(String::new, |prompt| prompt.problem.clone()),
            gold_answer: prompt.and_then(|prompt| prompt.gold_answer.clone()),
            prompt_messages: prompt.map_or_else(Vec::new, |prompt| prompt.messages.clone()),
            prompt_id: request.prompt_id,
            sample_index: request.sample_index,
            temperature: Some(params.temperature),
            top_p: Some(params.top_p),
            seed: Some(request.seed),
            teacher: self.plan.teacher.model.clone(),
            teacher_revision: self.plan.teacher.revision.clone(),
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
                if failure.kind == FailureKind::Exhausted {
                    self.last_fault = Some(failure.message.clone());
                }
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
