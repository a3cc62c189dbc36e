/// Fenced blocks of code: lines that begin with ``` or ~~~ open one or close it.
///
/// DeepSeek-R1 left out chains of thought with code blocks (section 2.3.3).
pub fn code_blocks(text: &str) -> u32 {
    let (mut blocks, mut open) = (0, None);
    for line in text.lines() {
        let line = line.trim_start();
        let fence = ["```", "~~~"].into_iter().find(|f| line.starts_with(f));
        match (open, fence) {
            (None, Some(fence)) => {
                blocks += 1;
                open = Some(fence);
            }
            (Some(opened), Some(fence)) if opened == fence => open = None,
            _ => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::code_blocks;

    #[test]
    fn blocks_are_counted_also_when_left_open() {
        let check = |text: &str, expected: u32| assert_eq!(code_blocks(text), expected, "{text}");
        check("", 0);
        check("inline `code` and ``more``", 0);
        check("Try:\n```python\nprint(1)\n```\nand\n  ```\nx\n```", 2);
        check("~~~\n```\n~~~\n", 1);
        check("```\nnever closed", 1);
    }
}
