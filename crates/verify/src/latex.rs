//! LaTeX's commands that change nothing, in one place: fonts, words, spaces, fractions, groups of
//! digits, and braces.

/// Commands whose braces hold words or an upright name.
pub(crate) const TEXTS: [&str; 15] = [
    "text",
    "textbf",
    "textrm",
    "textit",
    "textnormal",
    "textsf",
    "texttt",
    "textup",
    "textmd",
    "emph",
    "mbox",
    "hbox",
    "mathrm",
    "operatorname",
    "mathit",
];

/// Commands that change how a symbol looks.
pub(crate) const FONTS: [&str; 10] = [
    "mathbf",
    "boldsymbol",
    "bm",
    "mathcal",
    "mathsf",
    "mathtt",
    "vec",
    "hat",
    "pmb",
    "mathnormal",
];

/// Commands that only space, size or style.
pub(crate) const NOTHING: [&str; 41] = [
    "left",
    "right",
    "big",
    "Big",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "bigg",
    "Bigg",
    "biggl",
    "biggr",
    "Biggl",
    "Biggr",
    "middle",
    "displaystyle",
    "textstyle",
    "scriptstyle",
    "limits",
    "nolimits",
    "quad",
    "qquad",
    "hspace",
    "enspace",
    "thinspace",
    "rm",
    "bf",
    "it",
    "mathstrut",
    "phantom",
    "tiny",
    "small",
    "large",
    "Large",
    "mathopen",
    "angle",
    "measuredangle",
    "triangle",
    "strut",
    "allowbreak",
    "cal",
];

/// Commands that are one sign.
pub(crate) const SIGNS: [(&str, char); 64] = [
    ("cdot", '*'),
    ("times", '*'),
    ("ast", '*'),
    ("div", '/'),
    ("le", '≤'),
    ("leq", '≤'),
    ("leqslant", '≤'),
    ("ge", '≥'),
    ("geq", '≥'),
    ("geqslant", '≥'),
    ("lt", '<'),
    ("gt", '>'),
    ("ne", '≠'),
    ("neq", '≠'),
    ("in", '∈'),
    ("pm", '±'),
    ("mp", '∓'),
    ("cup", '∪'),
    ("lor", '∨'),
    ("vee", '∨'),
    ("infty", '∞'),
    ("infinity", '∞'),
    ("inf", '∞'),
    ("oo", '∞'),
    ("pi", 'π'),
    ("emptyset", '∅'),
    ("varnothing", '∅'),
    ("imath", 'ι'),
    ("lvert", '|'),
    ("rvert", '|'),
    ("vert", '|'),
    ("mid", '|'),
    ("lfloor", '⌊'),
    ("rfloor", '⌋'),
    ("lceil", '⌈'),
    ("rceil", '⌉'),
    ("langle", '⟨'),
    ("rangle", '⟩'),
    ("lbrace", '⦃'),
    ("rbrace", '⦄'),
    ("lbrack", '['),
    ("rbrack", ']'),
    ("lparen", '('),
    ("rparen", ')'),
    ("ldots", '…'),
    ("dots", '…'),
    ("cdots", '…'),
    ("degree", '°'),
    ("degrees", '°'),
    ("circ", '°'),
    ("prime", '′'),
    ("and", ','),
    ("or", '∨'),
    ("sim", '~'),
    ("approx", '≈'),
    ("equiv", '≡'),
    ("colon", ':'),
    ("land", ','),
    ("wedge", ','),
    ("geqq", '≥'),
    ("leqq", '≤'),
    ("simeq", '≈'),
    ("notin", '∉'),
    ("forall", '∀'),
];

/// Commands that draw a box.
pub(crate) const BOXES: [&str; 2] = ["\\boxed", "\\fbox"];

/// The sizes of a fraction.
pub(crate) const FRACTIONS: [&str; 4] = ["frac", "dfrac", "tfrac", "cfrac"];

/// Whether a command is a letter.
pub(crate) fn is_greek(name: &str) -> bool {
    const GREEK: [&str; 38] = [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "vartheta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "varrho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "ell",
    ];
    GREEK.contains(&name)
}

/// Spaces that stand inside a number or before a unit, of every width, the negative one included.
const SPACES: [&str; 18] = [
    " ",
    "~",
    "\\,",
    "\\!",
    "\\;",
    "\\:",
    "\\>",
    "\\ ",
    "\\thinspace",
    "\u{a0}",
    "\u{2002}",
    "\u{2005}",
    "\u{2006}",
    "\u{2007}",
    "\u{2008}",
    "\u{2009}",
    "\u{200a}",
    "\u{202f}",
];

/// What parts two groups of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Separator {
    /// A comma alone, which parts the items of a list as well.
    BareComma,
    /// A comma that is set as a part of the number: `{,}`, `,\!`.
    Comma,
    Space,
}

