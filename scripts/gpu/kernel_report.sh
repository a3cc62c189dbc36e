#!/usr/bin/env bash
# What ptxas makes of the kernels: registers, static shared memory and spilled bytes of each, for 8.0 and 9.0. Wants
# `nvcc` on the PATH (`. scripts/cuda-env.sh`).
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '%-6s %-34s %9s %7s %7s\n' arch kernel registers shared spills
for source in crates/ops/src/*/*.cu; do
    nvcc -O3 -std=c++17 -Xptxas -v -fatbin -o "$work/out" \
        -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 "$source" 2>&1 |
        awk '
            /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; arch = part[4]; spills = 0 }
            /spill stores/ { for (i = 1; i <= NF; i++) if ($i == "spill") spills += $(i - 2) }
            /Used [0-9]+ registers/ {
                shared = 0
                for (i = 1; i <= NF; i++) { if ($i == "Used") registers = $(i + 1); if ($i == "smem,") shared = $(i - 2); if ($i == "smem") shared = $(i - 2) }
                printf "%-6s %-34s %9d %7d %7d\n", arch, kernel, registers, shared, spills
            }'
done
