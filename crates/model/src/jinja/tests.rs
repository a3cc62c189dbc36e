#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

const NOW: i64 = 1_721_952_000;

fn render(source: &str, variables: &[(&str, Value)]) -> Result<String> {
    Template::parse(source)?.render(variables, NOW, Limits::of_input(10, 1000))
}

/// Made by scripts/fixtures/make_template_fixtures.py with Jinja2 in transformers' environment.
#[test]
fn templates_render_as_in_jinja2() {
    let path = "../../tests/fixtures/model/templates.json";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 300);
    let mut wrong = Vec::new();
    for case in cases {
        let source = case["template"].as_str().unwrap();
        let mut variables: Vec<(&str, Value)> = Vec::new();
        for (name, value) in file["variables"].as_object().unwrap() {
            let absent = name == "tools" && case["tools"] == false;
            variables.push((name, if absent { Value::Null } else { value.clone() }));
        }
        let found = render(source, &variables);
        let expected = case["text"].as_str();
        if found.as_deref().ok() != expected {
            let error = &case["error"];
            wrong.push(format!("{source}\n  {found:?}\n  {expected:?} {error}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn problem(source: &str) -> Problem {
    // A tenth of what an empty conversation has: the way to the bound is what takes the time.
    let limits = Limits {
        steps: 500_000,
        bytes: 6 << 20,
    };
    let started = Instant::now();
    let rendered = Template::parse(source).and_then(|t| t.render(&[], NOW, limits));
    let Err(problem) = rendered else {
        panic!("{source} is rendered")
    };
    assert!(started.elapsed().as_secs() < 20, "{source}");
    problem
}

#[test]
fn templates_that_do_not_end_or_make_text_without_end_are_refused_with_their_line() {
    let double = "\n{% set ns = namespace(s='abcdefgh') %}{% for i in range(60) %}{% set ns.s = DOUBLED %}{% endfor %}{{ ns.s }}";
    for doubled in [
        "ns.s + ns.s",
        "ns.s ~ ns.s",
        "ns.s * 2",
        "[ns.s, ns.s] | join",
        "'x'.join([ns.s, ns.s, ''])",
        "ns.s | replace('a', 'aa') | replace('b', 'aaaab')",
        "ns.s.replace('a', 'aab')",
        "'%s%s' % (ns.s, ns.s)",
        "'%s%s' | format(ns.s, ns.s)",
        "'{0}{0}'.format(ns.s)",
        "[ns.s, ns.s] | string",
        "[ns.s, ns.s] | tojson",
        "(ns.s | list + ns.s | list) | join",
        "dict(a=ns.s, b=ns.s) | string",
        "ns.s | indent(ns.s | length, true)",
        "ns.s | center(2 * (ns.s | length))",
        "ns.s | escape | replace('a', '&&')",
    ] {
        let source = double.replace("DOUBLED", doubled);
        let found = problem(&source);
        assert_eq!(found.line, Some(2), "{doubled}: {found:?}");
    }
    for source in [
        "{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{{ f(n + 1) ~ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(45) }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * 'a' }}",
        "{{ [1] * 10000000000 }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ '7'.zfill(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%*d' % (10000000000, 1) }}",
        "{{ '{:>10000000000}'.format(1) }}",
        "{{ 'a' | indent(10000000000, true) }}",
        "{{ range(10000000000) | list }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ [1, 2] | batch(10000000000, 0) | list }}",
        "{{ [1, 2] | slice(10000000000) | list }}",
        "{{ {} | tojson(indent=10000000000) }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(100) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
        "{% set ns = namespace(a=[1]) %}{% for i in range(100) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
    ] {
        let found = problem(source);
        assert_eq!(found.line, Some(1), "{source}: {found:?}");
    }
}

#[test]
fn sources_that_nest_without_end_are_refused_when_they_are_parsed() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{'a': ", "}"),
        ("-", ""),
        ("not ", ""),
        ("f(", ")"),
        ("a[", "]"),
        ("a if b else ", ""),
        ("", ".a"),
        ("", "|trim"),
        ("", "()"),
        ("", "[0]"),
        ("", " if a"),
    ] {
        let n = 50_000;
        let source = format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
        let found = Template::parse(&source).unwrap_err();
        assert_eq!(found.line, Some(1), "{open}{close}: {found:?}");
    }
    let source = "{% if true %}".repeat(50_000);
    assert!(Template::parse(&source).is_err());
    // What is flat may be long.
    for operator in ["+", "~", "*", " and ", " or ", "==", "**"] {
        let source = format!("{{{{ 1{} }}}}", format!("{operator}1").repeat(5_000));
        assert!(Template::parse(&source).is_ok(), "{operator}");
    }
}

#[test]
fn long_conversations_stay_within_their_bounds() {
    let path = "../../tests/fixtures/model/templates.json";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let turns = file["variables"]["messages"].as_array().unwrap();
    let long = "word and another\n".repeat(2_000);
    let mut messages: Vec<Value> = turns.iter().cycle().take(10_000).cloned().collect();
    for message in messages.iter_mut().step_by(49) {
        message["content"] = long.clone().into();
    }
    let (values, bytes) = (10_000 * 4, 204 * long.len());
    let variables = [("messages", Value::Array(messages)), ("tools", Value::Null)];
    for case in [0, 2, 4] {
        let source = file["cases"][case]["template"].as_str().unwrap();
        let template = Template::parse(source).unwrap();
        let limits = Limits::of_input(values, bytes);
        let text = template.render(&variables, NOW, limits).unwrap();
        assert!(text.len() > 3_000_000);
    }
    // Adding to one text costs memory once, however often it is copied.
    let source = "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s ~ m.role %}{% endfor %}{{ ns.s | length }}";
    let template = Template::parse(source).unwrap();
    let text = template.render(&variables, NOW, Limits::of_input(values, bytes));
    assert_eq!(text.unwrap(), "54000");
}

/// What Python's `datetime.strftime` gives for Friday 2024-07-26 00:00:00 in the C locale.
#[test]
fn dates_are_pythons() {
    for (format, expected) in [
        ("%d %b %Y", "26 Jul 2024"),
        ("%Y-%m-%d %H:%M:%S.%f", "2024-07-26 00:00:00.000000"),
        (
            "%A %a %B %b %j %U %W %w %u %V %G",
            "Friday Fri July Jul 208 29 30 5 5 30 2024",
        ),
        ("%I %p %y %% %z|%Z|", "12 AM 24 % ||"),
        ("%x %X %c", "07/26/24 00:00:00 Fri Jul 26 00:00:00 2024"),
        (
            "%-d %e %F %T %D %R %h %C %s",
            "26 26 2024-07-26 00:00:00 07/26/24 00:00 Jul 20 1721952000",
        ),
        ("plain é", "plain é"),
    ] {
        let source = format!("{{{{ strftime_now({}) }}}}", json!(format));
        assert_eq!(render(&source, &[]).unwrap(), expected, "{format}");
    }
    let found = render("\n{{ strftime_now('%Q') }}", &[]).unwrap_err();
    assert_eq!(found.line, Some(2));
    assert!(found.message.contains("%Q"));
    let leap = Template::parse("{{ strftime_now('%d %B %Y') }}").unwrap();
    let text = leap.render(&[], 951_868_799, Limits::of_input(0, 0));
    assert_eq!(text.unwrap(), "29 February 2000");
}
