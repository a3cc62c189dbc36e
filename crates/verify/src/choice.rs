//! Answers in words: the letter of a choice, and that there is no solution.

use crate::latex::{TEXTS, after_space, command};

/// Letters by which choices are named.
const CHOICES: std::ops::RangeInclusive<char> = 'A'..='J';

/// Bytes of an answer that is read as words.
const LONGEST: usize = 512;

/// What may stand before the letter of a choice.
const BEFORE: [&str; 12] = [
    "the",
    "correct",
    "final",
    "answer",
    "option",
    "choice",
    "is",
    "letter",
    "best",
    "statement",
    "ans",
    "an",
];

/// The words of an answer without the commands and braces around them; `None` for long ones.
fn plain(source: &str) -> Option<String> {
    if source.len() > LONGEST {
        return None;
    }
    let mut words = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = after_space(rest) {
            words.push(' ');
            rest = after;
        } else if let Some((name, after)) = command(rest) {
            match name {
                "mathbf" | "boxed" | "left" | "right" | "quad" | "bf" | "rm" => words.push(' '),
                name if TEXTS.contains(&name) => {}
                name => {
                    words.push('\\');
                    words.push_str(name);
                }
            }
            rest = after;
        } else {
            match next {
                '{' | '}' | '$' | '*' | '`' | '"' => {}
                c if c.is_whitespace() => words.push(' '),
                c => words.push(c),
            }
            rest = &rest[next.len_utf8()..];
        }
    }
    Some(words.trim().to_owned())
}

/// The letter of a choice, where the answer is one: `C`, `(C)`, `C.`, `Option C`, also before its
/// content as in `(C) 5` and `C: east`. Of two letters, as in `C or D`, none is the answer.
pub(crate) fn choice(source: &str) -> Option<char> {
    // Nearly every answer has none, and is not copied.
    if !source.contains(|c: char| CHOICES.contains(&c)) {
        return None;
    }
    let words = plain(source)?;
    let mut text = words.as_str();
    loop {
        text = text.trim_start_matches([' ', ':']);
        let end = text
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(text.len());
        let word = text[..end].to_ascii_lowercase();
        if end < 2 || !BEFORE.contains(&word.as_str()) {
            break;
        }
        text = &text[end..];
    }
    let (inner, opened) = match text.strip_prefix(['(', '[']) {
        Some(inner) => (inner.trim_start(), true),
        None => (text, false),
    };
    let mut letters = inner.chars();
    let letter = letters.next().filter(|letter| CHOICES.contains(letter))?;
    let mut behind = letters.as_str();
    if opened {
        behind = behind.trim_start();
    }
    if behind.trim_matches([' ', '.']).is_empty() && !opened {
        return Some(letter);
    }
    let content = behind.strip_prefix([')', '.', ':', ']'])?;
    let closed = content.trim();
    if closed.is_empty() {
        return Some(letter);
    }
    (!names_another(closed)).then_some(letter)
}

/// Whether another choice is named in the content behind a letter, or joined to it.
fn names_another(content: &str) -> bool {
    let first = content.split([' ', '(']).find(|word| !word.is_empty());
    let joins = |word: &str| {
        ["or", "and", "/", "&", "either", "not"].contains(&word.to_ascii_lowercase().as_str())
    };
    if content.starts_with([',', '/', '&', ';', '+', '=']) || first.is_some_and(joins) {
        return true;
    }
    let bytes = content.as_bytes();
    let is_letter = |at: usize| {
        bytes
            .get(at)
            .is_some_and(|b| CHOICES.contains(&char::from(*b)))
    };
    let alone = |at: usize| {
        let behind = bytes.get(at + 1).is_none_or(|b| !b.is_ascii_alphanumeric());
        let before = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        is_letter(at) && behind && before
    };
    (0..bytes.len()).filter(|at| alone(*at)).any(|at| {
        let labelled = matches!(bytes.get(at + 1), Some(b')' | b']'));
        let before = content
            .get(..at)
            .unwrap_or_default()
            .trim_end_matches([' ', '(']);
        let joined = [" or", " and", ",", "/", "&"]
            .iter()
            .any(|join| before.ends_with(join));
        (labelled && at > 0 && bytes[at - 1] == b'(')
            || (joined && at + 1 == bytes.len())
            || (labelled && joined)
    })
}

