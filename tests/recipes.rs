//! Every recipe that comes along can be read.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use stillroom::recipe::Loaded;

/// Raise it with every recipe that is added.
const N_RECIPES: usize = 11;

fn recipes(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(recipes(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn pipelines() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines")
}

#[test]
fn every_recipe_loads_and_its_resolved_form_says_the_same() {
    let found = recipes(&pipelines());
    assert_eq!(found.len(), N_RECIPES, "{found:#?}");
    for path in found {
        let loaded = Loaded::read(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        let folder = tempfile::tempdir().unwrap();
        let resolved = folder.path().join("recipe.toml");
        std::fs::write(&resolved, loaded.resolved().unwrap()).unwrap();
        let again = Loaded::read(&resolved, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again.recipe, loaded.recipe, "{}", path.display());
    }
}

#[test]
fn every_recipe_opens_with_what_it_does_and_its_command() {
    for path in recipes(&pipelines()) {
        let text = std::fs::read_to_string(&path).unwrap();
        let comment: String = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .collect();
        let name = path.file_name().unwrap().to_str().unwrap();
        for word in ["cargo run --release -- ", name, "Hardware:"] {
            assert!(
                comment.contains(word),
                "{}: its opening comment lacks `{word}`",
                path.display()
            );
        }
    }
}
