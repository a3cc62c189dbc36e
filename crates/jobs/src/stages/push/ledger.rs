//! `hub/pushed.json`: what this run had the Hub make, and what it pushed.

use std::collections::BTreeMap;
use std::path::Path;

use records::{atomic, json};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const FILE: &str = "pushed.json";

/// Version of the file's format.
const SCHEMA: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    schema: u32,
    /// By the address of the page.
    repositories: BTreeMap<String, Repository>,
    /// SHA-256 by blake3, of files that were hashed for the Hub.
    pub known: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Repository {
    /// `hf://datasets/ORG/NAME` or `hf://ORG/NAME`.
    pub repo: String,
    pub what: String,
    /// Whether the Hub was asked to make it. A kill may have come before the answer.
    pub creating: bool,
    /// Whether the Hub said that it did.
    pub created: bool,
    pub commit: Option<String>,
    pub tag: Option<String>,
}

impl Ledger {
    pub fn read(dir: &Path) -> Result<Self> {
        Ok(json::read(&dir.join(FILE))?.unwrap_or_default())
    }

    pub fn of(&self, page: &str) -> Option<&Repository> {
        self.repositories.get(page)
    }

    pub fn entry(&mut self, page: &str, repo: &str, what: &str) -> &mut Repository {
        let entry = self.repositories.entry(page.to_owned()).or_default();
        repo.clone_into(&mut entry.repo);
        what.clone_into(&mut entry.what);
        entry
    }

    /// Whether this run had the repository made, or asked for it.
    pub fn made(&self, page: &str) -> bool {
        self.of(page)
            .is_some_and(|repo| repo.creating || repo.created)
    }

    pub fn write(&mut self, dir: &Path) -> Result<()> {
        self.schema = SCHEMA;
        let path = dir.join(FILE);
        let mut text = serde_json::to_vec_pretty(self).map_err(|source| {
            Error::Records(records::Error::Json {
                path: path.clone(),
                line: 0,
                source,
            })
        })?;
        text.push(b'\n');
        Ok(atomic::write(&path, &text)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_repository_counts_as_made_from_the_request_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::read(dir.path()).unwrap();
        assert!(!ledger.made("p"));
        ledger.entry("p", "hf://o/n", "merged").creating = true;
        ledger.write(dir.path()).unwrap();
        let again = Ledger::read(dir.path()).unwrap();
        assert!(again.made("p") && again == ledger);
    }
}
