// From one number type to the other.
#include "../cuda/device.cuh"

template <class From, class To> __device__ void convert(const From *x, To *out, size_t size) {
    for (size_t i = first_index(); i < size; i += stride()) out[i] = narrow<To>(widen(x[i]));
}

extern "C" __global__ void narrowed(const float *x, bf16 *out, size_t size) {
    convert(x, out, size);
}
KERNEL(narrowed)

extern "C" __global__ void widened(const bf16 *x, float *out, size_t size) {
    convert(x, out, size);
}
KERNEL(widened)
