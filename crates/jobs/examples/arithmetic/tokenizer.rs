//! The tokenizer: byte-level BPE with Qwen2's pre-tokenizer, which keeps every digit alone.
//!
//! The vocabulary is built, not trained: all 256 bytes, then the world's own words, each merged
//! to one token. It is the same for every seed, so that worlds can share models.

use serde_json::{Map, Value, json};

/// Qwen2's splitting pattern, as in its `tokenizer.json`.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Pre-tokens of the world's text that are more than one byte, merged in this order.
const WORDS: [&str; 29] = [
    "\n\n",
    "user",
    "assistant",
    "system",
    "Start",
    " with",
    " A",
    " B",
    " C",
    " D",
    " E",
    " add",
    " subtract",
    " double",
    " What",
    " results",
    " Do",
    " only",
    " Write",
    " the",
    " steps",
    " in",
    "Make",
    " up",
    " a",
    " step",
    " short",
    "=>",
    "\\boxed",
];

/// Special tokens, in id order after the words. The thinking marks are added tokens that
/// decoding keeps, as in Qwen3.
const MARKS: [(&str, bool); 5] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<think>", false),
    ("</think>", false),
];

/// The mark that ends a turn.
pub const END_OF_TURN: &str = "<|im_end|>";
/// The mark that pads.
pub const PADDING: &str = "<|endoftext|>";

/// Turns as ChatML. Thinking stays in every turn: a training example's last turn has to keep it.
const CHAT_TEMPLATE: &str = "{%- for message in messages %}\
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\
    {%- endfor %}\
    {%- if add_generation_prompt %}\
    {{- '<|im_start|>assistant\\n' }}\
    {%- endif %}";

/// GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the others follow from U+0100.
fn byte_alphabet() -> [char; 256] {
    let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut shifted = (0x100u32..).filter_map(char::from_u32);
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        if printable(byte) {
            char::from(byte)
        } else {
            shifted.next().unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    })
}

/// Tokens in id order, and merges in rank order.
struct Vocabulary {
    tokens: Vec<String>,
    merges: Vec<(String, String)>,
}

impl Vocabulary {
    fn build() -> Self {
        let alphabet = byte_alphabet();
        let mut vocabulary = Self {
            tokens: alphabet.iter().map(char::to_string).collect(),
            merges: Vec::new(),
        };
        for word in WORDS {
            let pieces: Vec<String> = word
                .bytes()
                .map(|byte| alphabet[usize::from(byte)].to_string())
                .collect();
            vocabulary.add(pieces);
        }
        vocabulary
    }

    /// Merges a word's pieces as the merges so far do, then joins what is left from the left.
    ///
    /// Later merges rank lower, so a word once whole stays whole.
    fn add(&mut self, mut pieces: Vec<String>) {
        for (left, right) in &self.merges {
            let mut at = 0;
            while at + 1 < pieces.len() {
                if pieces[at] == *left && pieces[at + 1] == *right {
                    pieces[at].push_str(right);
                    pieces.remove(at + 1);
                }
                at += 1;
            }
        }
        while pieces.len() > 1 {
            let right = pieces.remove(1);
            self.merges.push((pieces[0].clone(), right.clone()));
            pieces[0].push_str(&right);
            self.tokens.push(pieces[0].clone());
        }
    }

    /// The id of a special token.
    fn mark(&self, mark: &str) -> usize {
        let at = MARKS.iter().position(|(name, _)| *name == mark);
        self.tokens.len() + at.unwrap_or(MARKS.len())
    }
}

/// The ids that `config.json` and `generation_config.json` name.
pub struct SpecialIds {
    pub end_of_turn: usize,
    pub padding: usize,
}

/// The ids of the marks that configurations name.
pub fn special_ids() -> SpecialIds {
    let vocabulary = Vocabulary::build();
    SpecialIds {
        end_of_turn: vocabulary.mark(END_OF_TURN),
        padding: vocabulary.mark(PADDING),
    }
}

/// The contents of `tokenizer.json`.
pub fn tokenizer_json() -> Value {
    let vocabulary = Vocabulary::build();
    let vocab: Map<String, Value> = vocabulary
        .tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    let added: Vec<Value> = MARKS
        .iter()
        .map(|(mark, special)| {
            json!({
                "id": vocabulary.mark(mark), "content": mark, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false, "special": special,
            })
        })
        .collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": PATTERN }, "behavior": "Isolated", "invert": false },
                byte_level,
            ],
        },
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab,
            "merges": vocabulary.merges,
        },
    })
}

/// The contents of `tokenizer_config.json`.
pub fn tokenizer_config_json() -> Value {
    let vocabulary = Vocabulary::build();
    let added: Map<String, Value> = MARKS
        .iter()
        .map(|(mark, special)| {
            let entry = json!({
                "content": mark, "lstrip": false, "normalized": false, "rstrip": false,
                "single_word": false, "special": special,
            });
            (vocabulary.mark(mark).to_string(), entry)
        })
        .collect();
    json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": added,
        "additional_special_tokens": ["<|im_start|>", END_OF_TURN],
        "bos_token": null,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": END_OF_TURN,
        "errors": "replace",
        "model_max_length": 512,
        "pad_token": PADDING,
        "split_special_tokens": false,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokenizers::Tokenizer;

    fn load() -> Tokenizer {
        Tokenizer::from_bytes(serde_json::to_vec(&tokenizer_json()).unwrap()).unwrap()
    }

    #[test]
    fn every_word_is_one_token() {
        let tokenizer = load();
        for word in WORDS {
            let encoding = tokenizer.encode(word, false).unwrap();
            assert_eq!(encoding.len(), 1, "{word:?}: {:?}", encoding.get_tokens());
        }
    }

    #[test]
    fn a_conversation_splits_into_single_digits_and_words() {
        let text = "<|im_start|>user\nStart with 237. A: double. B: add 42. What results?<|im_end|>\n\
                    <|im_start|>assistant\n<think>\n732 A*20=474 B+24=>615\n</think>\n\n\\boxed{516}<|im_end|>";
        let tokenizer = load();
        let encoding = tokenizer.encode(text, false).unwrap();
        assert_eq!(encoding.len(), 29 + 31);
        assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), text);
        let ids = special_ids();
        assert_eq!(
            tokenizer.token_to_id(END_OF_TURN),
            Some(ids.end_of_turn as u32)
        );
        assert_eq!(tokenizer.token_to_id(PADDING), Some(ids.padding as u32));
    }

    #[test]
    fn any_text_survives_a_round_trip() {
        let tokenizer = load();
        for text in [
            "",
            "naïve – 三千",
            "\t\r\n  x",
            "a\u{0}b",
            "Please reason step by step.",
        ] {
            let encoding = tokenizer.encode(text, false).unwrap();
            assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), text);
        }
    }

    #[test]
    fn the_vocabulary_fits_the_models() {
        assert!(load().get_vocab_size(true) <= crate::shape::VOCABULARY);
    }
}
