//! Command lines: what the binaries take, how they end, and how they are interrupted.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use records::benchmark::AnswerSearch;
use records::run_dir::RunDir;

use crate::args::{
    AskingArgs, EvalArgs, EvalCommand, GenTracesArgs, JobArgs, PushArgs, RunArgs, What,
};
use crate::context::Push;
use crate::ending::{Ending, print_data};
use crate::error::{Error, Result};
use crate::plan::Request;
use crate::shard::Shard;
use crate::show::{self, ShowArgs};
use crate::stage::{self, Stage};
use crate::stages;
use crate::{compare, grade, memory, run, status};

/// Distils a large reasoning model into a small one
#[derive(Debug, Parser)]
#[command(name = "stillroom", version, about)]
pub struct Stillroom {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every stage of a recipe in order, skipping those that are complete
    Run(RunArgs),
    /// Sample traces from the teacher
    GenTraces(GenTracesArgs),
    /// Have a teacher score traces that are there already
    ScoreTraces(AskingArgs),
    /// Have a judge read the answers that rules cannot settle
    JudgeTraces(AskingArgs),
    /// Verify and filter the traces into a dataset
    BuildDataset(JobArgs),
    /// Train the student
    TrainStudent(JobArgs),
    /// Score base, student and teacher
    EvalAime(EvalArgs),
    /// Push dataset, adapter, merged model and scores to the Hugging Face Hub
    PushHub(PushArgs),
    /// Page through the traces or the dataset of a run, or through a judge's replies
    Show(ShowArgs),
    /// Write the page about a run, `report.html`; `run` does so itself
    Report {
        /// The run folder
        run_dir: PathBuf,
    },
    /// Grade a JSONL, Parquet or CSV file: a JSONL line per response, with `verdict`, `extracted` and `answer_from`
    Verify {
        file: PathBuf,
        /// Field that holds the gold answer
        #[arg(long, value_name = "FIELD")]
        gold: String,
        /// Field that holds the response, or a list of them
        #[arg(long, value_name = "FIELD")]
        response: String,
        /// Where nothing else is found, `last-number` takes the last number of the answer part; `boxed` takes boxes only
        #[arg(long, value_name = "SEARCH", default_value = "written", value_parser = ["written", "last-number", "boxed"])]
        answer_from: String,
        /// Print the score of the file instead: avg@k, maj@k and pass@k with intervals
        #[arg(long)]
        score: bool,
        /// Field that rows of one question share, for the score [default: each row is a question]
        #[arg(long, value_name = "FIELD", requires = "score")]
        question: Option<String>,
    },
}

/// The stages of a job.
type Stages = &'static [&'static dyn Stage];

/// The `stillroom` binary.
pub fn stillroom(command: Command, stop: &AtomicBool) -> Result<Ending> {
    match command {
        Command::Run(args) => {
            let stages = stages::of_run(args.push);
            let push = args.push.then_some(Push {
                what: What::All,
                into_existing: args.into_existing,
            });
            let request = Request {
                push,
                ..Request::new(args.job, stages, true)
            };
            run::run(&request, stop)
        }
        Command::GenTraces(args) => gen_traces(args, stop),
        Command::ScoreTraces(args) => asking(args, stages::SCORE_TRACES, stop),
        Command::JudgeTraces(args) => asking(args, stages::JUDGE_TRACES, stop),
        Command::BuildDataset(args) => job(args, stages::BUILD_DATASET, stop),
        Command::TrainStudent(args) => job(args, stages::TRAIN_STUDENT, stop),
        Command::EvalAime(args) => eval_aime(args, stop),
        Command::PushHub(args) => push_hub(args, stop),
        Command::Show(args) => {
            show::show(&args, stop)?;
            Ok(Ending::Done)
        }
        Command::Report { run_dir } => {
            let path = report::write(&RunDir::new(run_dir), &stage::names(stages::ALL))
                .map_err(|error| Error::command("report", error))?;
            print_data(&format!("{}\n", path.display()))?;
            Ok(Ending::Done)
        }
        Command::Verify {
            file,
            gold,
            response,
            answer_from,
            score,
            question,
        } => {
            let search = match answer_from.as_str() {
                "last-number" => AnswerSearch::LastNumber,
                "boxed" => AnswerSearch::Boxed,
                _ => AnswerSearch::Written,
            };
            let fields = grade::Fields {
                gold,
                response,
                question,
            };
            match score {
                true => print_data(&grade::score_file(&file, &fields, search)?)?,
                false => {
                    let mut stdout = std::io::stdout().lock();
                    grade::grade_file(&file, &fields, search, &mut stdout)?;
                }
            }
            Ok(Ending::Done)
        }
    }
}

