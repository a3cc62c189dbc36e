//! What the environment says of the Hub and of object stores.

use std::path::{Path, PathBuf};

use hub::Access;

use crate::error::{Error, Result};

const HUB: &str = "https://huggingface.co";

/// The options of object stores are the variables that begin so.
const STORES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// How to reach what lies elsewhere: `HF_ENDPOINT`, the token, `HF_HUB_OFFLINE`, the Hub's cache where its other tools have it
/// (`HF_HUB_CACHE`, `HF_HOME`), ours under `XDG_CACHE_HOME` or `~/.cache`, and the variables of object stores.
pub(crate) fn access() -> Result<Access> {
    let readable = std::env::vars_os().filter_map(|(name, value)| {
        // One that is not Unicode is none of these.
        Some((name.into_string().ok()?, value.into_string().ok()?))
    });
    read(&readable.collect::<Vec<_>>())
}

fn read(variables: &[(String, String)]) -> Result<Access> {
    let get = |name: &str| {
        let found = variables.iter().find(|(key, _)| key == name);
        let value = found.map(|(_, value)| value.trim());
        value.filter(|value| !value.is_empty())
    };
    let folder = |name: &str| get(name).map(PathBuf::from);
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let no_folder = || Error::Usage {
        message: "there is no folder for what is fetched".into(),
        hint: "set HOME or XDG_CACHE_HOME".into(),
    };
    let caches = caches.ok_or_else(no_folder)?;
    let home = folder("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
    let hub_cache = folder("HF_HUB_CACHE")
        .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
        .unwrap_or_else(|| home.join("hub"));
    let of_a_store = |name: &str| STORES.iter().any(|prefix| name.starts_with(prefix));
    Ok(Access {
        endpoint: get("HF_ENDPOINT").unwrap_or(HUB).to_owned(),
        token: token(get, &home)?,
        hub_cache,
        offline: offline(get),
        cache: caches.join("stillroom"),
        options: variables
            .iter()
            .filter(|(name, _)| of_a_store(name))
            .cloned()
            .collect(),
    })
}

/// The Hub's token, where Python's client has it from: the environment, else the file that a login leaves.
fn token<'a>(get: impl Fn(&str) -> Option<&'a str>, home: &Path) -> Result<Option<String>> {
    if is_on(get("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
        return Ok(None);
    }
    let said = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN"));
    let (place, token) = match said {
        Some(token) => ("HF_TOKEN".to_owned(), token.to_owned()),
        None => {
            let file = get("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
            // One that cannot be read is none, as for Python's client.
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            (file.display().to_string(), text.trim().to_owned())
        }
    };
    let plain = |c: char| c.is_ascii_graphic();
    match token.is_empty() {
        true => Ok(None),
        false if token.chars().all(plain) => Ok(Some(token)),
        false => Err(Error::Usage {
            message: format!("{place}: what stands there is no token of the Hub"),
            hint: "a token is one word, hf_…; run `hf auth login`, or make one at https://huggingface.co/settings/tokens".into(),
        }),
    }
}

/// Whether the Hub may not be asked, as its other tools read their environment.
fn offline<'a>(get: impl Fn(&str) -> Option<&'a str>) -> bool {
    let value = get("HF_HUB_OFFLINE").or_else(|| get("TRANSFORMERS_OFFLINE"));
    is_on(value)
}

/// What Python's client takes for yes.
fn is_on(value: Option<&str>) -> bool {
    let value = value.unwrap_or_default().to_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

/// The command line of this process, as a shell takes it.
pub(crate) fn command_line() -> String {
    let words = std::env::args_os().map(|word| quoted(&word.to_string_lossy()));
    words.collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Access> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        read(&variables.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_line_is_quoted_where_a_shell_needs_it() {
        let line = ["stillroom", "run", "a b.toml", "it's", ""]
            .map(quoted)
            .join(" ");
        assert_eq!(line, r"stillroom run 'a b.toml' 'it'\''s' ''");
    }

    #[test]
    fn the_token_is_found_where_python_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("token"), "hf_home\n").unwrap();
        let path = dir.path().join("other");
        std::fs::write(&path, " hf_path\n").unwrap();
        let path = path.to_str().unwrap();
        let check = |variables: &[(&str, &str)], token: Option<&str>| {
            let variables = [&[("HOME", "/h"), ("HF_HOME", home)], variables].concat();
            assert_eq!(
                of(&variables).unwrap().token.as_deref(),
                token,
                "{variables:?}"
            );
        };
        check(&[], Some("hf_home"));
        check(&[("HF_TOKEN_PATH", path)], Some("hf_path"));
        check(&[("HF_TOKEN_PATH", "/nowhere")], None);
        check(
            &[
                ("HUGGING_FACE_HUB_TOKEN", "hf_old"),
                ("HF_TOKEN_PATH", path),
            ],
            Some("hf_old"),
        );
        check(
            &[("HUGGING_FACE_HUB_TOKEN", "hf_old"), ("HF_TOKEN", "hf_new")],
            Some("hf_new"),
        );
        check(
            &[
                ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
                ("HF_TOKEN", "hf_new"),
            ],
            None,
        );
        let wrong = [("HOME", "/h"), ("HF_TOKEN", "hf_a\nhf_secret")];
        let error = of(&wrong).unwrap_err();
        assert!(!error.to_string().contains("hf_"), "{error}");
        // Without HF_HOME it is the cache that all share.
        std::fs::create_dir(dir.path().join("huggingface")).unwrap();
        std::fs::write(dir.path().join("huggingface/token"), "hf_cache").unwrap();
        let shared = of(&[("XDG_CACHE_HOME", home)]).unwrap();
        assert_eq!(shared.token.as_deref(), Some("hf_cache"));
    }

    #[test]
    fn caches_lie_where_other_tools_look() {
        let check = |variables: &[(&str, &str)], hub: &str, ours: &str| {
            let access = of(variables).unwrap();
            assert_eq!(access.hub_cache, Path::new(hub), "{variables:?}");
            assert_eq!(access.cache, Path::new(ours), "{variables:?}");
        };
        let home = ("HOME", "/h");
        check(&[home], "/h/.cache/huggingface/hub", "/h/.cache/stillroom");
        check(
            &[home, ("XDG_CACHE_HOME", "/x")],
            "/x/huggingface/hub",
            "/x/stillroom",
        );
        check(&[home, ("HF_HOME", "/f")], "/f/hub", "/h/.cache/stillroom");
        check(
            &[home, ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")],
            "/c",
            "/h/.cache/stillroom",
        );
        assert!(matches!(of(&[]), Err(Error::Usage { .. })));
    }

    #[test]
    fn empty_variables_are_none_and_stores_get_their_own() {
        let access = of(&[
            ("HOME", "/h"),
            ("HF_ENDPOINT", ""),
            ("HF_TOKEN", " hf_x\n"),
            ("AWS_REGION", "eu"),
            ("REGION", "us"),
        ])
        .unwrap();
        assert_eq!(access.endpoint, HUB);
        assert_eq!(access.token.as_deref(), Some("hf_x"));
        assert_eq!(access.options, [("AWS_REGION".into(), "eu".into())]);
        assert!(!format!("{access:?}").contains("hf_x"));
    }
}
