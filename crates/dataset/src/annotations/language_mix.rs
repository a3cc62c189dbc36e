use unicode_script::{Script, UnicodeScript};

/// Latin letters in a row that are a word and not names of variables.
const WORD: usize = 4;

/// The share of letters outside the script that most are in, in [0, 1): 0 for prose in one
/// script, whatever the language.
///
/// DeepSeek-R1 left out chains of thought that mix languages (section 2.3.3), which shows in
/// their scripts nearly always. Latin letters count in words of four and more that are no
/// command, since formulas are written in them in every language; Greek letters never do.
/// Chinese, Japanese and Korean signs are one script here.
pub fn language_mix(text: &str) -> f32 {
    let mut letters = [0u64; 6];
    let (mut latin, mut command) = (0, false);
    let end_of_latin = |latin: &mut usize, command: bool, letters: &mut [u64; 6]| {
        if *latin >= WORD && !command {
            letters[0] += *latin as u64;
        }
        *latin = 0;
    };
    for c in text.chars() {
        let script = match script(c) {
            Some(0) => {
                latin += 1;
                continue;
            }
            script => script,
        };
        end_of_latin(&mut latin, command, &mut letters);
        command = c == '\\';
        if let Some(script) = script {
            letters[script] += 1;
        }
    }
    end_of_latin(&mut latin, command, &mut letters);
    let all: u64 = letters.iter().sum();
    let most = letters.iter().max().copied().unwrap_or(0);
    if all == 0 {
        0.0
    } else {
        ((all - most) as f64 / all as f64) as f32
    }
}

/// Latin, Cyrillic, East Asian, Arabic or Hebrew, an Indian one, or another; none for what is
/// no letter, for Greek, and for the letters of mathematics, which are of no script.
fn script(c: char) -> Option<usize> {
    if c.is_ascii() {
        return c.is_ascii_alphabetic().then_some(0);
    }
    if !c.is_alphabetic() {
        return None;
    }
    match c.script() {
        Script::Latin => Some(0),
        Script::Cyrillic => Some(1),
        Script::Han
        | Script::Hiragana
        | Script::Katakana
        | Script::Hangul
        | Script::Bopomofo
        | Script::Yi => Some(2),
        Script::Arabic | Script::Hebrew | Script::Syriac | Script::Thaana => Some(3),
        Script::Devanagari
        | Script::Bengali
        | Script::Gurmukhi
        | Script::Gujarati
        | Script::Oriya
        | Script::Tamil
        | Script::Telugu
        | Script::Kannada
        | Script::Malayalam
        | Script::Sinhala => Some(4),
        Script::Greek | Script::Common | Script::Inherited => None,
        _ => Some(5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_do_not_mix_and_languages_do() {
        let check = |text: &str, low: f32, high: f32| {
            let share = language_mix(text);
            assert!((low..=high).contains(&share), "{share} for {text:.60}");
        };
        check("", 0.0, 0.0);
        check(
            "Let α be the angle; then \\sin α = x and ℝ is a field.",
            0.0,
            0.0,
        );
        check(
            "所以 $\\frac{x}{y} = \\sqrt{2}$，因此 sin x = abc。",
            0.0,
            0.0,
        );
        check("Größe, être, año: all the same script", 0.0, 0.0);
        check(
            "Wait, 我们需要再检查一下这个结果是否正确, then go on.",
            0.3,
            0.5,
        );
        check("Проверим это, then multiply everything together.", 0.2, 0.5);
    }
}
