// cuBLAS's matrix products of bf16 and f32 on the CPU, with f32 sums rounded once.
#include <cublas_v2.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

// In the emulated libcuda where there is one.
extern "C" __attribute__((weak)) bool emulated_device_range(const void *pointer, size_t bytes);

namespace {

struct Context {
    cudaStream_t stream = nullptr;
    cublasPointerMode_t pointer_mode = CUBLAS_POINTER_MODE_HOST;
    cublasMath_t math_mode = CUBLAS_DEFAULT_MATH;
};

typedef float Vector __attribute__((vector_size(64), may_alias));
constexpr int LANES = 16, ROWS = 2 * LANES, COLUMNS = 8; // of the innermost product, whose sums stay in registers
constexpr int TILE = 256, DEPTH = 256;

float widen(float x) { return x; }
float widen(uint16_t x) {
    const uint32_t bits = uint32_t(x) << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}
void narrow(float x, float &result) { result = x; }
void narrow(float x, uint16_t &result) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    result = x != x ? 0x7fff : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct Operand {
    const void *data;
    cudaDataType type;
    bool transposed;
    int leading;
    long long stride;
};

struct Product {
    int m, n, k, batch;
    float alpha, beta;
    Operand a, b;
    void *c;
    cudaDataType c_type;
    int c_leading;
    long long c_stride;
};

// Panels of `width` indices, index fastest; what is past `count` is zero.
template <typename T>
void pack_as(const T *from, size_t step, size_t depth_step, int count, int depth, int width, float *to) {
    for (int first = 0; first < count; first += width, to += size_t(width) * depth) {
        const int present = std::min(width, count - first);
        const T *panel = from + first * step;
        if (present < width) std::fill_n(to, size_t(width) * depth, 0.0f);
        if (step == 1) {
            for (int d = 0; d < depth; d++)
                for (int i = 0; i < present; i++) to[d * width + i] = widen(panel[d * depth_step + i]);
        } else {
            for (int i = 0; i < present; i++)
                for (int d = 0; d < depth; d++) to[d * width + i] = widen(panel[i * step + d]);
        }
    }
}

// `index_first`: consecutive indices lie side by side, otherwise consecutive steps of the sum do.
void pack(const Operand &operand, bool index_first, long long batch, int index, int depth_index, int count, int depth,
          int width, float *to) {
    const size_t leading = size_t(operand.leading), step = index_first ? 1 : leading,
                 depth_step = index_first ? leading : 1;
    const size_t offset = size_t(batch * operand.stride) + index * step + depth_index * depth_step;
    if (operand.type == CUDA_R_16BF)
        pack_as(static_cast<const uint16_t *>(operand.data) + offset, step, depth_step, count, depth, width, to);
    else
        pack_as(static_cast<const float *>(operand.data) + offset, step, depth_step, count, depth, width, to);
}

void innermost(int depth, const float *a, const float *b, float *sums, int leading) {
    Vector acc[COLUMNS][2] = {};
    for (int d = 0; d < depth; d++, a += ROWS, b += COLUMNS) {
        const Vector low = *reinterpret_cast<const Vector *>(a), high = *reinterpret_cast<const Vector *>(a + LANES);
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; j++) {
            acc[j][0] += low * b[j];
            acc[j][1] += high * b[j];
        }
    }
    for (int j = 0; j < COLUMNS; j++) {
        *reinterpret_cast<Vector *>(sums + j * leading) += acc[j][0];
        *reinterpret_cast<Vector *>(sums + j * leading + LANES) += acc[j][1];
    }
}

template <typename T> void store(const Product &p, T *c, const float *sums, int leading, int rows, int columns) {
    for (int j = 0; j < columns; j++)
        for (int i = 0; i < rows; i++) {
            T &to = c[size_t(j) * p.c_leading + i];
            float value = p.alpha * sums[size_t(j) * leading + i];
            if (p.beta != 0.0f) value += p.beta * widen(to);
            narrow(value, to);
        }
}

void tile(const Product &p, int batch, int row, int column, int tile, float *buffer) {
    const int rows = std::min(tile, p.m - row), columns = std::min(tile, p.n - column);
    float *sums = buffer, *a = sums + TILE * TILE, *b = a + TILE * DEPTH;
    std::fill_n(sums, TILE * TILE, 0.0f);
    for (int k = 0; k < p.k; k += DEPTH) {
        const int depth = std::min(DEPTH, p.k - k);
        pack(p.a, !p.a.transposed, batch, row, k, rows, depth, ROWS, a);
        pack(p.b, p.b.transposed, batch, column, k, columns, depth, COLUMNS, b);
        for (int j = 0; j < columns; j += COLUMNS)
            for (int i = 0; i < rows; i += ROWS)
                innermost(depth, a + size_t(i) * depth, b + size_t(j) * depth, sums + j * TILE + i, TILE);
    }
    const size_t offset = size_t(batch * p.c_stride) + size_t(column) * p.c_leading + row;
    if (p.c_type == CUDA_R_16BF)
        store(p, static_cast<uint16_t *>(p.c) + offset, sums, TILE, rows, columns);
    else
        store(p, static_cast<float *>(p.c) + offset, sums, TILE, rows, columns);
}

