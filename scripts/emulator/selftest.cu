// The emulator against plain loops: `build.sh --test`.
#include "emulated.h"

#include <ctime>
#include <cuda.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

// cublas_v2.h has vector types of its own.
extern "C" {
int cublasCreate_v2(void **);
int cublasGemmStridedBatchedEx(void *, int, int, int, int, int, const void *, const void *, int, int, long long,
                               const void *, int, int, long long, const void *, void *, int, int, long long, int, int,
                               int);
}
constexpr int R_32F = 0, R_16BF = 14, COMPUTE_32F = 68;

#define CHECK(condition)                                                                                               \
    do                                                                                                                 \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    while (0)

static uint32_t random_bits() {
    static uint64_t state = 1;
    state = state * 6364136223846793005 + 1442695040888963407;
    return uint32_t(state >> 32);
}
static float random_float() { return float(random_bits() >> 8) / (1 << 23) - 1; }
static float from_bf16(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }
static uint16_t to_bf16(float x) { return uint16_t(pack_bf16(x, 0)); }

struct Pair {
    float scale;
    int offset;
};

// ---- kernels ----

extern "C" __global__ void __launch_bounds__(128) arguments(float *out, Pair pair, uint64_t wide, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = pair.scale * i + pair.offset + float(wide >> 32);
}
KERNEL(arguments)

extern "C" __global__ void indices(uint32_t *out) {
    const uint32_t block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const uint32_t thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] = block << 16 | thread;
}
KERNEL(indices)

extern "C" __global__ void shuffles(int *out) {
    const int thread = threadIdx.x, lane = thread % warpSize;
    int *own = out + thread * 8;
    own[0] = __shfl_xor_sync(~0u, thread, 5);
    own[1] = __shfl_sync(~0u, thread, lane / 2);
    own[2] = __shfl_down_sync(~0u, thread, 3);
    own[3] = __shfl_up_sync(~0u, thread, 3);
    own[4] = int(__shfl_xor_sync(~0u, double(thread) + 0.5, 16) * 2);
    own[5] = __shfl_xor_sync(~0u, thread, 4, 8);
    own[6] = int(__ballot_sync(~0u, lane % 3 == 0));
    float sum = float(lane);
    for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    own[7] = int(sum);
}
KERNEL(shuffles)

// Reverses the block through dynamic shared memory and sums it through static, over and over; the last warp leaves
// early.
extern "C" __global__ void barriers(float *out, float *total, int rounds) {
    DYNAMIC_SHARED(bytes);
    __shared__ float sums[32];
    __shared__ __align__(16) float one;
    float *values = reinterpret_cast<float *>(bytes);
    const unsigned thread = threadIdx.x, threads = blockDim.x - 32;
    if (!isnan(values[thread])) out[0] = -1;
    __syncthreads();
    if (thread >= threads) return;
    for (int round = 0; round < rounds; round++) {
        values[thread] = float(thread + round);
        __syncthreads();
        float value = values[threads - 1 - thread];
        out[blockIdx.x * threads + thread] = value;
        for (int lanes = 16; lanes; lanes /= 2) value += __shfl_xor_sync(~0u, value, lanes);
        if (thread % 32 == 0) sums[thread / 32] = value;
        __syncthreads();
        if (thread == 0) {
            one = 0;
            for (unsigned warp = 0; warp < threads / 32; warp++) one += sums[warp];
        }
        __syncthreads();
        if (thread == threads - 1) atomicAdd(total, one);
        if (__syncthreads_count(thread < 40) != 40 || __syncthreads_or(0) || !__syncthreads_and(1)) out[0] = -2;
    }
}
KERNEL(barriers)

extern "C" __global__ void atomics(float *f, double *d, unsigned *u, int *i) {
    atomicAdd(f, 1.0f);
    atomicAdd(d, 0.5);
    atomicAdd(u, 2);
    atomicMax(i, int(blockIdx.x * blockDim.x + threadIdx.x));
}
KERNEL(atomics)

// What is in shared memory before the wait, after the wait for the older group and after the wait for both.
extern "C" __global__ void copies(const uint4 *in, uint4 *out) {
    DYNAMIC_SHARED(bytes);
    uint4 *shared = reinterpret_cast<uint4 *>(bytes);
    const unsigned thread = threadIdx.x, threads = blockDim.x;
    cp_async_16(&shared[thread], &in[thread], true);
    cp_async_commit();
    cp_async_16(&shared[threads + thread], thread % 2 ? &in[threads + thread] : nullptr, thread % 2);
    cp_async_commit();
    for (int step = 0; step < 3; step++) {
        if (step == 1) cp_async_wait<1>();
        if (step == 2) cp_async_wait<0>();
        __syncthreads();
        for (unsigned half = 0; half < 2; half++)
            out[(step * 2 + half) * threads + thread] = shared[half * threads + (thread + 1) % threads];
        __syncthreads();
    }
}
KERNEL(copies)

