//! Servers as they are met outside: what they say otherwise than their reference, and how they fail. Each kind by its row
//! of the list that it came from.
#![allow(clippy::unwrap_used)]

mod scripted_server;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use scripted_server::{Asked, Reply, ScriptedServer, chat, events, json};
use serde_json::{Value, json};

struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    /// A run of `problems` problems by an `openai` teacher; `teacher` are further lines of its section.
    fn new(endpoints: &[&ScriptedServer], problems: usize, teacher: &str) -> Self {
        Self::of_dialect("openai", endpoints, problems, teacher)
    }

    fn of_dialect(
        dialect: &str,
        endpoints: &[&ScriptedServer],
        problems: usize,
        teacher: &str,
    ) -> Self {
        let run = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let lines = (0..problems).map(|n| {
            json!({"problem": format!("What is {n} plus one?"), "answer": (n + 1).to_string()})
                .to_string()
                + "\n"
        });
        std::fs::write(run.path("train.jsonl"), lines.collect::<String>()).unwrap();
        let urls: Vec<&str> = endpoints.iter().map(|server| server.url.as_str()).collect();
        let recipe = format!(
            r#"name = "servers"
[prompts]
source = "{}"
answer = "answer"
[generate]
max_new_tokens = 512
concurrency = 8
[teacher.retry]
attempts = 4
pause = 0.01
longest_pause = 0.05
[teacher]
backend = "openai"
dialect = "{dialect}"
model = "served"
endpoints = {urls:?}
{teacher}
"#,
            run.path("train.jsonl").display()
        );
        std::fs::write(run.path("recipe.toml"), recipe).unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gen-traces"));
        command
            .arg(self.path("recipe.toml"))
            .arg("--run-dir")
            .arg(self.path("run"))
            .args(arguments);
        command
    }

    /// The exit code and what was said.
    fn start(&self, arguments: &[&str]) -> (i32, String) {
        said(&self.command(arguments).output().unwrap())
    }

    fn status(&self) -> Value {
        let text = std::fs::read_to_string(self.path("run/traces/status.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// (text, answer, error) of every row.
    fn rows(&self) -> Vec<[Option<String>; 3]> {
        let mut rows = Vec::new();
        for entry in std::fs::read_dir(self.path("run/traces")).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "parquet")
            {
                let columns = ["text", "answer", "error"];
                let part = records::benchmark::read_table(&path, &columns).unwrap();
                rows.extend(part.into_iter().map(|row| row.try_into().unwrap()));
            }
        }
        rows
    }

    fn n_answered(&self) -> usize {
        self.rows()
            .iter()
            .filter(|[text, ..]| text.is_some())
            .count()
    }
}

fn said(output: &Output) -> (i32, String) {
    let words = [&*output.stdout, &*output.stderr].concat();
    let words = String::from_utf8_lossy(&words).into_owned();
    (output.status.code().unwrap_or(-1), words)
}

fn well() -> ScriptedServer {
    server(|_| json(200, &chat("It is 2.")))
}

fn server(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> ScriptedServer {
    ScriptedServer::start(Duration::from_millis(4), None, answer)
}

fn error(status: u16, words: &str) -> Reply {
    json(status, &json!({"error": {"message": words}}))
}

/// Every file under a folder holds none of these words.
fn in_no_file(folder: &Path, words: &[&str]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_no_file(&path, words);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for word in words {
            let found = bytes
                .windows(word.len())
                .any(|window| window == word.as_bytes());
            assert!(!found, "{word} is in {}", path.display());
        }
    }
}

#[test]
fn g1_broken_ends_are_asked_again_with_the_servers_words() {
    let broken = server(|asked| match asked.number % 4 {
        0 => json(
            200,
            &json!({"choices": [{"message": {"content": "half"}, "finish_reason": "error"}]}),
        ),
        1 => events(&[
            json!({"choices": [{"delta": {"content": "half"}, "finish_reason": null}]}),
            json!({"error": {"message": "engine died", "code": 502}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}),
        ]),
        2 => json(200, &json!({"error": {"message": "engine died"}})),
        _ => json(200, &chat("whole")),
    });
    let run = Run::new(&[&broken], 20, "");
    let (code, words) = run.start(&["--set", "teacher.retry.attempts=40"]);
    assert_eq!(code, 0, "{words}");
    for [text, ..] in run.rows() {
        assert_eq!(text.as_deref(), Some("whole"));
    }
    // One that never ends well leaves rows that say why, and that the next start asks for.
    let dead = server(|_| {
        json(
            200,
            &json!({"choices": [{"message": {"content": "half"}, "finish_reason": "insufficient_system_resource"}]}),
        )
    });
    let run = Run::new(&[&dead], 3, "");
    let (code, words) = run.start(&[]);
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("insufficient_system_resource"), "{words}");
    assert_eq!(run.status()["failures"]["exhausted"], 3);
}

