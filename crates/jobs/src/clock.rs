//! The date that chat templates print: the run's first day, whenever it goes on.

use std::path::{Path, PathBuf};

use eval::config::EvalConfig;
use records::Reference;

use crate::context::Context;
use crate::error::{Error, Result, io};

/// Stands before the time in the run folder's `recipe.toml`.
const MARK: &str = "# Chat templates are told that it is (seconds since 1970): ";

/// Fixes the clock of this process to the run's first start, which the run folder's recipe keeps, and gives the line that
/// keeps it. Nothing where no chat template of the run asks for the time.
pub fn fixed(context: &Context, recipe: &Path) -> Result<String> {
    let folders = folders(context);
    if !folders.iter().any(|folder| tells_time(folder)) {
        return Ok(String::new());
    }
    let kept = match std::fs::read_to_string(recipe) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(io(recipe)(error)),
    };
    let seconds = match kept.lines().find_map(|line| line.strip_prefix(MARK)) {
        Some(seconds) => seconds.trim().parse().map_err(|_| Error::Usage {
            message: format!("{}: `{seconds}` is no time", recipe.display()),
            hint: "take that line out; the run then has today's date".into(),
        })?,
        None => records::manifest::now_micros() / 1_000_000,
    };
    model::chat_template::fix_clock(seconds);
    Ok(format!("{MARK}{seconds}\n"))
}

/// The model folders of the recipe.
fn folders(context: &Context) -> Vec<PathBuf> {
    let path = |model: &Reference| model.path().to_path_buf();
    let recipe = context.recipe();
    let mut folders = Vec::new();
    let judge = recipe.judge.as_ref().map(|judge| &judge.teacher);
    let eval = recipe.eval.iter().flat_map(EvalConfig::sections);
    let scored = eval.map(|(_, section)| section);
    for teacher in recipe.teacher.iter().chain(judge).chain(scored) {
        let tokenizer = teacher.tokenizer.iter();
        folders.extend(tokenizer.chain([&teacher.model]).map(path));
    }
    let student = recipe.student.as_ref().and_then(|student| student.folder());
    let train = recipe.train.as_ref();
    let online = train.and_then(|train| train.teacher.as_ref());
    folders.extend(student.map(path));
    folders.extend(online.map(|teacher| path(&teacher.model)));
    folders
}

/// Whether the chat template in a folder asks for the time, as far as it can be read: what cannot is complained about where
/// it is needed.
fn tells_time(folder: &Path) -> bool {
    ["chat_template.jinja", "tokenizer_config.json"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(folder.join(file)).ok())
        .any(|text| text.contains("strftime_now"))
}
