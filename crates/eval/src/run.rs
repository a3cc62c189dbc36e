//! Samples what is missing, grades all of it, and writes the `scores/` folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use generation::candle::CandleTeacher;
use generation::load;
use generation::teacher::{FailureKind, SampleRequest, SamplingConfig, Teacher};
use model::sampling::request_seed;
use records::hash::{self, FileStamp};
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::parquet_file::Writer;
use records::score::{BenchmarkScores, SCHEMA, Scores};
use records::trace::{Trace, trace_id};
use records::{LeftOut, atomic};

use crate::error::{Error, Result, io};
use crate::parts::{self, Parts, RowKey};
use crate::plan::{EvalModel, Plan, Via, checkpoint_files};
use crate::progress::Progress;
use crate::questions::{self, Questions};
use crate::sample::{self, Sample};
use crate::score::{Graded, paired};
use crate::table;

/// Rows written at once; the same for every run, so that the file's bytes are too.
const WRITE_ROWS: usize = 64;

/// What a complete evaluation has to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub scores: Scores,
    /// Requests that their model refused; they count as missing.
    pub n_failed: u64,
}

/// Makes the sampler of a model of these files. Called only when rows are missing, one model at a time.
pub type LoadTeacher<'a> =
    &'a dyn Fn(&EvalModel, &[FileStamp], &Plan) -> generation::Result<Box<dyn Teacher>>;

/// Evaluates each model as it says that it is sampled.
pub fn run(plan: &Plan, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    run_with(plan, &load_model, stop)
}

fn load_model(
    model: &EvalModel,
    files: &[FileStamp],
    plan: &Plan,
) -> generation::Result<Box<dyn Teacher>> {
    let options = SamplingConfig {
        params: plan.sampling(),
        max_new_tokens: plan.config.max_new_tokens,
        top_k_logits: 0,
        concurrency: plan.config.concurrency,
        samples_per_request: 1,
    };
    match &model.via {
        Via::Folder {
            folder,
            chat_template_kwargs,
        } => {
            let teacher = CandleTeacher::load(folder.path(), options)?;
            let kwargs = chat_template_kwargs.clone();
            Ok(Box::new(teacher.with_chat_template_kwargs(kwargs)?))
        }
        Via::Section(section) => load::teacher(
            &section.teacher,
            options,
            section.secret.clone(),
            files,
            0.0,
        ),
    }
}

/// Evaluates with the samplers that `load` makes.
pub fn run_with(plan: &Plan, load: LoadTeacher<'_>, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    let (started_at, clock) = (now_micros(), Instant::now());
    plan.config.validate()?;
    let benchmarks = plan.config.benchmarks()?;
    let benchmarks: Vec<Questions> = benchmarks
        .iter()
        .map(questions::load)
        .collect::<Result<_>>()?;
    let mut contestants = Vec::new();
    for model in &plan.models {
        let files = checkpoint_files(model)?;
        let key = plan.sampling_key(model, &files);
        contestants.push(Contestant { model, files, key });
    }

    fs::create_dir_all(&plan.output).map_err(io(&plan.output))?;
    Manifest::remove(&plan.output)?;
    atomic::remove_stale_temporaries(&plan.output)?;
    for contestant in &contestants {
        if !sample_missing(plan, contestant, &benchmarks, load, stop)? {
            return Ok(Outcome::Interrupted);
        }
    }

    let mut manifest = Manifest::new("scores", plan.recipe.clone(), started_at);
    let scores = merge(plan, &contestants, &benchmarks, &mut manifest)?;
    let scores_json = plan.output.join("scores.json");
    let mut bytes = serde_json::to_vec_pretty(&scores).map_err(|source| Error::Json {
        path: scores_json.clone(),
        source,
    })?;
    bytes.push(b'\n');
    atomic::write(&scores_json, &bytes)?;
    let scores_md = plan.output.join("scores.md");
    atomic::write(&scores_md, table::markdown(&scores).as_bytes())?;
    parts::remove(&plan.output)?;

    for contestant in &contestants {
        manifest.inputs.extend(contestant.files.iter().cloned());
    }
    for benchmark in &benchmarks {
        manifest.inputs.push(benchmark.file.stamp()?);
    }
    for path in [plan.output.join(parts::SAMPLES), scores_json, scores_md] {
        manifest.outputs.push(hash::stamp(&path)?);
    }
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.output)?;
    let n_failed = manifest.counts.get("failed").copied().unwrap_or(0);
    Ok(Outcome::Complete(Summary { scores, n_failed }))
}

struct Contestant<'a> {
    model: &'a EvalModel,
    files: Vec<FileStamp>,
    key: String,
}

