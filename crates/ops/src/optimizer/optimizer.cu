// AdamW and sums of squares over many tensors in one launch.
#include "../cuda/device.cuh"

// A tensor and the first block that has elements of it; a block has up to CHUNK of one tensor.
struct Entry {
    float *values, *exp_avg, *exp_avg_sq;
    const float *gradient;
    uint64_t size, first_block;
    // What decay leaves of a parameter, and −rate / (1 − β₁ᵗ).
    float keep, minus_step_size;
};

struct Coefficients {
    float scale, mix;
    // Whether the first moment is moved from its old value, by 1 − β₁, or from the gradient, by β₁: torch.lerp leaves
    // from the nearer end.
    int towards;
    float beta2, one_minus_beta2, correction2, eps;
};

constexpr int CHUNK = 1 << 16;

// The last tensor that begins at or before this block.
__device__ __forceinline__ const Entry &entry_of_block(const Entry *entries, int n) {
    int low = 0, high = n - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (entries[middle].first_block <= blockIdx.x) low = middle;
        else high = middle - 1;
    }
    return entries[low];
}

// Loshchilov and Hutter 2019 (arXiv:1711.05101), in PyTorch's order of operations.
extern "C" __global__ void adamw_step(const Entry *entries, int n, Coefficients c) {
    Entry t = entry_of_block(entries, n);
    uint64_t first = (blockIdx.x - t.first_block) * CHUNK;
    uint64_t last = first + CHUNK < t.size ? first + CHUNK : t.size;
    for (uint64_t i = first + threadIdx.x; i < last; i += blockDim.x) {
        float gradient = t.gradient[i] * c.scale, m = t.exp_avg[i], v = t.exp_avg_sq[i];
        m = c.towards ? m + c.mix * (gradient - m) : gradient - (gradient - m) * c.mix;
        v = v * c.beta2 + c.one_minus_beta2 * gradient * gradient;
        t.exp_avg[i] = m;
        t.exp_avg_sq[i] = v;
        t.values[i] = t.values[i] * t.keep + t.minus_step_size * m / (sqrtf(v) / c.correction2 + c.eps);
    }
}
KERNEL(adamw_step)

// Σ gradient² of each block's elements, in f64.
extern "C" __global__ void sum_squares(const Entry *entries, int n, double *sums) {
    __shared__ double parts[32];
    Entry t = entry_of_block(entries, n);
    uint64_t first = (blockIdx.x - t.first_block) * CHUNK;
    uint64_t last = first + CHUNK < t.size ? first + CHUNK : t.size;
    double sum = 0.0;
    for (uint64_t i = first + threadIdx.x; i < last; i += blockDim.x) {
        double x = t.gradient[i];
        sum += x * x;
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < int(blockDim.x / 32); ++warp) sum += parts[warp];
        sums[blockIdx.x] = sum;
    }
}
KERNEL(sum_squares)
