#!/usr/bin/env bash
# A CUDA toolkit for building the `cuda` feature, to be sourced: `. scripts/cuda-env.sh`.
#
# An installed one is used where `nvcc` is on the PATH or CUDA_HOME names it. Otherwise the parts of CUDA 13.0 that
# the build asks for are unpacked from NVIDIA's Python wheels (about 660 MB, once; python3 with pip) into
# STILLROOM_CUDA, by default ~/.cache/stillroom/cuda-13.0. No GPU and no driver is needed to build.
#
# 13.0 and no newer: candle's kernels are embedded as PTX, which a driver older than the toolkit refuses.

stillroom_cuda_wheels() {
    local tree=$1 root=$1/nvidia/cu13 library
    python3 -m pip install --quiet --no-deps --only-binary :all: --upgrade --target "$tree" \
        nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 \
        nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88 nvidia-curand==10.4.0.35 nvidia-cublas==13.0.2.14 ||
        return 1
    chmod +x "$root"/bin/* "$root"/nvvm/bin/* || return 1
    ln -sfn lib "$root/lib64"
    # The wheels have libNAME.so.N only, which a linker does not look for.
    for library in "$root"/lib/lib*.so.*; do
        ln -sf "${library##*/}" "${library%%.so.*}.so"
    done
    # The driver's library comes with the driver; one with its names and nothing behind them does for linking.
    mkdir -p "$root/lib/stubs" || return 1
    "${CC:-cc}" -E -I"$root/include" "$root/include/cuda.h" |
        grep -oE '\bcu[A-Z][A-Za-z0-9_]*[[:space:]]*\(' | tr -d ' (' | sort -u |
        sed 's/.*/void &(void) {}/' >"$tree/libcuda.c" || return 1
    "${CC:-cc}" -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$root/lib/stubs/libcuda.so" "$tree/libcuda.c" &&
        ln -sf libcuda.so "$root/lib/stubs/libcuda.so.1" &&
        touch "$tree/complete"
}

if [ -z "${CUDA_HOME:-}" ] && command -v nvcc >/dev/null; then
    CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
fi
if [ -z "${CUDA_HOME:-}" ]; then
    stillroom_cuda_tree=${STILLROOM_CUDA:-$HOME/.cache/stillroom/cuda-13.0}
    if [ ! -e "$stillroom_cuda_tree/complete" ]; then
        echo "unpacking a CUDA 13.0 toolkit into $stillroom_cuda_tree" >&2
        mkdir -p "$stillroom_cuda_tree" && stillroom_cuda_wheels "$stillroom_cuda_tree" || {
            echo "no CUDA toolkit: install one, or make \`python3 -m pip\` work and try again" >&2
            return 1 2>/dev/null || exit 1
        }
    fi
    CUDA_HOME=$stillroom_cuda_tree/nvidia/cu13
fi
export CUDA_HOME PATH="$CUDA_HOME/bin:$PATH"
export LIBRARY_PATH="$CUDA_HOME/lib64:$CUDA_HOME/lib64/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}"
# What candle's kernels are compiled for: PTX of 8.0, which every later GPU takes. 90 would become sm_90a, which
# runs on Hopper alone.
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}
