//! Python's formatted texts and the numbers in texts.

use super::calls::Given;
use super::expressions::trimmed;
use super::statements::Run;
use super::value::Value;
use super::{Problem, Result, printing};

/// How one value is to be written.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    plus: bool,
    space: bool,
    alternate: bool,
    width: usize,
    commas: bool,
    precision: Option<usize>,
    kind: Option<char>,
}

/// More digits than a number has.
const MAX_PRECISION: usize = 400;

/// `format % values`.
pub(super) fn percent(run: &Run, format: &str, values: &Value) -> Result<Value> {
    let mut positional = match values {
        Value::Tuple(items) => items.values.clone(),
        other => vec![other.clone()],
    }
    .into_iter();
    let mut out = run.meter.buffer();
    let mut rest = format;
    let mut next = || {
        let value = positional.next();
        value.ok_or_else(|| Problem::new("a format asks for more values than it is given"))
    };
    while let Some(at) = rest.find('%') {
        run.meter.work(1)?;
        out.push(&rest[..at])?;
        rest = &rest[at + 1..];
        let mut named = None;
        if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            let found = run.item(values, &run.meter.text(name)?)?;
            if let Value::Undefined(missing) = &found {
                return Err(missing.problem());
            }
            named = Some(found);
            rest = after;
        }
        let mut spec = Spec::default();
        let flags = rest.len() - rest.trim_start_matches(['-', '+', ' ', '0', '#']).len();
        for flag in rest[..flags].chars() {
            match flag {
                '-' => spec.align = Some('<'),
                '+' => spec.plus = true,
                ' ' => spec.space = true,
                '0' => spec.fill = Some('0'),
                _ => spec.alternate = true,
            }
        }
        rest = &rest[flags..];
        spec.width = match rest.strip_prefix('*') {
            Some(after) => {
                rest = after;
                let width = next()?.as_int().unwrap_or(0);
                usize::try_from(width.max(0)).unwrap_or(usize::MAX)
            }
            None => digits(&mut rest).unwrap_or(0),
        };
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            spec.precision = Some(digits(&mut rest).unwrap_or(0));
        }
        let Some(kind) = rest.chars().next() else {
            return Err(Problem::new("a format ends inside a placeholder"));
        };
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push("%")?;
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next()?,
        };
        if spec.align == Some('<') {
            spec.fill = None;
        }
        let text = match kind {
            's' => run.to_text(&value)?,
            'r' | 'a' => represented(run, &value)?,
            'c' => match value
                .as_int()
                .and_then(|n| char::from_u32(u32::try_from(n).ok()?))
            {
                Some(c) => c.to_string(),
                None => run.to_text(&value)?,
            },
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let number = match (kind, &value) {
                    ('d' | 'i' | 'u', Value::Float(x)) => Value::Int(x.trunc() as i128),
                    _ => value,
                };
                spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
                number_text(&number, &spec)?
            }
            other => {
                let problem = format!("a format has the unknown placeholder `%{other}`");
                return Err(Problem::new(problem));
            }
        };
        let is_text = matches!(kind, 's' | 'r' | 'a' | 'c');
        let text = match (is_text, spec.precision) {
            (true, Some(n)) => text.chars().take(n).collect(),
            _ => text,
        };
        if is_text {
            spec.fill = None;
        }
        pad(&text, &spec, '>', &mut out)?;
    }
    out.push(rest)?;
    if positional.next().is_some() && !matches!(values, Value::Dict(_)) {
        return Err(Problem::new(
            "a format asks for fewer values than it is given",
        ));
    }
    out.into_value()
}

/// `format.format(…)`.
pub(super) fn braces(run: &Run, format: &str, given: &Given) -> Result<Value> {
    let mut out = run.meter.buffer();
    let mut rest = format;
    let mut counted = 0;
    while let Some(at) = rest.find(['{', '}']) {
        run.meter.work(1)?;
        out.push(&rest[..at])?;
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            out.push(brace)?;
            rest = after;
            continue;
        }
        let Some((field, after)) = after.split_once('}').filter(|_| brace == "{") else {
            return Err(Problem::new("a format has a brace without its other one"));
        };
        if field.contains('{') {
            return Err(Problem::new(
                "a format with braces inside braces is not supported",
            ));
        }
        rest = after;
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (path, conversion) = match field.split_once('!') {
            Some((path, conversion)) => (path, Some(conversion)),
            None => (field, None),
        };
        let value = field_value(run, path, given, &mut counted)?;
        let value = match conversion {
            None => value,
            Some("s") => run.text_value(value)?,
            Some("r" | "a") => run.meter.text(represented(run, &value)?)?,
            Some(other) => {
                let problem = format!("a format has the unknown conversion `!{other}`");
                return Err(Problem::new(problem));
            }
        };
        formatted(&value, spec, &mut out)?;
    }
    out.push(rest)?;
    out.into_value()
}

