//! Which files of a run go to which repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hub::card;
use hub::repo::upload::{CARD, Contents, Marker, UploadFile};
use hub::{RepoId, RepoUrl};
use model::checkpoint::ADAPTER_FILES;
use records::manifest::Manifest;
use records::run_dir::{DATASET, SCORES, STUDENT};
use records::score::Scores;
use records::{Reference, hash, stamps};
use serde_json::Value;
use trainer::config::Method;

use super::{asked, cards, redact};
use crate::args::What;
use crate::context::{Context, is_elsewhere};
use crate::error::{Error, Result, io};
use crate::recipe::HubConfig;
use crate::stages;
use crate::state::{self, State};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dataset,
    Adapter,
    Merged,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Dataset => "dataset",
            Kind::Adapter => "adapter",
            Kind::Merged => "merged",
        }
    }

    /// The stage whose files it is.
    fn stage(self) -> &'static str {
        match self {
            Kind::Dataset => DATASET,
            Kind::Adapter | Kind::Merged => STUDENT,
        }
    }
}

/// A repository and what goes there.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub kind: Kind,
    pub repo: RepoId,
    /// Whether only the scores go there, beside the model.
    pub scores_only: bool,
}

impl Target {
    /// The stage whose files in the repository stay as they are.
    pub fn onto(&self) -> Option<&'static str> {
        self.scores_only.then(|| self.kind.stage())
    }
}

/// What is there to be pushed.
pub(super) struct Gathered {
    pub files: Vec<UploadFile>,
    /// blake3 of the manifests of the stages that the files are of.
    pub stages: BTreeMap<String, String>,
    /// What is not pushed, and why.
    pub notes: Vec<String>,
}

/// The repositories of what is asked for.
pub(super) fn targets(context: &Context, hub: &HubConfig) -> Result<Vec<Target>> {
    let (what, _) = asked(context);
    let target = |kind, repo: Option<RepoId>, scores_only| {
        repo.map(|repo| Target {
            kind,
            repo,
            scores_only,
        })
    };
    let scores = what == What::Scores;
    let model = target(Kind::Merged, hub.model(), scores);
    // Full training leaves no adapter.
    let lora = trains_adapter(context) || hub.adapter_repo.is_some();
    let adapter = target(Kind::Adapter, hub.adapter().filter(|_| lora), scores);
    let dataset = target(Kind::Dataset, hub.dataset(), false);
    let (found, keys) = match what {
        What::Dataset => (vec![dataset], "hub.dataset_repo"),
        What::Adapter => (vec![adapter], "hub.adapter_repo"),
        What::Merged => (vec![model], "hub.model_repo"),
        What::Scores => (vec![model, adapter], "hub.model_repo"),
        What::All => (vec![dataset, model, adapter], "hub.model_repo"),
    };
    let found: Vec<Target> = found.into_iter().flatten().collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(context.loaded.source.complain(
            keys,
            "the recipe does not name the repository to push to",
            Some(format!(
                "{} = \"ORG/NAME\" in [hub]",
                keys.trim_start_matches("hub.")
            )),
        )),
    }
}

fn trains_adapter(context: &Context) -> bool {
    let train = context.recipe().train.as_ref();
    train.is_some_and(|train| train.method == Method::Lora)
}

/// That what is to be pushed is there, or will be, and is of this recipe.
pub(super) fn check_upstream(context: &Context, targets: &[Target]) -> Result<()> {
    for target in targets {
        check_stage(context, target.kind.stage())?;
        if target.scores_only {
            check_stage(context, SCORES)?;
        }
        if target.kind == Kind::Adapter {
            check_adapter(context)?;
        }
    }
    Ok(())
}

fn check_stage(context: &Context, name: &'static str) -> Result<()> {
    if context.includes(name) {
        return Ok(());
    }
    let asked = stages::of_run(false).iter().any(|stage| {
        stage.name() == name
            && stage.applies(context.recipe())
            && stage.is_asked_for(context.recipe())
    });
    if name == DATASET && !asked {
        return Err(context.loaded.source.complain(
            "hub.dataset_repo",
            "this recipe builds no dataset",
            Some("leave it out, and push the dataset with the recipe that builds it".into()),
        ));
    }
    let job = match name {
        DATASET => "build-dataset",
        STUDENT => "train-student",
        _ => "eval-aime",
    };
    context.check_upstream(name, job)?;
    match state_of(context, name)? {
        State::Complete(_) | State::Unfinished => Ok(()),
        State::Stale(reason) | State::Damaged(reason) => Err(Error::Usage {
            message: format!(
                "{}: it is not what this recipe gives: {reason}",
                context.run_dir.stage(name).display()
            ),
            hint: format!("run `{job}` again, or push with the recipe that it was made with"),
        }),
    }
}

