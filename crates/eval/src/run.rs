//! Samples what is missing, grades all of it, and writes the `scores/` folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use generation::candle::CandleTeacher;
use generation::load::Source;
use generation::sample::{Sampling, sample};
use generation::teacher::{Description, Teacher};
use records::hash::FileStamp;
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::parquet_file::Writer;
use records::prompt::Prompt;
use records::score::{BenchmarkScores, SCHEMA, Scores};
use records::{LeftOut, atomic, stamps};
use serde::Serialize;
use serde_json::json;
use verify::Verdict;

use crate::error::{Error, Result, io};
use crate::kept::{self, Kept, RowKey};
use crate::plan::{EvalModel, Plan, Via, checkpoint_files};
use crate::questions::{self, Questions};
use crate::rounds::{Progress, Rounds, Seen};
use crate::sample::{self as graded_sample, Sample};
use crate::score::{Graded, paired};
use crate::statistics::half_width;
use crate::{results, table};

/// Rows written at once; the same for every run, so that the file's bytes are too.
const WRITE_ROWS: usize = 64;

/// What a complete evaluation has to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub scores: Scores,
    /// Requests that their model refused; they count as missing.
    pub n_failed: u64,
    /// Samples of an evaluation before whose verdict is another now.
    pub regraded: Vec<Regraded>,
}

/// A sample that was there already and is graded otherwise now: the verifier or the gold answer has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Regraded {
    pub benchmark: String,
    pub role: String,
    pub prompt_id: String,
    pub sample_index: u32,
    pub before: Verdict,
    pub now: Verdict,
    pub gold: String,
    pub extracted: Option<String>,
}

impl fmt::Display for Regraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}, {}, sample {}: {} was {}; answer {:?}, gold {:?}",
            self.benchmark,
            self.role,
            self.prompt_id,
            self.sample_index,
            self.now,
            self.before,
            self.extracted.as_deref().unwrap_or_default(),
            self.gold
        )
    }
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
    let options = plan.sampling();
    match &model.via {
        Via::Folder {
            folder,
            chat_template_kwargs,
        } => {
            let teacher = CandleTeacher::load(folder.path(), options)?;
            let kwargs = chat_template_kwargs.clone();
            Ok(Box::new(teacher.with_chat_template_kwargs(kwargs)?))
        }
        Via::Section(section) => {
            Source::new(&section.teacher, section.secret.clone(), files)?.load(options, 0.0)
        }
    }
}

/// Evaluates with the samplers that `load` makes.
pub fn run_with(plan: &Plan, load: LoadTeacher<'_>, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    let (started_at, clock) = (now_micros(), Instant::now());
    plan.config.validate()?;
    let benchmarks = plan.config.benchmarks()?;
    let benchmarks: Vec<Questions> = benchmarks
        .iter()
        .map(|benchmark| questions::load(benchmark, plan.config.answer_from(benchmark)))
        .collect::<Result<_>>()?;
    let prompts = prompts(plan, &benchmarks)?;
    let mut contestants = Vec::new();
    for model in &plan.models {
        let (files, description) = checkpoint_files(model)?;
        let key = plan.sampling_key(model, &files);
        contestants.push(Contestant {
            model,
            files,
            description,
            key,
            parts: Vec::new(),
            progress: Vec::new(),
        });
    }

    fs::create_dir_all(&plan.output).map_err(io(&plan.output))?;
    Manifest::remove(&plan.output)?;
    atomic::remove_stale_temporaries(&plan.output)?;
    for contestant in &mut contestants {
        match sample_rounds(plan, contestant, &benchmarks, &prompts, load, stop)? {
            Outcome::Complete(()) => {}
            Outcome::Interrupted => return Ok(Outcome::Interrupted),
        }
    }

    let mut manifest = Manifest::new("scores", plan.recipe.clone(), started_at);
    let (scores, regraded) = merge(plan, &contestants, &benchmarks, &mut manifest)?;
    manifest
        .counts
        .insert("regraded".to_owned(), regraded.len() as u64);
    let written = |name: &str, text: &str| {
        let stamp = atomic::write_stamped(&plan.output.join(name), text.as_bytes())?;
        Ok::<_, Error>(stamp)
    };
    let mut outputs = vec![
        written(
            "scores.json",
            &json_text(&plan.output.join("scores.json"), &scores)?,
        )?,
        written("scores.md", &table::markdown(&scores))?,
    ];
    for model in &plan.models {
        let name = format!("results_{}.json", model.role);
        let results = results::of(&scores, model.role.as_str());
        outputs.push(written(
            &name,
            &json_text(&plan.output.join(&name), &results)?,
        )?);
    }
    kept::remove(&plan.output)?;

    for contestant in &contestants {
        manifest.inputs.extend(contestant.files.iter().cloned());
    }
    for benchmark in &benchmarks {
        manifest.inputs.push(benchmark.file.stamp()?);
    }
    outputs.insert(0, stamps::stamp(&plan.output.join(kept::SAMPLES))?);
    manifest.outputs = outputs;
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.output)?;
    let n_failed = manifest.counts.get("failed").copied().unwrap_or(0);
    Ok(Outcome::Complete(Summary {
        scores,
        n_failed,
        regraded,
    }))
}

