// The vocabulary-sized passes of a softmax loss: what a row's loss needs to know of its logits, and the gradient that
// it answers with. A block per row. The few ids that a loss treats one by one are taken out of the row ("the rest").
#include "../cuda/device.cuh"

constexpr uint32_t NO_ID = 0xffffffffu;

// Largest value, its lowest index, and Σ e^(x − most) and Σ e^((x − most)·scale).
struct Rest {
    float most;
    uint32_t at;
    float sum, scaled_sum;
};

__device__ __forceinline__ void merge(Rest &a, const Rest &b, float scale) {
    // -inf holds nothing, not even a factor to bring it to the other's level.
    if (b.most == -INFINITY && !(b.sum != b.sum)) return;
    if (a.most == -INFINITY && !(a.sum != a.sum)) {
        a = b;
        return;
    }
    bool first = a.most > b.most || (a.most == b.most && a.at < b.at);
    float most = fmaxf(a.most, b.most), ka = expf(a.most - most), kb = expf(b.most - most);
    float sa = scale == 1.0f ? ka : expf((a.most - most) * scale), sb = scale == 1.0f ? kb : expf((b.most - most) * scale);
    a.sum = a.sum * ka + b.sum * kb;
    a.scaled_sum = a.scaled_sum * sa + b.scaled_sum * sb;
    a.at = first ? a.at : b.at;
    a.most = most;
}

// `ids` [rows, taken] are taken out of each row of `logits` [rows, v]: their logits are written to `values`, −inf takes
// their place. NO_ID stands for none; an id outside the row has a logit of NaN. What is left is summed up in `rests`.
extern "C" __global__ void loss_rest(float *logits, const uint32_t *ids, const float *scales, float *values, Rest *rests,
                                     int v, int taken) {
    __shared__ Rest parts[32];
    logits += size_t(blockIdx.x) * v;
    ids += size_t(blockIdx.x) * taken, values += size_t(blockIdx.x) * taken;
    for (int i = threadIdx.x; i < taken; i += blockDim.x) {
        uint32_t id = ids[i];
        if (id == NO_ID) {
            values[i] = 0.0f;
        } else if (id >= uint32_t(v)) {
            values[i] = NAN;
        } else {
            values[i] = logits[id];
            logits[id] = -INFINITY;
        }
    }
    __syncthreads();
    float scale = scales[blockIdx.x];
    bool tempered = scale != 1.0f;
    Rest rest = {-INFINITY, NO_ID, 0.0f, 0.0f};
    for (int i = threadIdx.x; i < v; i += blockDim.x) {
        float x = logits[i];
        if (x == -INFINITY) continue;
        if (x > rest.most) {
            rest.sum *= expf(rest.most - x);
            if (tempered) rest.scaled_sum *= expf((rest.most - x) * scale);
            rest.most = x;
            rest.at = i;
        }
        rest.sum += expf(x - rest.most);
        if (tempered) rest.scaled_sum += expf((x - rest.most) * scale);
    }
    if (!tempered) rest.scaled_sum = rest.sum;
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        Rest other = {__shfl_xor_sync(ALL_LANES, rest.most, lanes), __shfl_xor_sync(ALL_LANES, rest.at, lanes),
                      __shfl_xor_sync(ALL_LANES, rest.sum, lanes), __shfl_xor_sync(ALL_LANES, rest.scaled_sum, lanes)};
        merge(rest, other, scale);
    }
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = rest;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < int(blockDim.x / 32); ++warp) merge(rest, parts[warp], scale);
        rests[blockIdx.x] = rest;
    }
}
KERNEL(loss_rest)

// The gradient of a row's rest: plain · e^(x − shift) + tempered · e^((x − shift)·scale).
struct Factors {
    float plain, tempered, shift, scale;
};

// `gradient` [rows, v] from what `loss_rest` left of the logits, and from `values` at the ids taken out; f32 in place.
template <class T>
__device__ void loss_gradient(const float *logits, const uint32_t *ids, const Factors *factors, const float *values, T *gradient,
                              int v, int taken) {
    logits += size_t(blockIdx.x) * v, gradient += size_t(blockIdx.x) * v;
    ids += size_t(blockIdx.x) * taken, values += size_t(blockIdx.x) * taken;
    Factors f = factors[blockIdx.x];
    for (int i = threadIdx.x; i < v; i += blockDim.x) {
        float below = logits[i] - f.shift;
        float value = f.plain * expf(below);
        if (f.tempered != 0.0f) value += f.tempered * expf(below * f.scale);
        gradient[i] = narrow<T>(value);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < taken; i += blockDim.x) {
        if (ids[i] < uint32_t(v)) gradient[ids[i]] = narrow<T>(values[i]);
    }
}

#define DEFINE(name, T)                                                                                              \
    extern "C" __global__ void loss_gradient_##name(const float *logits, const uint32_t *ids, const Factors *factors, \
                                                    const float *values, T *gradient, int v, int taken) {            \
        loss_gradient(logits, ids, factors, values, gradient, v, taken);                                             \
    }                                                                                                                \
    KERNEL(loss_gradient_##name)
FOR_BOTH_TYPES(DEFINE)
