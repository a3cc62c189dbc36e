use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use verify::think::{CLOSE, OPEN};

use super::Traces;
use crate::error::Result;

/// Whether each completion is one thought and one answer; null where the text is.
pub fn think_formats(traces: &Traces<'_>) -> Result<ArrayRef> {
    let rows = traces.texts("text")?.iter().zip(traces.texts("answer")?);
    let formats: StringArray = rows
        .map(|(text, answer)| text.map(|text| think_format(text, answer)))
        .collect();
    Ok(Arc::new(formats))
}

/// `answer` is what follows the thought, and null when that never ended. The text may lack
/// the `<think>` that its prompt ended in.
fn think_format(text: &str, answer: Option<&str>) -> &'static str {
    let Some(answer) = answer else {
        return "unfinished";
    };
    let Some((thought, _)) = text.split_once(CLOSE) else {
        return "no_thought";
    };
    let thought = thought.trim_start();
    let thought = thought.strip_prefix(OPEN).unwrap_or(thought);
    let stray = thought.contains(OPEN)
        || text.matches(CLOSE).nth(1).is_some()
        || text.matches(OPEN).nth(1).is_some();
    if stray {
        "stray_tags"
    } else if thought.trim().is_empty() {
        "empty_thought"
    } else if answer.trim().is_empty() {
        "empty_answer"
    } else {
        "valid"
    }
}

#[cfg(test)]
mod tests {
    use super::think_format;

    #[test]
    fn every_format_has_its_name() {
        let check = |text: &str, answer: Option<&str>, expected: &str| {
            assert_eq!(think_format(text, answer), expected, "{text}");
        };
        check("<think>\na\n</think>\n\nb", Some("b"), "valid");
        check("a\n</think>\n\nb", Some("b"), "valid");
        check("b", Some("b"), "no_thought");
        check("<think>a", None, "unfinished");
        check("<think>\n\n</think>\n\nb", Some("b"), "empty_thought");
        check("<think>a</think> \n", Some(""), "empty_answer");
        check(
            "<think>a</think>b</think>c",
            Some("b</think>c"),
            "stray_tags",
        );
        check("<think>a<think>b</think>c", Some("c"), "stray_tags");
        check("Well. <think>a</think>c", Some("c"), "stray_tags");
        check(
            "<think>a</think>b<think>c</think>d",
            Some("d"),
            "stray_tags",
        );
    }
}
