// Rotary embedding: its tables, and heads turned by them.
#include "../cuda/device.cuh"

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

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void rotate_##name(const T *x, const float *cosines, const float *sines, T *out,           \
                                             float direction, int heads, int half) {                                 \
        rotate(x, cosines, sines, out, direction, heads, half);                                                      \
    }                                                                                                                \
    KERNEL(rotate_##name)
FOR_BOTH_TYPES(DEFINE)
