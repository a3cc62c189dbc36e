//! A checkpoint's tokenizer: text to ids and back, and conversations to what is trained on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use records::{Message, Role};
use serde_json::{Map, Value};

use crate::added_tokens;
use crate::chat_template::{ChatTemplate, Rendering};
use crate::error::{Error, Result, io, read_json_if_present};
use crate::token_bytes::TokenSpelling;

/// `tokenizer.json` with its chat template and its end-of-sequence ids.
pub struct Tokenizer {
    dir: PathBuf,
    inner: tokenizers::Tokenizer,
    template: Option<ChatTemplate>,
    /// Variables that every rendering gets.
    template_kwargs: Map<String, Value>,
    /// How the template writes a thought of its own, once it was asked.
    writes_thoughts: OnceLock<Thoughts>,
    notices: Vec<String>,
    /// Bytes of every id, by id; `None` where an id is unused.
    bytes: Vec<Option<Box<[u8]>>>,
    /// Ids of added tokens: specials and their like.
    added: BTreeSet<u32>,
    eos_token: Option<u32>,
    eos_ids: Vec<u32>,
    end_of_turn: Option<u32>,
    /// blake3 over `bytes`.
    fingerprint: String,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and the chat template.
    ///
    /// Only `tokenizer.json` has to be there; a missing chat template is an error when one is needed.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let json = std::fs::read(&path).map_err(io(&path))?;
        let invalid = |error: tokenizers::Error| Error::Tokenizer {
            path: path.clone(),
            problem: error.to_string(),
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(invalid)?;
        // Settings of whoever saved the file; here every id is wanted and none beside.
        inner.with_truncation(None).map_err(invalid)?;
        inner.with_padding(None);

        let config_path = dir.join("tokenizer_config.json");
        let config = read_json_if_present(&config_path)?.unwrap_or(Value::Null);
        let special_tokens = special_tokens(dir, &config)?;
        added_tokens::add(&mut inner, dir, &config, &special_tokens)?;
        let notices = unknown_specials(&inner, dir, &config);

        let added_tokens = inner.get_added_tokens_decoder();
        let added: BTreeSet<u32> = added_tokens.keys().copied().collect();
        let spelling = TokenSpelling::of(&inner);
        let vocabulary = inner.get_vocab(true);
        let n_ids = vocabulary
            .values()
            .map(|id| *id as usize + 1)
            .max()
            .unwrap_or(0);
        let mut bytes: Vec<Option<Box<[u8]>>> = vec![None; n_ids];
        for (token, id) in vocabulary {
            let spelled = if added.contains(&id) {
                token.into_bytes()
            } else {
                spelling.bytes(&token)
            };
            bytes[id as usize] = Some(spelled.into_boxed_slice());
        }
        let fingerprint = fingerprint(&bytes);

        let template = chat_template(dir, &config)?
            .map(|(source, path)| ChatTemplate::new(&source, &path, &special_tokens))
            .transpose()?;

        let mut tokenizer = Self {
            dir: dir.into(),
            inner,
            template,
            template_kwargs: Map::new(),
            writes_thoughts: OnceLock::new(),
            notices,
            bytes,
            added,
            eos_token: None,
            eos_ids: Vec::new(),
            end_of_turn: None,
            fingerprint,
        };
        tokenizer.eos_token = special_tokens
            .iter()
            .find(|(name, _)| name == "eos_token")
            .and_then(|(_, text)| tokenizer.inner.token_to_id(text));
        tokenizer.with_ends()
    }

    /// Finds what ends a turn, which the template decides.
    fn with_ends(mut self) -> Result<Self> {
        if let Some(header) = self.header_without_prompt()
            && !self
                .notices
                .iter()
                .any(|notice| notice.ends_with(NO_PROMPT))
        {
            self.notices.push(format!(
                "{}: the chat template opens no assistant's turn for add_generation_prompt: a prompt ends after the user's turn, and {header:?} is learnt with the answer{NO_PROMPT}",
                self.dir.display()
            ));
        }
        self.end_of_turn = self.find_end_of_turn().or(self.eos_token);
        self.eos_ids = self.find_eos_ids(self.eos_token)?;
        Ok(self)
    }

