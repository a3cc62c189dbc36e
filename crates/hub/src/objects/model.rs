//! A model whose files are objects: each is kept by URL and ETag as all objects are, and linked into one folder.

use std::path::Path;

use object_store::ObjectMeta;
use records::hash;

use super::{ObjectUrl, Pull, open, version};
use crate::error::{Result, io};
use crate::progress::Say;
use crate::wanted::{INDEX, Wanted, no_model, weights};
use crate::{Access, Fetched, network};

/// `url` is the pattern of everything in the model's folder.
pub fn fetch_model(
    url: &ObjectUrl,
    wanted: Wanted<'_>,
    access: &Access,
    say: Say,
) -> Result<Fetched> {
    network::block_on(async {
        let store = open(url, &access.options)?;
        let pull = Pull::new(store.as_ref(), url, access, say);
        let listed = pull.objects().await?;
        // Another folder as soon as any object is another one.
        let versions = listed.iter().map(|object| {
            let version = version(object).unwrap_or_default();
            format!("{} {version}\n", object.location)
        });
        let name =
            hash::bytes(format!("{}\n{}", url.text, versions.collect::<String>()).as_bytes());
        let folder = access.cache.join("models").join(&name[..32]);
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;

        let mut n_files = pull.link(&listed, wanted.names, &folder).await?;
        if wanted.weights {
            n_files += pull.link(&listed, &[INDEX], &folder).await?;
            let index = folder.join(INDEX);
            let names = weights(index.exists().then_some(index.as_path()))?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            n_files += pull.link(&listed, &names, &folder).await?;
        }
        let text = url.text.trim_end_matches("/*").to_owned();
        match n_files {
            0 => Err(no_model(text)),
            _ => Ok(Fetched {
                path: folder,
                url: text,
            }),
        }
    })
}

impl Pull<'_> {
    /// Fetches the objects of these names and links them into a folder; how many there are.
    async fn link(&self, listed: &[ObjectMeta], names: &[&str], folder: &Path) -> Result<usize> {
        let mut n_files = 0;
        for object in listed {
            let name = object.location.filename().unwrap_or_default();
            if !names.contains(&name) {
                continue;
            }
            let (copy, link) = (self.object(object).await?, folder.join(name));
            match std::os::unix::fs::symlink(&copy, &link) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(io(&link)(error));
                }
                _ => n_files += 1,
            }
        }
        Ok(n_files)
    }
}
