//! What the environment says of the Hub and of object stores.

use std::path::PathBuf;

use hub::Access;

use crate::error::{Error, Result};

const HUB: &str = "https://huggingface.co";

/// The options of object stores are the variables that begin so.
const STORES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// How to reach what lies elsewhere: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, the Hub's cache where its other tools have it
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
    let hub_cache = folder("HF_HUB_CACHE")
        .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
        .unwrap_or_else(|| {
            let home = folder("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
            home.join("hub")
        });
    let of_a_store = |name: &str| STORES.iter().any(|prefix| name.starts_with(prefix));
    Ok(Access {
        endpoint: get("HF_ENDPOINT").unwrap_or(HUB).to_owned(),
        token: get("HF_TOKEN").map(str::to_owned),
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

/// Whether the Hub may not be asked, as its other tools read their environment.
fn offline<'a>(get: impl Fn(&str) -> Option<&'a str>) -> bool {
    let value = get("HF_HUB_OFFLINE").or_else(|| get("TRANSFORMERS_OFFLINE"));
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
    use std::path::Path;

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
