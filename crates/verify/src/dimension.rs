//! What a unit measures: lengths are no volumes, and dollars no hours.

use crate::latex::words;

/// Powers of length, mass, time, money, angle, heat, power, information and hundredths.
type Dimension = [i8; 9];

/// Bytes at the end of an answer in which its unit is looked for.
const LONGEST: usize = 96;

const UNITS: [(usize, i8, &[&str]); 13] = [
    (
        0,
        1,
        &[
            "mm",
            "cm",
            "dm",
            "m",
            "km",
            "in",
            "ft",
            "yd",
            "mi",
            "inch",
            "inches",
            "foot",
            "feet",
            "yard",
            "yards",
            "mile",
            "miles",
            "meter",
            "meters",
            "metre",
            "metres",
            "centimeter",
            "centimeters",
            "centimetre",
            "centimetres",
            "millimeter",
            "millimeters",
            "kilometer",
            "kilometers",
            "kilometre",
            "kilometres",
            "nm",
        ],
    ),
    (
        0,
        3,
        &[
            "ml",
            "mL",
            "cl",
            "dl",
            "l",
            "L",
            "liter",
            "liters",
            "litre",
            "litres",
            "milliliter",
            "milliliters",
            "millilitre",
            "millilitres",
            "gallon",
            "gallons",
            "quart",
            "quarts",
            "pint",
            "pints",
            "cc",
        ],
    ),
    (0, 2, &["acre", "acres", "hectare", "hectares"]),
    (
        1,
        1,
        &[
            "mg",
            "g",
            "kg",
            "lb",
            "lbs",
            "oz",
            "gram",
            "grams",
            "kilogram",
            "kilograms",
            "pound",
            "pounds",
            "ounce",
            "ounces",
            "ton",
            "tons",
            "tonne",
            "tonnes",
        ],
    ),
    (
        2,
        1,
        &[
            "ms", "s", "sec", "secs", "min", "mins", "h", "hr", "hrs", "second", "seconds",
            "minute", "minutes", "hour", "hours", "day", "days", "week", "weeks", "month",
            "months", "year", "years",
        ],
    ),
    (
        3,
        1,
        &[
            "dollar", "dollars", "cent", "cents", "euro", "euros", "usd", "USD", "rupees", "yen",
        ],
    ),
    (4, 1, &["degree", "degrees", "radian", "radians", "rad"]),
    (
        5,
        1,
        &["kelvin", "celsius", "fahrenheit", "Celsius", "Fahrenheit"],
    ),
    (6, 1, &["W", "kW", "MW", "watt", "watts", "kilowatts"]),
    (7, 1, &["bit", "bits", "byte", "bytes", "MB", "GB", "kB"]),
    (8, 1, &["percent"]),
    (2, -1, &["Hz", "kHz", "MHz", "hertz"]),
    (4, 1, &["deg"]),
];

/// What the unit at the end of an answer measures; `None` for none and for those that are not
/// known.
pub(crate) fn of(source: &str) -> Option<Dimension> {
    let mut start = source.len().saturating_sub(LONGEST);
    while !source.is_char_boundary(start) {
        start += 1;
    }
    let tail = &source[start..];
    // A currency stands before its amount.
    if source
        .trim_start_matches(['-', ' ', '$', '{'])
        .starts_with("\\$")
        || source.starts_with(['€', '£'])
        || tail.ends_with("\\$")
    {
        return Some(power(3, 1));
    }
    // Digits end where the unit begins.
    let unit = match tail.rfind(|c: char| c.is_ascii_digit()) {
        Some(at) if is_exponent(tail, at) => {
            let before = tail[..at].rfind(|c: char| c.is_ascii_digit());
            before.map_or("", |at| &tail[at + 1..])
        }
        Some(at) => &tail[at + 1..],
        None => tail,
    };
    if unit.contains('%') {
        return Some(power(8, 1));
    }
    if ["\\circ", "°", "\\degree"]
        .iter()
        .any(|sign| unit.contains(sign))
    {
        // The angle of a cosine is no angle.
        let functions = ["sin", "cos", "tan", "cot", "sec", "csc"];
        let is_angle = !functions.iter().any(|name| source.contains(name));
        return is_angle.then(|| power(4, 1));
    }
    measured(unit)
}