/// Samples every row of one model that is not there yet. False when it was interrupted.
fn sample_missing(
    plan: &Plan,
    contestant: &Contestant<'_>,
    benchmarks: &[Questions],
    load: LoadTeacher<'_>,
    stop: &AtomicBool,
) -> Result<bool> {
    let model = contestant.model;
    let role = model.role.as_str();
    let failed = |source| Error::Sampling {
        role: role.to_owned(),
        source: Box::new(source),
    };
    // What a server has answered may be paid for.
    let parts = Parts::open(&plan.output, &model.role, &contestant.key)?;
    let mut parts = parts.row_by_row(matches!(model.via, Via::Section(_)));

    // A problem that stands in two benchmarks is sampled once.
    let mut problems = BTreeMap::new();
    for benchmark in benchmarks {
        for problem in &benchmark.problems {
            problems
                .entry(problem.id.as_str())
                .or_insert((benchmark, problem));
        }
    }
    let wanted =
        |(id, index): &RowKey| *index < plan.config.samples && problems.contains_key(id.as_str());
    let present: BTreeSet<RowKey> = parts.read(wanted)?.into_keys().collect();
    let mut missing = Vec::new();
    for id in problems.keys() {
        for index in 0..plan.config.samples {
            if !present.contains(&((*id).to_owned(), index)) {
                missing.push((*id, index));
            }
        }
    }
    if missing.is_empty() {
        return Ok(true);
    }
    if stop.load(Ordering::Relaxed) {
        return Ok(false);
    }

    let teacher = load(model, &contestant.files, plan).map_err(failed)?;
    let description = teacher.describe();
    let mut prompts = BTreeMap::new();
    for (id, _) in &missing {
        if !prompts.contains_key(id) {
            let messages = plan.messages(&problems[id].1.problem);
            let encoded = teacher.encode(&messages).map_err(failed)?;
            prompts.insert(*id, (messages, encoded));
        }
    }

    let seed = plan.role_seed(&model.role);
    let total = (present.len() + missing.len()) as u64;
    let mut progress = Progress::new(role, present.len() as u64, total, plan.quiet);
    let n_missing = missing.len();
    let (mut n_done, mut n_exhausted, mut last_fault) = (0, 0_u64, String::new());
    // A full disk ends the evaluation: no further request is handed out, and its error is returned.
    let write_error = std::cell::RefCell::new(None);
    let mut requests = missing.into_iter().map_while(|(id, index)| {
        let (messages, encoded) = &prompts[id];
        write_error.borrow().is_none().then(|| SampleRequest {
            prompt_id: id.to_owned(),
            sample_index: index,
            messages: messages.clone(),
            prompt_token_ids: encoded.token_ids.clone(),
            prompt_text_opens_think: encoded.opens_think,
            seed: request_seed(seed, id, index),
        })
    });
    let mut done = |request: SampleRequest, outcome: generation::teacher::Outcome| {
        let (benchmark, problem) = problems[request.prompt_id.as_str()];
        let mut trace = Trace {
            trace_id: trace_id(&request.prompt_id, request.sample_index),
            sample_index: request.sample_index,
            source: benchmark.source.clone(),
            problem: problem.problem.clone(),
            gold_answer: Some(problem.gold.clone()),
            prompt_messages: prompts[request.prompt_id.as_str()].0.clone(),
            temperature: Some(plan.config.temperature as f32),
            top_p: Some(plan.config.top_p as f32),
            seed: Some(request.seed),
            teacher: model.name.clone(),
            teacher_revision: description.revision.clone(),
            created_at: now_micros(),
            prompt_id: request.prompt_id,
            ..Trace::default()
        };
        // A server that renders the prompt itself says how long it is.
        if !request.prompt_token_ids.is_empty() {
            trace.n_prompt_tokens = u32::try_from(request.prompt_token_ids.len()).ok();
            trace.prompt_token_ids = Some(request.prompt_token_ids);
        }
        n_done += 1;
        match outcome {
            Ok(completion) => {
                completion.record(&mut trace, request.prompt_text_opens_think);
                trace.latency_ms = None;
            }
            // Asked for again at the next start.
            Err(failure) if failure.kind == FailureKind::Exhausted => {
                n_exhausted += 1;
                last_fault = failure.message;
                return Ok(());
            }
            Err(failure) => trace.error = Some(failure.message),
        }
        progress.sample(u64::from(trace.n_completion_tokens.unwrap_or(0)));
        if let Err(error) = parts.push(trace) {
            write_error.borrow_mut().get_or_insert(error);
        }
        Ok(())
    };
    let sampled = teacher.sample(&mut requests, &mut done, stop);
    progress.finish();
    if let Some(error) = write_error.into_inner() {
        return Err(error);
    }
    // What was sampled before a fault is kept for the next run.
    parts.flush()?;
    sampled.map_err(failed)?;
    if n_exhausted > 0 && !stop.load(Ordering::Relaxed) {
        return Err(Error::Exhausted {
            role: role.to_owned(),
            n_exhausted,
            fault: last_fault,
        });
    }
    Ok(n_done == n_missing || !stop.load(Ordering::Relaxed))
}

