// What the kernels share: the two number types, sums over a block, tensor-core and copy instructions.
//
// Built by nvcc for the GPU, and by a C++ compiler for scripts/emulator, which runs the same kernels on a CPU.
#pragma once
#ifdef __CUDACC__
#include <cstdint>

#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
// The emulator's registration.
#define KERNEL(name)

// D [16, 8] += A [16, 16] · B [16, 8], f32 += bf16 · bf16; fragments as the PTX ISA lays them out.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t shared_address(const void *shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Four 8 × 8 matrices of 16-bit values; lanes 8i..8i+7 give the rows of matrix i.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// 16 bytes from global to shared memory behind the thread's back, or as many zeros.
__device__ __forceinline__ void cp_async_16(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0) : "memory");
}

__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until all but the `N` newest groups are there.
template <int N> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// Within 2 ulp; what is below the normal numbers becomes 0.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
#include "emulated.h"

__device__ __forceinline__ float exp2_fast(float x) {
    return exp2f(x);
}
#endif

struct bf16 {
    uint16_t bits;
};

// Arithmetic is f32; what is stored is rounded to nearest even.
__device__ __forceinline__ float widen(float x) {
    return x;
}

__device__ __forceinline__ float widen(bf16 x) {
    return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}

template <class T> __device__ __forceinline__ T narrow(float x);

template <> __device__ __forceinline__ float narrow<float>(float x) {
    return x;
}

template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) {
    return {static_cast<uint16_t>(pack_bf16(x, 0.0f))};
}

// Two neighbours at once, the first at an even index.
__device__ __forceinline__ float2 load2(const float *p) {
    return *reinterpret_cast<const float2 *>(p);
}

__device__ __forceinline__ float2 load2(const bf16 *p) {
    uint32_t both = *reinterpret_cast<const uint32_t *>(p);
    return make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000u));
}

__device__ __forceinline__ void store2(float *p, float x, float y) {
    *reinterpret_cast<float2 *>(p) = make_float2(x, y);
}

__device__ __forceinline__ void store2(bf16 *p, float x, float y) {
    *reinterpret_cast<uint32_t *>(p) = pack_bf16(x, y);
}

constexpr uint32_t ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lanes));
    return x;
}

// The sum over a block, in every thread of it. `scratch` is 32 floats of shared memory.
__device__ __forceinline__ float block_sum(float x, float *scratch) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float total = 0.0f;
    for (int warp = 0; warp < static_cast<int>(blockDim.x / 32); ++warp) total += scratch[warp];
    return total;
}

// A kernel for both types.
#define FOR_BOTH_TYPES(define) define(f32, float) define(bf16, bf16)

// Elements one by one, of a grid over all of them.
__device__ __forceinline__ size_t first_index() {
    return size_t(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ size_t stride() {
    return size_t(gridDim.x) * blockDim.x;
}

// Columns of a grid that has a block, or several side by side, for every row.
__device__ __forceinline__ int first_column() {
    return blockIdx.y * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int column_stride() {
    return gridDim.y * blockDim.x;
}
