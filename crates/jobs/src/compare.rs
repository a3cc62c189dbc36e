//! `eval-aime compare`: finished evaluations side by side.

use std::path::{Path, PathBuf};

use eval::compare::{Contender, Wanted, page};
use records::run_dir::RunDir;

use crate::args::CompareArgs;
use crate::error::{Error, Result};

/// The comparison as text.
pub fn compare(args: &CompareArgs) -> Result<String> {
    let failed = |error: eval::Error| {
        Error::Usage {
        message: error.to_string(),
        hint: "give run folders that `eval-aime` has completed; FOLDER:MODEL names one of several models".into(),
    }
    };
    let contenders = args.runs.iter().map(|run| Contender::read(&wanted(run)));
    let contenders: Vec<_> = contenders.collect::<eval::Result<_>>().map_err(failed)?;
    page(&contenders, args.flips).map_err(failed)
}

/// A run folder or its `scores/`, and the name of a model behind a colon.
fn wanted(run: &str) -> Wanted {
    let (folder, role) = match run.rsplit_once(':') {
        // A folder may have a colon in its name.
        Some((folder, role)) if !Path::new(run).is_dir() => (folder, Some(role.to_owned())),
        _ => (run, None),
    };
    let scores = RunDir::new(folder).scores();
    let own = PathBuf::from(folder);
    Wanted {
        scores: match own.join("scores.json").is_file() {
            true => own,
            false => scores,
        },
        label: folder.to_owned(),
        role,
    }
}