void multiply(const Product &p) {
    const int threads = std::max(1u, std::thread::hardware_concurrency());
    auto tiles = [&](int of, int size) { return (int64_t(of) + size - 1) / size; };
    int size = TILE;
    while (size > 32 && p.batch * tiles(p.m, size) * tiles(p.n, size) < 2 * threads) size /= 2;
    const int64_t down = tiles(p.m, size), across = tiles(p.n, size), jobs = p.batch * down * across;
    std::atomic<int64_t> next{0};
    auto work = [&] {
        std::unique_ptr<float[], void (*)(float *)> buffer(
            static_cast<float *>(aligned_alloc(64, sizeof(float) * (TILE * TILE + 2 * TILE * DEPTH))),
            [](float *memory) { free(memory); });
        for (int64_t job; (job = next++) < jobs;)
            tile(p, int(job / (down * across)), int(job % down) * size, int(job / down % across) * size, size,
                 buffer.get());
    };
    std::vector<std::thread> helpers;
    if (double(p.m) * p.n * p.k * p.batch > 1e6)
        for (int i = 1; i < threads; i++) helpers.emplace_back(work);
    work();
    for (std::thread &helper : helpers) helper.join();
}

// A matrix of `rows` x `columns` as it lies, and its batch, have to be inside one allocation.
bool inside(const char *name, const void *data, cudaDataType type, int rows, int columns, int leading,
            long long stride, int batch) {
    const long long elements = stride * (batch - 1) + (long long)leading * (columns - 1) + rows;
    if (rows <= 0 || columns <= 0 || !emulated_device_range ||
        emulated_device_range(data, size_t(elements) * (type == CUDA_R_16BF ? 2 : 4)))
        return true;
    fprintf(stderr, "emulator: %s of a product reaches past its allocation: %d x %d, leading dimension %d, %d of them\n",
            name, rows, columns, leading, batch);
    return false;
}

cublasStatus_t product(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                       const void *alpha, Operand a, Operand b, const void *beta, void *c, cudaDataType c_type,
                       int c_leading, long long c_stride, int batch, cublasComputeType_t compute) {
    auto known = [](cudaDataType type) { return type == CUDA_R_16BF || type == CUDA_R_32F; };
    const bool f32 = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                     compute == CUBLAS_COMPUTE_32F_FAST_16BF || compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!known(a.type) || a.type != b.type || !known(c_type) || (a.type == CUDA_R_32F && c_type == CUDA_R_16BF) ||
        !f32 || reinterpret_cast<Context *>(handle)->pointer_mode != CUBLAS_POINTER_MODE_HOST)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    a.transposed = ta != CUBLAS_OP_N;
    b.transposed = tb != CUBLAS_OP_N;
    const int a_rows = a.transposed ? k : m, b_rows = b.transposed ? n : k;
    if (m < 0 || n < 0 || k < 0 || batch < 0 || a.leading < std::max(1, a_rows) || b.leading < std::max(1, b_rows) ||
        c_leading < std::max(1, m)) {
        fprintf(stderr, "emulator: a product of %d x %d x %d cannot have leading dimensions %d, %d and %d\n", m, n, k,
                a.leading, b.leading, c_leading);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (!inside("A", a.data, a.type, a_rows, a.transposed ? m : k, a.leading, a.stride, batch) ||
        !inside("B", b.data, b.type, b_rows, b.transposed ? k : n, b.leading, b.stride, batch) ||
        !inside("C", c, c_type, m, n, c_leading, c_stride, batch))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (m && n && batch)
        multiply({m, n, k, batch, *static_cast<const float *>(alpha), *static_cast<const float *>(beta), a, b, c, c_type,
                  c_leading, c_stride});
    return CUBLAS_STATUS_SUCCESS;
}

Context &context(cublasHandle_t handle) { return *reinterpret_cast<Context *>(handle); }

} // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) {
    *handle = reinterpret_cast<cublasHandle_t>(new Context);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
    delete reinterpret_cast<Context *>(handle);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    context(handle).stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t *stream) {
    *stream = context(handle).stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
    context(handle).pointer_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t *mode) {
    *mode = context(handle).pointer_mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    context(handle).math_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t *mode) {
    *mode = context(handle).math_mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *, size_t) { return CUBLAS_STATUS_SUCCESS; }
const char *cublasGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "not initialized";
    case CUBLAS_STATUS_INVALID_VALUE: return "invalid value";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "not supported by the emulator";
    default: return "a status the emulator never returns";
    }
}
const char *cublasGetStatusName(cublasStatus_t status) { return cublasGetStatusString(status); }

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                                          int n, int k, const void *alpha, const void *a, cudaDataType a_type, int lda,
                                          long long a_stride, const void *b, cudaDataType b_type, int ldb,
                                          long long b_stride, const void *beta, void *c, cudaDataType c_type, int ldc,
                                          long long c_stride, int batch, cublasComputeType_t compute,
                                          cublasGemmAlgo_t) {
    return product(handle, ta, tb, m, n, k, alpha, {a, a_type, false, lda, a_stride}, {b, b_type, false, ldb, b_stride},
                   beta, c, c_type, ldc, c_stride, batch, compute);
}
cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void *alpha, const void *a, cudaDataType a_type, int lda, const void *b,
                            cudaDataType b_type, int ldb, const void *beta, void *c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c,
                                      c_type, ldc, 0, 1, compute, algorithm);
}
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                                         int n, int k, const float *alpha, const float *a, int lda, long long a_stride,
                                         const float *b, int ldb, long long b_stride, const float *beta, float *c,
                                         int ldc, long long c_stride, int batch) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, CUDA_R_32F, lda, a_stride, b, CUDA_R_32F, ldb,
                                      b_stride, beta, c, CUDA_R_32F, ldc, c_stride, batch, CUBLAS_COMPUTE_32F,
                                      CUBLAS_GEMM_DEFAULT);
}
cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                              const float *alpha, const float *a, int lda, const float *b, int ldb, const float *beta,
                              float *c, int ldc) {
    return cublasSgemmStridedBatched(handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}

} // extern "C"
