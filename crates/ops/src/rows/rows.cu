// Rows by their ids.
#include "../cuda/device.cuh"

// out[r] = x[ids[r]]: an embedding.
template <class From, class To> __device__ void gather_rows(const From *x, const uint32_t *ids, To *out, int columns) {
    x += size_t(ids[blockIdx.x]) * columns, out += size_t(blockIdx.x) * columns;
    for (int c = first_column(); c < columns; c += column_stride()) out[c] = narrow<To>(widen(x[c]));
}

// out[ids[r]] = x[r], the ids being distinct.
template <class T> __device__ void scatter_rows(const T *x, const uint32_t *ids, T *out, int columns) {
    x += size_t(blockIdx.x) * columns, out += size_t(ids[blockIdx.x]) * columns;
    for (int c = first_column(); c < columns; c += column_stride()) out[c] = x[c];
}

// sum[ids[r]] += x[r] for every r, in the order of r: `rows` [R] are sorted by their id, `starts` [U + 1] where each
// id's begin; a block per id, so that no two add to one row.
template <class T>
__device__ void add_rows(const T *x, const uint32_t *rows, const uint32_t *ids, const uint32_t *starts, float *sum, int columns) {
    uint32_t begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float *out = sum + size_t(ids[blockIdx.x]) * columns;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        float total = out[c];
        for (uint32_t r = begin; r < end; ++r) total += widen(x[size_t(rows[r]) * columns + c]);
        out[c] = total;
    }
}

extern "C" __global__ void add_in_place(float *sum, const float *x, size_t size) {
    for (size_t i = first_index(); i < size; i += stride()) sum[i] += x[i];
}
KERNEL(add_in_place)

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void gather_rows_##name(const T *x, const uint32_t *ids, T *out, int columns) {            \
        gather_rows(x, ids, out, columns);                                                                           \
    }                                                                                                                \
    KERNEL(gather_rows_##name)                                                                                       \
    extern "C" __global__ void scatter_rows_##name(const T *x, const uint32_t *ids, T *out, int columns) {           \
        scatter_rows(x, ids, out, columns);                                                                          \
    }                                                                                                                \
    KERNEL(scatter_rows_##name)                                                                                      \
    extern "C" __global__ void add_rows_##name(const T *x, const uint32_t *rows, const uint32_t *ids,                \
                                               const uint32_t *starts, float *sum, int columns) {                    \
        add_rows(x, rows, ids, starts, sum, columns);                                                                \
    }                                                                                                                \
    KERNEL(add_rows_##name)
FOR_BOTH_TYPES(DEFINE)

extern "C" __global__ void gather_rows_narrowed(const float *x, const uint32_t *ids, bf16 *out, int columns) {
    gather_rows(x, ids, out, columns);
}
KERNEL(gather_rows_narrowed)