    /// Gives every rendering these variables: the recipe's `chat_template_kwargs`, such as `enable_thinking`.
    ///
    /// A name that the template never reads is said in [`notices`](Self::notices).
    ///
    /// # Errors
    /// [`Error::Setting`] for `messages`, `tools` and `add_generation_prompt`, which the conversation gives;
    /// [`Error::NoChatTemplate`] where there is no template to read them.
    pub fn with_chat_template_kwargs(mut self, kwargs: Map<String, Value>) -> Result<Self> {
        if kwargs.is_empty() && self.template_kwargs.is_empty() {
            return Ok(self);
        }
        let template = self.template()?;
        template.check_kwargs(&kwargs)?;
        let notices: Vec<String> = template
            .unread(&kwargs)
            .into_iter()
            .map(|name| {
                format!(
                    "{}: the chat template never reads `{name}`, which chat_template_kwargs gives",
                    template.path().display()
                )
            })
            .collect();
        self.notices.extend(notices);
        self.template_kwargs = kwargs;
        self.with_ends()
    }

    /// The variables of [`with_chat_template_kwargs`](Self::with_chat_template_kwargs).
    pub fn chat_template_kwargs(&self) -> &Map<String, Value> {
        &self.template_kwargs
    }

    /// Fixes the time that the chat template is told, in seconds since 1970, UTC: the run's start.
    pub fn with_time(mut self, unix_seconds: i64) -> Self {
        self.template = self.template.map(|t| t.with_time(unix_seconds));
        self
    }

    /// Whether the chat template prints today's date, so that a run has to fix and record its time.
    pub fn reads_clock(&self) -> bool {
        self.template
            .as_ref()
            .is_some_and(ChatTemplate::reads_clock)
    }

    /// Whether the chat template reads a field or a variable of this name, such as `reasoning_content`.
    pub fn template_reads(&self, name: &str) -> bool {
        self.template.as_ref().is_some_and(|t| t.reads(name))
    }

