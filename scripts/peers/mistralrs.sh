#!/usr/bin/env bash
# The quickstart with mistral.rs as its teacher, and our decoder's word on the same ids beside it:
#
#     cargo build --release --features mistralrs
#     scripts/peers/mistralrs.sh BIN_DIR RUN_DIR [--set …]
#
# Needs a python3 with pyarrow and numpy (PYTHON names another). Ends with 1 where a log-probability differs by more
# than 2e-3.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$1 run=$2
shift 2
"$bin/stillroom" run pipelines/quickstart.toml --run-dir "$run" --set teacher.backend=mistralrs "$@"
"$bin/stillroom" score-traces pipelines/quickstart.toml --run-dir "$run"
"${PYTHON:-python3}" scripts/peers/compare_scores.py "$run" --tolerance 2e-3