#[test]
fn g2_all_rows_come_from_the_endpoint_that_works() {
    type Answering = fn(&Asked) -> Reply;
    let kinds: [(&str, Answering); 9] = [
        ("404", |_| json(404, &json!({"detail": "Not Found"}))),
        ("401", |_| error(401, "this key is wrong")),
        ("403", |_| error(403, "not from your country")),
        ("500", |_| error(500, "CUDA error")),
        ("400", |_| error(400, "the model `served` does not exist")),
        ("engine is dead", |_| {
            json(200, &json!({"error": {"message": "engine is dead"}}))
        }),
        ("no response", |_| Reply::Nothing),
        ("no response", |_| Reply::Closed),
        ("does not parse", |_| json(200, &json!({"status": "ok"}))),
    ];
    for (words, answer) in kinds {
        for first in [true, false] {
            let (good, bad) = (well(), server(answer));
            let endpoints = if first { [&bad, &good] } else { [&good, &bad] };
            let run = Run::new(&endpoints, 60, "");
            let (code, said) = run.start(&[]);
            assert_eq!(code, 0, "{words}: {said}");
            assert_eq!(run.n_answered(), 60, "{words}");
            assert_eq!(good.n_asked(), 60, "{words}");
            assert!(bad.n_asked() <= 12, "{words}: {} requests", bad.n_asked());
            // What is wrong is said, while it runs and afterwards.
            assert!(said.contains(words), "{words}: {said}");
            let (_, status) = run.start(&["--status"]);
            assert!(
                status.contains(words) && status.contains(&bad.url),
                "{status}"
            );
        }
    }
}

#[test]
fn g2_a_refusal_is_the_rows_own_where_others_are_answered() {
    let picky = || {
        server(|asked| {
            match asked.body["messages"]
                .to_string()
                .contains("What is 7 plus")
            {
                true => error(400, "I will not talk of 7"),
                false => json(200, &chat("It is 2.")),
            }
        })
    };
    for servers in [vec![picky()], vec![picky(), picky()]] {
        let run = Run::new(&servers.iter().collect::<Vec<_>>(), 20, "");
        let (code, words) = run.start(&[]);
        assert_eq!(code, 1, "{words}");
        assert!(words.contains("I will not talk of 7"), "{words}");
        assert_eq!(run.n_answered(), 19);
        assert_eq!(run.status()["failures"], json!({"refused": 1}));
    }
}

#[test]
fn g15_a_wrong_path_ends_with_its_words_and_nothing_is_lost() {
    let wrong = server(|_| json(404, &json!({"detail": "Not Found"})));
    let run = Run::new(&[&wrong], 200, "");
    let (code, words) = run.start(&["--set", "teacher.retry.attempts=12"]);
    assert_eq!(code, 3, "{words}");
    assert!(
        words.contains("404") && words.contains("gen-traces"),
        "{words}"
    );
    assert!(wrong.n_asked() < 20, "{}", wrong.n_asked());
    // The same experiment goes on where the server is.
    let good = well();
    let recipe = std::fs::read_to_string(run.path("recipe.toml")).unwrap();
    std::fs::write(
        run.path("recipe.toml"),
        recipe.replace(&wrong.url, &good.url),
    )
    .unwrap();
    let (code, words) = run.start(&[]);
    assert_eq!((code, run.n_answered()), (0, 200), "{words}");
}

