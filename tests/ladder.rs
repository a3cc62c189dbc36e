//! The crate ladder: a crate imports only crates with a smaller number, and some crates do
//! without certain things altogether.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every crate of the workspace and its rung. A crate that is not listed fails the test.
const LADDER: [(&str, u8); 11] = [
    ("stillroom-records", 0),
    ("stillroom-verify", 1),
    ("stillroom-hub", 1),
    ("stillroom-ops", 1),
    ("stillroom-model", 2),
    ("stillroom-generation", 3),
    ("stillroom-dataset", 3),
    ("stillroom-trainer", 4),
    ("stillroom-eval", 4),
    ("stillroom-report", 4),
    ("stillroom", 5),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Direct dependencies of every workspace member, dev- and build-dependencies left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--locked",
            "--format-version",
            "1",
        ])
        .current_dir(workspace())
        .output()
        .expect("cargo metadata starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let direct = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(name)
                .collect();
            (name(package), direct)
        })
        .collect()
}

/// All `.rs` files under a crate's `src` with their text, tests left out.
fn sources(package: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![workspace().join("crates").join(package).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_stem().is_some_and(|name| name != "tests")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
                found.push((path, code));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {package}");
    found
}

/// Fails where a line of code (comments aside) holds one of the words.
fn assert_absent(package: &str, words: &[&str]) {
    for (path, code) in sources(package) {
        for (index, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            for word in words {
                assert!(
                    !line.contains(word),
                    "{}:{}: `{word}` has no place in {package}",
                    path.display(),
                    index + 1
                );
            }
        }
    }
}

#[test]
fn dependencies_point_down_the_ladder_only() {
    let rungs: BTreeMap<&str, u8> = LADDER.into_iter().collect();
    let packages = dependencies();
    let unlisted: Vec<_> = packages
        .keys()
        .filter(|name| !rungs.contains_key(name.as_str()))
        .collect();
    assert!(unlisted.is_empty(), "give these a rung: {unlisted:?}");
    assert_eq!(packages.len(), LADDER.len());
    for (package, direct) in &packages {
        let rung = rungs[package.as_str()];
        for dependency in direct {
            if let Some(below) = rungs.get(dependency.as_str()) {
                assert!(
                    *below < rung,
                    "{package} ({rung}) imports {dependency} ({below})"
                );
            }
        }
    }
}

#[test]
fn only_the_crates_meant_for_it_have_heavy_dependencies() {
    let packages = dependencies();
    let allowed: [(&str, &[&str]); 9] = [
        ("hf-hub", &["stillroom-hub"]),
        ("object_store", &["stillroom-hub"]),
        ("datafusion", &["stillroom-dataset"]),
        // With DataFusion in it.
        ("stillroom-dataset", &["stillroom"]),
        ("rusqlite", &["stillroom-generation"]),
        ("signal-hook", &["stillroom"]),
        ("clap", &["stillroom"]),
        ("anyhow", &["stillroom"]),
        ("candle-nn", &["stillroom-model", "stillroom-ops"]),
    ];
    for (dependency, users) in allowed {
        for (package, direct) in &packages {
            assert!(
                !direct.contains(dependency) || users.contains(&package.as_str()),
                "{package} depends on {dependency}; only {users:?} may"
            );
        }
    }
    for (package, direct) in &packages {
        for client in ["reqwest", "ureq", "hyper"] {
            let may = ["stillroom-generation", "stillroom-hub"].contains(&package.as_str())
                && client == "reqwest";
            assert!(
                !direct.contains(client) || may,
                "{package} depends on {client}"
            );
        }
    }
}

#[test]
fn verify_is_pure() {
    assert_absent(
        "verify",
        &[
            "std::fs",
            "std::net",
            "std::io",
            "std::env",
            "std::process",
            "std::time",
            "println!",
        ],
    );
}

#[test]
fn ops_knows_no_model() {
    assert_absent("ops", &["model::", "records::", "ModelConfig"]);
}

#[test]
fn dataset_trainer_and_eval_open_no_socket() {
    for package in ["records", "model", "ops", "dataset", "trainer", "eval"] {
        assert_absent(
            package,
            &["std::net", "TcpStream", "TcpListener", "UdpSocket"],
        );
    }
}

#[test]
fn only_jobs_reads_the_environment_and_the_command_line() {
    for package in [
        "records",
        "verify",
        "hub",
        "ops",
        "model",
        "generation",
        "dataset",
        "trainer",
        "eval",
        "report",
    ] {
        assert_absent(package, &["env::var", "env::args", "env::vars"]);
    }
}

#[test]
fn fused_functions_that_cut_gradients_stay_in_model_and_ops() {
    for package in ["generation", "dataset", "trainer", "eval", "jobs"] {
        assert_absent(
            package,
            &[
                "candle_nn",
                "softmax_last_dim",
                "ops::rms_norm",
                "ops::layer_norm",
            ],
        );
    }
}

/// Which modules of a crate, files or folders under `src`, import which others.
fn imports(package: &str) -> BTreeMap<String, BTreeSet<String>> {
    let src = workspace().join("crates").join(package).join("src");
    let module = |path: &Path| {
        let first = path.strip_prefix(&src).unwrap().iter().next().unwrap();
        first.to_string_lossy().trim_end_matches(".rs").to_owned()
    };
    let sources = sources(package);
    let modules: BTreeSet<String> = sources.iter().map(|(path, _)| module(path)).collect();
    let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
    for (path, code) in &sources {
        let from = module(path);
        let code = code.lines().map(|line| line.split("//").next().unwrap());
        let code = code.collect::<Vec<_>>().join("\n");
        for name in imported(&code, "crate::") {
            if modules.contains(&name) && name != from {
                imports.entry(from.clone()).or_default().insert(name);
            }
        }
    }
    imports
}

/// The first parts of the paths that begin with `root`.
fn imported(code: &str, root: &str) -> Vec<String> {
    let mut found = Vec::new();
    for import in code.split(root).skip(1) {
        // One name, or several in braces: those behind a comma at the outermost level.
        let names: Vec<&str> = match import.strip_prefix('{') {
            Some(list) => list.split(';').next().unwrap().split(',').collect(),
            None => vec![import],
        };
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let first = |name: &str| {
            name.trim()
                .split(|c| !is_part(c))
                .next()
                .unwrap()
                .to_owned()
        };
        found.extend(names.into_iter().map(first));
    }
    found
}

/// The modules that can be reached from one by its imports.
fn reached<'a>(
    imports: &'a BTreeMap<String, BTreeSet<String>>,
    from: &'a str,
) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in imports.get(module).into_iter().flatten() {
            if found.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    found
}

