//! `eval-aime`: score base, student and teacher.

use std::path::PathBuf;

use eval::config::{EvalConfig, Role};
use eval::{EvalModel, Regraded, Section, Via};
use generation::config::{Backend, R1_TEMPLATE, TeacherConfig};
use records::Reference;
use records::benchmark::{self, Benchmark};
use records::outcome::Outcome;
use records::run_dir::{SCORES, STUDENT};
use serde_json::Value;

use crate::context::{Context, Files};
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::{Identity, REACHING, Recipe};
use crate::stage::{FailedItems, Prepared, Stage, Task};

pub struct Scores;

impl Stage for Scores {
    fn name(&self) -> &'static str {
        SCORES
    }

    fn is_asked_for(&self, recipe: &Recipe) -> bool {
        recipe.eval.is_some()
    }

    fn sections(&self, recipe: &Recipe) -> Vec<(&'static str, bool)> {
        let own = |role: &Role| {
            let eval = recipe.eval.as_ref();
            eval.is_some_and(|eval| !eval.compares(role) || eval.section(role).is_some())
        };
        vec![
            ("eval", recipe.eval.is_some()),
            ("student", recipe.student.is_some() || own(&Role::Base)),
            ("teacher", recipe.teacher.is_some() || own(&Role::Teacher)),
        ]
    }

    fn identity(&self, recipe: &Recipe) -> Result<Value> {
        let wording = recipe.prompts.as_ref().map(
            |prompts| serde_json::json!({"system": prompts.system, "template": prompts.template}),
        );
        let base = recipe.student.as_ref().and_then(|student| student.folder());
        let base = base.map(Reference::as_str);
        let identity = Identity::default()
            .with("seed", recipe.seed)
            .section(
                "eval",
                &recipe.eval,
                &["concurrency", "base", "student", "teacher", "models"],
            )?
            .with("prompts", wording)
            .with("verifier", verify::VERSION)
            .with("base", base);
        let candle = |teacher: &&TeacherConfig| teacher.backend == Backend::Candle;
        let eval = recipe.eval.as_ref();
        let own_teacher = eval.is_some_and(|eval| eval.teacher.is_some());
        let mut identity = match recipe.compares(&Role::Teacher) && !own_teacher {
            true => {
                let idle = match recipe.teacher.as_ref().filter(candle) {
                    Some(_) => &[],
                    None => REACHING,
                };
                identity.section("teacher", &recipe.teacher, idle)?
            }
            false => identity,
        };
        for (role, section) in eval.iter().flat_map(|eval| eval.sections()) {
            if recipe.compares(&role) {
                identity = identity.section(&role.section_name(), &Some(section), REACHING)?;
            }
        }
        Ok(identity.value())
    }

    /// The models are named in the manifest.
    fn inputs(&self, _context: &Context) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn failed_items(&self, context: &Context) -> Result<FailedItems> {
        let samples = self.dir(context).join("samples.parquet");
        Ok(FailedItems::traces(vec![samples]))
    }

    fn prepare(&self, context: &Context) -> Result<Box<dyn Prepared>> {
        let mut config = context.recipe().eval.clone().unwrap_or_default();
        let benchmarks = check_benchmarks(context, &mut config)?;
        let models = check_models(context, &config)?;
        Ok(Box::new(Checked {
            config,
            benchmarks,
            models,
        }))
    }

    fn data(&self, context: &Context) -> Result<Option<String>> {
        let scores = eval::read_scores(&self.dir(context));
        let scores = scores.map_err(|error| Error::stage(SCORES, error))?;
        Ok(Some(eval::table::terminal(&scores)))
    }
}

struct Checked {
    config: EvalConfig,
    /// With the number of their questions.
    benchmarks: Vec<(Benchmark, u64)>,
    models: Vec<EvalModel>,
}

