//! Numbers as people read them, and texts as pages can hold them.

/// `12,345`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `950`, `12.3k`, `4.6M`: three digits, for axes and large sums.
pub fn short(n: f64) -> String {
    let (value, unit) = match n.abs() {
        size if size >= 1e12 => (n / 1e12, "T"),
        size if size >= 1e9 => (n / 1e9, "G"),
        size if size >= 1e6 => (n / 1e6, "M"),
        size if size >= 1e4 => (n / 1e3, "k"),
        _ => (n, ""),
    };
    // Three digits are enough to be told.
    let text = match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.1e}").replace(".0e", "e"),
    };
    let text = match text.contains('.') && !text.contains('e') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    text + unit
}

/// A share of 0 to 1 in per cent, with a digit where there is one.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A name, a reason, an answer: what is seldom long.
pub fn word(text: &str) -> String {
    excerpt(text, 200)
}

/// At most `most` characters: the beginning and, where the text is longer, its end. What is no text in a page (control
/// characters) shows as U+FFFD.
pub fn excerpt(text: &str, most: usize) -> String {
    let shown = |part: &str| -> String {
        let show = |c: char| match c {
            '\n' | '\t' => c,
            '\r' => '\n',
            c if c.is_control() => '\u{fffd}',
            c => c,
        };
        part.chars().map(show).collect()
    };
    let head = most / 2;
    let Some((cut, _)) = text.char_indices().nth(most) else {
        return shown(text);
    };
    let head_end = text.char_indices().nth(head).map_or(cut, |(at, _)| at);
    let tail = text.char_indices().rev().nth(most - head - 1);
    let tail_start = tail.map_or(cut, |(at, _)| at);
    let left_out = text[head_end..tail_start].chars().count();
    format!(
        "{}\n[… {} characters …]\n{}",
        shown(&text[..head_end]),
        count(left_out as u64),
        shown(&text[tail_start..])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_shortened() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(n), text);
        }
        for (n, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (950.0, "950"),
            (12_340.0, "12.3k"),
            (4_600_000.0, "4.6M"),
            (2e-5, "2e-5"),
            (-1500.0, "-1500"),
        ] {
            assert_eq!(short(n), text);
        }
        assert_eq!(duration(90.0), "1.5 min");
    }

    #[test]
    fn excerpts_have_a_beginning_and_an_end() {
        assert_eq!(excerpt("short\r\u{1b}[2J", 100), "short\n\u{fffd}[2J");
        let text = format!("{}é{}", "a".repeat(10), "b".repeat(10));
        assert_eq!(excerpt(&text, 8), "aaaa\n[… 13 characters …]\nbbbb");
        assert_eq!(excerpt(&text, 21), text);
    }
}