/// A file's text, ending in a line break.
fn json_text(path: &Path, value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(text + "\n")
}

struct Contestant<'a> {
    model: &'a EvalModel,
    files: Vec<FileStamp>,
    description: Description,
    key: String,
    /// That were sampled since the evaluation before.
    parts: Vec<PathBuf>,
    /// How far each benchmark is sampled.
    progress: Vec<Progress>,
}

/// Samples one model round by round, as far as it has to be.
fn sample_rounds(
    plan: &Plan,
    contestant: &mut Contestant<'_>,
    benchmarks: &[Questions],
    prompts: &[Prompt],
    load: LoadTeacher<'_>,
    stop: &AtomicBool,
) -> Result<Outcome<()>> {
    let config = &plan.config;
    let sizes = benchmarks.iter().map(|questions| {
        let n_questions = questions.problems.len() as u64;
        (n_questions, config.samples_of(&questions.benchmark))
    });
    let max_tokens = config.max_tokens_total;
    let max_tokens = max_tokens.map(|tokens| tokens / plan.models.len().max(1) as u64);
    let mut rounds = Rounds::new(sizes, config.precision, max_tokens);
    loop {
        contestant.progress.clone_from(&rounds.benchmarks);
        match sample_missing(plan, contestant, benchmarks, prompts, load, stop)? {
            Outcome::Complete(parts) => contestant.parts = parts,
            Outcome::Interrupted => return Ok(Outcome::Interrupted),
        }
        if !rounds.is_open() {
            break;
        }
        let another = rounds.next(&look(plan, contestant, benchmarks)?);
        contestant.progress.clone_from(&rounds.benchmarks);
        if !another {
            break;
        }
    }
    Ok(Outcome::Complete(()))
}

/// What the samples of a model say so far.
fn look(plan: &Plan, contestant: &Contestant<'_>, benchmarks: &[Questions]) -> Result<Seen> {
    let mut seen = Seen {
        half_widths: Vec::new(),
        n_samples: 0,
        n_tokens: 0,
    };
    let mut counted = BTreeSet::new();
    for (questions, progress) in benchmarks.iter().zip(&contestant.progress) {
        let (samples, _) = graded_samples(plan, contestant, questions, progress.target)?;
        for sample in &samples {
            let trace = &sample.trace;
            if counted.insert((trace.prompt_id.clone(), trace.sample_index)) {
                seen.n_samples += 1;
                // A server that does not count them may have spent all there were.
                let unknown = trace
                    .text
                    .as_ref()
                    .map_or(0, |_| plan.config.max_new_tokens());
                seen.n_tokens += u64::from(trace.n_completion_tokens.unwrap_or(unknown));
            }
        }
        let graded = Graded::new(&questions.ids(), &samples);
        seen.half_widths.push(half_width(&graded.tallies()));
    }
    Ok(seen)
}