impl Prepared for Checked {
    fn describe(&self, _context: &Context, _upstream_runs: bool) -> Result<Vec<String>> {
        let eval = &self.config;
        let mut lines = Vec::new();
        for (benchmark, n_questions) in &self.benchmarks {
            lines.push(about(eval, benchmark, *n_questions));
            let departures = eval.departures(benchmark);
            if !departures.is_empty() {
                lines.push(format!(
                    "  not as the protocol has it: {}",
                    departures.join("; ")
                ));
            }
        }
        if let Some(points) = eval.precision {
            lines.push(format!(
                "each model until its interval is ±{points} points or narrower"
            ));
        }
        if let Some(tokens) = eval.max_tokens_total {
            lines.push(format!("at most {tokens} new tokens altogether"));
        }
        for model in &self.models {
            if let Via::Section(section) = &model.via {
                let teacher = &section.teacher;
                let backend = teacher.backend.as_str();
                lines.push(format!("{}: {} ({backend})", model.role, teacher.model));
            }
        }
        Ok(lines)
    }

    fn run(&self, task: &Task) -> Result<Outcome<()>> {
        memory::keep_freed();
        let context = task.context;
        let prompts = context.recipe().prompts.as_ref();
        let job = eval::Plan {
            config: self.config.clone(),
            seed: context.recipe().seed,
            models: self.models.clone(),
            system: prompts.and_then(|prompts| prompts.system.clone()),
            template: prompts.map_or_else(
                || R1_TEMPLATE.to_owned(),
                |prompts| prompts.template.clone(),
            ),
            output: Scores.dir(context),
            recipe: task.identity.clone(),
            quiet: context.quiet,
        };
        let outcome = eval::run(&job, task.stop).map_err(|error| Error::stage(SCORES, error))?;
        Ok(outcome.map(|summary| say_regraded(&summary.regraded)))
    }
}

/// A line about a benchmark for `--dry-run`.
fn about(eval: &EvalConfig, benchmark: &Benchmark, n_questions: u64) -> String {
    let samples = eval.samples_of(benchmark);
    let n_samples = n_questions * u64::from(samples) * eval.compare.len() as u64;
    let licence = benchmark::named::find(&benchmark.name).and_then(|known| known.licence);
    let licence = licence.map_or(String::new(), |licence| format!(", licence {licence}"));
    format!(
        "{}: {n_questions} questions × {samples} samples × {} models = {n_samples} samples, at most {} new tokens; answers are {}{licence}",
        benchmark.name,
        eval.compare.len(),
        n_samples * u64::from(eval.max_new_tokens()),
        benchmark.answers().as_str(),
    )
}

/// Says which samples of an evaluation before are graded otherwise now, also when it is quiet: scores move by them.
fn say_regraded(regraded: &[Regraded]) {
    const LISTED: usize = 20;
    if regraded.is_empty() {
        return;
    }
    eprintln!(
        "{SCORES}: {} samples that were there are graded otherwise now",
        regraded.len()
    );
    for sample in regraded.iter().take(LISTED) {
        eprintln!("  {sample}");
    }
    if regraded.len() > LISTED {
        eprintln!("  and {} more", regraded.len() - LISTED);
    }
}

/// The benchmarks with the number of their questions.
fn check_benchmarks(context: &Context, eval: &mut EvalConfig) -> Result<Vec<(Benchmark, u64)>> {
    let benchmarks = eval.benchmarks().map_err(|error| {
        context.input("eval.benchmarks", &error.to_string(), "see the known names")
    })?;
    eval.benchmarks = context.benchmarks("eval.benchmarks", &benchmarks)?;
    let mut n_questions = Vec::new();
    for benchmark in &benchmarks {
        let problems = context.check_benchmark("eval.benchmarks", benchmark)?;
        eval::check_benchmark(benchmark).map_err(|error| {
            context.input(
                "eval.benchmarks",
                &error.to_string(),
                "its columns are named in a table { name, source, problem, answer }",
            )
        })?;
        n_questions.push((benchmark.clone(), problems));
    }
    Ok(n_questions)
}

/// The models, with what samples them checked.
fn check_models(context: &Context, eval: &EvalConfig) -> Result<Vec<EvalModel>> {
    let models = eval.compare.iter();
    models
        .map(|role| check_model(context, eval, role))
        .collect()
}