fn state_of(context: &Context, name: &str) -> Result<State> {
    let mut all = stages::of_run(false).iter();
    let stage = all.find(|stage| stage.name() == name && stage.applies(context.recipe()));
    let Some(stage) = stage else {
        return Ok(State::Unfinished);
    };
    let identity = stage.identity(context.recipe())?;
    state::state(&stage.dir(context), &identity, &stage.inputs(context)?)
}

/// That there is an adapter, or will be, and that others will find the model it is of.
fn check_adapter(context: &Context) -> Result<()> {
    if !trains_adapter(context) {
        return Err(context.loaded.source.complain(
            "hub.adapter_repo",
            "train.method = \"full\" leaves no adapter",
            Some("leave hub.adapter_repo out, and push the merged model".into()),
        ));
    }
    let recipe = context.recipe();
    let hub = recipe.hub.as_ref();
    let student = recipe.student.as_ref();
    let base = student.and_then(|student| student.model.as_ref());
    match base {
        _ if hub.is_some_and(|hub| hub.base_model.is_some()) => Ok(()),
        Some(base) if is_hub_id(base) => Ok(()),
        _ => Err(base_unknown(context, base.map_or("", Reference::as_str))),
    }
}

fn is_hub_id(model: &Reference) -> bool {
    is_elsewhere(model) && matches!(RepoUrl::parse_model(model.as_str()), Ok(Some(_)))
}

fn base_unknown(context: &Context, base: &str) -> Error {
    context.loaded.source.complain(
        "hub.base_model",
        &format!("the adapter is of the folder `{base}`, which nobody else has"),
        Some("name the same model on the Hub (base_model = \"ORG/NAME@REVISION\" in [hub]); where it is not there, push the merged model alone (--what merged)".into()),
    )
}

/// The files of a target, with their card.
pub(super) fn gather(context: &Context, hub: &HubConfig, target: &Target) -> Result<Gathered> {
    let mut gathered = Gathered {
        files: Vec::new(),
        stages: BTreeMap::new(),
        notes: Vec::new(),
    };
    let manifest = gathered.stage(context, target.kind.stage())?;
    let dir = context.run_dir.stage(target.kind.stage());
    let folder = match target.kind {
        Kind::Dataset => None,
        Kind::Adapter => Some("adapter"),
        Kind::Merged => Some("merged"),
    };
    if !target.scores_only {
        for stamp in &manifest.outputs {
            let Ok(inside) = stamp.path.strip_prefix(&dir) else {
                continue;
            };
            let inside = match folder {
                Some(folder) => match inside.strip_prefix(folder) {
                    Ok(inside) => inside,
                    Err(_) => continue,
                },
                None => inside,
            };
            if inside != Path::new(CARD) {
                gathered.file(inside, &stamp.path)?;
            }
        }
        if gathered.files.is_empty() {
            return Err(Error::Usage {
                message: format!(
                    "{}: there is no {} in it",
                    dir.display(),
                    target.kind.as_str()
                ),
                hint: "run `train-student` again, or push something else".into(),
            });
        }
    }
    let base = match target.kind {
        Kind::Dataset => None,
        Kind::Adapter => Some(adapter_base(context, hub, &dir.join("adapter"))?),
        Kind::Merged => merged_base(context, hub, &dir),
    };
    if let (Kind::Adapter, Some(base), false) = (target.kind, &base, target.scores_only) {
        gathered.name_base(&dir.join("adapter"), base)?;
    }
    let scores = match target.kind {
        Kind::Dataset => None,
        Kind::Adapter | Kind::Merged => gathered.scores(context)?,
    };
    gathered.text("recipe.toml", redact::recipe(&context.loaded.resolved()?)?);
    let card = match target.kind {
        Kind::Dataset => cards::dataset(context, hub, target, &manifest)?,
        Kind::Adapter | Kind::Merged => {
            let made = cards::Made {
                manifest: &manifest,
                base,
                scores,
                notes: &gathered.notes,
            };
            cards::model(context, hub, target, made)?
        }
    };
    gathered.text(CARD, card);
    gathered.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(gathered)
}

impl Gathered {
    /// The manifest of a stage, noted as one that files are of.
    fn stage(&mut self, context: &Context, name: &'static str) -> Result<Manifest> {
        let dir = context.run_dir.stage(name);
        let manifest = Manifest::read(&dir)?.ok_or_else(|| Error::Usage {
            message: format!("{}: it is not complete", dir.display()),
            hint: "run `stillroom run` with this recipe first".into(),
        })?;
        let path = dir.join(records::manifest::FILE_NAME);
        let bytes = std::fs::read(&path).map_err(io(&path))?;
        self.stages.insert(name.to_owned(), hash::bytes(&bytes));
        Ok(manifest)
    }

    fn text(&mut self, path: &str, text: String) {
        self.files.retain(|file| file.path != path);
        self.files.push(UploadFile::bytes(path, text));
    }