#[test]
fn g15_the_same_malformed_answer_is_not_paid_for_twelve_times() {
    // An old vLLM that does not know `return_token_ids`.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/arithmetic");
    let old = server(|_| {
        json(
            200,
            &json!({
                "choices": [{"text": "2", "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 20, "completion_tokens": 30},
            }),
        )
    });
    let tokenizer = format!(
        "tokenizer = {:?}\nprice_per_million = {{ input = 1.0, output = 1.0 }}",
        data.join("teacher")
    );
    let run = Run::of_dialect("vllm", &[&old], 100, &tokenizer);
    let (code, words) = run.start(&["--set", "teacher.retry.attempts=12"]);
    assert_eq!(code, 3, "{words}");
    assert!(words.contains("the answer has no token ids"), "{words}");
    assert!(
        old.n_asked() < 12,
        "{} answers were paid for",
        old.n_asked()
    );
    let (_, status) = run.start(&["--status"]);
    assert!(
        status.contains("(stopped)") && status.contains("no token ids"),
        "{status}"
    );
    // What they cost is known at the next start.
    let (lost, asked) = (
        run.status()["lost_tokens"].as_u64().unwrap(),
        old.n_asked() as u64,
    );
    assert!(lost >= 30 * 5 && lost <= 30 * asked, "{lost}");
    run.start(&[]);
    assert!(run.status()["lost_tokens"].as_u64().unwrap() >= lost + 30 * 5);
    let spent = run.status()["cost"].as_f64().unwrap();
    let before = old.n_asked();
    let limit = format!("teacher.spending_limit={}", spent / 2.0);
    let (code, words) = run.start(&["--set", &limit]);
    assert_eq!(code, 3, "{words}");
    assert!(words.contains("spending_limit"), "{words}");
    assert_eq!(old.n_asked(), before);
}

#[test]
fn g14_logits_are_refused_at_the_first_answer() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/arithmetic");
    let logits = server(|_| {
        json(
            200,
            &json!({"choices": [{"text": "2", "token_ids": [5], "finish_reason": "length", "logprobs": {
            "tokens": ["token_id:5"], "token_logprobs": [17.5], "top_logprobs": [{"token_id:5": 17.5, "token_id:6": 11.0}]}}]}),
        )
    });
    let tokenizer = format!("tokenizer = {:?}", data.join("teacher"));
    let run = Run::of_dialect("vllm", &[&logits], 100, &tokenizer);
    let (code, words) = run.start(&["--set", "generate.top_k_logits=2"]);
    assert_eq!(code, 3, "{words}");
    assert!(words.contains("--logprobs-mode raw_logprobs"), "{words}");
    assert!(logits.n_asked() <= 4, "{}", logits.n_asked());
}

#[test]
fn g6_without_usage_tokens_are_counted_and_the_limit_holds() {
    let uncounted = |usage: Value| {
        server(move |_| {
            let mut answer = chat("It is \\boxed{2}, because one and one are two.");
            answer["usage"] = usage.clone();
            json(200, &answer)
        })
    };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/arithmetic");
    let tokenizer = format!("tokenizer = {:?}\n", data.join("teacher"));
    let prices = "price_per_million = { input = 0.0, output = 1e6 }\nspending_limit = 300.0\n";
    for usage in [
        json!(null),
        json!({"prompt_tokens": 0, "completion_tokens": 0}),
    ] {
        for (tokenizer, how) in [
            ("", "estimated"),
            (tokenizer.as_str(), "the tokenizer here does"),
        ] {
            let server = uncounted(usage.clone());
            let run = Run::new(&[&server], 200, &format!("{tokenizer}{prices}"));
            let (code, words) = run.start(&[]);
            assert_eq!(code, 3, "{words}");
            assert!(
                words.contains("teacher.spending_limit") && words.contains(how),
                "{words}"
            );
            let asked = server.n_asked();
            assert!(asked < 60, "{asked}");
            assert!(
                run.status()["cost"].as_f64().unwrap() >= 300.0,
                "{}",
                run.status()
            );
            let (code, _) = run.start(&[]);
            assert_eq!((code, server.n_asked()), (3, asked));
            let (_, status) = run.start(&["--status"]);
            assert!(
                status.contains(how) || status.contains("cost so far"),
                "{status}"
            );
        }
    }
}

#[test]
fn g7_an_account_without_money_stops_and_goes_on_once_it_is_paid() {
    type Ending = fn() -> Reply;
    let ends: [(&str, Ending); 4] = [
        ("Insufficient Balance", || {
            error(402, "Insufficient Balance")
        }),
        ("exceeded your current quota", || {
            json(
                429,
                &json!({"error": {"message": "You exceeded your current quota, please check your plan and billing details.", "type": "insufficient_quota", "code": "insufficient_quota"}}),
            )
        }),
        ("credit balance is too low", || {
            error(400, "Your credit balance is too low")
        }),
        ("no credits", || {
            json(
                200,
                &json!({"error": {"message": "no credits", "code": 402}}),
            )
        }),
    ];
    for (words, end) in ends {
        let paid = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(100));
        let left = paid.clone();
        let provider = server(move |_| {
            use std::sync::atomic::Ordering::SeqCst;
            match left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)) {
                Ok(_) => json(200, &chat("It is 2.")),
                Err(_) => end(),
            }
        });
        let run = Run::new(&[&provider], 200, "");
        let (code, said) = run.start(&[]);
        assert_eq!(code, 3, "{said}");
        assert!(
            said.contains(words) && said.contains("gen-traces"),
            "{said}"
        );
        let status = run.status();
        assert_eq!(
            (&status["done"], &status["failed"]),
            (&json!(100), &json!(0)),
            "{status}"
        );
        assert_eq!(status["state"], "stopped");
        assert!(provider.n_asked() <= 100 + 8, "{}", provider.n_asked());
        paid.store(100, std::sync::atomic::Ordering::SeqCst);
        let (code, said) = run.start(&[]);
        assert_eq!((code, run.n_answered()), (0, 200), "{said}");
    }
}

