//! What may follow a number without changing it: units, per cent, degrees, words.

use crate::latex::{after_space, words};

/// Units that may stand alone as short words, also without a space before them.
const SHORT_UNITS: [&str; 34] = [
    "mm", "cm", "dm", "km", "kg", "mg", "lb", "lbs", "oz", "ft", "in", "yd", "mi", "ml", "mL",
    "cl", "hr", "hrs", "min", "sec", "ms", "mph", "kph", "km/h", "Hz", "kHz", "kW", "kWh", "am",
    "pm", "st", "nd", "rd", "th",
];

/// Words that change the number before them or join it to something else.
const CHANGING: [&str; 45] = [
    "and",
    "or",
    "pi",
    "tau",
    "sqrt",
    "root",
    "plus",
    "minus",
    "times",
    "over",
    "mod",
    "modulo",
    "divided",
    "squared",
    "cubed",
    "factorial",
    "choose",
    "base",
    "hundred",
    "thousand",
    "million",
    "billion",
    "trillion",
    "dozen",
    "half",
    "halves",
    "third",
    "thirds",
    "quarter",
    "quarters",
    "fourths",
    "fifths",
    "sixths",
    "eighths",
    "tenths",
    "hundredths",
    "sin",
    "cos",
    "tan",
    "log",
    "exp",
    "infinity",
    "not",
    "to",
    "if",
];

/// Marks that are units by themselves.
const MARKS: [&str; 18] = [
    "\\%",
    "%",
    "^\\circ",
    "^{\\circ}",
    "^ \\circ",
    "^°",
    "\\circ",
    "^\\degree",
    "\\degree",
    "°",
    "\\$",
    "$",
    "€",
    "£",
    "¥",
    "\u{2032}",
    "^\\prime",
    "\\degrees",
];

/// Whether `rest`, which follows a number, is empty or leaves the number as it is.
pub(crate) fn is_only_text(rest: &str) -> bool {
    let mut rest = rest;
    let mut spaced = false;
    let mut first = true;
    while let Some(next) = rest.chars().next() {
        if next.is_whitespace() || next == '~' {
            rest = &rest[next.len_utf8()..];
            spaced = true;
        } else if let Some(after) = after_space(rest).or_else(|| rest.strip_prefix("\\quad")) {
            rest = after;
            spaced = true;
        } else if let Some(after) = strip_any(rest, &MARKS) {
            rest = after;
            (first, spaced) = (false, false);
        } else if let Some(after) = text_command(rest) {
            rest = after;
            (first, spaced) = (false, false);
        } else if !first
            && let Some(after) = strip_any(rest, &["^2", "^3", "^{2}", "^{3}", "²", "³", "/"])
        {
            rest = after;
            spaced = true;
        } else if next.is_alphabetic() {
            let length = rest
                .find(|c: char| !c.is_alphabetic())
                .unwrap_or(rest.len());
            let word = &rest[..length];
            let short_unit = SHORT_UNITS.contains(&word);
            // A first word of two letters is rather a product: 5 xy.
            let long_enough = length >= 3 || (!first && (length == 2 || word == "a"));
            let plain_word = spaced && long_enough && !changes(word);
            if !short_unit && !plain_word {
                return false;
            }
            rest = &rest[length..];
            (first, spaced) = (false, false);
        } else if let Some(after) = rest.strip_prefix(['.', ',', ';', ')', '-', '\'']) {
            // "5, since …", "5 (five)", "5 square-feet"; but "5,3" and "5-3" and "(5)" are not.
            let between_words = !first && after.starts_with(char::is_alphabetic);
            let before_space = next != ')' && next != '-' && after.starts_with(char::is_whitespace);
            if !(between_words || before_space || (!first && after.trim().is_empty())) {
                return false;
            }
            spaced |= between_words;
            rest = after;
        } else if next == '(' && spaced {
            rest = &rest[1..];
            first = false;
        } else {
            return false;
        }
    }
    true
}

/// Skips `\text{…}` when it holds words that leave the number as it is.
fn text_command(rest: &str) -> Option<&str> {
    let (content, after) = words(rest)?;
    is_harmless(content).then_some(after)
}

/// Whether words behind a value leave it as it is.
pub(crate) fn is_harmless(content: &str) -> bool {
    let harmless = content
        .split(|c: char| !c.is_alphabetic())
        .all(|word| !changes(word));
    let only_words = content.chars().all(|c| {
        c.is_alphabetic() || c.is_whitespace() || ".,/()'-^²³°".contains(c) || c == '2' || c == '3'
    });
    let squares_only = content
        .match_indices(['2', '3'])
        .all(|(at, _)| content[..at].ends_with('^'));
    harmless && only_words && squares_only
}

/// Whether words before a value name it, and leave it as it is.
pub(crate) fn is_label(content: &str) -> bool {
    const CHANGING_BEFORE: [&str; 14] = [
        "least", "most", "than", "less", "more", "greater", "negative", "no", "cannot", "except",
        "between", "from", "about", "nearly",
    ];
    let mut words = content.split(|c: char| !c.is_alphabetic());
    content.contains(|c: char| c.is_alphabetic())
        && content
            .chars()
            .all(|c| c.is_alphabetic() || c.is_whitespace() || ".,:()'-".contains(c))
        && words.all(|word| {
            let word = word.to_ascii_lowercase();
            !CHANGING_BEFORE.contains(&word.as_str())
                && (!changes(&word)
                    || ["third", "half", "quarter", "base"].contains(&word.as_str()))
        })
}

fn changes(word: &str) -> bool {
    CHANGING
        .iter()
        .any(|changing| changing.eq_ignore_ascii_case(word))
}

fn strip_any<'a>(text: &'a str, tokens: &[&str]) -> Option<&'a str> {
    tokens.iter().find_map(|token| text.strip_prefix(token))
}

#[cfg(test)]
mod tests {
    use super::is_only_text;

    #[test]
    fn what_may_follow() {
        for rest in [
            "",
            " ",
            "\\%",
            "%",
            "^\\circ",
            "^{\\circ}\\text{C}",
            "°",
            " cm",
            "cm",
            " cm^2",
            "\\text{ m}",
            "\\,\\text{m/s}^2",
            "\\text{ cm^2}",
            " apples",
            " apples.",
            " square feet",
            " miles per hour",
            ", since it is prime",
            " because of a thing",
            " (the smallest one)",
            "\\mathrm{kg}",
            " dollars",
            "th",
            " €",
            "-degree angle",
        ] {
            // A hyphen needs a unit before it; alone it is a minus.
            assert_eq!(is_only_text(rest), rest != "-degree angle", "{rest:?}");
        }
        for rest in [
            "x",
            " x",
            "xy",
            "!",
            "_8",
            "^2",
            "/3",
            ",3",
            ", 3",
            ",",
            "-3",
            " - 3",
            " or six",
            "\\text{ or }",
            "\\text{ 4 }",
            "\\pi",
            " million",
            "(x)",
            ")",
            "\\text{",
            " apples and",
            " 6",
            "..",
        ] {
            assert!(!is_only_text(rest), "{rest:?}");
        }
    }
}
