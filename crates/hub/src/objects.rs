//! `s3://…`, `gs://…`, `az://…` and `https://…`: objects, kept by URL and ETag.
//!
//! What an object is now is asked for at every fetch, with a HEAD or a listing; its bytes are only if no copy with that
//! ETag is here. A copy gets its name when it is whole.

mod model;

use std::io::Write;
use std::path::PathBuf;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::HttpError;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig,
};
use records::{atomic, hash};
use url::{Position, Url};

use crate::error::{Error, Result, io, shown};
use crate::network::{self, LONGEST_SILENCE, in_time, unless_stalled};
use crate::pattern::{is_pattern, literal_folder, matches, pattern};
use crate::progress::{Report, Say};
use crate::{Access, Fetched};

pub use self::model::fetch_model;

const FORM: &str =
    "write s3://bucket/path, gs://bucket/path, az://container/path or https://host/path";

/// Tries after the first one.
const RETRIES: usize = 4;

/// An object, or a pattern of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectUrl {
    text: String,
    url: Url,
    store: ObjectStoreScheme,
    /// Decoded, within the store; may be a glob.
    path: ObjectPath,
}

impl ObjectUrl {
    /// Reads a URL. Only stores that can list take globs.
    ///
    /// # Errors
    /// [`Error::Source`], with how to write it.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |problem: String| Error::Source {
            text: shown(text),
            problem,
            hint: FORM,
        };
        let url = Url::parse(text).map_err(|error| wrong(format!("is no URL: {error}")))?;
        // What a URL says is written into the run folder.
        if url.password().is_some()
            || (url.scheme().starts_with("http") && !url.username().is_empty())
        {
            return Err(Error::Source {
                text: format!("{}://…@…", url.scheme()),
                problem: "holds a name or a password, which would be written down with the traces"
                    .into(),
                hint: FORM,
            });
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong(
                "holds a `?` or a `#`: signed links are not taken, in names they are %3F and %23"
                    .into(),
            ));
        }
        let (store, path) = ObjectStoreScheme::parse(&url)
            .map_err(|error| wrong(format!("is no object's URL: {error}")))?;
        if path.is_root() {
            return Err(wrong("names no object".into()));
        }
        if is_pattern(path.as_ref()) {
            if store == ObjectStoreScheme::Http {
                return Err(wrong(
                    "has a glob, and web servers do not list their files".into(),
                ));
            }
            pattern(text, path.as_ref())?;
        }
        Ok(Self {
            text: text.to_owned(),
            url,
            store,
            path,
        })
    }

    /// The path within the store; may be a glob.
    pub fn path(&self) -> &str {
        self.path.as_ref()
    }

    /// The URL of one object of the same store.
    fn at(&self, location: &ObjectPath) -> String {
        let whole = ObjectPath::from_url_path(self.url.path()).unwrap_or_default();
        let bucket = whole.as_ref().strip_suffix(self.path()).unwrap_or_default();
        format!("{}/{bucket}{location}", &self.url[..Position::BeforePath])
    }

    /// Which credentials to give.
    fn login(&self) -> &'static str {
        match self.store {
            ObjectStoreScheme::AmazonS3 => {
                "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or AWS_SKIP_SIGNATURE=true where the bucket is public"
            }
            ObjectStoreScheme::GoogleCloudStorage => {
                "set GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS to a key file, or GOOGLE_SKIP_SIGNATURE=true where the bucket is public"
            }
            ObjectStoreScheme::MicrosoftAzure => {
                "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_SKIP_SIGNATURE=true where the container is public"
            }
            _ => {
                "no login is sent to web servers; fetch the file by other means and name the local copy"
            }
        }
    }
}

/// The objects that a URL names, sorted, each downloaded unless a copy of it as it is now is here.
pub fn fetch(url: &ObjectUrl, access: &Access, say: Say) -> Result<Vec<Fetched>> {
    network::block_on(async {
        let store = open(url, &access.options)?;
        let pull = Pull::new(store.as_ref(), url, access, say);
        let mut fetched = Vec::new();
        for object in pull.objects().await? {
            fetched.push(Fetched {
                path: pull.object(&object).await?,
                url: url.at(&object.location),
            });
        }
        Ok(fetched)
    })
}