/// Samples every row of one model that its progress asks for and is not there yet, and gives the parts they are in.
fn sample_missing(
    plan: &Plan,
    contestant: &Contestant<'_>,
    benchmarks: &[Questions],
    prompts: &[Prompt],
    load: LoadTeacher<'_>,
    stop: &AtomicBool,
) -> Result<Outcome<Vec<PathBuf>>> {
    let Contestant {
        model, files, key, ..
    } = contestant;
    let role = &model.role;
    let mut present = BTreeSet::new();
    kept::finished(&plan.output, role, key, |sample| {
        present.insert((sample.trace.prompt_id, sample.trace.sample_index));
    })?;
    // A question of several benchmarks is sampled as often as the one that needs most.
    let mut targets: BTreeMap<&str, u32> = BTreeMap::new();
    for (questions, progress) in benchmarks.iter().zip(&contestant.progress) {
        for problem in &questions.problems {
            let target = targets.entry(&problem.id).or_default();
            *target = (*target).max(progress.target);
        }
    }
    let target = |at: usize| {
        prompts
            .get(at)
            .and_then(|prompt| targets.get(&*prompt.prompt_id))
    };
    let all = (0..prompts.len()).flat_map(|at| {
        let samples = target(at).copied().unwrap_or(0);
        (0..samples).map(move |index| (at, index))
    });
    let mut missing = all
        .filter(|&(at, index)| !present.contains(&(prompts[at].prompt_id.clone(), index)))
        .peekable();
    if missing.peek().is_none() {
        return Ok(Outcome::Complete(Vec::new()));
    }
    let sampling = Sampling {
        dir: &kept::folder(&plan.output, role, key),
        prompts,
        key: [("evaluation".to_owned(), json!(key))]
            .into_iter()
            .collect(),
        teacher: &contestant.description,
        teacher_files: files,
        config: &plan.sampling(),
        seed: plan.role_seed(role),
        prices: match &model.via {
            Via::Folder { .. } => None,
            Via::Section(section) => section.teacher.price_per_million,
        },
        retry_failed: false,
        noun: &format!("samples of the {role}"),
        quiet: plan.quiet,
    };
    let sampled = sample(&sampling, missing, |_| load(model, files, plan), stop);
    let sampled = sampled.map_err(|source| Error::Sampling {
        role: role.to_string(),
        source: Box::new(source),
    })?;
    match sampled {
        Outcome::Complete(summary) if summary.exhausted() > 0 => Err(Error::Exhausted {
            role: role.to_string(),
            n_exhausted: summary.exhausted(),
            fault: summary.last_fault.unwrap_or_default(),
        }),
        sampled => Ok(sampled.map(|summary| summary.parts)),
    }
}

/// The questions of all benchmarks, by their ids: a problem that stands in two benchmarks is sampled once.
fn prompts(plan: &Plan, benchmarks: &[Questions]) -> Result<Vec<Prompt>> {
    let mut prompts: BTreeMap<&str, (&str, Prompt)> = BTreeMap::new();
    for questions in benchmarks {
        let benchmark = &questions.benchmark;
        for problem in &questions.problems {
            let messages = plan.messages(benchmark, problem);
            if let Some((other, prompt)) = prompts.get(problem.id.as_str()) {
                if prompt.messages != messages {
                    return Err(Error::AskedTwice {
                        problem: problem.problem.chars().take(80).collect(),
                        benchmarks: [(*other).to_owned(), benchmark.name.clone()],
                    });
                }
                continue;
            }
            let prompt = Prompt {
                prompt_id: problem.id.clone(),
                source: questions.source.clone(),
                problem: problem.problem.clone(),
                gold_answer: Some(problem.gold.clone()),
                messages,
            };
            prompts.insert(&problem.id, (&benchmark.name, prompt));
        }
    }
    Ok(prompts.into_values().map(|(_, prompt)| prompt).collect())
}

