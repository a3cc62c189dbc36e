// What is done to every element or row alike.
#include "../cuda/device.cuh"

__device__ __forceinline__ size_t first_index() {
    return size_t(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ size_t stride() {
    return size_t(gridDim.x) * blockDim.x;
}

// silu(gate) · up, silu(x) = x / (1 + e^−x); `pairs` of elements.
template <class T> __device__ void swiglu(const T *gate, const T *up, T *out, size_t pairs) {
    for (size_t i = first_index(); i < pairs; i += stride()) {
        float2 g = load2(gate + 2 * i), u = load2(up + 2 * i);
        store2(out + 2 * i, g.x / (1.0f + expf(-g.x)) * u.x, g.y / (1.0f + expf(-g.y)) * u.y);
    }
}

// d silu(x)/dx = σ·(1 + x·(1 − σ)), σ = 1 / (1 + e^−x).
template <class T>
__device__ void swiglu_backward(const T *gate, const T *up, const T *grad, T *d_gate, T *d_up, size_t pairs) {
    for (size_t i = first_index(); i < pairs; i += stride()) {
        float2 g = load2(gate + 2 * i), u = load2(up + 2 * i), d = load2(grad + 2 * i);
        float sx = 1.0f / (1.0f + expf(-g.x)), sy = 1.0f / (1.0f + expf(-g.y));
        store2(d_up + 2 * i, d.x * g.x * sx, d.y * g.y * sy);
        store2(d_gate + 2 * i, d.x * u.x * sx * (1.0f + g.x * (1.0f - sx)), d.y * u.y * sy * (1.0f + g.y * (1.0f - sy)));
    }
}

// What follows has a block, or several side by side, for every row.
__device__ __forceinline__ int first_column() {
    return blockIdx.y * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int column_stride() {
    return gridDim.y * blockDim.x;
}

// scale[c] · x + bias[c] + add, each where it is given; `out` may be `x`.
template <class T>
__device__ void finish(const T *x, const float *scale, const float *bias, const T *add, T *out, int columns) {
    size_t row = size_t(blockIdx.x) * columns;
    for (int c = 2 * first_column(); c < columns; c += 2 * column_stride()) {
        float2 value = x ? load2(x + row + c) : make_float2(0.0f, 0.0f);
        if (scale) {
            float2 factor = load2(scale + c);
            value.x *= factor.x, value.y *= factor.y;
        }
        if (bias) {
            float2 b = load2(bias + c);
            value.x += b.x, value.y += b.y;
        }
        if (add) {
            float2 a = load2(add + row + c);
            value.x += a.x, value.y += a.y;
        }
        store2(out + row + c, value.x, value.y);
    }
}

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

template <class From, class To> __device__ void convert(const From *x, To *out, size_t size) {
    for (size_t i = first_index(); i < size; i += stride()) out[i] = narrow<To>(widen(x[i]));
}

// x ∘ mask / (1 − rate); the mask follows from keys as in ops::dropout.
__device__ __forceinline__ uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

template <class T>
__device__ void dropout(const T *x, const uint64_t *keys, T *out, uint64_t module, uint64_t dropped, float scale, int columns) {
    x += size_t(blockIdx.x) * columns, out += size_t(blockIdx.x) * columns;
    uint64_t start = keys[blockIdx.x] ^ module;
    for (int c = first_column(); c < columns; c += column_stride()) {
        uint64_t number = mix(start + uint64_t(c) * 0x9e3779b97f4a7c15ull) >> 32;
        out[c] = narrow<T>(widen(x[c]) * (number < dropped ? 0.0f : scale));
    }
}

// Column sums of x, x ∘ y, or x ∘ y ∘ row_scale: every block some rows, into partial [gridDim.y, columns].
template <class T>
__device__ void column_sums(const T *x, const T *y, const float *row_scale, float *partial, int columns, int rows, int rows_each) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= columns) return;
    int first = blockIdx.y * rows_each, last = min(first + rows_each, rows);
    float total = 0.0f;
    for (int r = first; r < last; ++r) {
        size_t i = size_t(r) * columns + c;
        float value = widen(x[i]);
        if (y) value *= widen(y[i]);
        if (row_scale) value *= row_scale[r];
        total += value;
    }
    partial[size_t(blockIdx.y) * columns + c] = total;
}

// Cosines and sines of position · frequency, f32 as transformers computes them; tables [N, half].
extern "C" __global__ void rope_table(const float *frequencies, const uint32_t *positions, float *cosines, float *sines,
                                      float scaling, int half, size_t size) {
    for (size_t i = first_index(); i < size; i += stride()) {
        float s, c;
        sincosf(float(positions[i / half]) * frequencies[i % half], &s, &c);
        cosines[i] = c * scaling;
        sines[i] = s * scaling;
    }
}
KERNEL(rope_table)

// Turns component i of every head together with component i + half; `direction` −1 is the transpose.
template <class T>
__device__ void rotate(const T *x, const float *cosines, const float *sines, T *out, float direction, int heads, int half) {
    size_t row = size_t(blockIdx.x) * heads * 2 * half;
    x += row, out += row;
    cosines += size_t(blockIdx.x) * half, sines += size_t(blockIdx.x) * half;
    for (int i = 2 * first_column(); i < heads * half; i += 2 * column_stride()) {
        int angle = i % half, at = i / half * 2 * half + angle;
        float2 low = load2(x + at), high = load2(x + at + half), c = load2(cosines + angle), s = load2(sines + angle);
        s.x *= direction, s.y *= direction;
        store2(out + at, low.x * c.x - high.x * s.x, low.y * c.y - high.y * s.y);
        store2(out + at + half, high.x * c.x + low.x * s.x, high.y * c.y + low.y * s.y);
    }
}

extern "C" __global__ void add_in_place(float *sum, const float *x, size_t size) {
    for (size_t i = first_index(); i < size; i += stride()) sum[i] += x[i];
}
KERNEL(add_in_place)

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void swiglu_##name(const T *gate, const T *up, T *out, size_t pairs) {                     \
        swiglu(gate, up, out, pairs);                                                                                \
    }                                                                                                                \
    KERNEL(swiglu_##name)                                                                                            \
    extern "C" __global__ void swiglu_backward_##name(const T *gate, const T *up, const T *grad, T *d_gate,          \
                                                      T *d_up, size_t pairs) {                                       \
        swiglu_backward(gate, up, grad, d_gate, d_up, pairs);                                                        \
    }                                                                                                                \
    KERNEL(swiglu_backward_##name)                                                                                   \
    extern "C" __global__ void finish_##name(const T *x, const float *scale, const float *bias, const T *add,        \
                                             T *out, int columns) {                                                  \
        finish(x, scale, bias, add, out, columns);                                                                   \
    }                                                                                                                \
    KERNEL(finish_##name)                                                                                            \
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
    KERNEL(add_rows_##name)                                                                                          \
    extern "C" __global__ void dropout_##name(const T *x, const uint64_t *keys, T *out, uint64_t module,             \
                                              uint64_t dropped, float scale, int columns) {                          \
        dropout(x, keys, out, module, dropped, scale, columns);                                                      \
    }                                                                                                                \
    KERNEL(dropout_##name)                                                                                           \
    extern "C" __global__ void column_sums_##name(const T *x, const T *y, const float *row_scale, float *partial,    \
                                                  int columns, int rows, int rows_each) {                            \
        column_sums(x, y, row_scale, partial, columns, rows, rows_each);                                             \
    }                                                                                                                \
    KERNEL(column_sums_##name)                                                                                       \
    extern "C" __global__ void rotate_##name(const T *x, const float *cosines, const float *sines, T *out,           \
                                             float direction, int heads, int half) {                                 \
        rotate(x, cosines, sines, out, direction, heads, half);                                                      \
    }                                                                                                                \
    KERNEL(rotate_##name)
FOR_BOTH_TYPES(DEFINE)

extern "C" __global__ void narrowed(const float *x, bf16 *out, size_t size) {
    convert(x, out, size);
}
KERNEL(narrowed)

extern "C" __global__ void widened(const bf16 *x, float *out, size_t size) {
    convert(x, out, size);
}
KERNEL(widened)

extern "C" __global__ void gather_rows_narrowed(const float *x, const uint32_t *ids, bf16 *out, int columns) {
    gather_rows(x, ids, out, columns);
}
KERNEL(gather_rows_narrowed)