/// The store of a URL. `object_store::parse_url_opts` would give a whole transfer thirty seconds, and requests that fail
/// ten retries.
fn open(url: &ObjectUrl, options: &[(String, String)]) -> Result<Box<dyn ObjectStore>> {
    let client = ClientOptions::new()
        .with_timeout_disabled()
        // Who writes http:// means it.
        .with_allow_http(url.url.scheme() == "http");
    let retry = RetryConfig {
        max_retries: RETRIES,
        ..RetryConfig::default()
    };
    macro_rules! build {
        ($builder:ty, $address:expr) => {{
            let builder = <$builder>::new()
                .with_url($address)
                .with_client_options(client)
                .with_retry(retry);
            let builder = options.iter().fold(builder, |builder, (key, value)| {
                // Each store takes its own of all the options.
                match key.to_ascii_lowercase().parse() {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                }
            });
            builder
                .build()
                .map(|store| Box::new(store) as Box<dyn ObjectStore>)
        }};
    }
    let address = url.url.to_string();
    let store = match url.store {
        ObjectStoreScheme::AmazonS3 => build!(AmazonS3Builder, address),
        ObjectStoreScheme::GoogleCloudStorage => build!(GoogleCloudStorageBuilder, address),
        ObjectStoreScheme::MicrosoftAzure => build!(MicrosoftAzureBuilder, address),
        _ => build!(HttpBuilder, &url.url[..Position::BeforePath]),
    };
    store.map_err(|source| Error::Denied {
        url: url.text.clone(),
        problem: format!("the environment does not say how to reach it: {source}"),
        hint: url.login(),
    })
}

struct Pull<'a> {
    store: &'a dyn ObjectStore,
    url: &'a ObjectUrl,
    cache: PathBuf,
    say: Say,
}

impl<'a> Pull<'a> {
    fn new(store: &'a dyn ObjectStore, url: &'a ObjectUrl, access: &Access, say: Say) -> Self {
        Self {
            store,
            url,
            cache: access.cache.join("objects"),
            say,
        }
    }

    /// What the objects are now.
    async fn objects(&self) -> Result<Vec<ObjectMeta>> {
        let text = &self.url.text;
        let path = &self.url.path;
        if !is_pattern(path.as_ref()) {
            let head = in_time(text, self.store.head(path)).await?;
            return Ok(vec![head.map_err(|error| self.failed(text, error))?]);
        }
        let pattern = pattern(text, path.as_ref())?;
        let folder = ObjectPath::parse(literal_folder(path.as_ref())).unwrap_or_default();
        let folder = (!folder.is_root()).then_some(&folder);
        let listing = in_time(text, self.store.list(folder).try_collect()).await?;
        let mut objects: Vec<ObjectMeta> = listing.map_err(|error| self.failed(text, error))?;
        objects.retain(|object| matches(&pattern, object.location.as_ref()));
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        if objects.is_empty() {
            return Err(Error::NoMatch { url: text.clone() });
        }
        Ok(objects)
    }

    /// Where the copy of an object lies.
    async fn object(&self, now: &ObjectMeta) -> Result<PathBuf> {
        let url = self.url.at(&now.location);
        if let Some(version) = version(now) {
            let copy = self.copy(&url, &version, &now.location);
            if std::fs::metadata(&copy).is_ok_and(|metadata| metadata.len() == now.size) {
                return Ok(copy);
            }
        }
        let report = Report::start(self.say.clone(), &url, now.size);
        let answer = in_time(&url, self.store.get(&now.location))
            .await?
            .map_err(|error| self.failed(&url, error))?;
        // The object may have changed since it was looked at: it is kept as what it says that it is.
        let expected = answer.meta.size;
        let version = version(&answer.meta).unwrap_or_else(|| "unversioned".into());
        let copy = self.copy(&url, &version, &now.location);
        let folder = copy.parent().unwrap_or(&self.cache);
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        // A name of its own: other processes may be fetching the same object into the same folder.
        let file = tempfile::Builder::new()
            .prefix(".fetching-")
            .tempfile_in(folder)
            .map_err(io(folder))?;
        let (mut file, partial) = file.into_parts();
        let mut bytes = answer.into_stream();
        let mut arrived = 0;
        while let Some(chunk) = unless_stalled(&url, &report, LONGEST_SILENCE, bytes.try_next())
            .await?
            .map_err(|error| self.failed(&url, error))?
        {
            file.write_all(&chunk).map_err(io(&*partial))?;
            arrived += chunk.len() as u64;
            report.set(arrived);
        }
        if arrived != expected {
            return Err(Error::Torn {
                url,
                arrived,
                expected,
            });
        }
        file.sync_all().map_err(io(&*partial))?;
        atomic::publish(&partial, &copy)?;
        Ok(copy)
    }