fn field_value(run: &Run, path: &str, given: &Given, counted: &mut usize) -> Result<Value> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, mut rest) = path.split_at(end);
    let found = match name.parse::<usize>() {
        Ok(at) => given.positional.get(at),
        Err(_) if name.is_empty() => {
            *counted += 1;
            given.positional.get(*counted - 1)
        }
        Err(_) => {
            let mut named = given.named.iter();
            named
                .find(|(known, _)| **known == *name)
                .map(|(_, value)| value)
        }
    };
    let Some(mut value) = found.cloned() else {
        let problem = format!("a format asks for `{name}`, which it is not given");
        return Err(Problem::new(problem));
    };
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = run.attribute(&value, &after[..end].into())?;
            rest = &after[end..];
        } else if let Some((key, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            let key = match key.parse::<u32>() {
                Ok(n) => Value::Int(n.into()),
                Err(_) => run.meter.text(key)?,
            };
            value = run.item(&value, &key)?;
            rest = after;
        } else {
            return Err(Problem::new("a format names its value in an unknown way"));
        }
    }
    Ok(value)
}

/// `format(value, spec)`.
fn formatted(value: &Value, text: &str, out: &mut super::bounds::Buffer) -> Result<()> {
    if text.is_empty() {
        return printing::print(value, out);
    }
    let mut spec = Spec::default();
    let mut rest = text;
    let mut chars = rest.chars();
    let (first, second) = (chars.next(), chars.next());
    let is_align = |c: Option<char>| c.filter(|c| matches!(c, '<' | '>' | '^' | '='));
    if let (Some(fill), Some(align)) = (first, is_align(second)) {
        (spec.fill, spec.align) = (Some(fill), Some(align));
        rest = &rest[fill.len_utf8() + 1..];
    } else if let Some(align) = is_align(first) {
        spec.align = Some(align);
        rest = &rest[1..];
    }
    let accept = |c: char, rest: &mut &str| match rest.strip_prefix(c) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    };
    spec.plus = accept('+', &mut rest);
    accept('-', &mut rest);
    spec.space = accept(' ', &mut rest);
    spec.alternate = accept('#', &mut rest);
    let is_text = matches!(value, Value::Str(_));
    if accept('0', &mut rest) && spec.fill.is_none() {
        spec.fill = Some('0');
        spec.align = spec.align.or((!is_text).then_some('='));
    }
    spec.width = digits(&mut rest).unwrap_or(0);
    spec.commas = accept(',', &mut rest);
    if accept('.', &mut rest) {
        spec.precision = Some(digits(&mut rest).unwrap_or(0));
    }
    spec.kind = rest.chars().next();
    if rest.chars().count() > 1 {
        let problem = format!("a format has the unknown specification `{text}`");
        return Err(Problem::new(problem));
    }
    match (value, spec.kind) {
        (Value::Str(text), None | Some('s')) => {
            let cut: String = match spec.precision {
                Some(n) => text.chars().take(n).collect(),
                None => text.to_string(),
            };
            pad(&cut, &spec, '<', out)
        }
        (value, _) if value.as_number().is_some() => {
            let text = number_text(value, &spec)?;
            pad(&text, &spec, '>', out)
        }
        (other, _) => Err(Problem::new(format!(
            "a value of type `{}` cannot be formatted as `{text}`",
            other.kind()
        ))),
    }
}

/// The text in its field; zeros go between sign and digits.
fn pad(text: &str, spec: &Spec, align: char, out: &mut super::bounds::Buffer) -> Result<()> {
    let fill = spec.fill.unwrap_or(' ');
    let inside = spec.align == Some('=') || (spec.align.is_none() && spec.fill == Some('0'));
    if inside {
        let signs = usize::from(text.starts_with(['-', '+', ' ']));
        let missing = spec.width.saturating_sub(text.chars().count());
        out.push(&text[..signs])?;
        out.fill(fill, missing)?;
        return out.push(&text[signs..]);
    }
    // Unlike `str.center`, an odd character always goes behind the text.
    let missing = spec.width.saturating_sub(text.chars().count());
    let before = match spec.align.unwrap_or(align) {
        '<' => 0,
        '^' => missing / 2,
        _ => missing,
    };
    out.fill(fill, before)?;
    out.push(text)?;
    out.fill(fill, missing - before)
}

