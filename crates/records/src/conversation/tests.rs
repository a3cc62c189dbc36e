#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::message::REASONING;

fn read(turn: Value) -> Result<Message, String> {
    turns("messages", &json!([turn])).map(|mut turns| turns.remove(0))
}

fn row(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn a_thought_is_found_wherever_it_stands() {
    let thought = |turn: Value| {
        let turn = read(turn).unwrap();
        (turn.reasoning, turn.content)
    };
    let expected = (Some("t".to_owned()), "a".to_owned());
    for turn in [
        json!({"role": "assistant", "reasoning_content": "t", "content": "a"}),
        json!({"role": "assistant", "reasoning": "t", "content": "a"}),
        json!({"role": "assistant", "thinking": "t", "content": "a"}),
        json!({"from": "gpt", "thought": "t", "value": "a"}),
        json!({"role": "assistant", "reasoning_content": "", "reasoning": "t", "content": "a"}),
        json!({"role": "assistant", "reasoning_content": "t", "reasoning": " t\n", "content": "a"}),
        json!({"role": "assistant", "reasoning_content": null, "thinking": "t", "content": "a"}),
        json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "x"}, {"type": "text", "text": "a"}
        ]}),
        json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "t"}], "text": null},
            {"type": "text", "text": "a", "thinking": null}
        ]}),
        json!({"role": "assistant", "content": "a", "reasoning_details": [
            {"type": "reasoning.text", "text": "t"}, {"type": "reasoning.encrypted", "data": "x"}
        ]}),
        json!({"role": "assistant", "content": "<think>t</think>a", "reasoning": "t"}),
        json!({"role": "assistant", "content": "<think></think>a", "reasoning": "t"}),
        json!({"role": "assistant", "content": "a", "reasoning": "<think>\nt\n</think>\n"}),
        json!({"role": "assistant", "content": "a", "thinking": "t\n</think>"}),
        json!({"role": "assistant", "content": "<think>t</think>a", "reasoning": "<think>t"}),
        json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": "<think>t</think>"}, {"type": "text", "text": "a"}
        ]}),
    ] {
        assert_eq!(thought(turn.clone()), expected, "{turn}");
    }
    let spaced = thought(json!({"role": "assistant", "thinking": " t\n", "content": "a"}));
    assert_eq!(spaced.0.as_deref(), Some(" t\n"));
    // Blank fields are absent, and a thought within the content stays there.
    let none = thought(json!({"role": "assistant", "reasoning_content": " \n", "content": "a"}));
    assert_eq!(none, (None, "a".to_owned()));
    let inside = thought(json!({"role": "assistant", "content": "<think>t</think>a"}));
    assert_eq!(inside, (None, "<think>t</think>a".to_owned()));
    let unfinished = thought(json!({"role": "assistant", "reasoning": "t", "content": null}));
    assert_eq!(unfinished, (Some("t".to_owned()), String::new()));
}

#[test]
fn what_is_no_turn_is_refused_by_its_field() {
    let check = |turn: Value, expected: &str| {
        assert_eq!(read(turn.clone()).unwrap_err(), expected, "{turn}");
    };
    check(json!("x"), "`messages[0]` is text, not a turn");
    check(json!({"content": "a"}), "`messages[0]` has no `role`");
    check(json!({"role": "user"}), "`messages[0].content` is null");
    check(
        json!({"from": "human", "value": null}),
        "`messages[0].value` is null",
    );
    check(
        json!({"role": "user", "content": 3}),
        "`messages[0].content` is a number, not text",
    );
    check(
        json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "u"}]}),
        "`messages[0].content[1]` is a part of type `image_url`, which is no text",
    );
    check(
        json!({"role": "assistant", "content": "a", "reasoning": "x", "thinking": "y"}),
        "`messages[0]` has two thoughts that differ: `reasoning` and `thinking`",
    );
    check(
        json!({"role": "assistant", "content": "<think>x</think>a", "reasoning": "y"}),
        "`messages[0]` has two thoughts that differ: one in its content, one beside it",
    );
    check(
        json!({"role": "assistant", "content": "a", "weight": 0.5}),
        "`messages[0].weight` is 0.5; 0, 1, true and false are understood",
    );
}

