//! `[hub]`: where results are pushed to, and under which licences.

use hub::card::Licence;
use hub::{Kind, RepoId, RepoUrl};
use serde::{Deserialize, Serialize};

/// `[hub]`. Licences are named by the Hub's ids, such as `apache-2.0`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubConfig {
    /// `ORG/NAME` of the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_repo: Option<String>,
    /// `ORG/NAME` of the merged model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_repo: Option<String>,
    /// `ORG/NAME` of the adapter; `model_repo` with `-lora` behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_repo: Option<String>,
    /// Whether repositories that a push creates are private; true.
    #[serde(default = "private")]
    pub private: bool,
    /// Of the dataset that is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_license: Option<String>,
    /// The name of a licence that the Hub has no id for; goes with `dataset_license = "other"`, as does the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_license_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_license_link: Option<String>,
    /// Of the adapter and of the merged model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_license: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_license_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_license_link: Option<String>,
    /// Of the student before training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_license: Option<String>,
    /// Of what the teacher says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_license: Option<String>,
    /// Of the problems, or of the rows that were trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_license: Option<String>,
    /// `ORG/NAME@REVISION` of the student before training, where `student.model` is a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
}

fn private() -> bool {
    true
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            dataset_repo: None,
            model_repo: None,
            adapter_repo: None,
            private: private(),
            dataset_license: None,
            dataset_license_name: None,
            dataset_license_link: None,
            model_license: None,
            model_license_name: None,
            model_license_link: None,
            base_license: None,
            teacher_license: None,
            data_license: None,
            base_model: None,
        }
    }
}

