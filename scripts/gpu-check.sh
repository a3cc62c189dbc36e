#!/usr/bin/env bash
# What a GPU makes of the build with the `cuda` feature, in under nine minutes:
#
#     scripts/gpu-check.sh BIN_DIR OUT_DIR [--parts ops,curve,throughput] [--shapes 0.5b,1.5b,7b,8b]
#         [--lengths 2048:8,8192:5] [--minutes 8.5]
#
# BIN_DIR holds `train-student` and `gpu_check` of `just build-cuda`. Needs a python3; with torch, transformers and
# peft the throughput stands beside theirs. Prints every part's result as it ends, one table at the end, and writes
# OUT_DIR/gpu-check.json after each part. The binaries want CUDA 13's cuBLAS and cuRAND where the loader finds them
# (LD_LIBRARY_PATH). Both sides checkpoint activations where it says so, not the same ones: ours keeps what attention
# gave. Without a GPU: build scripts/emulator and set LD_LIBRARY_PATH to it, with `--shapes tiny`.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu/check.py" "$@"