/// Grades every row, writes `samples.parquet` sorted by (benchmark, role, prompt_id,
/// sample_index), and counts.
fn merge(
    plan: &Plan,
    contestants: &[Contestant<'_>],
    benchmarks: &[Questions],
    manifest: &mut Manifest,
) -> Result<Scores> {
    let mut metadata: Vec<_> = contestants
        .iter()
        .map(|contestant| {
            (
                parts::metadata_key(&contestant.model.role),
                contestant.key.clone(),
            )
        })
        .collect();
    metadata.sort();
    let path = plan.output.join(parts::SAMPLES);
    let mut writer = Writer::create(&path, sample::schema(), &metadata)?;
    let mut by_name: Vec<&Questions> = benchmarks.iter().collect();
    by_name.sort_by_key(|benchmark| &benchmark.name);
    let mut by_role: Vec<&Contestant<'_>> = contestants.iter().collect();
    by_role.sort_by_key(|contestant| contestant.model.role.as_str());

    let (mut graded, mut left_out) = (BTreeMap::new(), LeftOut::default());
    for benchmark in by_name {
        let ids: Vec<String> = benchmark
            .problems
            .iter()
            .map(|problem| problem.id.clone())
            .collect();
        for contestant in &by_role {
            let role = contestant.model.role.as_str();
            let samples = graded_samples(plan, contestant, benchmark)?;
            for chunk in samples.chunks(WRITE_ROWS) {
                writer.write(&sample::to_batch(chunk)?)?;
            }
            let failures: Vec<&str> = samples
                .iter()
                .filter_map(|sample| sample.trace.error.as_deref())
                .collect();
            let counted = Graded::new(&ids, &samples);
            if counted.n_samples == 0 {
                return Err(Error::NoSamples {
                    role: role.to_owned(),
                    benchmark: benchmark.name.clone(),
                    reason: failures
                        .first()
                        .map_or("the model gave none".to_owned(), |reason| {
                            (*reason).to_owned()
                        }),
                });
            }
            *manifest.counts.entry("samples".to_owned()).or_default() += counted.n_samples;
            *manifest.counts.entry("failed".to_owned()).or_default() += failures.len() as u64;
            *manifest
                .tokens
                .entry(format!("{role}_completion"))
                .or_default() += counted.n_tokens;
            graded.insert((benchmark.name.as_str(), role), counted);
        }
        *manifest.counts.entry("questions".to_owned()).or_default() += ids.len() as u64;
        left_out.add_under("", &benchmark.left_out);
    }
    writer.finish()?;
    manifest.set_left_out(&left_out);

    let samples = u64::from(plan.config.samples);
    let mut scores = Scores {
        schema: SCHEMA,
        benchmarks: Vec::new(),
    };
    for benchmark in benchmarks {
        let mut models = Vec::new();
        let mut of_roles = Vec::new();
        for contestant in contestants {
            let role = contestant.model.role.as_str();
            if let Some(graded) = graded.remove(&(benchmark.name.as_str(), role)) {
                models.extend(graded.scores(role, &contestant.model.name, samples));
                of_roles.push((role.to_owned(), graded));
            }
        }
        scores.benchmarks.push(BenchmarkScores {
            name: benchmark.name.clone(),
            n_questions: benchmark.problems.len() as u64,
            models,
            paired: paired(&of_roles),
        });
    }
    Ok(scores)
}

/// The rows of one model on one benchmark, sorted by (prompt_id, sample_index).
fn graded_samples(
    plan: &Plan,
    contestant: &Contestant<'_>,
    benchmark: &Questions,
) -> Result<Vec<Sample>> {
    let problems: BTreeMap<&str, _> = benchmark
        .problems
        .iter()
        .map(|problem| (problem.id.as_str(), problem))
        .collect();
    let parts = Parts::open(&plan.output, &contestant.model.role, &contestant.key)?;
    let wanted =
        |(id, index): &RowKey| *index < plan.config.samples && problems.contains_key(id.as_str());
    let rows = parts.read(wanted)?;
    Ok(rows
        .into_iter()
        .map(|((id, _), mut trace)| {
            // The gold answer may have been corrected since the row was sampled, and the model's
            // folder may have another name by now.
            if let Some(problem) = problems.get(id.as_str()) {
                trace.gold_answer = Some(problem.gold.clone());
            }
            trace.source.clone_from(&benchmark.source);
            trace.teacher.clone_from(&contestant.model.name);
            Sample::graded(
                trace,
                &benchmark.name,
                contestant.model.role.as_str(),
                benchmark.verifier,
            )
        })
        .collect())
}

/// Reads the scores of a finished evaluation.
pub fn read_scores(output: &Path) -> Result<Scores> {
    let path = output.join("scores.json");
    let bytes = fs::read(&path).map_err(io(&path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })
}

#[cfg(test)]
mod tests;
