//! What one row teaches: its token ids, or those that its conversation makes.

use model::tokenizer::Tokenizer;
use model::training_text::{MissingThought, Training, TrainingOptions};
use records::conversation::Conversation;
use records::example::Example;
use records::top_k::TopK;
use records::{FinishReason, LeftOut, LogprobSpace, Message, Place, Role};
use serde_json::Value;

use super::LoadOptions;
use super::vocabulary::{Vocabulary, without_strays};
use crate::config::PromptTemplate;
use crate::example::TrainingExample;

const OPEN_THINK: &str = "<think>\n";
const END_OF_EMPTY_THOUGHT: &str = "\n</think>\n\n";

/// Tokens of a completion within which its thought has to begin.
const OPENING_TOKENS: usize = 16;

/// Said of a row that has nothing to train on.
pub(super) const NOTHING: &str = "has neither `messages` nor `conversations`, `prompt` with `completion`, `instruction` with `output`, nor `prompt_token_ids` with `token_ids`";

/// What a row gives.
pub(super) enum Fit {
    Examples(Vec<TrainingExample>),
    /// Nothing to learn, and why.
    Nothing(&'static str),
}

/// The examples of a row, whole, or what is wrong with it. `tools` are those of its messages.
pub(super) fn example(
    mut example: Example,
    tools: Option<Value>,
    vocabulary: &Vocabulary,
    options: &LoadOptions<'_>,
) -> Result<Fit, String> {
    let top = match options.needs_top_k {
        true => Some(stored_top_k(&mut example)?),
        false => None,
    };
    let cut = example.finish_reason == Some(FinishReason::Length);
    let (Some(completion), Some(prompt)) = (example.token_ids, example.prompt_token_ids) else {
        let conversation = Conversation {
            messages: example.messages,
            tools,
        };
        if conversation.messages.is_empty() {
            return Err(NOTHING.into());
        }
        if top.is_some() {
            return Err(
                "stores the teacher's top-k without the token ids that it belongs to".into(),
            );
        }
        return tokenised(&example.id, &conversation, cut, vocabulary, options);
    };
    let with_template = with_template(prompt, completion, top, &example.messages, options)?;
    let (prompt_ids, completion_ids, top) = with_template;
    for ids in [&prompt_ids, &completion_ids] {
        vocabulary.check(ids, options)?;
    }
    let top = match top {
        // A think opening that the student's template leaves to the completion has no stored distribution.
        Some(top) if top.len() != completion_ids.len() => {
            return Err(format!(
                "stores the teacher's top-k for {} positions of {} completion tokens; with `student.prompt_template = \
                 \"teacher\"` the ids are used as they were sampled",
                top.len(),
                completion_ids.len()
            ));
        }
        Some(top) => Some(without_strays(top, vocabulary)?),
        None => None,
    };
    Ok(Fit::Examples(vec![TrainingExample {
        id: example.id,
        prompt_ids,
        completion_ids,
        context: Vec::new(),
        top,
    }]))
}

fn stored_top_k(example: &mut Example) -> Result<TopK, String> {
    let top = example.top.take().ok_or(
        "has no stored top-k, which `train.loss.kind` needs; sample with `generate.top_k_logits`, or use kind = \"hard\"",
    )?;
    match &example.logprob_space {
        None | Some(LogprobSpace::Raw) => Ok(top),
        Some(other) => Err(format!(
            "its log-probabilities are `{other}`; soft losses need raw ones (log-softmax of the unchanged logits)"
        )),
    }
}

type Ids = (Vec<u32>, Vec<u32>, Option<TopK>);

/// The ids of a row that has them, its prompt rendered as the recipe asks.
fn with_template(
    prompt: Vec<u32>,
    completion: Vec<u32>,
    top: Option<TopK>,
    messages: &[Message],
    options: &LoadOptions<'_>,
) -> Result<Ids, String> {
    if options.prompt_template == PromptTemplate::Teacher {
        return Ok((prompt, completion, top));
    }
    // Rows of ids alone cannot be rendered again.
    let Some((last, before)) = messages.split_last() else {
        return Ok((prompt, completion, top));
    };
    if last.role != Role::Assistant || before.is_empty() {
        return Ok((prompt, completion, top));
    }
    let tokenizer = options.tokenizer;
    let encode = |text: &str| tokenizer.encode(text).map_err(|error| error.to_string());
    let text = tokenizer
        .render_prompt(before)
        .map_err(|error| error.to_string())?;
    let rendered = encode(&text)?;
    if rendered == prompt {
        return Ok((prompt, completion, top));
    }
    let student_opens = tokenizer.opens_think(&text);
    let teacher_opens = tokenizer.opens_think(&tokenizer.decode(&prompt, true));
    match (teacher_opens, student_opens) {
        (true, false) => Ok((rendered, [encode(OPEN_THINK)?, completion].concat(), top)),
        (false, true) => {
            if let Some(n) = opening(tokenizer, &completion) {
                let top = top.map(|top| top.after(n));
                return Ok((rendered, completion[n..].to_vec(), top));
            }
            match options.missing_thought {
                MissingThought::Empty if !tokenizer.decode(&completion, true).contains("</think>") => {
                    let closing = encode(END_OF_EMPTY_THOUGHT)?;
                    Ok((rendered, [closing, completion].concat(), top))
                }
                _ => Err(
                    "the student's template opens `<think>`, which the completion does not begin with; use \
                     `student.prompt_template = \"teacher\"`, or train.missing_thought = \"empty\" for answers without a thought"
                        .into(),
                ),
            }
        }
        _ => Ok((rendered, completion, top)),
    }
}

/// How many tokens of a completion are white space, `<think>` and the line's end after it; `None` where it begins
/// otherwise.
fn opening(tokenizer: &Tokenizer, completion: &[u32]) -> Option<usize> {
    let text = |n: usize| tokenizer.decode(completion.get(..n).unwrap_or_default(), true);
    let opened =
        (1..=completion.len().min(OPENING_TOKENS)).find(|&n| text(n).trim() == "<think>")?;
    // The prompt has the line's end already.
    let ended = opened + 1;
    let more = ended <= completion.len() && text(ended).trim() == "<think>";
    Some(if more { ended } else { opened })
}

fn tokenised(
    id: &str,
    conversation: &Conversation,
    cut: bool,
    vocabulary: &Vocabulary,
    options: &LoadOptions<'_>,
) -> Result<Fit, String> {
    let training = TrainingOptions {
        turns: options.turns,
        missing_thought: options.missing_thought,
        cut,
    };
    let training = options
        .tokenizer
        .training(conversation, training)
        .map_err(|error| error.to_string())?;
    let sequences = match training {
        Training::Nothing(reason) => return Ok(Fit::Nothing(reason)),
        Training::Sequences(sequences) => sequences,
    };
    let several = sequences.len() > 1;
    let mut examples = Vec::new();
    for (at, ids) in sequences.into_iter().enumerate() {
        for ids in [&ids.prompt_ids, &ids.completion_ids] {
            vocabulary.check(ids, options)?;
        }
        examples.push(TrainingExample {
            id: match several {
                true => format!("{id}#{}", at + 1),
                false => id.to_owned(),
            },
            prompt_ids: ids.prompt_ids,
            completion_ids: ids.completion_ids,
            context: ids.context,
            top: None,
        });
    }
    Ok(Fit::Examples(examples))
}

/// Notes what a conversation has that nobody reads: fields that the template does not name, tools it does not list,
/// turns after the assistant's last.
pub(super) fn note_unread(
    conversation: &Conversation,
    tokenizer: &Tokenizer,
    notes: &mut LeftOut,
    place: impl Fn() -> Place,
) {
    let mut fields: Vec<&str> = Vec::new();
    for message in &conversation.messages {
        for field in message.fields.keys() {
            if !fields.contains(&field.as_str()) && !tokenizer.template_reads(field) {
                fields.push(field);
            }
        }
    }
    for field in fields {
        notes.add(
            &format!("rows with `{field}` in a message, which the chat template does not read"),
            &place,
        );
    }
    if conversation.tools.is_some() && !tokenizer.template_reads("tools") {
        notes.add(
            "rows with `tools`, which the chat template does not read",
            &place,
        );
    }
    let last = conversation.messages.last();
    if last.is_some_and(|last| last.role != Role::Assistant) {
        notes.add(
            "rows with turns after the assistant's last, which are not learnt",
            &place,
        );
    }
}