#[test]
fn g8_a_list_without_the_recipes_model_is_a_warning() {
    let models = |names: &[&str]| {
        let data: Vec<Value> = names.iter().map(|name| json!({"id": name})).collect();
        Some(json!({"object": "list", "data": data}))
    };
    for (names, warned) in [(&["a", "b"][..], true), (&["a", "served"][..], false)] {
        let listed =
            ScriptedServer::start(Duration::ZERO, models(names), |_| json(200, &chat("2")));
        let run = Run::new(&[&listed], 2, "");
        let (code, words) = run.start(&["--quiet"]);
        assert_eq!(code, 0, "{words}");
        assert_eq!(
            words.contains("warning:") && words.contains("no `served`"),
            warned,
            "{words}"
        );
    }
}

#[test]
fn g9_new_tokens_are_cut_to_what_the_servers_context_leaves() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/arithmetic");
    let models = |n: u32| Some(json!({"data": [{"id": "served", "max_model_len": n}]}));
    let answer = |asked: &Asked| {
        let n_prompt = asked.body["prompt"].as_array().map_or(0, Vec::len) as u64;
        match asked.body["max_tokens"].as_u64() {
            Some(n) if n + n_prompt <= 256 => json(
                200,
                &json!({"choices": [{"text": "2", "token_ids": [5], "finish_reason": "length"}]}),
            ),
            _ => error(400, "This model's maximum context length is 256 tokens."),
        }
    };
    let server = ScriptedServer::start(Duration::ZERO, models(256), answer);
    let tokenizer = format!("tokenizer = {:?}", data.join("teacher"));
    let run = Run::of_dialect("vllm", &[&server], 20, &tokenizer);
    let (code, words) = run.start(&[]);
    assert_eq!(code, 0, "{words}");
    assert_eq!(
        words
            .matches("generate.max_new_tokens = 512 is cut")
            .count(),
        1,
        "{words}"
    );
    for asked in server.asked.lock().unwrap().iter() {
        let n_prompt = asked.body["prompt"].as_array().unwrap().len() as u64;
        assert_eq!(asked.body["max_tokens"].as_u64(), Some(256 - n_prompt));
    }
    assert_eq!(run.status()["notes"][0]["count"], 20);
    // A prompt that leaves no room is a row of its own, as with a local teacher.
    let tiny = ScriptedServer::start(Duration::ZERO, models(4), |_| {
        error(400, "asked all the same")
    });
    let run = Run::of_dialect("vllm", &[&tiny], 2, &tokenizer);
    let (code, words) = run.start(&[]);
    assert_eq!((code, tiny.n_asked()), (1, 0), "{words}");
    assert_eq!(run.status()["failures"], json!({"prompt_too_long": 2}));
    // A chat's prompt is measured, too.
    let chats =
        ScriptedServer::start(
            Duration::ZERO,
            models(256),
            |asked| match asked.body["max_tokens"].as_u64() {
                Some(n) if n < 256 => json(200, &chat("2")),
                _ => error(400, "too long"),
            },
        );
    let (code, words) = Run::new(&[&chats], 2, "").start(&[]);
    assert_eq!(code, 0, "{words}");
}

