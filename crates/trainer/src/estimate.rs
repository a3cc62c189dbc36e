//! What a run would do, for `--dry-run`.

use std::collections::BTreeMap;

use model::parameters::parameter_names;
use serde::Serialize;

use crate::Error;
use crate::config::Method;
use crate::plan::Plan;

/// Counts of a run that has not started.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    pub trainable_parameters: u64,
    pub parameters: u64,
    pub examples: u64,
    pub validation_examples: u64,
    /// Tokens of the longest example.
    pub longest: u64,
    /// Rows left out, by reason.
    pub dropped: BTreeMap<String, u64>,
    pub tokens_per_epoch: u64,
    pub supervised_tokens_per_epoch: u64,
    pub optimizer_steps: u64,
}

/// Reads the data and the student's configuration, but no weights; writes nothing.
///
/// # Errors
/// Those that [`run`](crate::run) would stop with before it loads the student.
pub fn estimate(plan: &Plan) -> Result<Estimate, Error> {
    let inputs = plan.inputs()?;
    let (data, validation) = plan.count(&inputs)?;
    let sampler = plan.sampler(data.examples);
    let size = |shapes: Vec<(String, Vec<usize>)>| -> u64 {
        shapes
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>() as u64)
            .sum()
    };
    let parameters = size(parameter_names(&inputs.config));
    let trainable_parameters = match plan.train.method {
        Method::Full => parameters,
        Method::Lora => size(plan.train.lora().trained(&inputs.config)?),
    };
    Ok(Estimate {
        trainable_parameters,
        parameters,
        examples: data.examples,
        validation_examples: validation.map_or(0, |counts| counts.examples),
        longest: data.longest,
        tokens_per_epoch: data.n_tokens,
        supervised_tokens_per_epoch: data.n_supervised,
        optimizer_steps: plan.total_steps(&sampler),
        dropped: data.dropped,
    })
}
