//! Sets with a preset, with the columns that their cards show.

use super::*;

/// The only trace of a set of one row, and its import.
fn one(format: TraceFormat, row: serde_json::Value) -> Trace {
    let (summary, traces) = Set::new(format).jsonl("a.jsonl", &[row]).import().unwrap();
    assert_eq!((summary.traces, summary.failed), (1, 0), "{format:?}");
    traces.into_iter().next().unwrap()
}

#[test]
fn g17_openmathreasoning_names_its_teacher_and_gold() {
    let trace = one(
        TraceFormat::OpenMathReasoning,
        json!({"problem": "1+1", "generated_solution": WHOLE, "expected_answer": "2",
            "problem_source": "aops_c6_high_school_olympiads", "generation_model": "DeepSeek-R1",
            "problem_type": "has_answer_extracted", "pass_rate_72b_tir": "0.5",
            "used_in_kaggle": true, "inference_mode": "cot"}),
    );
    assert_eq!(trace.text.as_deref(), Some(WHOLE));
    assert_eq!(trace.gold_answer.as_deref(), Some("2"));
    assert_eq!(trace.teacher, "DeepSeek-R1");
    assert_eq!(trace.source, "aops_c6_high_school_olympiads");
}

#[test]
fn g17_limo_has_solutions_without_tags() {
    let trace = one(
        TraceFormat::Limo,
        json!({"question": "1+1", "solution": "One and one is two. \\boxed{2}", "answer": "2"}),
    );
    assert_eq!(trace.reasoning, None);
    assert_eq!(
        trace.text.as_deref(),
        Some("One and one is two. \\boxed{2}")
    );
    assert_eq!(trace.gold_answer.as_deref(), Some("2"));
    assert_eq!(trace.teacher, "unknown");
}

#[test]
fn g17_deepmath_has_three_samples_of_one_problem() {
    let row = json!({"question": "1+1", "final_answer": "2", "difficulty": 4.5,
        "topic": "Mathematics -> Arithmetic", "r1_solution_1": WHOLE, "r1_solution_2": null,
        "r1_solution_3": WHOLE});
    let set = Set::new(TraceFormat::DeepMath).jsonl("a.jsonl", &[row]);
    let (summary, traces) = set.import().unwrap();
    assert_eq!((summary.traces, summary.failed), (3, 1));
    let errors: Vec<_> = traces.iter().map(|trace| trace.error.as_deref()).collect();
    assert_eq!(
        errors,
        [None, Some("`r1_solution_2` is null or empty"), None]
    );
    for trace in &traces {
        assert_eq!(trace.problem, "1+1");
        assert_eq!(trace.gold_answer.as_deref(), Some("2"));
        assert_eq!(trace.teacher, "DeepSeek-R1");
        assert_eq!(trace.source, "Mathematics -> Arithmetic");
    }
    assert_eq!(traces[2].text.as_deref(), Some(WHOLE));
}

#[test]
fn g17_acereason_has_no_gold() {
    let trace = one(
        TraceFormat::AceReason,
        json!({"category": "math", "source": "NuminaMath", "input": "1+1", "output": WHOLE}),
    );
    assert_eq!(trace.text.as_deref(), Some(WHOLE));
    assert_eq!(trace.gold_answer, None);
    assert_eq!(trace.teacher, "DeepSeek-R1");
    assert_eq!(trace.source, "NuminaMath");
}

#[test]
fn g17_nemotron_has_its_problem_as_turns() {
    let turn = json!([{"role": "user", "content": "1+1"}]);
    let row = |input: serde_json::Value| {
        json!({"input": input, "output": WHOLE, "category": "math", "license": "cc-by-4.0",
            "reasoning": "on", "generator": "DeepSeek-R1", "used_in_training": "Ultra",
            "version": "v1", "system_prompt": "detailed thinking on"})
    };
    // The turns are a list, or that list as JSON text.
    for input in [turn.clone(), json!(turn.to_string())] {
        let trace = one(TraceFormat::Nemotron, row(input));
        let prompt = turns(&[("system", "detailed thinking on"), ("user", "1+1")]);
        assert_eq!(trace.prompt_messages, prompt);
        assert_eq!(trace.problem, "1+1");
        assert_eq!(trace.text.as_deref(), Some(WHOLE));
        assert_eq!(trace.teacher, "DeepSeek-R1");
        assert_eq!(trace.source, "math");
    }
}

