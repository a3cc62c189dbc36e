//! A request's body as the recipe changes it.

use serde_json::{Map, Value};

use crate::config::RequestConfig;

/// Puts in what `[teacher.request]` and `chat_template_kwargs` say, and takes out what they leave out. `limits` are the
/// places of the token limit, none of which may be above `limit`.
pub fn finished(
    mut body: Value,
    request: Option<&RequestConfig>,
    kwargs: Option<&Map<String, Value>>,
    limits: &[&str],
    limit: u32,
) -> Value {
    if let Some(kwargs) = kwargs {
        body["chat_template_kwargs"] = Value::Object(kwargs.clone());
    }
    let Some(request) = request else {
        return body;
    };
    merge(&mut body, &Value::Object(request.body.clone()));
    for path in &request.omit {
        // A key may have points in its name.
        let (outer, key) = match body.get(path) {
            None => path.rsplit_once('.').unwrap_or(("", path)),
            Some(_) => ("", path.as_str()),
        };
        if let Some(keys) = at(&mut body, outer).and_then(Value::as_object_mut) {
            keys.shift_remove(key);
        }
    }
    for path in limits {
        if let Some(value) = at(&mut body, path)
            && value.as_u64().is_some_and(|asked| asked > u64::from(limit))
        {
            *value = limit.into();
        }
    }
    body
}

fn at<'a>(body: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let mut keys = path.split('.').filter(|key| !key.is_empty());
    keys.try_fold(body, |value, key| value.get_mut(key))
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_recipe_adds_changes_and_leaves_out() {
        let request: RequestConfig = serde_json::from_value(json!({
            "body": {"max_completion_tokens": 900, "stream_options": {"x": 1}, "stop": ["\n\n"]},
            "omit": ["seed", "max_tokens", "stream_options.include_usage", "not.there"],
        }))
        .unwrap();
        let body = json!({"seed": 7, "max_tokens": 900, "stream_options": {"include_usage": true}, "model": "m"});
        let kwargs = json!({"thinking": true});
        let limits = ["max_tokens", "max_completion_tokens"];
        let found = finished(body, Some(&request), kwargs.as_object(), &limits, 500);
        assert_eq!(
            found,
            json!({
                "stream_options": {"x": 1},
                "model": "m",
                "chat_template_kwargs": {"thinking": true},
                "max_completion_tokens": 500,
                "stop": ["\n\n"],
            })
        );
    }
}
