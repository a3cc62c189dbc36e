//! Transfers that were interrupted. hf-hub begins each file anew, which of a file of gigabytes is most of the work again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use futures::StreamExt;
use hf_hub::RepoType;
use reqwest::redirect::Policy;
use sha2::{Digest, Sha256};

use super::cache::size;
use super::{Entry, Pull, failed};
use crate::error::{Result, io};
use crate::network::in_time;
use crate::progress::Report;

impl<T: RepoType> Pull<'_, T> {
    /// Fetches the rest of a file whose first bytes are in the cache, where its hash is known: that of a large file is its
    /// ETag. Whatever does not come to its end here is left to a transfer of the whole file.
    pub(super) async fn take_up(&self, entry: &Entry, report: &Report) -> Result<()> {
        let (kind, url) = (self.url.kind, self.url.at(&self.commit, &entry.path));
        let Some(etag) = in_time(&url, self.etag(entry)).await? else {
            return Ok(());
        };
        let partial = self.cache.incomplete(&etag);
        let Ok(arrived) = size(&partial) else {
            return Ok(());
        };
        if etag.len() != 64 || arrived == 0 {
            return Ok(());
        }
        // Another process may be writing it.
        let Some(_lock) = self.lock(&etag)? else {
            return Ok(());
        };
        if arrived < entry.size {
            (self.say)(&format!("{url}: going on behind {arrived} bytes"));
            self.append(entry, arrived, &partial, report, &url)
                .await
                .map_err(|error| match error {
                    Failure::Ours(error) => error,
                    Failure::Hub(error) => failed(kind, &url, "file", error),
                })?;
        }
        if size(&partial)? == entry.size && sha256(&partial)? == etag {
            let blob = self.cache.blob(&etag);
            return std::fs::rename(&partial, &blob).map_err(io(&blob));
        }
        (self.say)(&format!(
            "{url}: what was there of it is not its beginning, so it is fetched anew"
        ));
        std::fs::remove_file(&partial).map_err(io(&partial))
    }

    /// What the Hub says that a file's bytes are named by, before it sends a reader on to where they lie: hf-hub's own
    /// question goes there too, and comes back without it.
    async fn etag(&self, entry: &Entry) -> Option<String> {
        let client = reqwest::Client::builder().redirect(Policy::none());
        let prefix = self.url.kind.route();
        let (org, name, commit) = (&self.url.org, &self.url.name, &self.commit);
        let address = format!(
            "{}/{prefix}{org}/{name}/resolve/{commit}/{}",
            self.endpoint.trim_end_matches('/'),
            entry.path
        );
        let mut request = client.build().ok()?.head(address);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.ok()?;
        let headers = answer.headers();
        let tag = headers
            .get("x-linked-etag")
            .or_else(|| headers.get("etag"))?;
        Some(tag.to_str().ok()?.trim_matches('"').to_owned())
    }

    /// The lock that hf-hub takes before it writes a blob; `None` where another process has it.
    fn lock(&self, etag: &str) -> Result<Option<File>> {
        let path = self.cache.lock(etag);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io(folder))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io(&path))?;
        Ok(file.try_lock().is_ok().then_some(file))
    }

    async fn append(
        &self,
        entry: &Entry,
        arrived: u64,
        partial: &Path,
        report: &Report,
        url: &str,
    ) -> std::result::Result<(), Failure> {
        let request = self.repository.download_file_stream();
        let request = request
            .filename(&entry.path)
            .revision(&self.commit)
            .range(arrived..entry.size)
            .send();
        let (_, mut bytes) = in_time(url, request).await?.map_err(Failure::Hub)?;
        let mut file = OpenOptions::new()
            .append(true)
            .open(partial)
            .map_err(io(partial))?;
        let mut arrived = arrived;
        while let Some(chunk) = in_time(url, bytes.next()).await? {
            let chunk = chunk.map_err(Failure::Hub)?;
            file.write_all(&chunk).map_err(io(partial))?;
            arrived += chunk.len() as u64;
            report.set(arrived);
            // A server that knows no ranges begins at the beginning.
            if arrived > entry.size {
                break;
            }
        }
        Ok(file.sync_all().map_err(io(partial))?)
    }
}

enum Failure {
    Ours(crate::Error),
    Hub(hf_hub::HFError),
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Self::Ours(error)
    }
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(io(path))?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(io(path))? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