#[test]
fn no_module_imports_one_that_imports_it() {
    for (package, _) in LADDER {
        let folder = package.strip_prefix("stillroom-").unwrap_or("jobs");
        let imports = imports(folder);
        let in_circles: Vec<_> = imports
            .keys()
            .filter(|module| reached(&imports, module).contains(module.as_str()))
            .collect();
        assert!(in_circles.is_empty(), "{folder}: {in_circles:?}");
    }
}

/// Rooms within crates whose files are looked at one by one.
const ROOMS: [&str; 4] = [
    "generation/src/import",
    "generation/src/openai",
    "generation/src/score",
    "model/src/layers",
];

#[test]
fn no_file_of_a_room_imports_one_that_imports_it() {
    for room in ROOMS {
        let folder = workspace().join("crates").join(room);
        let mut code = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.extension().is_some_and(|ending| ending == "rs") && name != "tests" {
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap();
                let lines = text.lines().map(|line| line.split("//").next().unwrap());
                code.insert(name, lines.collect::<Vec<_>>().join("\n"));
            }
        }
        let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
        for (name, text) in &code {
            let others = imported(text, "super::").into_iter();
            let others = others.filter(|other| code.contains_key(other) && other != name);
            imports.insert(name.clone(), others.collect());
        }
        let in_circles: Vec<_> = imports
            .keys()
            .filter(|file| reached(&imports, file).contains(file.as_str()))
            .collect();
        assert!(in_circles.is_empty(), "{room}: {in_circles:?}");
    }
}