fn number_text(value: &Value, spec: &Spec) -> Result<String> {
    let Some(x) = value.as_number() else {
        let problem = format!("a format wants a number, not `{}`", value.kind());
        return Err(Problem::new(problem));
    };
    let precision = spec.precision.unwrap_or(6).min(MAX_PRECISION);
    let whole = || {
        let problem = "a format wants a whole number, not one with a fraction";
        value.as_int().ok_or_else(|| Problem::new(problem))
    };
    let prefix = |prefix: &'static str| if spec.alternate { prefix } else { "" };
    let digits = match spec.kind {
        None | Some('d' | 'n') if value.as_int().is_some() => {
            let digits = value.as_int().unwrap_or(0).unsigned_abs().to_string();
            format!(
                "{digits:0>width$}",
                width = spec.precision.unwrap_or(0).min(MAX_PRECISION)
            )
        }
        Some('d') => whole()?.to_string(),
        Some('x') => format!("{}{:x}", prefix("0x"), whole()?.unsigned_abs()),
        Some('X') => format!("{}{:X}", prefix("0X"), whole()?.unsigned_abs()),
        Some('o') => format!("{}{:o}", prefix("0o"), whole()?.unsigned_abs()),
        Some('b') => format!("{}{:b}", prefix("0b"), whole()?.unsigned_abs()),
        Some('c') => {
            let c = u32::try_from(whole()?).ok().and_then(char::from_u32);
            c.unwrap_or('\u{fffd}').to_string()
        }
        Some('f' | 'F') => format!("{:.precision$}", x.abs()),
        Some('%') => format!("{:.precision$}%", (x * 100.0).abs()),
        Some('e' | 'E') => exponent(&format!("{:.precision$e}", x.abs())),
        Some('g' | 'G') => general(x.abs(), precision.max(1)),
        None if spec.precision.is_some() => general(x.abs(), precision.max(1)),
        None => printing::float(x.abs()),
        Some(other) => {
            let problem = format!("a format has the unknown type `{other}`");
            return Err(Problem::new(problem));
        }
    };
    let digits = match spec.kind {
        Some('E' | 'G') => digits.to_uppercase(),
        _ => digits,
    };
    let digits = if spec.commas {
        grouped(&digits)
    } else {
        digits
    };
    let negative = match value.as_int() {
        Some(n) => n < 0,
        None => x.is_sign_negative() && !x.is_nan(),
    };
    let sign = match (negative, spec.plus, spec.space) {
        (true, _, _) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    Ok(format!("{sign}{digits}"))
}

/// Rust's `1.5e7` as Python's `1.5e+07`.
fn exponent(text: &str) -> String {
    let (digits, power) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, power) = match power.strip_prefix('-') {
        Some(power) => ('-', power),
        None => ('+', power),
    };
    format!("{digits}e{sign}{power:0>2}")
}

/// `%g`: so many digits, without zeros at the end.
fn general(x: f64, precision: usize) -> String {
    let scientific = format!("{:.*e}", precision - 1, x);
    let (digits, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i64 = power.parse().unwrap_or(0);
    let short = |digits: &str| match digits.contains('.') {
        true => digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
        false => digits.to_owned(),
    };
    if power < -4 || power >= precision as i64 {
        return exponent(&format!("{}e{power}", short(digits)));
    }
    let decimals = usize::try_from(precision as i64 - 1 - power).unwrap_or(0);
    short(&format!("{x:.decimals$}"))
}

fn grouped(digits: &str) -> String {
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out + rest
}

fn represented(run: &Run, value: &Value) -> Result<String> {
    let mut out = run.meter.buffer();
    printing::repr(value, &mut out)?;
    Ok(out.into_string())
}

/// The number that `rest` begins with; one too large for memory is the largest.
fn digits(rest: &mut &str) -> Option<usize> {
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    *rest = after;
    (!number.is_empty()).then(|| number.parse().unwrap_or(usize::MAX))
}

/// `int(value)`; a text may also hold a number with a fraction, as for Jinja2.
pub(super) fn whole_number(value: &Value, base: u32) -> Option<i128> {
    let of_float = |x: f64| (x.is_finite() && x.abs() < 1e38).then(|| x.trunc() as i128);
    match value {
        Value::Float(x) => of_float(*x),
        Value::Str(text) => {
            let text = trimmed(text).replace('_', "");
            let digits = match base {
                16 => text.trim_start_matches("0x"),
                8 => text.trim_start_matches("0o"),
                2 => text.trim_start_matches("0b"),
                _ => &text,
            };
            let whole = (2..=36)
                .contains(&base)
                .then(|| i128::from_str_radix(digits, base));
            match whole {
                Some(Ok(n)) => Some(n),
                _ => float_number(&text).and_then(of_float),
            }
        }
        other => other.as_int(),
    }
}

/// `float(text)`.
pub(super) fn float_number(text: &str) -> Option<f64> {
    trimmed(text).replace('_', "").parse().ok()
}

/// Rounds as Jinja2 does: `common` halves to even as Python's `round`, `ceil` and `floor`.
pub(super) fn rounded(x: f64, digits: i32, method: &str) -> Result<f64> {
    let scale = 10f64.powi(digits);
    match method {
        // The decimal text is rounded exactly; what lies halfway in binary is no tie.
        "common" if digits >= 0 => {
            let text = format!("{x:.*}", digits as usize);
            Ok(text.parse().unwrap_or(x))
        }
        "common" => Ok((x * scale).round_ties_even() / scale),
        "ceil" => Ok((x * scale).ceil() / scale),
        "floor" => Ok((x * scale).floor() / scale),
        _ => Err(Problem::new("`round` knows common, ceil and floor")),
    }
}
