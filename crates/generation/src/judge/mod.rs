//! A judge for answers that rules cannot settle: another model reads problem, gold answer and answer, and says whether
//! they agree. Its verdicts lie in a table of their own and are never the rules'.
//!
//! Asking is sampling: the questions are prompts, the replies a folder of traces with its journal, retries, limits and
//! seals ([`crate::gen_traces`]).
//!
//! # Layout
//!
//! - [`question`]: what the judge is shown, and how it is kept from obeying it.
//! - [`reply`]: the verdict in a reply, and of several.
//! - `rows`: which traces it is asked about. `replies`: what it replied.
//! - [`stage`]: the stage that ties these together.

pub mod question;
mod replies;
pub mod reply;
mod rows;
pub mod stage;