#[test]
fn roles_parts_flags_and_tools_have_one_form() {
    let human = read(json!({"from": "human", "value": "q"})).unwrap();
    assert_eq!(human, Message::new("user", "q"));
    let parts =
        json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}, "c"]});
    assert_eq!(read(parts).unwrap(), Message::new("user", "abc"));
    for (flag, learnt) in [
        (json!({"weight": 0}), false),
        (json!({"weight": 1.0}), true),
        (json!({"train": false}), false),
        (json!({"training": true}), true),
    ] {
        let mut turn = flag;
        turn["role"] = json!("assistant");
        turn["content"] = json!("a");
        assert_eq!(read(turn.clone()).unwrap().train, Some(learnt), "{turn}");
    }
    let calls = json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": null}}, "id": null}]);
    for given in [calls.clone(), json!(calls.to_string())] {
        let turn =
            read(json!({"role": "assistant", "content": null, "tool_calls": given})).unwrap();
        let expected =
            json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]);
        assert_eq!(turn.fields["tool_calls"], expected);
        assert_eq!(turn.content, "");
    }
    let call = json!({"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"});
    let call = read(call).unwrap();
    assert_eq!(call.role, "assistant");
    assert_eq!(call.fields["tool_calls"][0]["function"]["name"], "f");
    // Serialised as templates read it, and read back the same.
    let turn =
        read(json!({"role": "assistant", "name": "n", "content": "a", "thinking": "t"})).unwrap();
    let written = serde_json::to_value(&turn).unwrap();
    assert_eq!(
        written,
        json!({"role": "assistant", "content": "a", REASONING: "t", "name": "n"})
    );
    assert_eq!(serde_json::from_value::<Message>(written).unwrap(), turn);
}

#[test]
fn every_layout_of_a_row_is_a_conversation() {
    let check = |value: Value| {
        let row = row(value);
        let layout = Layout::of(|name| row.contains_key(name)).unwrap();
        let conversation = layout.read(&row).unwrap();
        let turns: Vec<_> = conversation
            .messages
            .into_iter()
            .map(|m| (m.role.to_string(), m.content))
            .collect();
        let pairs = [("system", "s"), ("user", "q"), ("assistant", "a")];
        let expected: Vec<_> = pairs
            .map(|(role, text)| (role.to_owned(), text.to_owned()))
            .into();
        assert_eq!(turns, expected, "{row:?}");
    };
    let turns = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    check(json!({"system": "s", "messages": turns}));
    check(json!({"system": "s", "messages": turns.to_string()}));
    check(json!({"conversations": [
        {"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
    ]}));
    check(json!({"system": "s", "prompt": "q", "completion": "a"}));
    check(json!({"system": "s", "prompt": "q", "response": "a"}));
    check(
        json!({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        "completion": [{"role": "assistant", "content": "a"}]}),
    );
    let asked = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]);
    check(json!({"prompt": asked.to_string(), "completion": "a"}));
    check(json!({"system": "s", "instruction": "q", "input": "", "output": "a"}));
    assert_eq!(Layout::of(|name| name == "text"), None);
    // Lists of other things are text.
    for text in [
        "[{\"x\": 1}] has how many items?",
        "[{\"x\": 1}]",
        "[]",
        "[1, 2]",
        "[{",
    ] {
        let row = row(json!({"prompt": text, "completion": "a"}));
        let layout = Layout::PromptCompletion("completion");
        assert_eq!(layout.read(&row).unwrap().messages[0].content, text);
    }
    let both =
        row(json!({"instruction": "q", "input": "i", "output": "a", "history": [["x", "y"]]}));
    let turns = Layout::Alpaca.read(&both).unwrap().messages;
    assert_eq!(turns.len(), 4);
    assert_eq!(turns[2].content, "q\ni");
    let null = row(json!({"messages": null}));
    assert_eq!(
        Layout::Turns("messages").read(&null).unwrap_err(),
        "`messages` is null"
    );
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": null}}]);
    let with = row(json!({"messages": [], "tools": tools.to_string()}));
    let read = Layout::Turns("messages").read(&with).unwrap();
    assert_eq!(read.tools.unwrap()[0]["function"], json!({"name": "f"}));
}

#[test]
fn a_dotted_path_leads_into_columns_lists_and_names_with_dots() {
    let row =
        row(json!({"a": {"b": {"c": 1}}, "x.y": 2, "l": [{"z": 3}], "n": null, "x.q": {"r": 4}}));
    for (path, expected) in [
        ("a.b.c", Some(json!(1))),
        ("x.y", Some(json!(2))),
        ("l.0.z", Some(json!(3))),
        ("x.q.r", Some(json!(4))),
        ("n", None),
        ("l.1.z", None),
        ("a.c", None),
    ] {
        assert_eq!(at(&row, path), expected.as_ref(), "{path}");
    }
}
