//! `push-hub`: the results of a run, to the Hugging Face Hub.

mod cards;
mod files;
mod ledger;
mod licences;
mod redact;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use hub::repo::upload::{Comparison, Look, Pushed, Upload};
use hub::{Access, Account, Pusher, RepoId};
use records::hash;
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::run_dir::HUB;
use serde_json::{Map, Value};

use self::files::{Gathered, Kind, Target};
use self::ledger::{Ledger, Repository};
use crate::args::What;
use crate::context::Context;
use crate::environment;
use crate::error::{Error, Result, io};
use crate::recipe::{HubConfig, Recipe};
use crate::stage::{Prepared, Stage, Task};

/// What a name of the recipe's identity begins with.
const TAG: &str = "stillroom-";

const STATUS: &str = "what the Hub has already is not sent again; the same command goes on";

pub struct Push;

impl Stage for Push {
    fn name(&self) -> &'static str {
        HUB
    }

    fn is_asked_for(&self, _recipe: &Recipe) -> bool {
        true
    }

    fn sections(&self, recipe: &Recipe) -> Vec<(&'static str, bool)> {
        vec![("hub", recipe.hub.is_some())]
    }

    fn identity(&self, recipe: &Recipe) -> Result<Value> {
        Ok(Value::from(identity(recipe)?))
    }

    fn inputs(&self, _context: &Context) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    /// What the Hub holds is only known by asking it.
    fn asks_again(&self, _context: &Context, _manifest: &Manifest) -> bool {
        true
    }

    fn prepare(&self, context: &Context) -> Result<Box<dyn Prepared>> {
        let access = environment::access()?;
        let hub = config(context)?;
        let targets = files::targets(context, &hub)?;
        files::check_upstream(context, &targets)?;
        let stop = AtomicBool::new(false);
        let pusher = Pusher::new(&access, context.say(), &stop).map_err(refused)?;
        licences::check(context, &hub, &targets, &pusher)?;
        check_hub(context, &access, &pusher, &targets)?;
        Ok(Box::new(Checked {
            access,
            hub,
            targets,
        }))
    }

    /// The addresses of the pages.
    fn data(&self, context: &Context) -> Result<Option<String>> {
        let (access, hub) = (environment::access()?, config(context)?);
        let ledger = Ledger::read(&self.dir(context))?;
        let mut pages = String::new();
        for target in files::targets(context, &hub)? {
            let page = target.repo.page(&access.endpoint);
            let pushed = ledger.of(&page).is_some_and(|repo| repo.commit.is_some());
            if pushed && !pages.contains(&format!("{page}\n")) {
                pages += &format!("{page}\n");
            }
        }
        Ok(Some(pages))
    }
}

/// blake3 of everything in the recipe that decides the results of its stages, in their order.
fn identity(recipe: &Recipe) -> Result<String> {
    let mut stages = Map::new();
    let apart = super::of_run(false).iter();
    for stage in apart.filter(|stage| stage.applies(recipe) && stage.is_asked_for(recipe)) {
        stages.insert(stage.name().to_owned(), sorted(stage.identity(recipe)?));
    }
    Ok(hash::bytes(Value::Object(stages).to_string().as_bytes()))
}

/// With the keys of each object in their order: how a recipe is laid out does not make it another one.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let entries = entries.into_iter();
            Value::Object(entries.map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(list) => list.into_iter().map(sorted).collect(),
        value => value,
    }
}

/// The tag of an identity.
fn tag(identity: &str) -> String {
    format!("{TAG}{}", identity.get(..12).unwrap_or(identity))
}

fn config(context: &Context) -> Result<HubConfig> {
    Ok(context.recipe().hub.clone().unwrap_or_default())
}

/// What is asked for, and whether into repositories that no push has made.
fn asked(context: &Context) -> (What, bool) {
    let push = context.push.as_ref();
    push.map_or((What::All, false), |push| (push.what, push.into_existing))
}

