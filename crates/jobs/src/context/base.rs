//! The student that a recipe names by an adapter of it alone.

use std::path::Path;

use model::checkpoint::ADAPTER_FILES;
use records::manifest::Manifest;
use records::{Reference, json};
use serde_json::Value;

use super::{Context, Files};
use crate::error::Result;

const KEY: &str = "train.lora.init_from";

/// `adapter_config.json` of an adapter's folder; null where there is none.
pub(crate) fn adapter_config(folder: &Path) -> Result<Value> {
    let [config, ..] = ADAPTER_FILES;
    let config: Option<Value> = json::read(&folder.join(config))?;
    Ok(config.unwrap_or_default())
}

impl Context {
    /// Has `student.model` be the base of the adapter that training begins with, where the recipe names no student: PEFT
    /// writes the base's name and revision into the adapter. A run that has a student already is not asked again.
    pub(crate) fn find_base(&mut self) -> Result<()> {
        let Some(adapter) = self.recipe().adapter_alone().cloned() else {
            return Ok(());
        };
        let base = match self.base_before(&adapter) {
            Some(base) => base,
            None => self.base_of(&adapter)?,
        };
        if let Some(student) = &mut self.loaded.recipe.student {
            student.model = Some(Reference::new(base));
        }
        Ok(())
    }

    /// The base that the run's student was trained from, if it began with the same adapter.
    fn base_before(&self, adapter: &Reference) -> Option<String> {
        // A manifest that cannot be read is complained about when the stage is looked at.
        let manifest = Manifest::read(&self.run_dir.student()).ok()??;
        let said = |at: &str| manifest.recipe.pointer(at).and_then(Value::as_str);
        let same = said("/train/lora/init_from") == Some(adapter.as_str());
        said("/student/model").filter(|_| same).map(str::to_owned)
    }

    fn base_of(&self, adapter: &Reference) -> Result<String> {
        let folder = self.model(KEY, adapter, Files::Adapter)?;
        let config = adapter_config(folder)?;
        let name = config["base_model_name_or_path"].as_str();
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(self.input(
                KEY,
                "the adapter does not say which model it is of",
                "name that model as student.model",
            ));
        };
        let base = match config["revision"].as_str() {
            Some(revision) => format!("{name}@{}", revision.replace('/', "%2F")),
            None => name.to_owned(),
        };
        (self.say())(&format!("student.model is {base}, which {adapter} is of"));
        Ok(base)
    }
}