#[test]
fn g17_alpacas_input_follows_its_instruction() {
    let (summary, traces) = Set::new(TraceFormat::Alpaca)
        .bytes(
            "a.json",
            json!([
                {"instruction": "Add.", "input": "1 and 1", "output": "2", "system": "Be brief."},
                {"instruction": "Add 1 and 1.", "input": "", "output": "2"},
            ])
            .to_string()
            .as_bytes(),
        )
        .import()
        .unwrap();
    assert_eq!((summary.traces, summary.failed), (2, 0));
    let prompts: Vec<_> = traces.iter().map(|trace| &trace.prompt_messages).collect();
    assert_eq!(*prompts[0], turns(&[("user", "Add 1 and 1.")]));
    let briefly = turns(&[("system", "Be brief."), ("user", "Add.\n1 and 1")]);
    assert_eq!(*prompts[1], briefly);
}

#[test]
fn g17_glaive_is_read_from_zst() {
    let row = json!({"prompt": "1+1", "response": WHOLE});
    let bytes = zstd::encode_all(format!("{row}\n").as_bytes(), 3).unwrap();
    let (summary, traces) = Set::new(TraceFormat::Glaive)
        .bytes("a.jsonl.zst", &bytes)
        .import()
        .unwrap();
    assert_eq!((summary.traces, summary.failed), (1, 0));
    assert_eq!(traces[0].text.as_deref(), Some(WHOLE));
}

#[test]
fn g17_the_first_s1k_has_trajectories_in_a_list() {
    let trace = one(
        TraceFormat::S1k,
        json!({"question": "1+1", "solution": "2", "source_type": "aime", "metadata": "{}",
            "cot": null, "thinking_trajectories": ["a"], "attempt": "\\boxed{2}"}),
    );
    assert_eq!(trace.text.as_deref(), Some(WHOLE));
    assert_eq!(trace.source, "aime");
}

#[test]
fn g17_columns_are_named_by_dotted_paths() {
    let mut set = Set::new(TraceFormat::Columns);
    set.config.problem = Some("question.text".into());
    set.config.thought = Some("r1.thinking".into());
    set.config.answer_text = Some("r1.reply".into());
    set.config.gold = Some("reward_model.ground_truth".into());
    let set = set.jsonl(
        "a.jsonl",
        &[
            json!({"question": {"text": "1+1"}, "r1": {"thinking": "a", "reply": "\\boxed{2}"},
                "reward_model": {"ground_truth": "2", "style": "rule"}}),
            json!({"question": {"text": "2+2"}, "r1": {"thinking": "<think>a</think>",
                "reply": "<answer>4</answer>"}, "reward_model": {"ground_truth": 4, "style": "rule"}}),
        ],
    );
    let (summary, traces) = set.import().unwrap();
    assert_eq!((summary.traces, summary.failed), (2, 0));
    assert_eq!(traces[0].text.as_deref(), Some(WHOLE));
    assert_eq!(traces[0].gold_answer.as_deref(), Some("2"));
    assert_eq!(
        traces[1].text.as_deref(),
        Some("<think>\na\n</think>\n\n<answer>4</answer>")
    );
    assert_eq!(traces[1].gold_answer.as_deref(), Some("4"));
}

#[test]
fn g17_a_column_that_is_not_there_is_named() {
    let set = Set::new(TraceFormat::OpenMathReasoning)
        .jsonl("a.jsonl", &[json!({"problem": "1+1", "solution": "2"})]);
    let error = set.refused();
    assert!(
        error.contains("generated_solution") && error.contains("a.jsonl"),
        "{error}"
    );
}
