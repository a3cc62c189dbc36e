// RMSNorm, a block per row: y = weight · x · inverse, inverse = 1 / sqrt(mean(x²) + eps).
#include "../cuda/device.cuh"

template <class T>
__device__ void rms_norm(const T *x, const float *weight, T *out, int d, float eps) {
    __shared__ float scratch[32];
    x += size_t(blockIdx.x) * d;
    out += size_t(blockIdx.x) * d;
    float squares = 0.0f;
    for (int c = 2 * threadIdx.x; c < d; c += 2 * blockDim.x) {
        float2 v = load2(x + c);
        squares += v.x * v.x + v.y * v.y;
    }
    float inverse = 1.0f / sqrtf(block_sum(squares, scratch) / d + eps);
    for (int c = 2 * threadIdx.x; c < d; c += 2 * blockDim.x) {
        float2 v = load2(x + c), w = load2(weight + c);
        store2(out + c, v.x * inverse * w.x, v.y * inverse * w.y);
    }
}

// With x̂ = x·inverse and ĝ = grad·weight: dx = inverse·(ĝ − x̂·mean(ĝ·x̂)) + add. Each row's inverse is kept for the
// weight's gradient, where `inverses` is given.
template <class T>
__device__ void rms_norm_backward(const T *x, const float *weight, const T *grad, const T *add, T *dx, float *inverses,
                                  int d, float eps) {
    __shared__ float scratch[32];
    size_t row = size_t(blockIdx.x) * d;
    x += row, grad += row, dx += row;
    if (add) add += row;
    float squares = 0.0f, along = 0.0f;
    for (int c = 2 * threadIdx.x; c < d; c += 2 * blockDim.x) {
        float2 v = load2(x + c), g = load2(grad + c), w = load2(weight + c);
        squares += v.x * v.x + v.y * v.y;
        along += g.x * w.x * v.x + g.y * w.y * v.y;
    }
    float inverse = 1.0f / sqrtf(block_sum(squares, scratch) / d + eps);
    along = block_sum(along, scratch) * inverse * inverse / d;
    if (inverses && threadIdx.x == 0) inverses[blockIdx.x] = inverse;
    for (int c = 2 * threadIdx.x; c < d; c += 2 * blockDim.x) {
        float2 v = load2(x + c), g = load2(grad + c), w = load2(weight + c);
        float2 a = add ? load2(add + c) : make_float2(0.0f, 0.0f);
        store2(dx + c, inverse * (g.x * w.x - v.x * along) + a.x, inverse * (g.y * w.y - v.y * along) + a.y);
    }
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void rms_norm_##name(const T *x, const float *weight, T *out, int d, float eps) {          \
        rms_norm(x, weight, out, d, eps);                                                                            \
    }                                                                                                                \
    KERNEL(rms_norm_##name)                                                                                          \
    extern "C" __global__ void rms_norm_backward_##name(const T *x, const float *weight, const T *grad,              \
                                                        const T *add, T *dx, float *inverses, int d, float eps) {    \
        rms_norm_backward(x, weight, grad, add, dx, inverses, d, eps);                                               \
    }                                                                                                                \
    KERNEL(rms_norm_backward_##name)
FOR_BOTH_TYPES(DEFINE)
