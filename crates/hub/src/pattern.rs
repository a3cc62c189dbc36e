//! Globs over paths that lie elsewhere.

use crate::error::{Error, Result};

/// Whether a path is a pattern of paths.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The folder that everything a pattern matches lies in; empty for the root.
pub(crate) fn literal_folder(pattern: &str) -> &str {
    let end = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    pattern[..end].rfind('/').map_or("", |at| &pattern[..at])
}

/// `*` and `?` stop at a `/`, as in local globs.
pub(crate) fn matches(pattern: &glob::Pattern, path: &str) -> bool {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    pattern.matches_with(path, options)
}

pub(crate) fn pattern(text: &str, path: &str) -> Result<glob::Pattern> {
    glob::Pattern::new(path).map_err(|error| Error::Source {
        text: text.to_owned(),
        problem: format!("is not a glob: {error}"),
        hint: "`*`, `**`, `?` and `[…]` are understood",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_have_a_folder_and_stop_at_separators() {
        let check = |path: &str, folder: &str, inside: &str, outside: &str| {
            assert_eq!(literal_folder(path), folder);
            let pattern = pattern("x", path).unwrap();
            assert!(matches(&pattern, inside), "{path} {inside}");
            assert!(!matches(&pattern, outside), "{path} {outside}");
        };
        check(
            "data/*.parquet",
            "data",
            "data/a.parquet",
            "data/b/a.parquet",
        );
        check("data/**/*.parquet", "data", "data/b/a.parquet", "a.parquet");
        check("*.jsonl", "", "a.jsonl", "b/a.jsonl");
        check(
            "d/train-0000[01].csv",
            "d",
            "d/train-00001.csv",
            "d/train-00002.csv",
        );
    }
}
