//! The recipe as it is published: names and passwords in addresses, and what looks like a key, are left out.

use toml::{Table, Value};

use crate::error::{Error, Result};

const HIDDEN: &str = "***";

/// Parts of the names of a request's parameters that are secret.
const SECRET: [&str; 6] = ["key", "token", "secret", "password", "sig", "code"];

pub(super) fn recipe(text: &str) -> Result<String> {
    let wrong = |message: String| Error::Recipe {
        place: "recipe".into(),
        message,
        hint: None,
    };
    let mut table: Table = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    walk_table("", &mut table);
    toml::to_string(&table).map_err(|error| wrong(error.to_string()))
}

fn walk_table(name: &str, table: &mut Table) {
    for (key, value) in table.iter_mut() {
        let lower = key.to_lowercase();
        let is_secret = name == "query" && SECRET.iter().any(|part| lower.contains(part));
        match value {
            Value::String(text) if is_secret => HIDDEN.clone_into(text),
            value => walk(key, value),
        }
    }
}

fn walk(name: &str, value: &mut Value) {
    match value {
        Value::String(text) => *text = address(text),
        Value::Array(list) => list.iter_mut().for_each(|value| walk(name, value)),
        Value::Table(table) => walk_table(name, table),
        _ => {}
    }
}

/// An address without user and password, and one of the web without its query.
fn address(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    if scheme.is_empty()
        || !scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '+')
    {
        return text.to_owned();
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => authority.to_owned(),
    };
    let path = match (scheme, path.split_once('?')) {
        ("http" | "https", Some((path, _))) => format!("{path}?{HIDDEN}"),
        _ => path.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_keep_hosts_and_lose_secrets() {
        for (text, shown) in [
            ("http://me:pw@host:80/v1", "http://***@host:80/v1"),
            ("https://host/v1?sig=1", "https://host/v1?***"),
            ("hf://org/name@main", "hf://org/name@main"),
            (
                "hf://datasets/o/n@main/x.parquet",
                "hf://datasets/o/n@main/x.parquet",
            ),
            ("a sentence: see http://x", "a sentence: see http://x"),
        ] {
            assert_eq!(address(text), shown);
        }
        let text = recipe("[teacher]\nendpoints = [\"http://u:p@h/v1\"]\n[teacher.request.query]\nsubscription-key = \"abc\"\napi-version = \"1\"\n").unwrap();
        assert!(!text.contains("u:p") && !text.contains("abc"), "{text}");
        assert!(text.contains("api-version = \"1\""), "{text}");
    }
}
