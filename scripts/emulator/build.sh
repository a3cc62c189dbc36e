#!/usr/bin/env bash
# Builds libraries that stand in for CUDA's driver, cuBLAS and cuRAND and run the kernels on the CPU:
#
#     scripts/emulator/build.sh OUT_DIR [kernel.cu ...]     by default the kernels of crates/ops
#     LD_LIBRARY_PATH=OUT_DIR target/cuda/train-student ...
#
#     scripts/emulator/build.sh --test                      the emulator's own test
#
# In the environment of what is run with them:
#     STILLROOM_EMULATED_MEMORY=BYTES   the device's memory, by default the host's
#     STILLROOM_EMULATED_REVERSE=1      a block's threads run from the last to the first
#     STILLROOM_EMULATED_EAGER=1        cp.async copies at once rather than at the wait for it
#     STILLROOM_EMULATED_TRACE=1        a line for every launch
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=scripts/cuda-env.sh
. "$root/scripts/cuda-env.sh"
[ $# -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() {
    "${CXX:-g++}" -O2 -march=native -std=c++17 -fPIC -pthread -fno-math-errno -ftls-model=initial-exec \
        -Wall -Wextra -Wno-unknown-pragmas -I"$here" "$@"
}
with_cuda() { compile -isystem "$CUDA_HOME/include" "$@"; }

# stubs HEADER PREFIX STATUS: every function the header declares, saying its name once and failing, weak so that
# those that are written take their place.
stubs() {
    printf 'int fputs(const char *, void *);\nextern void *stderr;\n'
    echo "#include <$1>" | with_cuda -x c++ -E -P - | grep -oE "\b$2[A-Z][A-Za-z0-9_]*[[:space:]]*\(" | tr -d ' (' |
        sort -u | while read -r name; do
        printf '__attribute__((weak)) int %s(void) { static int said; if (!said++) fputs("emulator: no %s\\n", stderr); return %d; }\n' \
            "$name" "$name" "$3"
    done
}

# A real library's symbols carry its soname as their version, and a program linked with it asks for that.
library() {
    local out=$1 soname=$2 versions=()
    shift 2
    if [[ $soname != libcuda.so.* ]]; then
        printf '%s { global: *; };\n' "$soname" >"$work/$soname.map"
        versions=("-Wl,--version-script=$work/$soname.map")
    fi
    compile -shared -Wl,-soname,"$soname" -Wl,-z,noexecstack "${versions[@]}" -o "$out/$soname" "$@"
}

# Inside an anonymous namespace kernels' helpers of the same name do not become one, as they would in one library.
# They read what lies in memory as the type they like, which nvcc lets pass.
kernel() {
    printf '#include "emulated.h"\nnamespace {\n#include "%s"\n}\n' "$(realpath "$1")" |
        compile -fno-strict-aliasing -Wno-unused-function \
            -Wno-unused-variable -x c++ -c -o "$2" -
}

# Runs the commands it is given, one a word, side by side.
all() {
    local pids=() pid command
    for command in "$@"; do
        $command &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
}

if [ "$1" = --test ]; then
    all "compile -O3 -c -o $work/fibers.o $here/fibers.cpp" \
        "with_cuda -c -o $work/driver.o $here/driver.cpp" \
        "with_cuda -O3 -c -o $work/blas.o $here/blas.cpp" \
        "with_cuda -Wno-unused-parameter -x c++ -c -o $work/selftest.o $here/selftest.cu"
    compile -o "$work/selftest" "$work"/{selftest,fibers,driver,blas}.o
    for mode in "" STILLROOM_EMULATED_REVERSE=1 STILLROOM_EMULATED_EAGER=1; do
        env ${mode:+"$mode"} "$work/selftest"
    done
    exit
fi

out=$1
shift
mkdir -p "$out"
[ $# -gt 0 ] || set -- "$root"/crates/ops/src/*/*.cu
objects=() commands=()
for source in "$@"; do
    object=$work/kernel-${#objects[@]}.o
    objects+=("$object")
    commands+=("kernel $source $object")
done
stubs cuda.h cu 801 >"$work/cuda.c"           # CUDA_ERROR_NOT_SUPPORTED
stubs cublas_v2.h cublas 15 >"$work/cublas.c" # CUBLAS_STATUS_NOT_SUPPORTED
stubs cublasLt.h cublasLt 15 >"$work/cublasLt.c"
stubs curand.h curand 999 >"$work/curand.c" # CURAND_STATUS_INTERNAL_ERROR
for name in cuda cublas cublasLt curand; do
    "${CC:-cc}" -w -O1 -fPIC -c -o "$work/$name-stubs.o" "$work/$name.c"
done
all "compile -O3 -c -o $work/fibers.o $here/fibers.cpp" \
    "with_cuda -c -o $work/driver.o $here/driver.cpp" \
    "with_cuda -O3 -c -o $work/blas.o $here/blas.cpp" \
    "with_cuda -c -o $work/curand.o $here/curand.cpp" \
    "${commands[@]}"
library "$out" libcuda.so.1 "$work"/{fibers,driver,cuda-stubs}.o "${objects[@]}"
library "$out" libcublas.so.13 "$work"/{blas,cublas-stubs}.o
library "$out" libcublasLt.so.13 "$work/cublasLt-stubs.o"
library "$out" libcurand.so.10 "$work"/{curand,curand-stubs}.o
# candle links the runtime too, and calls nothing of it that is used here.
ln -sf "$CUDA_HOME"/lib64/libcudart.so.13 "$out/"