/// One stage by itself.
pub fn job(args: JobArgs, stages: Stages, stop: &AtomicBool) -> Result<Ending> {
    run::run(&Request::new(args, stages, false), stop)
}

/// The traces stage with its own switch.
pub fn gen_traces(args: GenTracesArgs, stop: &AtomicBool) -> Result<Ending> {
    let shard = Shard::resolve(args.shard, |name| std::env::var(name).ok())?;
    if args.status {
        let text = status::read(&args.job, shard)?;
        print_data(&text)?;
        return Ok(Ending::Done);
    }
    let request = Request {
        retry_failed: args.retry_failed,
        shard,
        ..Request::new(args.job, stages::GEN_TRACES, false)
    };
    run::run(&request, stop)
}

/// The scores stage, or a comparison of finished ones.
pub fn eval_aime(args: EvalArgs, stop: &AtomicBool) -> Result<Ending> {
    match (args.command, args.job) {
        (Some(EvalCommand::Compare(args)), _) => {
            print_data(&compare::compare(&args)?)?;
            Ok(Ending::Done)
        }
        (None, Some(args)) => job(args, stages::EVAL_AIME, stop),
        (None, None) => Err(Error::Usage {
            message: "there is neither a recipe nor runs to compare".into(),
            hint: "eval-aime RECIPE, or eval-aime compare RUN_A RUN_B".into(),
        }),
    }
}

/// The push by itself.
pub fn push_hub(args: PushArgs, stop: &AtomicBool) -> Result<Ending> {
    let request = Request {
        push: Some(Push {
            what: args.what,
            into_existing: args.into_existing,
        }),
        ..Request::new(args.job, stages::PUSH_HUB, false)
    };
    run::run(&request, stop)
}

/// One stage by itself that asks a model about traces.
pub fn asking(args: AskingArgs, stages: Stages, stop: &AtomicBool) -> Result<Ending> {
    let request = Request {
        retry_failed: args.retry_failed,
        ..Request::new(args.job, stages, false)
    };
    run::run(&request, stop)
}

/// Runs a binary's work with signals handled, prints what went wrong with what to change, and
/// gives the documented exit code.
///
/// The first SIGINT or SIGTERM asks the work to save its state and end; another one, later, ends
/// the process at once.
pub fn main(work: impl FnOnce(&AtomicBool) -> Result<Ending>) -> ExitCode {
    memory::large_pages();
    if let Some(commit) = option_env!("STILLROOM_COMMIT") {
        records::manifest::set_build_commit(commit);
    }
    let stop = Arc::new(AtomicBool::new(false));
    if let Err(error) = watch_signals(stop.clone()) {
        eprintln!("warning: signals will end the process at once: {error}");
    }
    match work(&stop) {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::FailedItems) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Job runners and `timeout` send a signal to the process and again to its group; those that come
/// this soon after the first are the same wish.
const ONE_WISH: Duration = Duration::from_secs(1);

fn watch_signals(stop: Arc<AtomicBool>) -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        let mut first = None;
        for _ in signals.forever() {
            stop.store(true, Ordering::Relaxed);
            let asked = *first.get_or_insert_with(Instant::now);
            if asked.elapsed() > ONE_WISH {
                signal_hook::low_level::exit(130);
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Stillroom::command().debug_assert();
    }
}