/// Whether the digit is the power of a unit: the 2 of `\text{cm}^2`, but not that of `x^2`.
fn is_exponent(tail: &str, at: usize) -> bool {
    let before = tail[..at].trim_end_matches(['{', ' ']);
    before
        .strip_suffix('^')
        .map(|unit| unit.trim_end_matches(['}', ' ']))
        .is_some_and(|unit| {
            let letters = unit
                .bytes()
                .rev()
                .take_while(u8::is_ascii_alphabetic)
                .count();
            letters > 1 || unit.len() < before.len() - 1
        })
}

fn power(at: usize, exponent: i8) -> Dimension {
    let mut dimension = [0; 9];
    dimension[at] = exponent;
    dimension
}

fn measured(unit: &str) -> Option<Dimension> {
    let (mut dimension, mut found) = ([0_i8; 9], false);
    let (mut sign, mut next_power) = (1_i8, 1_i8);
    // Single letters are units in words only: `5m` is rather a product.
    let in_words = unit.contains("\\text") || unit.contains("\\m") || words(unit).is_some();
    let mut rest = unit;
    while let Some(c) = rest.chars().next() {
        if c == '\\' {
            let name = rest[1..]
                .bytes()
                .take_while(u8::is_ascii_alphabetic)
                .count();
            rest = rest[1..].get(name.max(1)..).unwrap_or_default();
            continue;
        }
        if !c.is_alphabetic() {
            if c == '/' {
                sign = -1;
            }
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let end = rest
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        match word {
            "per" => sign = -1,
            "square" | "sq" | "squared" => next_power = 2,
            "cubic" | "cu" | "cubed" => next_power = 3,
            "mph" | "kph" => {
                dimension[0] += 1;
                dimension[2] -= 1;
                found = true;
            }
            word => {
                let last = rest.trim_start_matches(['}', ' ', '.', '$']).is_empty();
                let is_unit = |names: &&[&str]| names.contains(&word);
                // "5 in total" and "5 m" outside of words are no units.
                let clear =
                    word.len() > 1 && (word != "in" || last || rest.starts_with(['^', '}']));
                if let Some((at, exponent, _)) = UNITS.iter().find(|(_, _, names)| is_unit(names))
                    && (clear || in_words)
                {
                    let mut times = next_power;
                    let behind = rest.trim_start_matches(['}', '^', '{', ' ']);
                    if behind.starts_with(['2', '²']) {
                        times = 2;
                    } else if behind.starts_with(['3', '³']) {
                        times = 3;
                    }
                    dimension[*at] = dimension[*at].saturating_add(sign * exponent * times);
                    found = true;
                    next_power = 1;
                } else if !found && next_power > 1 && !word.starts_with("unit") {
                    next_power = 1;
                } else if found && sign == 1 {
                    // What comes behind a unit is a sentence.
                    continue;
                }
            }
        }
    }
    found.then_some(dimension)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn dimensions() {
        let same = |a: &str, b: &str| of(a) == of(b);
        for (a, b) in [
            ("5\\text{ cm}", "5\\text{ km}"),
            ("5\\text{ cm}^2", "5 square meters"),
            ("5\\text{ cm}^3", "5\\text{ ml}"),
            ("5 miles per hour", "5\\text{ km/h}"),
            ("5\\text{ m/s}^2", "5\\text{ km/h}^2"),
            ("\\$5", "5 dollars"),
            ("90^\\circ", "90 degrees"),
            ("5", "5 apples"),
            ("5x^2", "5"),
        ] {
            assert!(same(a, b), "{a} {:?} and {b} {:?}", of(a), of(b));
        }
        for (a, b) in [
            ("4000\\text{ ml}", "4000\\text{ km}"),
            ("5\\text{ kg}", "5\\text{ hours}"),
            ("5 cm", "5 cm^2"),
            ("5 dollars", "5 hours"),
            ("5 miles", "5 mph"),
            ("5\\text{ m}", "5\\text{ s}"),
            ("5\\%", "5\\text{ cm}"),
        ] {
            assert!(!same(a, b), "{a} and {b}");
        }
    }
}
