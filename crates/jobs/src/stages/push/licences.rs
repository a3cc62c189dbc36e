//! That the recipe names every licence that a card has to name.

use hub::{Pusher, RepoUrl};
use records::Reference;

use super::files::{Kind, Target};
use crate::context::Context;
use crate::error::Result;
use crate::recipe::HubConfig;

/// A licence that is not named.
struct Missing {
    key: &'static str,
    of: String,
    /// What it is of, where that says itself which licence it has.
    origin: Option<String>,
}

pub(super) fn check(
    context: &Context,
    hub: &HubConfig,
    targets: &[Target],
    pusher: &Pusher<'_>,
) -> Result<()> {
    let missing = missing(context, hub, targets);
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let keys: Vec<String> = missing
        .iter()
        .map(|missing| format!("{} (of {})", missing.key, missing.of))
        .collect();
    let mut hint = "licences are named by the Hub's ids, such as apache-2.0, mit or cc-by-4.0; `other` goes with …_license_name and …_license_link".to_owned();
    for missing in &missing {
        let origin = missing.origin.as_deref();
        if let Some(declared) = origin.and_then(|origin| declared(origin, pusher)) {
            let (of, key) = (&missing.of, missing.key);
            hint += &format!("; {of} declares {declared}, for {key}");
        }
    }
    Err(context.loaded.source.complain(
        first.key,
        &format!(
            "cards name licences, and the recipe lacks {}",
            keys.join(", ")
        ),
        Some(hint),
    ))
}

fn missing(context: &Context, hub: &HubConfig, targets: &[Target]) -> Vec<Missing> {
    let recipe = context.recipe();
    let has = |kind: &[Kind]| targets.iter().any(|target| kind.contains(&target.kind));
    let mut found = Vec::new();
    let mut want = |named: &Option<String>, key, of: String, origin: Option<String>| {
        if named.is_none() {
            found.push(Missing { key, of, origin });
        }
    };
    let license = recipe
        .dataset
        .as_ref()
        .and_then(|dataset| dataset.license.clone());
    if has(&[Kind::Dataset]) {
        let named = hub.dataset_license.clone().or(license);
        want(&named, "hub.dataset_license", "the dataset".into(), None);
    }
    let base = recipe
        .student
        .as_ref()
        .and_then(|student| student.model.as_ref());
    if has(&[Kind::Adapter, Kind::Merged]) {
        want(
            &hub.model_license,
            "hub.model_license",
            "the student".into(),
            None,
        );
        if let Some(base) = base {
            let origin = hub.base_model.clone().or(Some(base.to_string()));
            want(
                &hub.base_license,
                "hub.base_license",
                format!("the base model {base}"),
                origin,
            );
        }
    }
    if let Some(teacher) = &recipe.teacher {
        want(
            &hub.teacher_license,
            "hub.teacher_license",
            format!("what the teacher {} says", teacher.model),
            Some(teacher.model.to_string()),
        );
    } else if recipe.traces.is_some() {
        let of = "what the imported traces' teacher says".to_owned();
        want(&hub.teacher_license, "hub.teacher_license", of, None);
    }
    if let Some(data) = data(context) {
        want(
            &hub.data_license,
            "hub.data_license",
            format!("the data {data}"),
            Some(data.to_string()),
        );
    }
    found
}

/// The problems, the imported traces, or the rows that the student is trained on.
pub(super) fn data(context: &Context) -> Option<&Reference> {
    let recipe = context.recipe();
    let train = recipe.train.as_ref().and_then(|train| train.data.as_ref());
    let traces = recipe.traces.as_ref().map(|traces| &traces.source);
    let prompts = recipe.prompts.as_ref().map(|prompts| &prompts.source);
    train.or(traces).or(prompts)
}

/// The licence that something declares of itself: a repository of the Hub in its card, as does a folder with one. That
/// nothing can be found out is no error here.
fn declared(origin: &str, pusher: &Pusher<'_>) -> Option<String> {
    let card = std::path::Path::new(origin).join("README.md");
    if let Ok(text) = std::fs::read_to_string(card) {
        let mut lines = text.lines().skip(1).take_while(|line| *line != "---");
        let licence = lines.find_map(|line| line.strip_prefix("license:"))?;
        return Some(licence.trim().trim_matches(['"', '\'']).to_owned());
    }
    let model = RepoUrl::parse_model(origin).ok().flatten();
    let url = model.or_else(|| RepoUrl::parse(origin).ok())?;
    pusher.licence(&url).ok().flatten()
}