#[test]
fn g11_a_body_is_what_its_first_bytes_say() {
    let stream = "event: prompt_progress\ndata: {\"processed\": 5}\n\ndata: {\"choices\": [{\"delta\": {\"content\": \"It is\"}, \"finish_reason\": \"\"}]}\n\nevent: ping\ndata: pong\n\ndata: {\"choices\": [{\"delta\": {\"content\": \" 2.\"}, \"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n";
    let named = server(|asked| {
        let (kind, body) = match asked.number % 2 {
            0 => ("application/json", stream.to_owned()),
            _ => ("text/event-stream", chat("It is 2.").to_string()),
        };
        Reply::Whole {
            status: 200,
            kind,
            body,
        }
    });
    let run = Run::new(&[&named], 10, "");
    let (code, words) = run.start(&[]);
    assert_eq!(code, 0, "{words}");
    for [text, ..] in run.rows() {
        assert_eq!(text.as_deref(), Some("It is 2."));
    }
    assert!(words.contains("events of an unknown kind"), "{words}");
}

#[test]
fn g12_an_unfinished_thought_has_no_answer() {
    let cut = server(|_| {
        json(
            200,
            &json!({"choices": [{"message": {"content": null, "reasoning_content": "one and"}, "finish_reason": "length"}]}),
        )
    });
    let run = Run::new(&[&cut], 2, "");
    let (code, words) = run.start(&[]);
    assert_eq!(code, 0, "{words}");
    for [text, answer, _] in run.rows() {
        assert_eq!((text.as_deref(), answer), (Some("<think>\none and"), None));
    }
}

#[test]
fn g19_the_recipe_adds_to_requests_and_leaves_out() {
    let seen = well();
    let request = r#"
api_key_env = "SERVERS_TEST_KEY"
chat_template_kwargs = { thinking = true }
request = { body = { reasoning_effort = "high", max_completion_tokens = 300, stop = ["END"] }, omit = ["seed", "max_tokens", "stream_options.include_usage"], headers = { "HTTP-Referer" = "https://example.org", "x-api-key" = "planted-secret", "api-key" = "$SERVERS_TEST_HEADER" }, query = { "api-version" = "2024-10-21" } }
"#;
    let run = Run::new(&[&seen], 3, request);
    let start = |arguments: &[&str]| {
        let mut command = run.command(arguments);
        command
            .env("SERVERS_TEST_KEY", "planted-key")
            .env("SERVERS_TEST_HEADER", "planted-header");
        said(&command.output().unwrap())
    };
    let (code, words) = start(&[]);
    assert_eq!(code, 0, "{words}");
    let asked = seen.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.path, "/v1/chat/completions?api-version=2024-10-21");
    for (name, value) in [
        ("authorization", "Bearer planted-key"),
        ("http-referer", "https://example.org"),
        ("x-api-key", "planted-secret"),
        ("api-key", "planted-header"),
    ] {
        assert_eq!(asked.headers[name], value);
    }
    assert_eq!(asked.body["reasoning_effort"], "high");
    assert_eq!(asked.body["max_completion_tokens"], 300);
    assert_eq!(asked.body["stop"], json!(["END"]));
    assert_eq!(
        asked.body["chat_template_kwargs"],
        json!({"thinking": true})
    );
    assert_eq!(asked.body["stream_options"], json!({}));
    for key in ["seed", "max_tokens"] {
        assert!(asked.body.get(key).is_none(), "{key}");
    }
    in_no_file(
        &run.path("run"),
        &["planted-key", "planted-secret", "planted-header"],
    );
    let written = std::fs::read_to_string(run.path("run/recipe.toml")).unwrap();
    assert!(
        written.contains("https://example.org") && written.contains("$SERVERS_TEST_HEADER"),
        "{written}"
    );
    // It is another experiment with other words in the request.
    let (code, words) = start(&["--set", "teacher.request.body.reasoning_effort=\"low\""]);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("teacher.request"), "{words}");
    let (code, words) = start(&["--set", "teacher.request.body.seed=1"]);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("teacher.request.body"), "{words}");
}

