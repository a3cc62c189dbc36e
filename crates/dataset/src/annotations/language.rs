use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use whatlang::{Lang, detect_lang};

use super::Traces;
use crate::error::Result;

/// Letters of each of three stretches that are looked at.
const STRETCH: usize = 100;

/// Fewer letters than these say nothing.
const ENOUGH: usize = 20;

/// Words that are English and hardly anything else, and that English cannot do without.
const ENGLISH: [&str; 12] = [
    "the", "and", "that", "this", "with", "which", "then", "from", "have", "are", "let", "there",
];

/// The language of each completion's prose.
pub fn languages(traces: &Traces<'_>) -> Result<ArrayRef> {
    let texts = traces.texts("text")?.iter();
    let languages: StringArray = texts.map(|text| language(text?)).collect();
    Ok(Arc::new(languages))
}

/// The language of the prose as ISO 639-3 (`eng`, `cmn`, `rus`, …), from its beginning, its
/// middle and its end; none where there are hardly any words. Numbers, formulas and commands
/// are passed over.
fn language(text: &str) -> Option<&'static str> {
    let mut prose = String::with_capacity(8 * STRETCH);
    let middle = text.floor_char_boundary(text.len() / 2);
    let end = text.floor_char_boundary(text.len().saturating_sub(4 * STRETCH));
    let mut covered = 0;
    for start in [0, middle, end] {
        let rest = text.get(start.max(covered)..).unwrap_or_default();
        covered = start.max(covered) + stretch(rest, &mut prose);
    }
    if prose.chars().filter(|c| c.is_alphabetic()).count() < ENOUGH {
        return None;
    }
    // Most traces are English, and comparing with seventy languages takes longer than all else.
    let words = || prose.split(' ').filter(|word| !word.is_empty());
    let english =
        words().filter(|word| ENGLISH.iter().any(|known| known.eq_ignore_ascii_case(word)));
    if 10 * english.count() >= words().count() {
        return Some(Lang::Eng.code());
    }
    detect_lang(&prose).map(|language| language.code())
}

/// Adds the first words of prose, up to [`STRETCH`] letters; how many bytes were looked at.
fn stretch(text: &str, prose: &mut String) -> usize {
    let (mut n_letters, mut at) = (0, 0);
    for word in text.split_inclusive(char::is_whitespace) {
        if n_letters >= STRETCH || at >= 8 * STRETCH {
            break;
        }
        at += word.len();
        let word = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '\\' && c != '$');
        if !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_alphabetic() || c == '\'' || !c.is_ascii())
        {
            let word: String = word.chars().take(STRETCH).collect();
            n_letters += word.chars().count();
            prose.push_str(&word);
            prose.push(' ');
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_recognised_among_formulas() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(language(text), expected, "{text:.60}");
        };
        check("", None);
        check("402-921=570\n570-345=235\n\\boxed{64}", None);
        check("x = y + z", None);
        check(
            "Okay, so we need the number of ways in which $\\frac{a}{b}$ can be written. Let me \
             think about it: first we count those with $a=1$, then the others.",
            Some("eng"),
        );
        check(
            "首先我们需要计算 $x^2+1$ 的最小值，然后再检查一下结果是否正确。",
            Some("cmn"),
        );
        check(
            "Сначала найдём число способов, которыми можно записать дробь, а затем проверим ответ.",
            Some("rus"),
        );
        check(
            "Zuerst bestimmen wir die Anzahl der Möglichkeiten, und dann prüfen wir, ob das \
             Ergebnis stimmt, weil die Summe gerade sein muss.",
            Some("deu"),
        );
        check(&"ж".repeat(100_000), Some("rus"));
    }
}
