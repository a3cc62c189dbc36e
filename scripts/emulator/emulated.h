// What a kernel sees when g++ compiles it for the host instead of nvcc for a GPU. The threads of a block are fibers
// on one OS thread (fibers.cpp), so whatever is shared by a block is a thread_local, and a thread gives way to the
// others only at a barrier or at a warp's collective.
#pragma once

// Every standard header a kernel may want: kernels are compiled inside an anonymous namespace (build.sh), where an
// include of one that is not here yet would go wrong.
#include <algorithm>
#include <cassert>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <math.h>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
// Not alignas, which g++ takes before `static` alone.
#define __align__(bytes) __attribute__((aligned(bytes)))
#define DYNAMIC_SHARED(name) unsigned char *name = emulated::block->shared

#define VECTOR2(name, type, bytes)                                                                                     \
    struct alignas(bytes) name {                                                                                       \
        type x, y;                                                                                                     \
    };                                                                                                                 \
    inline name make_##name(type x, type y) { return {x, y}; }
#define VECTOR4(name, type, bytes)                                                                                     \
    struct alignas(bytes) name {                                                                                       \
        type x, y, z, w;                                                                                               \
    };                                                                                                                 \
    inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }
VECTOR2(float2, float, 8)
VECTOR2(int2, int, 8)
VECTOR2(uint2, unsigned, 8)
VECTOR2(double2, double, 16)
VECTOR2(ushort2, unsigned short, 4)
VECTOR4(float4, float, 16)
VECTOR4(int4, int, 16)
VECTOR4(uint4, unsigned, 16)
VECTOR4(ushort4, unsigned short, 8)
VECTOR4(uchar4, unsigned char, 4)
#undef VECTOR2
#undef VECTOR4

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulated {

constexpr unsigned WARP = 32;
constexpr size_t DEFAULT_SHARED = 48 << 10, MAX_SHARED = 232448;

struct Kernel {
    const char *name;
    void (*run)(void **parameters);
    size_t max_dynamic_shared;
};
void add_kernel(const char *name, void (*run)(void **));
Kernel *find_kernel(const char *name);
void launch(const Kernel &kernel, dim3 grid, dim3 size, size_t shared, void **parameters);
[[noreturn]] void fail(const char *message);

struct Block {
    uint3 index;
    dim3 size, grid;
    unsigned char *shared;
    unsigned threads, alive, arrived;
    uint32_t generation;
    unsigned votes[2];
};
struct Fiber;
// Plain __thread: an extern thread_local is read through a wrapper that first asks whether it is initialised.
extern __thread Block *block;
extern __thread const uint3 *thread;
unsigned lane();

// What a lane hands in at a collective of its warp and gets back from it.
struct Slot {
    uint64_t words[5];
};
enum class Collective { Sync, Shuffle, Mma, Ldmatrix, LdmatrixTrans };
// Waits for the whole warp; the last lane to come runs what the collective computes over the 32 slots.
Slot *exchange(Collective kind, unsigned mask, const void *deposit, size_t bytes);

template <typename T> T shuffle(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles are of 4 or 8 bytes");
    const Slot *slots = exchange(Collective::Shuffle, mask, &value, sizeof value);
    memcpy(&value, &slots[source % WARP], sizeof value);
    return value;
}

template <auto function> struct Launcher;
template <typename... Arguments, void (*function)(Arguments...)> struct Launcher<function> {
    static void run(void **parameters) { call(parameters, std::index_sequence_for<Arguments...>()); }
    template <size_t... I> static void call([[maybe_unused]] void **parameters, std::index_sequence<I...>) {
        function(*static_cast<std::remove_cv_t<Arguments> *>(parameters[I])...);
    }
};
struct Registration {
    Registration(const char *name, void (*run)(void **)) { add_kernel(name, run); }
};

} // namespace emulated

#define KERNEL(name) static const emulated::Registration emulated_##name(#name, &emulated::Launcher<&name>::run);

#define threadIdx (*emulated::thread)
#define blockIdx (emulated::block->index)
#define blockDim (emulated::block->size)
#define gridDim (emulated::block->grid)
constexpr int warpSize = emulated::WARP;