/// The text behind a space, if it starts with one.
pub(crate) fn after_space(text: &str) -> Option<&str> {
    // Most texts start with something else, and are looked at once.
    if !matches!(text.as_bytes().first()?, b' ' | b'~' | b'\\' | 0x80..) {
        return None;
    }
    SPACES.iter().find_map(|space| text.strip_prefix(*space))
}

/// `text` without the spaces at its start, and whether the negative one was among them.
fn skip_spaces(text: &str) -> (&str, bool) {
    let (mut rest, mut negative) = (text, false);
    while let Some(after) = after_space(rest) {
        negative |= rest.starts_with("\\!");
        rest = after;
    }
    (rest, negative)
}

/// What parts the digits before `rest` from those that follow, and how long it is.
pub(crate) fn separator(rest: &str) -> Option<(usize, Separator)> {
    if !matches!(
        rest.as_bytes().first()?,
        b',' | b'{' | b' ' | b'~' | b'\\' | 0x80..
    ) {
        return None;
    }
    let (at, negative) = skip_spaces(rest);
    let spaced = at.len() < rest.len();
    let length = |after: &str| rest.len() - after.len();
    if let Some(after) = at.strip_prefix("{,}") {
        return Some((length(skip_spaces(after).0), Separator::Comma));
    }
    if let Some(after) = at.strip_prefix(',') {
        let (end, drawn_near) = skip_spaces(after);
        return match (spaced, end.len() < after.len()) {
            (false, false) => Some((1, Separator::BareComma)),
            _ if negative || drawn_near => Some((length(end), Separator::Comma)),
            // `1, 234` is a list.
            _ => None,
        };
    }
    spaced.then(|| (length(at), Separator::Space))
}

/// How long the run of ASCII digits is that `text` starts with.
pub(crate) fn digit_run(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// How long the groups of three digits are that follow one to three digits at the start of
/// `rest`. One number has one kind of separator throughout; `in_list` says that a bare comma parts
/// items.
pub(crate) fn groups_of_three(rest: &str, in_list: bool) -> usize {
    let (mut end, mut kind) = (0, None);
    while let Some((length, separator)) = separator(&rest[end..]) {
        let same_kind = kind.is_none_or(|kind| kind == separator);
        let parts_items = in_list && separator == Separator::BareComma;
        if parts_items || !same_kind || digit_run(&rest[end + length..]) != 3 {
            break;
        }
        kind = Some(separator);
        end += length + 3;
    }
    end
}

/// How long the groups of digits are that follow `n_digits` digits behind a point: three each, and
/// fewer in the last. Only narrow spaces part them.
pub(crate) fn groups_behind_point(rest: &str, n_digits: usize) -> usize {
    let (mut end, mut last) = (0, n_digits);
    while last == 3
        && !rest[end..].starts_with([' ', '~'])
        && let Some((length, Separator::Space)) = separator(&rest[end..])
    {
        last = digit_run(&rest[end + length..]);
        if !(1..=3).contains(&last) {
            break;
        }
        end += length + last;
    }
    end
}

/// The content of the `{…}` that `text` starts with, and what follows it.
pub(crate) fn braced_group(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let mut depth = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[1..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The name of the command that `text` starts with, and what follows it. A backslash before
/// anything but a letter names nothing.
pub(crate) fn command(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix('\\')?;
    let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    (length > 0).then(|| rest.split_at(length))
}

/// What the braces of a command of words hold, and what follows them.
pub(crate) fn words(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = command(text)?;
    if !TEXTS.contains(&name) {
        return None;
    }
    braced_group(rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::{Separator, braced_group, groups_behind_point, groups_of_three, separator};

    #[test]
    fn separators() {
        for (text, expected) in [
            (",234", Some((1, Separator::BareComma))),
            ("{,}234", Some((3, Separator::Comma))),
            ("{,}\\!234", Some((5, Separator::Comma))),
            (",\\! 234", Some((4, Separator::Comma))),
            ("\\,234", Some((2, Separator::Space))),
            ("\u{2009}234", Some((3, Separator::Space))),
            (", 234", None),
            (",\\,234", None),
            ("234", None),
            ("", None),
        ] {
            assert_eq!(separator(text), expected, "{text:?}");
        }
    }

    #[test]
    fn digits_in_groups() {
        assert_eq!(groups_of_three(",234,567", false), 8);
        assert_eq!(groups_of_three(",234,567", true), 0);
        assert_eq!(groups_of_three(",234 567", false), 4);
        assert_eq!(groups_of_three(",2345", false), 0);
        assert_eq!(groups_behind_point("\\,592\\,65", 3), 9);
        assert_eq!(groups_behind_point("\\,592", 2), 0);
    }

    #[test]
    fn groups() {
        assert_eq!(braced_group("{a{b}}c"), Some(("a{b}", "c")));
        assert_eq!(braced_group("{a\\}b}c"), Some(("a\\}b", "c")));
        assert_eq!(braced_group("{a"), None);
        assert_eq!(braced_group("a"), None);
    }
}