/// Grades every row, writes `samples.parquet` sorted by (benchmark, role, prompt_id,
/// sample_index), and counts.
fn merge(
    plan: &Plan,
    contestants: &[Contestant<'_>],
    benchmarks: &[Questions],
    manifest: &mut Manifest,
) -> Result<(Scores, Vec<Regraded>)> {
    let mut metadata: Vec<_> = contestants
        .iter()
        .map(|contestant| {
            (
                kept::metadata_key(&contestant.model.role),
                contestant.key.clone(),
            )
        })
        .collect();
    metadata.sort();
    let path = plan.output.join(kept::SAMPLES);
    let mut writer = Writer::create(&path, graded_sample::schema(), &metadata)?;
    let mut by_name: Vec<(usize, &Questions)> = benchmarks.iter().enumerate().collect();
    by_name.sort_by_key(|(_, questions)| &questions.benchmark.name);
    let mut by_role: Vec<&Contestant<'_>> = contestants.iter().collect();
    by_role.sort_by_key(|contestant| contestant.model.role.as_str());

    let (mut graded, mut left_out) = (BTreeMap::new(), LeftOut::default());
    let mut regraded = Vec::new();
    for (at, questions) in by_name {
        let (ids, name) = (questions.ids(), questions.benchmark.name.as_str());
        for contestant in &by_role {
            let role = contestant.model.role.as_str();
            let target = contestant.progress.get(at).map_or(0, |one| one.target);
            let (samples, changed) = graded_samples(plan, contestant, questions, target)?;
            regraded.extend(changed);
            for chunk in samples.chunks(WRITE_ROWS) {
                writer.write(&graded_sample::to_batch(chunk)?)?;
            }
            let failures: Vec<&str> = samples
                .iter()
                .filter_map(|sample| sample.trace.error.as_deref())
                .collect();
            let counted = Graded::new(&ids, &samples);
            if counted.n_samples == 0 {
                return Err(Error::NoSamples {
                    role: role.to_owned(),
                    benchmark: name.to_owned(),
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
            graded.insert((name, role), counted);
        }
        *manifest.counts.entry("questions".to_owned()).or_default() += ids.len() as u64;
        left_out.add_under("", &questions.left_out);
    }
    writer.finish()?;
    manifest.set_left_out(&left_out);

    let max_new_tokens = u64::from(plan.config.max_new_tokens());
    let mut scores = Scores {
        schema: SCHEMA,
        benchmarks: Vec::new(),
    };
    for (at, questions) in benchmarks.iter().enumerate() {
        let (name, problems) = (questions.benchmark.name.as_str(), &questions.problems);
        let mut models = Vec::new();
        let mut of_roles = Vec::new();
        for contestant in contestants {
            let (model, progress) = (contestant.model, contestant.progress.get(at));
            let (role, samples) = (model.role.as_str(), progress.map_or(0, |one| one.target));
            if let Some(graded) = graded.remove(&(name, role)) {
                let samples = u64::from(samples);
                let mut scored =
                    graded.scores(role, &model.name, samples, problems, max_new_tokens);
                if let Some(scored) = &mut scored {
                    let stopped_by = progress.and_then(|one| one.stopped_by);
                    scored.stopped_by = stopped_by.map(|key| key.as_str().to_owned());
                }
                models.extend(scored);
                of_roles.push((role.to_owned(), graded));
            }
        }
        scores.benchmarks.push(BenchmarkScores {
            name: name.to_owned(),
            n_questions: problems.len() as u64,
            sampling: Some(plan.sampling_scores(&questions.benchmark)),
            models,
            paired: paired(&of_roles),
        });
    }
    Ok((scores, regraded))
}

/// The rows of one model on one benchmark, sorted by (prompt_id, sample_index), the first `samples` of each question; and
/// those that were graded otherwise before.
fn graded_samples(
    plan: &Plan,
    contestant: &Contestant<'_>,
    questions: &Questions,
    samples: u32,
) -> Result<(Vec<Sample>, Vec<Regraded>)> {
    let (name, role) = (&*questions.benchmark.name, &contestant.model.role);
    let problems: BTreeMap<&str, _> = questions
        .problems
        .iter()
        .map(|problem| (problem.id.as_str(), problem))
        .collect();
    let place = (&*plan.output, role, &*contestant.key);
    let wanted = |(id, index): &RowKey| *index < samples && problems.contains_key(id.as_str());
    let rows = kept::read(place, name, &contestant.parts, wanted)?;
    let (mut graded, mut regraded) = (Vec::with_capacity(rows.len()), Vec::new());
    for ((id, _), Kept { mut trace, before }) in rows {
        let Some(problem) = problems.get(id.as_str()) else {
            continue;
        };
        // The model's folder may have another name by now.
        trace.source.clone_from(&questions.source);
        trace.teacher.clone_from(&contestant.model.name);
        let sample = Sample::graded(trace, problem, name, role.as_str(), questions.verifier);
        if let (Some(before), Some(now)) = (before, sample.verdict)
            && before != now
        {
            regraded.push(Regraded {
                benchmark: name.to_owned(),
                role: role.to_string(),
                prompt_id: id,
                sample_index: sample.trace.sample_index,
                before,
                now,
                gold: problem.gold.clone(),
                extracted: sample.extracted.clone(),
            });
        }
        graded.push(sample);
    }
    Ok((graded, regraded))
}

/// Reads the scores of a finished evaluation.
pub fn read_scores(output: &Path) -> Result<Scores> {
    let path = output.join("scores.json");
    let bytes = fs::read(&path).map_err(io(&path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })
}

#[cfg(test)]
mod tests;