/// That the Hub can be reached with this token, and that each repository may be pushed to.
fn check_hub(
    context: &Context,
    access: &Access,
    pusher: &Pusher<'_>,
    targets: &[Target],
) -> Result<()> {
    if access.token.is_none() && !access.offline {
        return Err(Error::Usage {
            message: format!("{}: a push needs a token, and there is none", access.endpoint),
            hint: "set HF_TOKEN to a token that may write (https://huggingface.co/settings/tokens), or run `hf auth login`".into(),
        });
    }
    let Account {
        name,
        organisations,
    } = pusher.who().map_err(refused)?;
    (context.say())(&format!(
        "{HUB}: the token is of {name}, at {}",
        access.endpoint
    ));
    let ledger = Ledger::read(&Push.dir(context))?;
    for target in targets {
        let look = pusher.look(&target.repo).map_err(refused)?;
        let made = ledger.made(&target.repo.page(&access.endpoint));
        let (_, into_existing) = asked(context);
        let org = &target.repo.org;
        if look == Look::Absent && *org != name && !organisations.contains(org) {
            return Err(Error::Usage {
                message: format!(
                    "{}: {org} is neither {name}, whose token this is, nor one of its organisations",
                    target.repo
                ),
                hint: format!(
                    "name a repository of {name} in [hub], or set HF_TOKEN to a token that may write for {org}"
                ),
            });
        }
        if let Look::Foreign { empty } = look
            && !into_existing
            && !(made && empty)
        {
            let url = target.repo.to_string();
            return Err(refused(hub::Error::Foreign { url }));
        }
    }
    Ok(())
}

/// An error found before anything is done.
fn refused(error: hub::Error) -> Error {
    match error.is_mistake() {
        true => Error::Usage {
            hint: error.hint().unwrap_or_default().to_owned(),
            message: error.to_string(),
        },
        false => failed(error),
    }
}

/// An error of a push under way.
fn failed(error: hub::Error) -> Error {
    let hint = match error.hint() {
        Some(hint) => hint.to_owned(),
        None => STATUS.to_owned(),
    };
    Error::Saved {
        stage: HUB,
        hint,
        source: error.into(),
    }
}

struct Checked {
    access: Access,
    hub: HubConfig,
    targets: Vec<Target>,
}

impl Prepared for Checked {
    fn describe(&self, context: &Context, upstream_runs: bool) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        if upstream_runs {
            for target in &self.targets {
                lines.push(format!(
                    "{}: {}; its files are known when the stages before have run",
                    target.kind.as_str(),
                    target.repo.page(&self.access.endpoint)
                ));
            }
            return Ok(lines);
        }
        let stop = AtomicBool::new(false);
        let pusher = Pusher::new(&self.access, context.say(), &stop).map_err(refused)?;
        let ledger = Ledger::read(&Push.dir(context))?;
        for target in &self.targets {
            let gathered = files::gather(context, &self.hub, target)?;
            let upload = self.upload(context, target, &gathered, &ledger)?;
            let is_new = matches!(pusher.look(&target.repo), Ok(Look::Absent));
            let comparison = pusher.compare(&upload).map_err(refused)?;
            lines.extend(self.described(target, is_new, &comparison));
            lines.extend(gathered.notes.iter().map(|note| format!("  {note}")));
            for file in upload.files.iter().filter(|file| file.path == "README.md") {
                if let hub::repo::upload::Contents::Bytes(text) = &file.contents {
                    lines.push("  card:".into());
                    let text = String::from_utf8_lossy(text);
                    let front = text.split("---\n").nth(1).unwrap_or_default();
                    // The list of columns is long, and in the file.
                    let front = front.lines().take_while(|line| *line != "dataset_info:");
                    lines.extend(front.map(|line| format!("    {line}")));
                }
            }
        }
        Ok(lines)
    }

    fn run(&self, task: &Task) -> Result<Outcome<()>> {
        let (context, started) = (task.context, now_micros());
        let dir = Push.dir(context);
        std::fs::create_dir_all(&dir).map_err(io(&dir))?;
        Manifest::remove(&dir)?;
        let pusher = Pusher::new(&self.access, context.say(), task.stop).map_err(failed)?;
        let mut ledger = Ledger::read(&dir)?;
        let mut manifest = Manifest::new(HUB, task.identity.clone(), started);
        let mut count = |name: &str, n: u64| *manifest.counts.entry(name.into()).or_default() += n;
        // Before the first repository is created or changed.
        match self.check_cards(context, &pusher, &ledger) {
            Err(Step::Stopped) => return Ok(Outcome::Interrupted),
            Err(Step::Failed(error)) => return Err(*error),
            Ok(()) => {}
        }
        for target in &self.targets {
            let pushed = match self.push(context, &pusher, target, &mut ledger) {
                Err(Step::Stopped) => return Ok(Outcome::Interrupted),
                Err(Step::Failed(error)) => return Err(*error),
                Ok(None) => continue,
                Ok(Some(pushed)) => pushed,
            };
            count("repositories", 1);
            count("files_sent", pushed.sent.len() as u64);
            count("files_unchanged", pushed.unchanged as u64);
            count("files_deleted", pushed.deleted.len() as u64);
            count("bytes_sent", pushed.sent.iter().map(|(_, size)| size).sum());
        }
        if manifest.counts.is_empty() {
            return Err(Error::Usage {
                message: "the scores are pushed nowhere: none of the models is there".into(),
                hint: "push them with their models (--what merged, adapter or all)".into(),
            });
        }
        manifest.duration_seconds = (now_micros() - started) as f64 / 1e6;
        manifest.write(&dir)?;
        Ok(Outcome::Complete(()))
    }
}

