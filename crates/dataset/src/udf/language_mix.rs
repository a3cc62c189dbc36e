use crate::words::is_unspaced;

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
/// no letter, and for Greek.
fn script(c: char) -> Option<usize> {
    match u32::from(c) {
        0x41..=0x5A | 0x61..=0x7A => Some(0),
        0x00..=0x7F => None,
        0xC0..=0x24F | 0x1E00..=0x1EFF => Some(0),
        0x370..=0x3FF | 0x1F00..=0x1FFF => None,
        0x400..=0x52F => Some(1),
        0x1100..=0x11FF | 0xAC00..=0xD7AF => Some(2),
        0x590..=0x77F => Some(3),
        0x900..=0xDFF => Some(4),
        // Letters of mathematics: script and double-struck.
        0x2100..=0x214F | 0x1_D400..=0x1_D7FF => None,
        _ if is_unspaced(c) && !(0x0E00..=0x0E7F).contains(&u32::from(c)) => Some(2),
        _ if c.is_alphabetic() => Some(5),
        _ => None,
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
