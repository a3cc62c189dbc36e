//! `--set section.key=VALUE`: one key of the recipe changed from the command line.

use toml::{Table, Value};

use crate::error::{Error, Result};

/// A parsed `--set` argument.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// The argument as it was typed.
    pub argument: String,
    pub path: Vec<String>,
    pub value: Value,
}

impl Override {
    /// Reads `section.key=VALUE`. VALUE is a TOML value; what does not parse as one is a string,
    /// so that `--set train.method=full` needs no quotes through the shell.
    pub fn parse(argument: &str) -> Result<Self> {
        let bad = || Error::Usage {
            message: format!("--set {argument}: expected section.key=VALUE"),
            hint: "for example --set train.epochs=2".into(),
        };
        let (key, value) = argument.split_once('=').ok_or_else(bad)?;
        let path: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(bad());
        }
        let parsed = format!("value = {value}")
            .parse::<Table>()
            .ok()
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"));
        Ok(Self {
            argument: argument.to_owned(),
            path,
            value: parsed.unwrap_or_else(|| Value::String(value.trim().to_owned())),
        })
    }

    /// Puts the value into the document; sections that are not there yet are made.
    pub fn apply(&self, document: &mut Table) -> Result<()> {
        let Some((last, sections)) = self.path.split_last() else {
            return Ok(());
        };
        let mut table = document;
        for section in sections {
            table = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .ok_or_else(|| Error::Recipe {
                    place: format!("--set {}", self.argument),
                    message: format!("`{section}` is a value in the recipe, not a section"),
                    hint: None,
                })?;
        }
        table.insert(last.clone(), self.value.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_toml_or_else_text() {
        let check = |argument: &str, path: &[&str], value: Value| {
            let parsed = Override::parse(argument).unwrap();
            assert_eq!(parsed.path, path, "{argument}");
            assert_eq!(parsed.value, value, "{argument}");
        };
        check("train.epochs=2", &["train", "epochs"], Value::Integer(2));
        check("seed=3", &["seed"], Value::Integer(3));
        check(
            "train.learning_rate=2e-3",
            &["train", "learning_rate"],
            Value::Float(0.002),
        );
        check(
            "train.method=full",
            &["train", "method"],
            Value::String("full".into()),
        );
        check(
            "dataset.filter=a = 'b'",
            &["dataset", "filter"],
            Value::String("a = 'b'".into()),
        );
        check(
            "eval.benchmarks=[\"arithmetic\"]",
            &["eval", "benchmarks"],
            Value::Array(vec![Value::String("arithmetic".into())]),
        );
        // A value cannot smuggle in further keys.
        check("name=1\nx=2", &["name"], Value::String("1\nx=2".into()));
    }

    #[test]
    fn arguments_without_a_key_or_a_value_are_refused() {
        for argument in ["train.epochs", "=3", "train.=3", ".epochs=3"] {
            assert_eq!(Override::parse(argument).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn sections_are_made_where_they_are_missing() {
        let mut document: Table = "name = 'x'".parse().unwrap();
        Override::parse("train.lora.rank=4")
            .unwrap()
            .apply(&mut document)
            .unwrap();
        assert_eq!(document["train"]["lora"]["rank"].as_integer(), Some(4));
        let error = Override::parse("name.x=4")
            .unwrap()
            .apply(&mut document)
            .unwrap_err();
        assert!(error.to_string().contains("--set name.x=4"), "{error}");
    }
}
