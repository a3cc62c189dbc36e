//! The student in memory, and as the folders a finished run leaves.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use model::config::ModelConfig;
use model::decoder::{Decoder, Mode};
use model::export::{AdapterExport, Export, MAX_SHARD_BYTES, save_adapter, save_merged};
use model::init::initial_tensor;
use model::merge::Merge;
use model::parameters::parameter_names;
use model::weights::Weights;
use records::{Reference, aside};

use crate::Error;
use crate::config::{ExportDtype, Init, Method, Precision};
use crate::plan::{Plan, Prepared};

/// Loads the student, or makes it from its seed, with what is trained marked.
pub(crate) fn load(plan: &Plan, config: ModelConfig) -> Result<Decoder, Error> {
    let lora = plan.train.lora();
    let mode = match plan.train.method {
        Method::Full => Mode::Full,
        Method::Lora => Mode::Lora {
            config: &lora,
            seed: plan.seed,
        },
    };
    let dtype = dtype(plan.train.precision);
    let device = plan.device.open()?;
    Ok(match plan.student.init {
        Some(Init::Random) => Decoder::random(config, plan.seed, mode, dtype, &device)?,
        None => Decoder::load_with(config, &plan.student_dir, mode, dtype, &device)?,
    })
}

/// Loads the teacher that reads beside the student, where the plan has one.
pub(crate) fn load_teacher(plan: &Plan) -> Result<Option<Decoder>, Error> {
    let (Some(teacher), Some(dir)) = (&plan.train.teacher, &plan.online_teacher_dir) else {
        return Ok(None);
    };
    let config = ModelConfig::from_dir(dir)?;
    let (dtype, device) = (dtype(teacher.precision), plan.device.open()?);
    Ok(Some(Decoder::load_with(
        config,
        dir,
        Mode::Frozen,
        dtype,
        &device,
    )?))
}

pub(crate) fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

pub(crate) struct Exported {
    pub merged: PathBuf,
    pub adapter: Option<PathBuf>,
}

/// Writes `merged/`, and `adapter/` where one was trained; each folder appears whole.
pub(crate) fn export(
    plan: &Plan,
    prepared: &Prepared,
    trainable: &[(String, Var)],
) -> Result<Exported, Error> {
    let merged = plan.output.join("merged");
    let adapter = plan.output.join("adapter");
    let base = match plan.student.init {
        Some(Init::Random) => None,
        None => Some(Weights::open(&plan.student_dir)?),
    };
    let config = &prepared.config;
    let shapes: HashMap<String, Vec<usize>> = parameter_names(config).into_iter().collect();
    let base_tensor = |name: &str| -> model::Result<Tensor> {
        match (&base, shapes.get(name)) {
            (Some(weights), _) => weights.tensor(name, DType::F32),
            (None, shape) => {
                initial_tensor(config, name, shape.map_or(&[], Vec::as_slice), plan.seed)
            }
        }
    };
    let tensors = trainable
        .iter()
        .map(|(name, variable)| Ok((name.clone(), variable.detach().to_device(&Device::Cpu)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let trained: HashMap<&str, Tensor> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.clone()))
        .collect();
    let folder = Export {
        config,
        base_dir: &plan.student_dir,
        dtype: match (plan.train.export_dtype, &base) {
            (Some(ExportDtype::F32), _) | (None, None) => DType::F32,
            (Some(ExportDtype::F16), _) => DType::F16,
            (Some(ExportDtype::Bf16), _) => DType::BF16,
            (None, Some(weights)) => weights.dtype()?,
        },
        eos_ids: &prepared.eos_ids,
        max_shard_bytes: MAX_SHARD_BYTES,
    };
    if plan.train.method == Method::Full {
        save_merged(&merged, &folder, &mut |name| match trained.get(name) {
            Some(tensor) => Ok(tensor.clone()),
            None => base_tensor(name),
        })?;
        // An adapter of an earlier configuration would pass for this run's.
        if adapter.exists() {
            let aside = aside::replace(&adapter)?;
            eprintln!(
                "training: the adapter of another run is kept as {}",
                aside.to.display()
            );
        }
        return Ok(Exported {
            merged,
            adapter: None,
        });
    }
    let lora = plan.train.lora();
    // As PEFT loads it: the id, and the commit apart.
    let base = plan.student.folder();
    let id = base.and_then(Reference::hub_id);
    let adapter_export = AdapterExport {
        lora: &lora,
        model: config,
        base_model: id.map_or_else(|| base.map(Reference::as_str), |(name, _)| Some(name)),
        revision: id.map(|(_, commit)| commit),
        base_dir: Some(&plan.student_dir),
    };
    save_adapter(&adapter, &adapter_export, &tensors)?;
    let merge = Merge::new(&lora, config)?;
    save_merged(&merged, &folder, &mut |name| {
        merge.tensor(
            name,
            || base_tensor(name),
            |name| {
                let tensor = trained.get(name).cloned();
                tensor.ok_or_else(|| model::Error::MissingTensor {
                    path: adapter.clone(),
                    name: name.into(),
                })
            },
        )
    })?;
    Ok(Exported {
        merged,
        adapter: Some(adapter),
    })
}
