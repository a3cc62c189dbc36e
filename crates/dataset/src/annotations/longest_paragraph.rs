/// Characters of the longest paragraph; blank lines part paragraphs.
///
/// DeepSeek-R1 left out chains of thought with long paragraphs (section 2.3.3), without a
/// figure.
pub fn longest_paragraph(text: &str) -> u32 {
    let (mut longest, mut length) = (0, 0);
    for line in text.split('\n') {
        let n_chars = line.trim().chars().count();
        length = if n_chars == 0 { 0 } else { length + n_chars };
        longest = longest.max(length);
    }
    u32::try_from(longest).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::longest_paragraph;

    #[test]
    fn blank_lines_part_paragraphs() {
        let check = |text: &str, expected: u32| {
            assert_eq!(longest_paragraph(text), expected, "{text:?}");
        };
        check("", 0);
        check("\n \n", 0);
        check("abc\nde\n\nfghi", 5);
        check("ab\r\n\r\n等等等\r\n", 3);
    }
}
