// SwiGLU.
#include "../cuda/device.cuh"

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

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void swiglu_##name(const T *gate, const T *up, T *out, size_t pairs) {                     \
        swiglu(gate, up, out, pairs);                                                                                \
    }                                                                                                                \
    KERNEL(swiglu_##name)                                                                                            \
    extern "C" __global__ void swiglu_backward_##name(const T *gate, const T *up, const T *grad, T *d_gate,          \
                                                      T *d_up, size_t pairs) {                                       \
        swiglu_backward(gate, up, grad, d_gate, d_up, pairs);                                                        \
    }                                                                                                                \
    KERNEL(swiglu_backward_##name)
FOR_BOTH_TYPES(DEFINE)