    fn file(&mut self, inside: &Path, path: &Path) -> Result<()> {
        // Known from when the stage wrote it.
        let stamp = stamps::stamp(path)?;
        let steps: Vec<_> = inside.iter().map(|step| step.to_string_lossy()).collect();
        self.files.push(UploadFile {
            path: steps.join("/"),
            contents: Contents::File {
                path: path.to_path_buf(),
                blake3: Some(stamp.blake3),
            },
        });
        Ok(())
    }

    /// Scores, samples and the files for leaderboards, where they are of this student.
    fn scores(&mut self, context: &Context) -> Result<Option<Scores>> {
        let dir = context.run_dir.scores();
        let problem = match state_of(context, SCORES)? {
            State::Complete(_) => None,
            State::Unfinished => Some("the student has not been scored (eval-aime)".to_owned()),
            State::Stale(reason) | State::Damaged(reason) => {
                Some(format!("they are not what this recipe gives: {reason}"))
            }
        };
        if let Some(problem) = problem {
            self.notes.push(format!("scores are not pushed: {problem}"));
            return Ok(None);
        }
        self.stage(context, SCORES)?;
        let scores = eval::read_scores(&dir).map_err(|error| Error::stage(SCORES, error))?;
        for name in ["scores.json", "scores.md", "samples.parquet"] {
            let path = dir.join(name);
            if path.is_file() {
                self.file(&Path::new(SCORES).join(name), &path)?;
            }
        }
        for (path, text) in card::eval_results(&scores, cards::ROLE) {
            self.text(&path, text);
        }
        Ok(Some(scores))
    }

    /// Has the adapter's configuration name its base as others find it.
    fn name_base(&mut self, folder: &Path, base: &card::HubModel) -> Result<()> {
        let [config, ..] = ADAPTER_FILES;
        let path = folder.join(config);
        let mut value = adapter_config(&path)?;
        let revision = base.revision.clone().map_or(Value::Null, Value::from);
        if value["base_model_name_or_path"] == base.id.as_str() && value["revision"] == revision {
            return Ok(());
        }
        value["base_model_name_or_path"] = base.id.clone().into();
        value["revision"] = revision;
        let text = serde_json::to_string_pretty(&value);
        let text = text.map_err(|source| unreadable(&path, source))?;
        self.text(config, text + "\n");
        self.notes.push(format!(
            "{config} names {} as its base, instead of a folder of this machine",
            base.id
        ));
        Ok(())
    }
}

fn adapter_config(path: &Path) -> Result<Value> {
    let value: Option<Value> = records::json::read(path)?;
    value.ok_or_else(|| io(path)(std::io::ErrorKind::NotFound.into()))
}

fn unreadable(path: &Path, source: serde_json::Error) -> Error {
    Error::Records(records::Error::Json {
        path: PathBuf::from(path),
        line: source.line(),
        source,
    })
}

/// The adapter's base as others find it: what the recipe names, else what training wrote down.
fn adapter_base(context: &Context, hub: &HubConfig, folder: &Path) -> Result<card::HubModel> {
    if let Some(base) = hub.base() {
        return Ok(hub_model(&base));
    }
    let [config, ..] = ADAPTER_FILES;
    let value = adapter_config(&folder.join(config))?;
    let name = value["base_model_name_or_path"]
        .as_str()
        .unwrap_or_default();
    // Training writes a revision down where the base came from the Hub, and only there.
    match value["revision"].as_str() {
        Some(revision) => Ok(card::HubModel {
            id: name.to_owned(),
            revision: Some(revision.to_owned()),
        }),
        None => Err(base_unknown(context, name)),
    }
}

/// The base of a merged model, where it is on the Hub.
fn merged_base(context: &Context, hub: &HubConfig, student: &Path) -> Option<card::HubModel> {
    if let Some(base) = hub.base() {
        return Some(hub_model(&base));
    }
    let adapter = adapter_base(context, hub, &student.join("adapter"));
    let recipe = context.recipe();
    let model = recipe.student.as_ref()?.model.as_ref()?;
    let named = RepoUrl::parse_model(model.as_str()).ok().flatten();
    let named = named.filter(|_| is_hub_id(model));
    adapter.ok().or_else(|| named.as_ref().map(hub_model))
}

fn hub_model(url: &RepoUrl) -> card::HubModel {
    card::HubModel {
        id: format!("{}/{}", url.org, url.name),
        revision: Some(url.revision.clone()),
    }
}

/// What `stillroom.json` says of a target; its files are filled in when the repository is known.
pub(super) fn marker(
    context: &Context,
    target: &Target,
    gathered: &Gathered,
    identity: &str,
) -> Marker {
    Marker {
        stillroom: env!("CARGO_PKG_VERSION").to_owned(),
        recipe: context.recipe().name.clone(),
        identity: identity.to_owned(),
        what: target.kind.as_str().to_owned(),
        stages: gathered.stages.clone(),
        ..Marker::default()
    }
}
