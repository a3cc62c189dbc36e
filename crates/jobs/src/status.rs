//! `gen-traces --status`: how far the traces are, from the file that generation keeps.

use std::path::Path;

use generation::status::{FILE_NAME, Status};
use records::manifest::now_micros;
use records::run_dir::RunDir;

use crate::args::JobArgs;
use crate::error::{Error, Result};
use crate::recipe::Loaded;
use crate::shard::Shard;

/// What `traces/status.json` says, in lines.
pub fn read(args: &JobArgs, shard: Option<Shard>) -> Result<String> {
    let loaded = Loaded::read(&args.recipe, &args.set)?;
    let root = args
        .run_dir
        .clone()
        .unwrap_or_else(|| Path::new("runs").join(&loaded.recipe.name));
    let traces = RunDir::new(root).traces();
    let dir = shard.map_or(traces.clone(), |shard| traces.join(shard.folder()));
    let path = dir.join(FILE_NAME);
    let unreadable = |message: String| Error::Usage {
        message: format!("{}: {message}", path.display()),
        hint: "gen-traces writes it as soon as it starts to sample".into(),
    };
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    let status = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    Ok(describe(&status, now_micros()))
}

/// `now` in microseconds since the epoch.
fn describe(status: &Status, now: i64) -> String {
    let state = format!("{:?}", status.state).to_lowercase();
    let mut text = format!(
        "{state}: {} of {} samples, {} failed\n{} tokens, {:.0} per second\n",
        status.done, status.total, status.failed, status.tokens, status.tokens_per_second
    );
    for (kind, n) in &status.failures {
        text += &format!("failed, {kind}: {n}\n");
    }
    if let Some(seconds) = status.eta_seconds {
        text += &format!("{seconds:.0} s left\n");
    }
    if let Some(cost) = status.cost {
        text += &format!("cost so far: {cost:.2}");
        if let Some(projected) = status.projected_cost {
            text += &format!(" of about {projected:.2}");
        }
        text += "\n";
    }
    for endpoint in &status.endpoints {
        text += &format!(
            "{}{}: {} under way, {} answered, {} faults\n",
            endpoint.url,
            match endpoint.state() {
                "up" => String::new(),
                state => format!(" ({state})"),
            },
            endpoint.outstanding,
            endpoint.answered,
            endpoint.faults
        );
        if let Some(words) = &endpoint.last_error {
            let ago = endpoint.last_error_at.map_or(String::new(), |at| {
                format!(", {} s ago", (now - at).max(0) / 1_000_000)
            });
            text += &format!("  its last error{ago}: {words}\n");
        }
    }
    for note in &status.notes {
        text += &format!("{} ({} times)\n", note.line(), note.count);
    }
    text += &format!(
        "written {} s ago\n",
        (now - status.updated_at).max(0) / 1_000_000
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_become_lines() {
        let status = Status {
            done: 3,
            total: 8,
            failed: 1,
            tokens: 40,
            tokens_per_second: 12.6,
            failures: [("prompt_too_long".to_owned(), 1)].into(),
            eta_seconds: Some(4.2),
            updated_at: 1_000_000,
            ..Status::default()
        };
        let text = describe(&status, 3_500_000);
        let rest = text.split_once(": ").map_or("", |(_, rest)| rest);
        assert_eq!(
            rest,
            "3 of 8 samples, 1 failed\n40 tokens, 13 per second\nfailed, prompt_too_long: 1\n4 s left\nwritten 2 s ago\n"
        );
    }
}
