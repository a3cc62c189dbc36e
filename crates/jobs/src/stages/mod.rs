//! What each stage is, checks, says and does. A binary carries those it names.

pub mod dataset;
pub mod imported;
pub mod judged;
pub mod push;
pub mod scored;
pub mod scores;
pub mod student;
pub mod traces;

pub use dataset::Dataset;
pub use imported::Imported;
pub use judged::Judged;
pub use push::Push;
pub use scored::Scored;
pub use scores::Scores;
pub use student::Student;
pub use traces::Traces;

use crate::stage::Stage;

/// Every stage, in the order in which a run has them.
pub const ALL: &[&dyn Stage] = &[
    &Traces, &Imported, &Scored, &Judged, &Dataset, &Student, &Scores, &Push,
];

/// Those of `run`; nothing is pushed unless it is asked for.
pub fn of_run(push: bool) -> &'static [&'static dyn Stage] {
    match (push, ALL) {
        (false, [stages @ .., _]) => stages,
        _ => ALL,
    }
}

/// The stages of each job. What is imported comes with whatever reads it.
pub const GEN_TRACES: &[&dyn Stage] = &[&Traces, &Imported];
pub const SCORE_TRACES: &[&dyn Stage] = &[&Scored];
pub const JUDGE_TRACES: &[&dyn Stage] = &[&Imported, &Judged];
pub const BUILD_DATASET: &[&dyn Stage] = &[&Imported, &Dataset];
pub const TRAIN_STUDENT: &[&dyn Stage] = &[&Student];
pub const EVAL_AIME: &[&dyn Stage] = &[&Scores];
pub const PUSH_HUB: &[&dyn Stage] = &[&Push];
