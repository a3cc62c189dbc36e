//! Tokens that stand beside `tokenizer.json`: in `added_tokens.json`, and in tokenizer_config.json's `added_tokens_decoder`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::AddedToken;

use crate::error::{Error, Result, read_json_if_present};

/// Adds the tokens that `tokenizer.json` lacks, with their ids and flags, as transformers does.
///
/// `special` are the texts of `bos_token` and its like: `added_tokens.json` has no flags of its own.
///
/// # Errors
/// A token whose id is another token's, or lies beyond the first free one: transformers would give it another id
/// than the file says, and it would be another token than the model knows.
pub(crate) fn add(
    inner: &mut tokenizers::Tokenizer,
    dir: &Path,
    config: &Value,
    special: &[(String, String)],
) -> Result<()> {
    let mut tokens: BTreeMap<u32, (AddedToken, PathBuf)> = BTreeMap::new();
    let path = dir.join("added_tokens.json");
    let listed = read_json_if_present(&path)?.unwrap_or(Value::Null);
    for (content, id) in object(&listed, "(the whole file)", &path)? {
        let is_special = special.iter().any(|(_, text)| text == content);
        let token = AddedToken::from(content.clone(), is_special);
        let id = number(&id.to_string()).ok_or_else(|| malformed(&path, content))?;
        tokens.insert(id, (token, path.clone()));
    }
    let path = dir.join("tokenizer_config.json");
    let decoder = config.get("added_tokens_decoder").unwrap_or(&Value::Null);
    for (id, settings) in object(decoder, "added_tokens_decoder", &path)? {
        let content = settings.get("content").and_then(Value::as_str);
        let (Some(number), Some(content)) = (number(id), content) else {
            return Err(malformed(&path, id));
        };
        let flag = |key: &str| settings.get(key).and_then(Value::as_bool);
        let special = flag("special").unwrap_or(false);
        let token = AddedToken::from(content, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special));
        tokens.insert(number, (token, path.clone()));
    }
    for (id, (token, path)) in tokens {
        add_one(inner, id, token, &path)?;
    }
    Ok(())
}

fn add_one(
    inner: &mut tokenizers::Tokenizer,
    id: u32,
    token: AddedToken,
    path: &Path,
) -> Result<()> {
    let refuse = |problem: String| Error::Tokenizer {
        path: path.into(),
        problem,
    };
    let content = token.content.clone();
    let remedy = "save tokenizer.json again with the model's own tokenizer, and all tokens in it";
    match inner.token_to_id(&content) {
        Some(found) if found != id => {
            return Err(refuse(format!(
                "gives the token `{content}` the id {id}, but tokenizer.json gives it {found}; {remedy}"
            )));
        }
        Some(_) if inner.get_added_tokens_decoder().contains_key(&id) => return Ok(()),
        Some(_) => {}
        None => {
            if let Some(other) = inner.id_to_token(id) {
                return Err(refuse(format!(
                    "gives the token `{content}` the id {id}, which is `{other}` in tokenizer.json; {remedy}"
                )));
            }
            let free = inner.get_vocab_size(true);
            if id as usize != free {
                return Err(refuse(format!(
                    "gives the token `{content}` the id {id}, but the first free one is {free}, and nothing stands between; {remedy}"
                )));
            }
        }
    }
    match token.special {
        true => inner.add_special_tokens(&[token]),
        false => inner.add_tokens(&[token]),
    };
    match inner.token_to_id(&content) {
        Some(found) if found == id => Ok(()),
        _ => Err(refuse(format!(
            "gives the token `{content}` the id {id}, which tokenizer.json has no place for; {remedy}"
        ))),
    }
}

fn object<'v>(
    value: &'v Value,
    key: &str,
    path: &Path,
) -> Result<impl Iterator<Item = (&'v String, &'v Value)>> {
    match value {
        Value::Null | Value::Object(_) => Ok(value.as_object().into_iter().flatten()),
        _ => Err(Error::Config {
            path: path.into(),
            key: key.into(),
            problem: "must be an object of tokens and ids".into(),
        }),
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn malformed(path: &Path, entry: &str) -> Error {
    Error::Tokenizer {
        path: path.into(),
        problem: format!("the entry `{entry}` is no token with an id"),
    }
}
