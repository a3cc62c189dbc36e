# The house's habits in one place; continuous integration calls the same recipes (.ci/run).

default:
    @just --list

fmt:
    cargo fmt --all

lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings

test:
    cargo test --release --workspace

# Every [[bench]] target of the workspace.
bench:
    cargo bench --workspace

# Training against PyTorch + PEFT in alternation: tokens/s, peak RSS, ratios. Arguments are
# those of scripts/bench/train.py (`just bench-train spike --precision bf16`); PYTHON names an interpreter that has torch and peft.
bench-train *ARGS='spike':
    cargo build --release --bin train-student
    ${PYTHON:-python3} scripts/bench/train.py {{ARGS}}

docs:
    cargo doc --workspace --no-deps

quickstart:
    cargo run --release -- run pipelines/quickstart.toml

# Both control arms of the quickstart; each wants the quickstart's run folder.
controls: quickstart
    cargo run --release -- control-data runs/quickstart runs/controls/answers-only --kind answers-only
    cargo run --release -- run pipelines/controls/answers-only.toml
    cargo run --release -- control-data runs/quickstart runs/controls/shuffled-traces --kind shuffled
    cargo run --release -- run pipelines/controls/shuffled-traces.toml

ci:
    .ci/run