void __syncthreads();
int __syncthreads_count(int predicate);
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) != 0; }
inline int __syncthreads_and(int predicate) { return __syncthreads_count(!predicate) == 0; }
inline void __syncwarp(unsigned mask = ~0u) { emulated::exchange(emulated::Collective::Sync, mask, nullptr, 0); }
template <typename T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return emulated::shuffle(mask, value, emulated::lane() / width * width + source % unsigned(width));
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const unsigned lane = emulated::lane(), source = lane ^ lanes;
    return emulated::shuffle(mask, value, source / width > lane / width ? lane : source);
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = emulated::lane();
    return emulated::shuffle(mask, value, lane % width + delta < unsigned(width) ? lane + delta : lane);
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = emulated::lane();
    return emulated::shuffle(mask, value, lane % width >= delta ? lane - delta : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const emulated::Slot *slots = emulated::exchange(emulated::Collective::Shuffle, mask, &predicate, sizeof predicate);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < emulated::WARP; lane++) votes |= unsigned(uint32_t(slots[lane].words[0]) != 0) << lane;
    return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == ~0u; }

// D += A * B of bf16 with f32 sums, in the fragments of mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32.
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void ldmatrix_x4(uint32_t (&r)[4], const void *row);
void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row);
// A copy is carried out by the wait for it and not before, so that a kernel which forgets to wait reads stale data;
// or at once where STILLROOM_EMULATED_EAGER is set, so that one which copies too early overwrites what is being read.
void cp_async_16(void *shared, const void *global, bool valid);
void cp_async_commit();
namespace emulated {
void wait_copies(size_t groups_left);
}
template <int N> void cp_async_wait() { emulated::wait_copies(N); }

template <typename To, typename From> To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
inline int __float_as_int(float x) { return emulated_bits<int>(x); }
inline float __int_as_float(int x) { return emulated_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulated_bits<double>(x); }

inline uint32_t pack_bf16(float low, float high) {
    auto round = [](float x) -> uint32_t {
        if (x != x) return 0x7fff;
        const uint32_t bits = __float_as_uint(x);
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}

using std::isfinite;
using std::isinf;
using std::isnan;
// glibc declares names like __expf too, for itself alone.
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __sincosf sincosf
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __saturatef(float x) { return x > 0.0f ? x < 1.0f ? x : 1.0f : 0.0f; }
// The barrier keeps g++ from fusing the result into a neighbouring multiplication or addition, as nvcc must not.
inline float emulated_rounded(float x) {
    asm("" : "+x"(x));
    return x;
}
inline float __fadd_rn(float a, float b) { return emulated_rounded(a + b); }
inline float __fsub_rn(float a, float b) { return emulated_rounded(a - b); }
inline float __fmul_rn(float a, float b) { return emulated_rounded(a * b); }
inline float __fdiv_rn(float a, float b) { return emulated_rounded(a / b); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return emulated_rounded(1.0f / x); }
inline float __fsqrt_rn(float x) { return emulated_rounded(sqrtf(x)); }
inline float __frsqrt_rn(float x) { return float(1.0 / sqrt(double(x))); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline int __float2int_rn(float x) { return int(rintf(x)); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }

template <typename A, typename B> std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return std::fmin(T(a), T(b));
    return T(b) < T(a) ? T(b) : T(a);
}
template <typename A, typename B> std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return std::fmax(T(a), T(b));
    return T(a) < T(b) ? T(b) : T(a);
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}

template <typename T> T __ldg(const T *p) { return *p; }
template <typename T> T __ldcs(const T *p) { return *p; }
template <typename T> T __ldcg(const T *p) { return *p; }
template <typename T> void __stcs(T *p, T value) { *p = value; }
template <typename T> void __stcg(T *p, T value) { *p = value; }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { emulated::fail("__trap()"); }

// Blocks run on several OS threads.
template <typename T, typename Update> T emulated_atomic(T *p, Update update) {
    static_assert(std::is_arithmetic_v<T>);
    T old, changed;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do changed = update(old);
    while (!__atomic_compare_exchange(p, &old, &changed, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return old;
}
// The value does not take part in deducing the type: atomicAdd(&unsigned_sum, 1) is an unsigned one.
template <typename T> struct emulated_same {
    using type = T;
};
template <typename T> using emulated_value = typename emulated_same<T>::type;
template <typename T> T atomicAdd(T *p, emulated_value<T> value) {
    return emulated_atomic(p, [=](T old) { return T(old + value); });
}
template <typename T> T atomicMax(T *p, emulated_value<T> value) {
    return emulated_atomic(p, [=](T old) { return old < value ? value : old; });
}
template <typename T> T atomicMin(T *p, emulated_value<T> value) {
    return emulated_atomic(p, [=](T old) { return value < old ? value : old; });
}
template <typename T> T atomicExch(T *p, emulated_value<T> value) {
    return emulated_atomic(p, [=](T) { return value; });
}
template <typename T> T atomicCAS(T *p, emulated_value<T> expected, emulated_value<T> value) {
    return emulated_atomic(p, [=](T old) { return old == expected ? value : old; });
}