/// Why a push of one repository did not come to its end.
enum Step {
    Stopped,
    Failed(Box<Error>),
}

impl From<hub::Error> for Step {
    fn from(error: hub::Error) -> Self {
        match error {
            hub::Error::Interrupted => Step::Stopped,
            error => Step::Failed(Box::new(failed(error))),
        }
    }
}

impl From<Error> for Step {
    fn from(error: Error) -> Self {
        Step::Failed(Box::new(error))
    }
}

impl Checked {
    fn upload(
        &self,
        context: &Context,
        target: &Target,
        gathered: &Gathered,
        ledger: &Ledger,
    ) -> Result<Upload> {
        let identity = identity(context.recipe())?;
        let (_, into_existing) = asked(context);
        let name = &context.recipe().name;
        Ok(Upload {
            repo: target.repo.clone(),
            files: gathered.files.clone(),
            marker: files::marker(context, target, gathered, &identity),
            message: format!("{} of the recipe {name}", target.kind.title()),
            tag: tag(&identity),
            private: self.hub.private,
            made_by_us: ledger.made(&target.repo.page(&self.access.endpoint)),
            into_existing,
            onto: target.onto(),
            known: ledger.known.clone(),
        })
    }

    /// That the Hub takes all cards.
    fn check_cards(
        &self,
        context: &Context,
        pusher: &Pusher<'_>,
        ledger: &Ledger,
    ) -> std::result::Result<(), Step> {
        for target in self.targets.iter().filter(|target| !target.scores_only) {
            let gathered = files::gather(context, &self.hub, target)?;
            pusher.check(&self.upload(context, target, &gathered, ledger)?)?;
        }
        Ok(())
    }

