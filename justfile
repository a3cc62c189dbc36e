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

# `train-student` for NVIDIA GPUs and what scripts/gpu-check.sh runs, with an installed CUDA toolkit or one made of
# NVIDIA's Python wheels: target/cuda/train-student, target/cuda/examples/gpu_check.
build-cuda:
    #!/usr/bin/env bash
    set -eo pipefail
    . scripts/cuda-env.sh
    cargo build --profile cuda --workspace --features cuda --bin train-student --example gpu_check

# Registers, shared memory and spills of every kernel, per architecture.
kernel-report:
    #!/usr/bin/env bash
    set -eo pipefail
    . scripts/cuda-env.sh
    scripts/gpu/kernel_report.sh

# The GPU build without a GPU: kernels on the CPU, through a stand-in for the driver. PYTHON names an interpreter.
emulate-cuda OUT="target/emulator":
    #!/usr/bin/env bash
    set -eo pipefail
    . scripts/cuda-env.sh
    scripts/emulator/build.sh {{OUT}}
    target=${CARGO_TARGET_DIR:-target}/cuda
    mkdir -p {{OUT}}/bin && cp "$target/train-student" "$target/examples/gpu_check" {{OUT}}/bin/
    LD_LIBRARY_PATH={{OUT}} scripts/gpu-check.sh {{OUT}}/bin {{OUT}}/out --parts ops,curve

docs:
    cargo doc --workspace --no-deps

quickstart:
    cargo run --release -- run pipelines/quickstart.toml

# Both control arms of the quickstart; each wants the quickstart's run folder.
controls: quickstart
    cargo run --release --example arithmetic -- control-data runs/quickstart runs/controls/answers-only --kind answers-only
    cargo run --release -- run pipelines/controls/answers-only.toml
    cargo run --release --example arithmetic -- control-data runs/quickstart runs/controls/shuffled-traces --kind shuffled
    cargo run --release -- run pipelines/controls/shuffled-traces.toml

ci:
    .ci/run
