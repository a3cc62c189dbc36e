//! What of a source of problems, traces or training rows can be found wrong without looking at a file or asking a server.

use std::path::Path;

use hub::Source;
use records::table::ends_in;

/// The problem with a source, and how to write it.
pub(super) fn check(source: &str, endings: &[&str]) -> Result<(), (String, Option<String>)> {
    let remote = Source::parse(source)
        .map_err(|error| (error.to_string(), error.hint().map(str::to_owned)))?;
    match remote {
        // Before gigabytes of another kind are fetched.
        Some(remote) if !ends_in(Path::new(remote.path()), endings) => Err((
            format!("{source:?} does not end in one of .{}", endings.join(", .")),
            Some("a glob ends in what its files end in, as data/*.parquet does".into()),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use generation::prompts::ENDINGS;

    #[test]
    fn urls_are_whole_and_end_in_what_can_be_read() {
        for source in [
            "data/train.jsonl",
            "data/any",
            "hf://datasets/org/name@main/data/*.parquet",
            "s3://bucket/a.csv",
        ] {
            assert_eq!(check(source, ENDINGS), Ok(()), "{source}");
        }
        let complaint = |source: &str| check(source, ENDINGS).unwrap_err();
        let (problem, hint) = complaint("hf://datasets/org/name/a.jsonl");
        assert!(problem.contains("says no revision"), "{problem}");
        assert!(hint.unwrap().contains("ORG/NAME@REVISION"));
        let (problem, hint) = complaint("s3://bucket/data/*");
        assert!(problem.contains("does not end in"), "{problem}");
        assert!(hint.unwrap().contains("data/*.parquet"));
    }
}
