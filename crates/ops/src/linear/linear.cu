// What is done to a sum of products, and sums of columns.
#include "../cuda/device.cuh"

// scale[c] · x + bias[c] + add, each where it is given; `out` may be `x`.
template <class T>
__device__ void finish_rows(const T *x, const float *scale, const float *bias, const T *add, T *out, int columns) {
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

// Column sums of x, x ∘ y, or x ∘ y ∘ row_scale: every block some rows, into partial [gridDim.y, columns].
template <class T>
__device__ void sum_columns(const T *x, const T *y, const float *row_scale, float *partial, int columns, int rows, int rows_each) {
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

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void finish_rows_##name(const T *x, const float *scale, const float *bias, const T *add,        \
                                             T *out, int columns) {                                                  \
        finish_rows(x, scale, bias, add, out, columns);                                                                   \
    }                                                                                                                \
    KERNEL(finish_rows_##name)                                                                                            \
    extern "C" __global__ void sum_columns_##name(const T *x, const T *y, const float *row_scale, float *partial,    \
                                                  int columns, int rows, int rows_each) {                            \
        sum_columns(x, y, row_scale, partial, columns, rows, rows_each);                                             \
    }                                                                                                                \
    KERNEL(sum_columns_##name)
FOR_BOTH_TYPES(DEFINE)