// C (16 x 16) = A (16 x 16, row-major) * B: B as [n][k], then as [k][n]; then by fragments read one by one.
extern "C" __global__ void product(const uint16_t *a, const uint16_t *b_nk, const uint16_t *b_kn, float *c) {
    constexpr int LEADING = 24;
    DYNAMIC_SHARED(bytes);
    uint16_t *tiles[3];
    for (int i = 0; i < 3; i++) tiles[i] = reinterpret_cast<uint16_t *>(bytes) + i * 16 * LEADING;
    const int lane = threadIdx.x, group = lane >> 2, pair = (lane & 3) * 2;
    for (int i = lane; i < 256; i += 32) {
        const int at = i / 16 * LEADING + i % 16;
        tiles[0][at] = a[i], tiles[1][at] = b_nk[i], tiles[2][at] = b_kn[i];
    }
    __syncwarp();
    auto two = [](uint32_t low, uint32_t high) { return low | high << 16; };
    uint32_t fa[4], fb[4], plain_a[4], plain_b[4];
    for (int i = 0; i < 4; i++) {
        const int row = group + i % 2 * 8, column = pair + i / 2 * 8;
        plain_a[i] = two(a[row * 16 + column], a[row * 16 + column + 1]);
        const int k = pair + i % 2 * 8, n = group + i / 2 * 8;
        plain_b[i] = two(b_kn[k * 16 + n], b_kn[(k + 1) * 16 + n]);
    }
    for (int way = 0; way < 3; way++) {
        ldmatrix_x4(fa, tiles[0] + (lane % 16) * LEADING + lane / 16 * 8);
        if (way == 0) ldmatrix_x4(fb, tiles[1] + (lane % 8 + lane / 16 * 8) * LEADING + lane / 8 % 2 * 8);
        if (way == 1) ldmatrix_x4_trans(fb, tiles[2] + (lane % 16) * LEADING + lane / 16 * 8);
        float d[2][4] = {};
        for (int half = 0; half < 2; half++) {
            if (way == 2)
                mma_m16n8k16(d[half], plain_a, plain_b[half * 2], plain_b[half * 2 + 1]);
            else
                mma_m16n8k16(d[half], fa, fb[half * 2], fb[half * 2 + 1]);
            for (int i = 0; i < 4; i++)
                c[way * 256 + (group + i / 2 * 8) * 16 + half * 8 + pair + i % 2] = d[half][i];
        }
    }
}
KERNEL(product)