/// Words of a sentence that says there is no solution, beside what there is none of.
const AROUND: [&str; 37] = [
    "there",
    "is",
    "are",
    "exist",
    "exists",
    "the",
    "this",
    "these",
    "equation",
    "equations",
    "system",
    "inequality",
    "problem",
    "has",
    "have",
    "had",
    "having",
    "a",
    "an",
    "any",
    "real",
    "at",
    "all",
    "that",
    "so",
    "possible",
    "valid",
    "such",
    "to",
    "for",
    "of",
    "x",
    "does",
    "do",
    "which",
    "it",
    "we",
];

/// Whether an answer says that there is no solution: "no solution", "there are no real roots",
/// "the system has no solutions", "no such value exists", "none".
pub(crate) fn is_no_solution(source: &str) -> bool {
    // The first byte that decides is looked for before anything is copied.
    if source.len() > LONGEST
        || !source.contains(['n', 'N'])
        || source.contains(|c: char| c.is_ascii_digit())
    {
        return false;
    }
    let Some(words) = plain(source).map(|words| words.to_lowercase()) else {
        return false;
    };
    if words.contains(['\\', '=', '+', '^']) {
        return false;
    }
    let (mut none, mut of, mut n_words) = (0, 0, 0);
    let letters = |c: char| !(c.is_alphabetic() || c == '\'' || c == '’');
    for word in words.split(letters).filter(|word| !word.is_empty()) {
        n_words += 1;
        match word {
            "no" | "not" | "doesn't" | "doesn’t" | "don't" | "don’t" => none += 1,
            "solution" | "solutions" | "root" | "roots" => of += 1,
            "value" | "values" | "number" | "numbers" if none > 0 => of += 1,
            "none" if words.trim_matches('.') == "none" => return true,
            word if AROUND.contains(&word) => {}
            _ => return false,
        }
    }
    none == 1 && of >= 1 && n_words <= 14
}

#[cfg(test)]
mod tests {
    use super::{choice, is_no_solution};

    #[test]
    fn one_letter_is_a_choice() {
        for text in [
            "C",
            "(C)",
            "C.",
            "\\text{(C)}",
            "\\textbf{(C) }",
            "(\\text{C})",
            "(C) 5",
            "C) 12",
            "C: 12",
            "\\text{C: a long story}",
            "Option C",
            "\\text{Answer: C}",
            "[C]",
            "\\text{(C) Both are true}",
            "the correct answer is (C)",
            "C. A line",
        ] {
            assert_eq!(choice(text), Some('C'), "{text}");
        }
        for text in [
            "(C) or (D)",
            "C or D",
            "C, D",
            "\\text{C and D}",
            "(C), (D)",
            "C/D",
            "(C) 5 or (D) 6",
            "either C or D",
            "AC",
            "C+1",
            "C: or D",
            "\\text{(C) or possibly (D)}",
            "(C",
            "Cat",
            "C_2",
            "C(x)",
        ] {
            assert_eq!(choice(text), None, "{text}");
        }
    }

    #[test]
    fn no_solution_in_words() {
        for text in [
            "no solution",
            "\\text{No solutions}",
            "There is no solution.",
            "none",
            "No real roots",
            "\\text{the system has no solution}",
            "no such value exists",
            "A solution does not exist",
            "no solutions exist",
            "The equation has no real solutions",
        ] {
            assert!(is_no_solution(text), "{text}");
        }
        for text in [
            "no",
            "solution",
            "one solution",
            "no unique solution",
            "no positive solution",
            "not only one solution",
            "no more than 2 solutions",
            "none of these",
            "there is a solution",
            "n",
        ] {
            assert!(!is_no_solution(text), "{text}");
        }
    }
}