/// A key that says what cannot be, the problem, and what is allowed.
type Complaint = (&'static str, String, String);

impl HubConfig {
    /// The dataset's repository.
    pub fn dataset(&self) -> Option<RepoId> {
        parsed(Kind::Dataset, self.dataset_repo.as_deref())
    }

    /// The merged model's.
    pub fn model(&self) -> Option<RepoId> {
        parsed(Kind::Model, self.model_repo.as_deref())
    }

    /// The adapter's.
    pub fn adapter(&self) -> Option<RepoId> {
        match (&self.adapter_repo, &self.model_repo) {
            (Some(repo), _) => parsed(Kind::Model, Some(repo)),
            (None, Some(repo)) => parsed(Kind::Model, Some(&format!("{repo}-lora"))),
            (None, None) => None,
        }
    }

    /// The base model of the Hub that the recipe names for a student that is a folder.
    pub fn base(&self) -> Option<RepoUrl> {
        let text = self.base_model.as_deref()?;
        RepoUrl::parse_model(text).ok().flatten()
    }

    pub fn dataset_licence(&self) -> Option<Licence> {
        licence(
            &self.dataset_license,
            &self.dataset_license_name,
            &self.dataset_license_link,
        )
    }

    pub fn model_licence(&self) -> Option<Licence> {
        licence(
            &self.model_license,
            &self.model_license_name,
            &self.model_license_link,
        )
    }

    /// That each key can be.
    pub(super) fn validate(&self) -> Result<(), Complaint> {
        for (key, kind, repo) in [
            ("hub.dataset_repo", Kind::Dataset, &self.dataset_repo),
            ("hub.model_repo", Kind::Model, &self.model_repo),
            ("hub.adapter_repo", Kind::Model, &self.adapter_repo),
        ] {
            if let Some(repo) = repo {
                RepoId::parse(kind, repo).map_err(|error| complaint(key, &error))?;
            }
        }
        if self.model_repo.is_some() && self.adapter() == self.model() {
            return Err((
                "hub.adapter_repo",
                "it is the merged model's, and each has its files at the root".into(),
                "leave it out: the adapter then goes to the model's repository with `-lora` behind its name".into(),
            ));
        }
        if let Some(text) = &self.base_model {
            const KEY: &str = "hub.base_model";
            match RepoUrl::parse_model(text).map_err(|error| complaint(KEY, &error))? {
                Some(url) if url.path.is_empty() => {}
                _ => {
                    return Err((
                        KEY,
                        format!("{text:?} names no model of the Hub"),
                        "write ORG/NAME@REVISION".into(),
                    ));
                }
            }
        }
        for (key, name_key, id, name, link) in [
            (
                "hub.dataset_license",
                "hub.dataset_license_name",
                &self.dataset_license,
                &self.dataset_license_name,
                &self.dataset_license_link,
            ),
            (
                "hub.model_license",
                "hub.model_license_name",
                &self.model_license,
                &self.model_license_name,
                &self.model_license_link,
            ),
        ] {
            let other = id.as_deref() == Some("other");
            if other && (name.is_none() || link.is_none()) {
                return Err((
                    key,
                    "`other` says nothing by itself".into(),
                    format!(
                        "give the licence's name and where it can be read: {name_key} and {key}_link"
                    ),
                ));
            }
            if !other && (name.is_some() || link.is_some()) {
                return Err((
                    name_key,
                    format!("only {key} = \"other\" has a name and a link of its own"),
                    "set that, or leave them out".into(),
                ));
            }
        }
        let licences = [
            ("hub.dataset_license", &self.dataset_license),
            ("hub.model_license", &self.model_license),
            ("hub.base_license", &self.base_license),
            ("hub.teacher_license", &self.teacher_license),
            ("hub.data_license", &self.data_license),
        ];
        for (key, licence) in licences {
            let empty = |text: &String| text.trim().is_empty() || text.contains(['\n', '\r']);
            if licence.as_ref().is_some_and(empty) {
                return Err((
                    key,
                    "it names no licence".into(),
                    "write the Hub's id, such as \"apache-2.0\"; `unknown` is one too".into(),
                ));
            }
        }
        Ok(())
    }
}

fn parsed(kind: Kind, repo: Option<&str>) -> Option<RepoId> {
    RepoId::parse(kind, repo?).ok()
}

fn licence(id: &Option<String>, name: &Option<String>, link: &Option<String>) -> Option<Licence> {
    Some(Licence {
        id: id.clone()?,
        name: name.clone(),
        link: link.clone(),
    })
}

fn complaint(key: &'static str, error: &hub::Error) -> Complaint {
    let hint = error.hint().unwrap_or_default().to_owned();
    (key, error.to_string(), hint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(text: &str) -> HubConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_adapter_lies_beside_the_model_and_repositories_are_private() {
        let hub = config("model_repo = \"org/a\"");
        assert_eq!(hub.adapter().unwrap().id(), "org/a-lora");
        assert!(hub.private && hub.validate().is_ok());
        assert_eq!(
            config("adapter_repo = \"org/b\"").adapter().unwrap().id(),
            "org/b"
        );
        assert_eq!(HubConfig::default(), config(""));
    }

    #[test]
    fn what_cannot_be_is_named_by_its_key() {
        let check = |text: &str, key: &str, words: &str| {
            let (found, problem, hint) = config(text).validate().unwrap_err();
            assert_eq!(found, key);
            assert!(
                format!("{problem} {hint}").contains(words),
                "{problem} {hint}"
            );
        };
        check("dataset_repo = \"name\"", "hub.dataset_repo", "ORG/NAME");
        check(
            "model_repo = \"org/a@main\"",
            "hub.model_repo",
            "no revision",
        );
        check(
            "model_repo = \"org/a\"\nadapter_repo = \"org/a\"",
            "hub.adapter_repo",
            "-lora",
        );
        check("base_model = \"org/a\"", "hub.base_model", "revision");
        check(
            "model_license = \"other\"",
            "hub.model_license",
            "model_license_link",
        );
        check(
            "model_license_name = \"x\"",
            "hub.model_license_name",
            "other",
        );
        check("data_license = \" \"", "hub.data_license", "apache-2.0");
    }
}