    /// One repository; nothing of a model's scores where the model is not there. The ledger is written before a request that changes anything, and after it: what a kill leaves
    /// open is settled by the next start.
    fn push(
        &self,
        context: &Context,
        pusher: &Pusher<'_>,
        target: &Target,
        ledger: &mut Ledger,
    ) -> std::result::Result<Option<Pushed>, Step> {
        let dir = Push.dir(context);
        let page = target.repo.page(&self.access.endpoint);
        let is_there = pusher.look(&target.repo)? != Look::Absent;
        if target.scores_only && !is_there {
            (context.say())(&format!(
                "{HUB}: {page}: it is not there, so the scores are not pushed there"
            ));
            return Ok(None);
        }
        let gathered = files::gather(context, &self.hub, target)?;
        for note in &gathered.notes {
            (context.say())(&format!("{HUB}: {}: {note}", target.kind.as_str()));
        }
        if !is_there {
            let entry = ledger.entry(&page, &target.repo.to_string(), target.kind.as_str());
            entry.creating = true;
            ledger.write(&dir)?;
            let is_new = pusher.create(&target.repo, self.hub.private)?;
            let privacy = match self.hub.private {
                true => "private",
                false => "public",
            };
            let entry = ledger.entry(&page, &target.repo.to_string(), target.kind.as_str());
            // One that came between is somebody else's, unless it is the one that this very request made.
            entry.created |= is_new;
            ledger.write(&dir)?;
            (context.say())(&format!("{HUB}: {page} is created, {privacy}"));
        }
        let upload = self.upload(context, target, &gathered, ledger)?;
        let pushed = pusher.push(&upload)?;
        let entry = ledger.entry(&page, &target.repo.to_string(), target.kind.as_str());
        *entry = Repository {
            commit: Some(pushed.commit.clone()),
            tag: Some(upload.tag.clone()),
            ..entry.clone()
        };
        ledger.known.extend(pushed.known.clone());
        ledger.write(&dir)?;
        (context.say())(&told(&page, &target.repo, &upload.tag, &pushed));
        Ok(Some(pushed))
    }

    fn described(&self, target: &Target, is_new: bool, comparison: &Comparison) -> Vec<String> {
        let page = target.repo.page(&self.access.endpoint);
        let state = match (is_new, self.hub.private) {
            (true, true) => ", which would be created, private",
            (true, false) => ", which would be created, public",
            (false, _) => "",
        };
        let bytes: u64 = comparison.send.iter().map(|(_, size)| size).sum();
        let mut lines = vec![format!(
            "{}: {page}{state}: {} files to send ({:.1} MB), {} unchanged, {} to delete",
            target.kind.as_str(),
            comparison.send.len(),
            bytes as f64 / 1e6,
            comparison.unchanged,
            comparison.delete.len()
        )];
        let send = comparison.send.iter();
        lines.extend(send.map(|(path, size)| format!("  send {path} ({size} bytes)")));
        let delete = comparison.delete.iter();
        lines.extend(delete.map(|path| format!("  delete {path}")));
        lines
    }
}

fn told(page: &str, repo: &RepoId, tag: &str, pushed: &Pushed) -> String {
    let bytes: u64 = pushed.sent.iter().map(|(_, size)| size).sum();
    let commit = pushed.commit.get(..12).unwrap_or(&pushed.commit);
    match pushed.sent.is_empty() && pushed.deleted.is_empty() {
        true => format!(
            "{HUB}: {page}: nothing to send, {} files are there at {commit} ({repo}@{tag})",
            pushed.unchanged
        ),
        false => format!(
            "{HUB}: {page}: {} files sent ({:.1} MB), {} unchanged, {} deleted: {commit} ({repo}@{tag})",
            pushed.sent.len(),
            bytes as f64 / 1e6,
            pushed.unchanged,
            pushed.deleted.len()
        ),
    }
}

impl Kind {
    /// What a commit's message calls it.
    fn title(self) -> &'static str {
        match self {
            Kind::Dataset => "Dataset",
            Kind::Adapter => "Adapter",
            Kind::Merged => "Merged model",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_is_no_part_of_an_identity() {
        let a = sorted(json!({"b": {"y": 1, "x": [ {"n": 1, "m": 2} ]}, "a": 2}));
        let b = sorted(json!({"a": 2, "b": {"x": [ {"m": 2, "n": 1} ], "y": 1}}));
        assert_eq!(a.to_string(), b.to_string());
        assert_eq!(tag("0123456789abcdef"), "stillroom-0123456789ab");
    }
}
