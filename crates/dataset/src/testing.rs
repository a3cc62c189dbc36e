//! Made-up traces for the unit tests.

use records::trace::{Trace, trace_id};

/// A failed trace without anything optional; tests fill in what they look at.
pub fn trace(prompt_id: &str, sample_index: u32) -> Trace {
    Trace {
        trace_id: trace_id(prompt_id, sample_index),
        prompt_id: prompt_id.to_owned(),
        sample_index,
        source: "made up".to_owned(),
        teacher: "teacher".to_owned(),
        ..Trace::default()
    }
}