    /// The name keeps its ending, by which files are read.
    fn copy(&self, url: &str, version: &str, location: &ObjectPath) -> PathBuf {
        let key = |text: &str| hash::bytes(text.as_bytes())[..32].to_owned();
        let name = location.filename().unwrap_or("object");
        self.cache.join(key(url)).join(key(version)).join(name)
    }

    fn failed(&self, url: &str, error: object_store::Error) -> Error {
        let url = url.to_owned();
        let denied = |url: String, problem: &str| Error::Denied {
            url,
            problem: problem.to_owned(),
            hint: self.url.login(),
        };
        match error {
            object_store::Error::NotFound { .. } => Error::NotFound {
                url,
                what: "object",
            },
            object_store::Error::Unauthenticated { .. } => {
                denied(url, "the store does not know who asks (401)")
            }
            object_store::Error::PermissionDenied { .. } => {
                denied(url, "the store refuses it to these credentials (403)")
            }
            // Where there are no credentials, the cloud's own machines are asked for some.
            error if error.to_string().contains("169.254.169.254") => {
                denied(url, "there are no credentials to ask with")
            }
            error if is_of_the_connection(&error) => Error::Unreachable {
                url,
                source: error.into(),
            },
            error => Error::Server {
                url,
                source: error.into(),
            },
        }
    }
}

/// What distinguishes an object from what it was before, if the store says anything of it.
fn version(object: &ObjectMeta) -> Option<String> {
    match &object.e_tag {
        Some(tag) => Some(tag.clone()),
        None => {
            let modified = object.last_modified.timestamp_micros();
            (modified != 0).then(|| format!("{} bytes, modified {modified}", object.size))
        }
    }
}

fn is_of_the_connection(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<HttpError>().is_some() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_name_a_store_and_a_path() {
        let check = |text: &str, store: ObjectStoreScheme, path: &str| {
            let url = ObjectUrl::parse(text).unwrap();
            assert_eq!((url.store.clone(), url.path()), (store, path), "{text}");
            assert_eq!(url.at(&url.path), text);
        };
        use ObjectStoreScheme::{AmazonS3, GoogleCloudStorage, Http, MicrosoftAzure};
        check("s3://bucket/a/b.jsonl", AmazonS3, "a/b.jsonl");
        check("s3://bucket/a/*.parquet", AmazonS3, "a/*.parquet");
        check("gs://bucket/b.csv", GoogleCloudStorage, "b.csv");
        check("az://container/b.csv", MicrosoftAzure, "b.csv");
        check("https://host/a/b.jsonl", Http, "a/b.jsonl");
        check(
            "https://s3.eu-west-1.amazonaws.com/bucket/a/b.csv",
            AmazonS3,
            "a/b.csv",
        );
        check("http://127.0.0.1:8080/b.csv", Http, "b.csv");
    }

    #[test]
    fn what_cannot_be_fetched_or_must_not_be_written_down_is_refused() {
        let check = |text: &str, problem: &str| {
            let error = ObjectUrl::parse(text).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(problem), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
            assert!(error.hint().unwrap().contains("s3://bucket/path"));
        };
        check("s3://bucket", "names no object");
        check("s3://bucket/", "names no object");
        check("https://host/*.jsonl", "do not list");
        check("https://host/a.jsonl?X=1", "signed links");
        check("https://me:secret@host/a.jsonl", "password");
        check("https:///", "is no URL");
    }
}