fn check_model(context: &Context, eval: &EvalConfig, role: &Role) -> Result<EvalModel> {
    let recipe = context.recipe();
    // Named after the recipe: the same scores wherever the run folder lies.
    let name = |model: &str| match role {
        Role::Student => recipe.name.clone(),
        _ => model.to_owned(),
    };
    let teacher = recipe.teacher.as_ref().filter(|_| *role == Role::Teacher);
    let served = teacher.filter(|teacher| teacher.backend != Backend::Candle);
    if let Some(section) = eval.section(role).or(served) {
        return Ok(EvalModel {
            role: role.clone(),
            name: name(section.model.as_str()),
            via: Via::Section(Box::new(check_section(context, eval, role, section)?)),
        });
    }
    let student = recipe.student.as_ref();
    let (folder, kwargs) = match role {
        Role::Teacher => (
            teacher.map(|teacher| &teacher.model),
            teacher.and_then(|teacher| teacher.chat_template_kwargs.clone()),
        ),
        _ => (
            student.and_then(|student| student.folder()),
            student.map(|student| student.chat_template_kwargs.clone()),
        ),
    };
    let folder = folder.cloned().unwrap_or_default();
    match role {
        Role::Base if student.is_some_and(|student| student.model.is_none()) => {
            return Err(context.loaded.source.complain(
                "eval.compare",
                "`base` is the student before training, and this one starts from random weights",
                Some("leave \"base\" out".into()),
            ));
        }
        Role::Base => context.check_model("student.model", &folder, Files::Weights)?,
        Role::Student if context.includes(STUDENT) => {}
        Role::Student => context.check_upstream(STUDENT, "train-student")?,
        _ => context.check_model("teacher.model", &folder, Files::Weights)?,
    }
    let key = match role {
        Role::Teacher => "teacher.model",
        _ => context.student_key(),
    };
    if *role != Role::Student || (context.includes(STUDENT) && !folder.as_str().is_empty()) {
        check_context_length(context, key, role.as_str(), &folder)?;
    }
    let (name, folder) = match role {
        Role::Student => {
            let merged = context.run_dir.student().join("merged");
            (recipe.name.clone(), merged.display().to_string().into())
        }
        _ => (folder.to_string(), folder),
    };
    let chat_template_kwargs = match eval.chat_template_kwargs.is_empty() {
        true => kwargs.unwrap_or_default(),
        false => eval.chat_template_kwargs.clone(),
    };
    Ok(EvalModel {
        role: role.clone(),
        name,
        via: Via::Folder {
            folder,
            chat_template_kwargs,
        },
    })
}

/// A model that is sampled as a section of its own says.
fn check_section(
    context: &Context,
    eval: &EvalConfig,
    role: &Role,
    section: &TeacherConfig,
) -> Result<Section> {
    let place = match eval.section(role) {
        Some(_) => role.section_name(),
        None => "teacher".to_owned(),
    };
    if section.spending_limit.is_some() {
        return Err(context.input(
            &format!("{place}.spending_limit"),
            "what an evaluation costs is not counted, so that no limit can be kept",
            &format!(
                "sample the {role} through a section `[{}]` without a limit; eval.samples and eval.max_new_tokens bound what it can cost",
                role.section_name()
            ),
        ));
    }
    let mut teacher = section.clone();
    if !eval.chat_template_kwargs.is_empty() {
        teacher.chat_template_kwargs = Some(eval.chat_template_kwargs.clone());
    }
    Ok(Section {
        secret: context.check_teacher(&place, section)?,
        identity: Identity::default()
            .section("teacher", &Some(&teacher), REACHING)?
            .value(),
        teacher,
    })
}

/// Refuses a budget of new tokens that leaves no room for a question in a model's context: every sample would be
/// cut there. The default is taken as far as there is room.
fn check_context_length(context: &Context, key: &str, role: &str, model: &Reference) -> Result<()> {
    const BUDGET: &str = "eval.max_new_tokens";
    let Some(eval) = &context.recipe().eval else {
        return Ok(());
    };
    let mut positions = context.model_config(key, model)?.max_position_embeddings;
    let student = context.recipe().student.as_ref();
    if let (true, Some(longer)) = (
        role == "student",
        student.and_then(|student| student.max_position_embeddings),
    ) {
        positions = longer;
    }
    let budget = eval.max_new_tokens() as usize;
    if budget < positions || !context.loaded.source.names(BUDGET) {
        return Ok(());
    }
    Err(context.loaded.source.complain(
            BUDGET,
            &format!(
                "{budget} new tokens leave no room for a question in the context of {positions} tokens that the {role} has ({})",
                model
            ),
            Some(format!("at most {}, and less by what the longest question takes; leave the key out to use what room there is", positions.saturating_sub(1))),
        ))
}
