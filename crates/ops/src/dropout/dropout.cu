// Dropout whose masks follow from keys.
#include "../cuda/device.cuh"

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

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void dropout_##name(const T *x, const uint64_t *keys, T *out, uint64_t module,             \
                                              uint64_t dropped, float scale, int columns) {                          \
        dropout(x, keys, out, module, dropped, scale, columns);                                                      \
    }                                                                                                                \
    KERNEL(dropout_##name)
FOR_BOTH_TYPES(DEFINE)
