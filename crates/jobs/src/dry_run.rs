//! `--dry-run`: what a plan would do, in counts that are cheap to have.

use std::fmt::Write;

use records::aside;

use crate::error::Result;
use crate::plan::Plan;
use crate::state::State;

/// One paragraph per stage.
pub fn describe(plan: &Plan) -> Result<String> {
    let mut text = format!("run folder: {}\n", plan.context.run_dir.root.display());
    let mut upstream_runs = false;
    for step in &plan.steps {
        let state = plan.state(step)?;
        let complete = matches!(state, State::Complete(_));
        let verdict = match (complete, upstream_runs) {
            (true, false) => "complete, would be skipped".to_owned(),
            (true, true) => {
                "complete, would run again if what it reads comes out otherwise".to_owned()
            }
            (false, _) => state.describe().replace("running", "would run"),
        };
        line(&mut text, &format!("{}: {verdict}", step.stage.name()));
        if complete {
            continue;
        }
        if let (true, State::Stale(_)) = (step.stage.is_kept_aside(), &state) {
            let to = aside::next(&step.stage.dir(&plan.context), aside::REPLACED)?;
            line(
                &mut text,
                &format!("  the one before would be kept as {}", to.display()),
            );
        }
        let details = plan.with_prepared(step, |prepared| {
            prepared.describe(&plan.context, upstream_runs)
        })?;
        for detail in details {
            line(&mut text, &format!("  {detail}"));
        }
        upstream_runs = true;
    }
    Ok(text)
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}