#[test]
fn g19_servers_that_take_no_seed_are_asked_without() {
    let strict = server(|asked| {
        let unknown = ["seed", "stream_options"]
            .iter()
            .find(|key| asked.body.get(**key).is_some());
        match unknown {
            Some(key) => error(422, &format!("Extra inputs are not permitted: {key}")),
            None => json(200, &chat("2")),
        }
    });
    let (code, words) = Run::new(&[&strict], 2, "").start(&[]);
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("Extra inputs are not permitted"), "{words}");
    let run = Run::new(
        &[&strict],
        2,
        "request = { omit = [\"seed\", \"stream_options\"] }",
    );
    let (code, words) = run.start(&[]);
    assert_eq!(code, 0, "{words}");
}

/// A world whose teacher is a server: 120 samples, a dataset of them and a student.
fn served_world(url: &str) -> world::World {
    let world = world::World::new();
    let teacher = format!("backend = \"openai\"\nmodel = \"served\"\nendpoints = [\"{url}\"]");
    world.edit_recipe("model = \"teacher\"", &teacher);
    world.edit_recipe("samples_per_prompt = 2", "samples_per_prompt = 10");
    world.edit_recipe("top_k_logits = 4", "top_k_logits = 0");
    world.edit_recipe("kind = \"mixed\"", "kind = \"hard\"");
    world.edit_recipe("epochs = 2", "max_steps = 2");
    let recipe = std::fs::read_to_string(world.path("recipe.toml")).unwrap();
    world.write("recipe.toml", recipe.split("[eval]").next().unwrap());
    world
}

#[test]
fn g7_run_trains_nothing_until_the_provider_is_paid() {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    let paid = std::sync::Arc::new(AtomicUsize::new(60));
    let left = paid.clone();
    let provider = server(
        move |_| match left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => json(200, &chat("It is 2.")),
            Err(_) => error(402, "Insufficient Balance"),
        },
    );
    let world = served_world(&provider.url);
    let (code, words) = said(&world.stillroom(&["run", "recipe.toml", "--run-dir", "a run"]));
    assert_eq!(code, 3, "{words}");
    assert!(
        words.contains("402") && words.contains("Insufficient Balance"),
        "{words}"
    );
    for folder in ["a run/dataset", "a run/student"] {
        assert!(!world.path(folder).exists(), "{folder}");
    }
    // The command that is named goes on.
    paid.store(usize::MAX, SeqCst);
    let (_, command) = words.rsplit_once("go on from here with: ").unwrap();
    let shell = Command::new("sh")
        .args(["-c", command.lines().next().unwrap()])
        .current_dir(world.path("recipe.toml").parent().unwrap())
        .output();
    let (code, words) = said(&shell.unwrap());
    assert_eq!(code, 0, "{words}");
    assert!(world.path("a run/student/manifest.json").exists());
}

#[test]
fn g7_run_stops_below_the_share_of_rows_that_the_recipe_asks_for() {
    let picky = server(|asked| match asked.number % 2 {
        0 => error(400, "no"),
        _ => json(200, &chat("It is 2.")),
    });
    let world = served_world(&picky.url);
    for _ in 0..2 {
        // It is no better the second time.
        let (code, words) = said(&world.stillroom(&["run", "recipe.toml"]));
        assert_eq!(code, 3, "{words}");
        assert!(words.contains("generate.min_success = 0.9"), "{words}");
        assert!(words.contains("gen-traces --retry-failed"), "{words}");
        assert!(!world.path("runs/tiny/dataset").exists());
    }
    let lower = ["run", "recipe.toml", "--set", "generate.min_success=0.3"];
    let (code, words) = said(&world.stillroom(&lower));
    assert_eq!(code, 1, "{words}");
    assert!(world.path("runs/tiny/student/manifest.json").exists());
}
