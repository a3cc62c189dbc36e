//! What the jobs take on their command lines.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use trainer::Place;

use crate::shard::ShardArg;

/// What every job takes.
#[derive(Debug, Clone, Args)]
pub struct JobArgs {
    /// The recipe, a TOML file
    pub recipe: PathBuf,
    /// The run folder [default: runs/NAME, after the recipe's name]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Change one key of the recipe; may be given several times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// No progress on stderr
    #[arg(long)]
    pub quiet: bool,
    /// Where the student is trained: cpu, cuda or cuda:N [default: a GPU where this build can use one]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Place>,
}

/// What `run` takes beside.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub job: JobArgs,
    /// Push dataset, adapter, merged model and scores to the Hub at the end, as far as [hub] names repositories for them
    #[arg(long)]
    pub push: bool,
    /// Also push to repositories that no push has made
    #[arg(long, requires = "push")]
    pub into_existing: bool,
}

/// What `push-hub` takes beside.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    #[command(flatten)]
    pub job: JobArgs,
    /// What to push
    #[arg(long, value_enum, default_value_t = What::All)]
    pub what: What,
    /// Also push to repositories that no push has made
    #[arg(long)]
    pub into_existing: bool,
}

/// What of a run is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    Dataset,
    Adapter,
    Merged,
    /// Into the repositories of the models, which have to be there
    Scores,
    /// As far as [hub] names repositories
    All,
}

/// What `score-traces` and `judge-traces` take beside.
#[derive(Debug, Clone, Args)]
pub struct AskingArgs {
    #[command(flatten)]
    pub job: JobArgs,
    /// Ask again for what servers refused, too
    #[arg(long)]
    pub retry_failed: bool,
}

/// What `eval-aime` takes: a recipe, or finished runs to compare.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct EvalArgs {
    #[command(flatten)]
    pub job: Option<JobArgs>,
    #[command(subcommand)]
    pub command: Option<EvalCommand>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum EvalCommand {
    /// Compare finished evaluations question by question: the first against each of the others
    Compare(CompareArgs),
}

#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// Run folders; FOLDER:MODEL names one of several models [default: the student]
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    pub runs: Vec<String>,
    /// Questions that flipped to show, with both answers
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub flips: usize,
}

/// What `gen-traces` takes beside.
#[derive(Debug, Clone, Args)]
pub struct GenTracesArgs {
    #[command(flatten)]
    pub job: JobArgs,
    /// Print how far the traces are, and do nothing
    #[arg(long)]
    pub status: bool,
    /// Ask again for the samples that servers refused, too
    #[arg(long)]
    pub retry_failed: bool,
    /// Sample only part i of the N parts that the prompts are divided into, from 0; `auto/N` takes i from
    /// SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX
    #[arg(long, value_name = "i/N")]
    pub shard: Option<ShardArg>,
}
