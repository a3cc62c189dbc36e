//! The files of a model that are read here, out of all that its repository holds.

use hf_hub::RepoType;

use super::{Entry, Pull, begin, client};
use crate::error::Result;
use crate::progress::Say;
use crate::repo::RepoUrl;
use crate::wanted::{INDEX, Wanted, no_model, weights};
use crate::{Access, Fetched, network};

pub fn fetch_model(
    url: &RepoUrl,
    wanted: Wanted<'_>,
    access: &Access,
    say: Say,
) -> Result<Fetched> {
    network::block_on(async {
        let model = client(access)?.model(&url.org, &url.name);
        let info = model.info().revision(&url.revision).send();
        let pull = begin(&model, url, access, say, async { Ok(info.await?.sha) }).await?;
        match url.path.ends_with(".gguf") {
            true => file(&pull).await,
            false => folder(&pull, wanted).await,
        }
    })
}

async fn file<T: RepoType>(pull: &Pull<'_, T>) -> Result<Fetched> {
    let mut files = pull.files(pull.entries().await?).await?;
    files.pop().ok_or_else(|| no_model(pull.url.to_string()))
}

async fn folder<T: RepoType>(pull: &Pull<'_, T>, wanted: Wanted<'_>) -> Result<Fetched> {
    let listed = pull.folder().await?;
    let inside = match pull.url.path.as_str() {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let among = |names: &[&str]| -> Vec<Entry> {
        let named = |entry: &&Entry| {
            let name = entry.path.strip_prefix(&inside);
            name.is_some_and(|name| names.contains(&name))
        };
        listed.iter().filter(named).cloned().collect()
    };
    let mut files = pull.files(among(wanted.names)).await?;
    if wanted.weights {
        let index = pull.files(among(&[INDEX])).await?;
        let names = weights(index.first().map(|file| file.path.as_path()))?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        files.extend(pull.files(among(&names)).await?);
    }
    if files.is_empty() {
        return Err(no_model(pull.url.to_string()));
    }
    Ok(Fetched {
        path: pull.snapshot().join(&pull.url.path),
        url: pull.url.at(&pull.commit, &pull.url.path),
    })
}