extern "C" __global__ void repeated_mma(float *out, int times) {
    const uint32_t a[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
    float d[4] = {};
    for (int i = 0; i < times; i++) mma_m16n8k16(d, a, a[0], a[1]);
    out[blockIdx.x * blockDim.x + threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}
KERNEL(repeated_mma)

// Each of these is wrong.
extern "C" __global__ void stuck() {
    if (threadIdx.x < 16)
        __syncthreads();
    else
        __syncwarp();
}
KERNEL(stuck)
extern "C" __global__ void diverged(float *out) {
    if (threadIdx.x < 16)
        __syncwarp();
    else
        *out = __shfl_xor_sync(~0u, 1.0f, 1);
}
KERNEL(diverged)
extern "C" __global__ void past_shared() {
    DYNAMIC_SHARED(bytes);
    bytes[threadIdx.x] = 0;
}
KERNEL(past_shared)
extern "C" __global__ void past_global(float *out) { out[threadIdx.x] = 0; }
KERNEL(past_global)
extern "C" __global__ void wild(float *out) { out[1ll << 40] = 0; }
KERNEL(wild)

// ---- host ----

static CUfunction function(const char *name) {
    CUmodule module;
    CUfunction result;
    CHECK(!cuModuleLoadData(&module, ""));
    CHECK(!cuModuleGetFunction(&result, module, name));
    return result;
}

template <typename... Arguments>
static CUresult launch(const char *name, dim3 grid, dim3 size, unsigned shared, Arguments... values) {
    void *parameters[] = {&values..., nullptr};
    return cuLaunchKernel(function(name), grid.x, grid.y, grid.z, size.x, size.y, size.z, shared, nullptr, parameters,
                          nullptr);
}

template <typename T> struct Device {
    CUdeviceptr pointer;
    size_t count;
    explicit Device(size_t count) : count(count) { CHECK(!cuMemAllocAsync(&pointer, count * sizeof(T), nullptr)); }
    explicit Device(const std::vector<T> &values) : Device(values.size()) {
        CHECK(!cuMemcpyHtoDAsync_v2(pointer, values.data(), count * sizeof(T), nullptr));
    }
    ~Device() { CHECK(!cuMemFreeAsync(pointer, nullptr)); }
    std::vector<T> read() const {
        std::vector<T> values(count);
        CHECK(!cuMemcpyDtoHAsync_v2(values.data(), pointer, count * sizeof(T), nullptr));
        return values;
    }
};

static void test_launch() {
    Device<float> out(1000);
    CHECK(isnan(out.read()[999]));
    CHECK(!launch("arguments", 8, 128, 0, out.pointer, Pair{0.5f, 3}, uint64_t(7) << 32, 1000));
    std::vector<float> got = out.read();
    for (int i = 0; i < 1000; i++) CHECK(got[i] == 0.5f * i + 10);

    Device<uint32_t> at(24 * 60);
    CHECK(!launch("indices", {2, 3, 4}, {3, 4, 5}, 0, at.pointer));
    std::vector<uint32_t> numbers = at.read();
    for (uint32_t i = 0; i < 24 * 60; i++) CHECK(numbers[i] == (i / 60 << 16 | i % 60));

    CHECK(launch("arguments", 1, 1056, 0, out.pointer, Pair{}, uint64_t(0), 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(launch("arguments", 0, 32, 0, out.pointer, Pair{}, uint64_t(0), 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(launch("arguments", 1, 32, 50000, out.pointer, Pair{}, uint64_t(0), 0) == CUDA_ERROR_INVALID_VALUE);
    const auto attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    CHECK(cuFuncSetAttribute(function("arguments"), attribute, 232449) == CUDA_ERROR_INVALID_VALUE);
    CHECK(!cuFuncSetAttribute(function("arguments"), attribute, 232448));
    CHECK(!launch("arguments", 1, 32, 232448, out.pointer, Pair{}, uint64_t(0), 0));
    CUfunction none;
    CHECK(cuModuleGetFunction(&none, nullptr, "none") == CUDA_ERROR_NOT_FOUND);
    CHECK(cuMemcpyDtoHAsync_v2(got.data(), out.pointer + 4, 4000, nullptr) == CUDA_ERROR_INVALID_VALUE);
}

static void test_memory() {
    auto attribute = [](CUmemPool_attribute of) {
        CUmemoryPool pool;
        uint64_t value;
        CHECK(!cuDeviceGetDefaultMemPool(&pool, 0) && !cuMemPoolGetAttribute(pool, of, &value));
        return value;
    };
    uint64_t zero = 0;
    CUmemoryPool pool;
    CHECK(!cuDeviceGetDefaultMemPool(&pool, 0));
    const uint64_t before = attribute(CU_MEMPOOL_ATTR_USED_MEM_CURRENT);
    { Device<char> some(1000); }
    CHECK(attribute(CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == before);
    CHECK(attribute(CU_MEMPOOL_ATTR_USED_MEM_HIGH) >= before + 1000);
    CHECK(!cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &zero));
    CHECK(attribute(CU_MEMPOOL_ATTR_USED_MEM_HIGH) == before);
    CUdeviceptr much;
    CHECK(cuMemAllocAsync(&much, size_t(1) << 50, nullptr) == CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(cuMemFreeAsync(12345, nullptr) == CUDA_ERROR_INVALID_VALUE);
}

static void test_collectives() {
    Device<int> out(64 * 8);
    CHECK(!launch("shuffles", 1, 64, 0, out.pointer));
    std::vector<int> got = out.read();
    for (int thread = 0; thread < 64; thread++) {
        const int lane = thread % 32, warp = thread - lane;
        const int expected[8] = {warp + (lane ^ 5),
                                 warp + lane / 2,
                                 lane + 3 < 32 ? thread + 3 : thread,
                                 lane >= 3 ? thread - 3 : thread,
                                 (warp + (lane ^ 16)) * 2 + 1,
                                 warp + (lane ^ 4),
                                 0x49249249,
                                 496};
        for (int i = 0; i < 8; i++) CHECK(got[thread * 8 + i] == expected[i]);
    }

    const unsigned blocks = 20, threads = 256, rounds = 50;
    Device<float> values(blocks * threads), total(std::vector<float>{0});
    CHECK(!launch("barriers", blocks, threads + 32, (threads + 32) * 4, values.pointer, total.pointer, int(rounds)));
    std::vector<float> reversed = values.read();
    for (unsigned i = 0; i < blocks * threads; i++) CHECK(reversed[i] == threads - 1 - i % threads + rounds - 1);
    float sum = 0;
    for (unsigned round = 0; round < rounds; round++) sum += blocks * (threads * (threads - 1) / 2 + threads * round);
    CHECK(fabsf(total.read()[0] / sum - 1) < 1e-5f);

    Device<float> f(std::vector<float>{0});
    Device<double> d(std::vector<double>{0});
    Device<unsigned> u(std::vector<unsigned>{0});
    Device<int> i(std::vector<int>{0});
    CHECK(!launch("atomics", 1000, 256, 0, f.pointer, d.pointer, u.pointer, i.pointer));
    CHECK(f.read()[0] == 256000 && d.read()[0] == 128000 && u.read()[0] == 512000 && i.read()[0] == 255999);
}

static void test_copies() {
    const unsigned threads = 64;
    std::vector<uint4> in(threads * 2);
    for (uint4 &x : in) x = {random_bits(), random_bits(), random_bits(), random_bits()};
    Device<uint4> from(in), out(threads * 6);
    CHECK(!launch("copies", 1, threads, threads * 32, from.pointer, out.pointer));
    std::vector<uint4> got = out.read();
    const bool eager = getenv("STILLROOM_EMULATED_EAGER");
    for (unsigned step = 0; step < 3; step++)
        for (unsigned half = 0; half < 2; half++)
            for (unsigned i = 0; i < threads; i++) {
                const unsigned source = (i + 1) % threads;
                uint4 expected = in[half * threads + source];
                if (half == 1 && source % 2 == 0) expected = {0, 0, 0, 0};
                if (!eager && step < half + 1) expected = {~0u, ~0u, ~0u, ~0u};
                CHECK(!memcmp(&expected, &got[(step * 2 + half) * threads + i], 16));
            }
}

static void test_product() {
    std::vector<uint16_t> a(256), b_nk(256), b_kn(256);
    for (int i = 0; i < 256; i++) {
        a[i] = to_bf16(random_float());
        b_kn[i] = b_nk[i % 16 * 16 + i / 16] = to_bf16(random_float());
    }
    Device<uint16_t> da(a), dnk(b_nk), dkn(b_kn);
    Device<float> c(3 * 256);
    CHECK(!launch("product", 1, 32, 3 * 16 * 24 * 2, da.pointer, dnk.pointer, dkn.pointer, c.pointer));
    std::vector<float> got = c.read();
    for (int way = 0; way < 3; way++)
        for (int m = 0; m < 16; m++)
            for (int n = 0; n < 16; n++) {
                double sum = 0;
                for (int k = 0; k < 16; k++) sum += double(from_bf16(a[m * 16 + k])) * from_bf16(b_kn[k * 16 + n]);
                CHECK(fabs(got[way * 256 + m * 16 + n] - sum) < 1e-5);
                CHECK(got[way * 256 + m * 16 + n] == got[m * 16 + n]);
            }
    CHECK(pack_bf16(1.0f, -2.0f) == 0xc0003f80 && pack_bf16(__uint_as_float(0x3f808000), 0) == 0x3f80 &&
          pack_bf16(__uint_as_float(0x3f818000), NAN) == 0x7fff3f82);
}

static void test_gemm(void *blas, int type, int c_type, bool ta, bool tb, int m, int n, int k, int batch, float beta) {
    const int pad = 3, lda = (ta ? k : m) + pad, ldb = (tb ? n : k) + pad, ldc = m + pad;
    const long long sa = lda * (ta ? m : k) + 5, sb = ldb * (tb ? k : n) + 7, sc = ldc * n + 9;
    auto filled = [](size_t count) {
        std::vector<float> values(count);
        for (float &x : values) x = from_bf16(to_bf16(random_float()));
        return values;
    };
    const std::vector<float> a = filled(sa * batch), b = filled(sb * batch);
    // Not read where beta is zero.
    std::vector<float> c = beta ? filled(sc * batch) : std::vector<float>(sc * batch, NAN);
    auto upload = [](const std::vector<float> &values, int type) {
        std::vector<uint16_t> raw(values.size() * (type == R_32F ? 2 : 1));
        if (type == R_32F)
            memcpy(raw.data(), values.data(), values.size() * 4);
        else
            for (size_t i = 0; i < values.size(); i++) raw[i] = to_bf16(values[i]);
        return raw;
    };
    Device<uint16_t> da(upload(a, type)), db(upload(b, type)), dc(upload(c, c_type));
    const float alpha = 0.5f;
    CHECK(!cublasGemmStridedBatchedEx(blas, ta, tb, m, n, k, &alpha, (void *)da.pointer, type, lda, sa,
                                      (void *)db.pointer, type, ldb, sb, &beta, (void *)dc.pointer, c_type, ldc, sc,
                                      batch, COMPUTE_32F, -1));
    const std::vector<uint16_t> raw = dc.read();
    for (int t = 0; t < batch; t++)
        for (int j = 0; j < n; j++)
            for (int i = 0; i < ldc; i++) {
                const size_t at = t * sc + j * ldc + i;
                float got;
                if (c_type == R_32F)
                    memcpy(&got, &raw[at * 2], 4);
                else
                    got = from_bf16(raw[at]);
                if (i >= m) { // between columns nothing is written
                    CHECK(at >= c.size() || got == c[at] || (isnan(got) && isnan(c[at])));
                    continue;
                }
                double sum = 0, size = 0;
                for (int p = 0; p < k; p++) {
                    const double term = double(a[t * sa + (ta ? p + i * lda : i + p * lda)]) *
                                        b[t * sb + (tb ? j + p * ldb : p + j * ldb)];
                    sum += alpha * term, size += fabs(term);
                }
                if (beta) sum += beta * c[at];
                CHECK(fabs(got - sum) <= size * 1e-6 + (c_type == R_32F ? 1e-6 : fabs(sum) / 256 + 1e-6));
            }
}

// This program again, as `wrong NAME`: it has to end by a signal.
static bool aborts(const char *self, const char *what) {
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(0);
        execl(self, self, what, nullptr);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void wrong(const std::string &what) {
    Device<float> out(32);
    if (what == "stuck" || what == "past_shared")
        launch(what.c_str(), 1, 64, 60);
    else
        launch(what.c_str(), 1, what == "past_global" ? 33 : 32, 0, out.pointer);
}

static double seconds() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

int main(int count, char **arguments) {
    CUcontext context;
    CHECK(!cuInit(0) && !cuDevicePrimaryCtxRetain(&context, 0) && !cuCtxSetCurrent(context));
    if (count > 1) return wrong(arguments[1]), 0;
    puts("what the emulator complains of next is done on purpose");
    fflush(stdout);

    test_launch();
    test_memory();
    test_collectives();
    test_copies();
    test_product();
    for (const char *what : {"stuck", "diverged", "past_shared", "past_global", "wild"})
        if (!aborts(arguments[0], what)) CHECK(!what);

    void *blas;
    CHECK(!cublasCreate_v2(&blas));
    for (int types = 0; types < 3; types++)
        for (int transposes = 0; transposes < 4; transposes++)
            for (float beta : {0.0f, 0.25f}) {
                const int type = types ? R_16BF : R_32F, c_type = types == 2 ? R_16BF : R_32F;
                const bool ta = transposes & 1, tb = transposes & 2;
                test_gemm(blas, type, c_type, ta, tb, 37, 19, 300, 3, beta);
                test_gemm(blas, type, c_type, ta, tb, 300, 270, 33, 1, beta);
                test_gemm(blas, type, c_type, ta, tb, 1, 65, 2, 2, beta);
            }
    float one = 1, zero = 0;
    Device<uint16_t> small(64);
    CHECK(cublasGemmStridedBatchedEx(blas, 0, 0, 8, 8, 9, &one, (void *)small.pointer, R_16BF, 8, 0,
                                     (void *)small.pointer, R_16BF, 9, 0, &zero, (void *)small.pointer, R_16BF, 8, 0, 1,
                                     COMPUTE_32F, -1) == 7);

    const int size = 2048;
    Device<uint16_t> a(std::vector<uint16_t>(size_t(size) * size, 0x3f80)), c(size_t(size) * size);
    double start = seconds();
    CHECK(!cublasGemmStridedBatchedEx(blas, 1, 0, size, size, size, &one, (void *)a.pointer, R_16BF, size, 0,
                                      (void *)a.pointer, R_16BF, size, 0, &zero, (void *)c.pointer, R_16BF, size, 0, 1,
                                      COMPUTE_32F, -1));
    CHECK(from_bf16(c.read()[12345]) == size);
    printf("a bf16 product of %d x %d x %d: %.2f s\n", size, size, size, seconds() - start);
    Device<float> out(64 * 128);
    start = seconds();
    CHECK(!launch("repeated_mma", 64, 128, 0, out.pointer, 1000));
    CHECK(out.read()[0] == 64000);
    printf("an mma of a warp: %.0f ns of all cores\n", (seconds() - start) / (64 * 4 * 1000) * 1e9);
    puts("the emulator's tests pass");
}
