//! Which adapter reads which format.

use super::adapter::{Adapter, UNKNOWN};
use super::columns::{ByColumns, Columns};
use super::{messages, openr1, openthoughts, prompt_completion, s1k};
use crate::config::{TraceFormat, TracesConfig};

/// The adapter of a format.
pub fn adapter(config: &TracesConfig, format: TraceFormat) -> Box<dyn Adapter> {
    let config = config.clone();
    match format {
        TraceFormat::OpenR1 => Box::new(openr1::OpenR1 { config }),
        TraceFormat::OpenThoughts => Box::new(openthoughts::OpenThoughts::new(config)),
        TraceFormat::OpenThoughts3 => Box::new(messages::Messages {
            config,
            teacher: "QwQ-32B",
        }),
        TraceFormat::S1k => Box::new(s1k::S1k { config }),
        TraceFormat::Messages => Box::new(messages::Messages {
            config,
            teacher: UNKNOWN,
        }),
        TraceFormat::PromptCompletion => Box::new(prompt_completion::PromptCompletion { config }),
        TraceFormat::Columns => by_columns(Columns::named(&config), config),
        TraceFormat::OpenMathReasoning => by_columns(Columns::open_math_reasoning(), config),
        TraceFormat::Limo => by_columns(Columns::limo(), config),
        TraceFormat::DeepMath => by_columns(Columns::deepmath(), config),
        TraceFormat::AceReason => by_columns(Columns::acereason(), config),
        TraceFormat::Nemotron => by_columns(Columns::nemotron(), config),
        TraceFormat::Alpaca => by_columns(Columns::alpaca(), config),
        TraceFormat::Glaive => by_columns(Columns::glaive(), config),
    }
}

fn by_columns(columns: Columns, config: TracesConfig) -> Box<dyn Adapter> {
    Box::new(ByColumns { config, columns })
}