    /// What people should hear about this folder, a line each: for the caller to print.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Ids of `text`. Special tokens written in it are recognised; none are added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|error| Error::Tokenizer {
                path: self.dir.join("tokenizer.json"),
                problem: format!("cannot encode {text:?}: {error}"),
            })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`; bytes that are no UTF-8 become U+FFFD, ids beyond the vocabulary vanish.
    ///
    /// Without `keep_special`, tokens marked special (not every added one: `<think>` of Qwen3 stays)
    /// are left out.
    pub fn decode(&self, ids: &[u32], keep_special: bool) -> String {
        self.inner.decode(ids, !keep_special).unwrap_or_else(|_| {
            // Only exotic decoders fail at all; the spelling is then the best account of the ids.
            let bytes: Vec<u8> = ids
                .iter()
                .flat_map(|id| self.spelled(*id))
                .copied()
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// The bytes an id stands for in running text; `None` for an id the vocabulary does not have.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        Some(self.bytes.get(id as usize)?.as_ref()?.to_vec())
    }

    /// Ids are below this; a checkpoint's embedding may have padding rows beyond it.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// The id of a token by its exact spelling, such as `<|im_end|>`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Ids that end a completion: generation_config.json's (else config.json's), the tokenizer's EOS,
    /// and what the chat template closes the assistant's turn with.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// What the chat template closes the assistant's turn with (`<|im_end|>`, `<|eot_id|>`), else the EOS token.
    pub fn end_of_turn_id(&self) -> Option<u32> {
        self.end_of_turn
    }

    /// Names the vocabulary: blake3 (hex) over every id and its bytes, added tokens included.
    ///
    /// Equal fingerprints mean that ids may be exchanged; merges, templates and settings do not matter.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Checks that each of `ids` means the same bytes here and in `other`.
    ///
    /// # Errors
    /// [`Error::TokenizersDiffer`] with the first id, in the order given, that does not.
    pub fn compatible(&self, other: &Self, ids: impl IntoIterator<Item = u32>) -> Result<()> {
        for id in ids {
            match (self.spelling_of(id), other.spelling_of(id)) {
                (Some(ours), Some(theirs)) if ours == theirs => {}
                _ => return Err(self.difference(other, id)),
            }
        }
        Ok(())
    }

    /// Checks that each of `ids` means the same bytes here and in `other`, or nothing in both.
    ///
    /// # Errors
    /// [`Error::TokenizersDiffer`] with the first id that does not.
    pub fn same(&self, other: &Self, ids: impl IntoIterator<Item = u32>) -> Result<()> {
        let mut ids = ids.into_iter();
        match ids.find(|&id| self.spelling_of(id) != other.spelling_of(id)) {
            Some(id) => Err(self.difference(other, id)),
            None => Ok(()),
        }
    }

    /// Fails where a template is needed but the folder has none; to be asked before work is paid for.
    pub fn require_chat_template(&self) -> Result<()> {
        self.template().map(|_| ())
    }

    /// The conversation as text, with the assistant's turn opened after it.
    pub fn render_prompt(&self, messages: &[Message]) -> Result<String> {
        self.render(messages, true, None)
    }

    /// The conversation as text; `tools` are JSON schemas that the template may list.
    ///
    /// A thought of its own reaches a template that reads it; for others it stands within the content, in tags.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        tools: Option<&Value>,
    ) -> Result<String> {
        let template = self.template()?;
        let placed;
        let apart;
        // Where thoughts have marks of their own, tags would be words of the answer.
        let messages =
            if self.writes_thoughts() == Thoughts::Otherwise && messages.iter().any(has_tags) {
                apart = messages
                    .iter()
                    .map(|turn| self.with_thought_apart(turn))
                    .collect::<Vec<_>>();
                &apart
            } else {
                messages
            };
        let messages = if messages.iter().any(|turn| turn.reasoning.is_some()) {
            placed = match self.writes_thoughts() {
                Thoughts::Unknown => messages
                    .iter()
                    .cloned()
                    .map(Message::with_thought_inside)
                    .collect(),
                _ => messages.iter().map(under_every_name).collect::<Vec<_>>(),
            };
            &placed
        } else {
            messages
        };
        template.render(&Rendering {
            messages,
            add_generation_prompt,
            tools,
            kwargs: &self.template_kwargs,
        })
    }

    /// How the chat template writes a thought that stands in a field of its own.
    pub(crate) fn writes_thoughts(&self) -> Thoughts {
        *self.writes_thoughts.get_or_init(|| {
            const MARK: &str = "stillroom-thought";
            let answer = Message {
                reasoning: Some(MARK.to_owned()),
                ..Message::new("assistant", "a")
            };
            let messages = [Message::new("user", "x"), under_every_name(&answer)];
            let rendered = self.template().and_then(|template| {
                template.render(&Rendering {
                    messages: &messages,
                    add_generation_prompt: false,
                    tools: None,
                    kwargs: &self.template_kwargs,
                })
            });
            match rendered {
                Ok(text) if !text.contains(MARK) => Thoughts::Unknown,
                Ok(text) if text.contains(THINK) => Thoughts::Tagged,
                Ok(_) => Thoughts::Otherwise,
                Err(_) => Thoughts::Unknown,
            }
        })
    }

    /// Ids of [`render_prompt`](Self::render_prompt)'s text.
    pub fn prompt_ids(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.encode(&self.render_prompt(messages)?)
    }

    /// Whether a rendered prompt ends inside a thought, so that completions begin in it.
    pub fn opens_think(&self, prompt_text: &str) -> bool {
        prompt_text.trim_end().ends_with(THINK)
    }

    /// The folder the tokenizer was read from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn template(&self) -> Result<&ChatTemplate> {
        self.template.as_ref().ok_or_else(|| Error::NoChatTemplate {
            dir: self.dir.clone(),
        })
    }

    /// The first added token after an assistant's message in a rendered conversation.
    fn find_end_of_turn(&self) -> Option<u32> {
        const MARK: &str = "stillroom-mark";
        let conversation = [Message::new("user", "x"), Message::new("assistant", MARK)];
        let text = self.render(&conversation, false, None).ok()?;
        let after = &text[text.rfind(MARK)? + MARK.len()..];
        let ids = self.encode(after).ok()?;
        ids.into_iter().find(|id| self.added.contains(id))
    }

    fn find_eos_ids(&self, eos_token: Option<u32>) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            let path = self.dir.join(file);
            let Some(config) = read_json_if_present(&path)? else {
                continue;
            };
            match config.get("eos_token_id") {
                None | Some(Value::Null) => continue,
                Some(value) => {
                    ids = id_list(value).ok_or_else(|| Error::Config {
                        path,
                        key: "eos_token_id".into(),
                        problem: "must be a token id or a list of them".into(),
                    })?
                }
            }
            break;
        }
        for id in [eos_token, self.end_of_turn].into_iter().flatten() {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn spelling_of(&self, id: u32) -> Option<&[u8]> {
        self.bytes.get(id as usize)?.as_deref()
    }

    fn spelled(&self, id: u32) -> &[u8] {
        self.spelling_of(id).unwrap_or_default()
    }

    fn difference(&self, other: &Self, id: u32) -> Error {
        let name = |tokenizer: &Self| {
            tokenizer.spelling_of(id).map_or("unused".into(), |bytes| {
                format!("{:?}", String::from_utf8_lossy(bytes))
            })
        };
        Error::TokenizersDiffer {
            id,
            left: name(self),
            right: name(other),
            left_dir: self.dir.clone(),
            right_dir: other.dir.clone(),
        }
    }
}

pub(crate) const THINK: &str = "<think>";

/// How the notice about such a template ends.
const NO_PROMPT: &str = "; end it with {% if add_generation_prompt %}, that header and {% endif %}";

/// How a chat template writes a thought that stands in a field of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thoughts {
    /// Not at all.
    Unknown,
    /// In `<think>` tags.
    Tagged,
    /// With other marks, as gpt-oss does.
    Otherwise,
}

fn has_tags(message: &Message) -> bool {
    message.role == Role::Assistant && message.content.contains("</think>")
}

/// The message with its thought under each name that templates know it by.
fn under_every_name(message: &Message) -> Message {
    let mut message = message.clone();
    if let Some(thought) = &message.reasoning {
        for name in ["reasoning", "thinking"] {
            message
                .fields
                .insert(name.to_owned(), thought.as_str().into());
        }
    }
    message
}

fn fingerprint(bytes: &[Option<Box<[u8]>>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (id, bytes) in bytes.iter().enumerate() {
        if let Some(bytes) = bytes {
            hasher.update(&(id as u32).to_le_bytes());
            hasher.update(&(bytes.len() as u32).to_le_bytes());
            hasher.update(bytes);
        }
    }
    hasher.finalize().to_hex().to_string()
}

fn id_list(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => Some(vec![id(one)?]),
    }
}

/// `bos_token`, `eos_token` and their like; texts, or AddedToken objects with `content`.
fn special_tokens(dir: &Path, config: &Value) -> Result<Vec<(String, String)>> {
    const NAMES: [&str; 7] = [
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
    ];
    let mut tokens = BTreeMap::new();
    // Older folders keep them in a file of their own; tokenizer_config.json wins.
    let map = read_json_if_present(&dir.join("special_tokens_map.json"))?.unwrap_or(Value::Null);
    for source in [&map, config] {
        for name in NAMES {
            let value = source.get(name);
            let text = value.and_then(|v| v.as_str().or_else(|| v.get("content")?.as_str()));
            if let Some(text) = text {
                tokens.insert(name.to_string(), text.to_string());
            }
        }
    }
    Ok(tokens.into_iter().collect())
}

/// Says which of `additional_special_tokens` the vocabulary does not have: they are read as the text they are.
fn unknown_specials(inner: &tokenizers::Tokenizer, dir: &Path, config: &Value) -> Vec<String> {
    let mut notices = Vec::new();
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        let listed = config.get(key).and_then(Value::as_array);
        for token in listed.into_iter().flatten() {
            let text = token
                .as_str()
                .or_else(|| token.get("content")?.as_str())
                .unwrap_or_default();
            if !text.is_empty() && inner.token_to_id(text).is_none() {
                let path = dir.join("tokenizer_config.json");
                notices.push(format!(
                    "{}: {key} names `{text}`, which has no id in tokenizer.json; it is read as ordinary text",
                    path.display()
                ));
            }
        }
    }
    notices
}

/// The template's source and file: `chat_template.jinja`, else `chat_template` in tokenizer_config.json.
fn chat_template(dir: &Path, config: &Value) -> Result<Option<(String, PathBuf)>> {
    let path = dir.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(source) => return Ok(Some((source, path))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(&path)(error)),
    }
    let path = dir.join("tokenizer_config.json");
    let source = match config.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(source)) => Some(source.as_str()),
        Some(Value::Array(templates)) => templates
            .iter()
            .find(|template| template["name"] == "default")
            .and_then(|template| template["template"].as_str()),
        Some(_) => None,
    };
    match source {
        Some(source) => Ok(Some((source.to_string(), path))),
        None => Err(Error::Config {
            path,
            key: "chat_template".into(),
            problem: "must be text, or a list of {name, template} with one named `default`".into(),
        }),
    }
}

#[cfg(test)]
mod tests;
