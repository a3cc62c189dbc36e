// Causal attention within documents, over queries and keys that are rotated already.
//
// A row's softmax is carried from tile to tile of keys (Milakov and Gimelshein 2018, arXiv:1805.02867) and its logarithm
// kept, from which the backward pass computes probabilities again (Dao 2023, arXiv:2307.08691). With P = e^(scale·QKᵀ −
// log-sum), D = rowsum(dO ∘ O) and dS = P ∘ (dO·Vᵀ − D): dV = Pᵀ·dO, dK = scale·dSᵀ·Q, dQ = scale·dS·K. Keys' gradients
// and queries' are summed by two kernels, each in a fixed order: nothing is added atomically, so they have the same
// bits every time.
//
// Query i sees the keys starts[i]..=i of its document; key j is seen by the queries j..ends[j].
#include "../cuda/device.cuh"

struct Sizes {
    int n, heads, kv_heads, head_dim;
    float scale;
};

constexpr float LOG2_E = 1.44269504f;

// ---- bf16 with tensor cores; heads of C = 64 or 128.

// Rows of C values in shared memory. 16-byte chunk c of row r stands at chunk c ^ (r mod 8), so that the eight rows of
// an 8 × 8 matrix lie in different banks.
template <int C> __device__ __forceinline__ bf16 *at(bf16 *tile, int row, int chunk) {
    return tile + row * C + ((chunk ^ (row & 7)) * 8);
}

// Starts copying tokens first.. of one head, `stride` values apart, into `ROWS` rows; those from `end` on become zeros.
template <int C, int ROWS>
__device__ __forceinline__ void load_rows(bf16 *tile, const bf16 *head, int first, int end, int stride) {
    for (int i = threadIdx.x; i < ROWS * C / 8; i += blockDim.x) {
        int row = i / (C / 8), chunk = i % (C / 8), token = first + row;
        bool valid = token < end;
        cp_async_16(at<C>(tile, row, chunk), head + size_t(valid ? token : 0) * stride + chunk * 8, valid);
    }
}

// Rows row.. of a tile, columns 16k.., as the A operand.
template <int C> __device__ __forceinline__ void load_a(uint32_t (&a)[4], bf16 *tile, int row, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4(a, at<C>(tile, row + lane % 16, 2 * k + lane / 16));
}

// Rows n.. and n + 8.. of a tile as two B operands, the tile's columns 16k.. being the depth.
template <int C> __device__ __forceinline__ void load_b(uint32_t (&b)[4], bf16 *tile, int n, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4(b, at<C>(tile, n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
}

// Columns 8n.. and 8n + 8.. of a tile as two B operands, the tile's rows 16k.. being the depth.
template <int C> __device__ __forceinline__ void load_b_trans(uint32_t (&b)[4], bf16 *tile, int n, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4_trans(b, at<C>(tile, 16 * k + lane % 16, n + lane / 16));
}

// Two neighbouring 16 × 8 results as the A operand of the next product.
__device__ __forceinline__ void as_a(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack_bf16(left[0], left[1]);
    a[1] = pack_bf16(left[2], left[3]);
    a[2] = pack_bf16(right[0], right[1]);
    a[3] = pack_bf16(right[2], right[3]);
}

// Over the four lanes that share a row of a result.
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

constexpr int WARPS = 4;
constexpr int KEYS = 64;
// Query rows of 16 that a warp of the forward kernel has: each operand it loads serves both.
constexpr int STACK = 2;
constexpr int FORWARD_QUERIES = 16 * STACK * WARPS;

// A block has 128 queries of one head; the last ones, which see most keys, go first.
template <int C>
__device__ void attention(const bf16 *q, const bf16 *k, const bf16 *v, const uint32_t *starts, bf16 *out, float *log_sums,
                          Sizes sizes) {
    DYNAMIC_SHARED(shared);
    bf16 *q_tile = reinterpret_cast<bf16 *>(shared), *k_tile = q_tile + FORWARD_QUERIES * C, *v_tile = k_tile + KEYS * C;
    int n = sizes.n, head = blockIdx.y, kv_head = head / (sizes.heads / sizes.kv_heads);
    int first = (gridDim.x - 1 - blockIdx.x) * FORWARD_QUERIES, last = min(first + FORWARD_QUERIES, n) - 1;
    int q_stride = sizes.heads * C, kv_stride = sizes.kv_heads * C;
    q += head * C, out += head * C, k += kv_head * C, v += kv_head * C;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, column = lane % 4 * 2;
    int row = warp * 16 * STACK;
    float scale = sizes.scale * LOG2_E;

    float most[STACK][2], total[STACK][2], o[STACK][C / 8][4] = {};
    for (int m = 0; m < STACK; ++m) {
        for (int half = 0; half < 2; ++half) {
            most[m][half] = -INFINITY;
            total[m][half] = 0.0f;
        }
    }
    int begin = starts[first], latest_start = starts[last];
    load_rows<C, FORWARD_QUERIES>(q_tile, q, first, n, q_stride);
    load_rows<C, KEYS>(k_tile, k, begin, n, kv_stride);
    cp_async_commit();
    for (int key = begin; key <= last; key += KEYS) {
        cp_async_wait<0>();
        __syncthreads();
        load_rows<C, KEYS>(v_tile, v, key, n, kv_stride);
        cp_async_commit();
        float s[STACK][KEYS / 8][4] = {};
#pragma unroll 2
        for (int c = 0; c < C / 16; ++c) {
            uint32_t a[STACK][4], b[4];
            for (int m = 0; m < STACK; ++m) load_a<C>(a[m], q_tile, row + 16 * m, c);
#pragma unroll
            for (int j = 0; j < KEYS / 8; j += 2) {
                load_b<C>(b, k_tile, 8 * j, c);
                for (int m = 0; m < STACK; ++m) {
                    mma_m16n8k16(s[m][j], a[m], b[0], b[1]);
                    mma_m16n8k16(s[m][j + 1], a[m], b[2], b[3]);
                }
            }
        }
        cp_async_wait<0>();
        __syncthreads();
        if (key + KEYS <= last) load_rows<C, KEYS>(k_tile, k, key + KEYS, n, kv_stride);
        cp_async_commit();
        bool masked = key + KEYS - 1 > first || key < latest_start;
#pragma unroll
        for (int m = 0; m < STACK; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                int query = first + row + 16 * m + 8 * half + group;
                int start = masked ? int(starts[min(query, n - 1)]) : 0;
                float high = most[m][half];
#pragma unroll
                for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; ++e) {
                        int other = key + 8 * j + column + e % 2;
                        if (masked && (other > query || other < start)) s[m][j][e] = -INFINITY;
                        high = fmaxf(high, s[m][j][e]);
                    }
                }
                high = row_max(high);
                // A row that has seen no key yet.
                float shift = high == -INFINITY ? 0.0f : high * scale;
                float keep = exp2_fast(most[m][half] * scale - shift), sum = 0.0f;
                most[m][half] = high;
#pragma unroll
                for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; ++e) {
                        s[m][j][e] = exp2_fast(s[m][j][e] * scale - shift);
                        sum += s[m][j][e];
                    }
                }
                total[m][half] = total[m][half] * keep + sum;
#pragma unroll
                for (int j = 0; j < C / 8; ++j) {
                    o[m][j][2 * half] *= keep;
                    o[m][j][2 * half + 1] *= keep;
                }
            }
        }
#pragma unroll
        for (int kk = 0; kk < KEYS / 16; ++kk) {
            uint32_t a[STACK][4], b[4];
            for (int m = 0; m < STACK; ++m) as_a(a[m], s[m][2 * kk], s[m][2 * kk + 1]);
#pragma unroll
            for (int j = 0; j < C / 8; j += 2) {
                load_b_trans<C>(b, v_tile, j, kk);
                for (int m = 0; m < STACK; ++m) {
                    mma_m16n8k16(o[m][j], a[m], b[0], b[1]);
                    mma_m16n8k16(o[m][j + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
    cp_async_wait<0>();
    // Every warp's queries are its own rows of the tile: what it attended to takes their place.
#pragma unroll
    for (int m = 0; m < STACK; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float sum = row_sum(total[m][half]);
            int own = row + 16 * m + 8 * half + group, query = first + own;
            if (query < n && column == 0) {
                log_sums[size_t(head) * n + query] = most[m][half] * sizes.scale + logf(sum);
            }
            for (int j = 0; j < C / 8; ++j) {
                store2(at<C>(q_tile, own, j) + column, o[m][j][2 * half] / sum, o[m][j][2 * half + 1] / sum);
            }
        }
    }
    __syncwarp();
    for (int i = lane; i < 16 * STACK * (C / 8); i += 32) {
        int own = row + i / (C / 8), chunk = i % (C / 8);
        if (first + own < n) {
            *reinterpret_cast<uint4 *>(out + size_t(first + own) * q_stride + chunk * 8) =
                *reinterpret_cast<uint4 *>(at<C>(q_tile, own, chunk));
        }
    }
}

constexpr int BACKWARD_QUERIES = 64;
// Queries whose probabilities a warp holds at a time.
constexpr int LOT = 32;

// Two products over a head's depth: `s` of rows row.. of one tile and part.. of another, `dp` likewise of two more.
template <int C>
__device__ __forceinline__ void scores(float (&s)[LOT / 8][4], float (&dp)[LOT / 8][4], bf16 *s_rows, bf16 *dp_rows,
                                       bf16 *s_columns, bf16 *dp_columns, int row, int part) {
#pragma unroll
    for (int c = 0; c < C / 16; ++c) {
        uint32_t sa[4], dpa[4], b[4];
        load_a<C>(sa, s_rows, row, c);
        load_a<C>(dpa, dp_rows, row, c);
#pragma unroll
        for (int j = 0; j < LOT / 8; j += 2) {
            load_b<C>(b, s_columns, part + 8 * j, c);
            mma_m16n8k16(s[j], sa, b[0], b[1]);
            mma_m16n8k16(s[j + 1], sa, b[2], b[3]);
            load_b<C>(b, dp_columns, part + 8 * j, c);
            mma_m16n8k16(dp[j], dpa, b[0], b[1]);
            mma_m16n8k16(dp[j + 1], dpa, b[2], b[3]);
        }
    }
}

// A block has 64 keys of one key-value head, a warp 16 of them; scores are computed transposed, [keys, queries], so that
// they are operands of the next products as they come.
template <int C>
__device__ void attention_backward_keys(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *grad, const float *log_sums,
                                        const float *deltas, const uint32_t *ends, bf16 *dk, bf16 *dv, Sizes sizes) {
    DYNAMIC_SHARED(shared);
    bf16 *k_tile = reinterpret_cast<bf16 *>(shared), *v_tile = k_tile + KEYS * C;
    bf16 *q_tiles = v_tile + KEYS * C, *grad_tiles = q_tiles + 2 * BACKWARD_QUERIES * C;
    float *sum_tiles = reinterpret_cast<float *>(grad_tiles + 2 * BACKWARD_QUERIES * C);
    float *delta_tiles = sum_tiles + 2 * BACKWARD_QUERIES;
    int n = sizes.n, kv_head = blockIdx.y, per_group = sizes.heads / sizes.kv_heads;
    int first = blockIdx.x * KEYS, end = ends[min(first + KEYS, n) - 1];
    int q_stride = sizes.heads * C, kv_stride = sizes.kv_heads * C;
    k += kv_head * C, v += kv_head * C, dk += kv_head * C, dv += kv_head * C;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, column = lane % 4 * 2, row = warp * 16;
    float scale = sizes.scale * LOG2_E;
    int own_end[2];
    for (int half = 0; half < 2; ++half) {
        int key = first + row + 8 * half + group;
        own_end[half] = key < n ? ends[key] : 0;
    }
    float dk_sum[C / 8][4] = {}, dv_sum[C / 8][4] = {};

    int tiles = (end - first + BACKWARD_QUERIES - 1) / BACKWARD_QUERIES, lots = tiles * per_group;
    auto load = [&](int lot) {
        int head = kv_head * per_group + lot / tiles, query = first + lot % tiles * BACKWARD_QUERIES, stage = lot % 2;
        load_rows<C, BACKWARD_QUERIES>(q_tiles + stage * BACKWARD_QUERIES * C, q + head * C, query, end, q_stride);
        load_rows<C, BACKWARD_QUERIES>(grad_tiles + stage * BACKWARD_QUERIES * C, grad + head * C, query, end, q_stride);
        for (int i = threadIdx.x; i < BACKWARD_QUERIES; i += blockDim.x) {
            bool valid = query + i < end;
            size_t from = size_t(head) * n + query + i;
            sum_tiles[stage * BACKWARD_QUERIES + i] = valid ? log_sums[from] * LOG2_E : 0.0f;
            delta_tiles[stage * BACKWARD_QUERIES + i] = valid ? deltas[from] : 0.0f;
        }
    };
    load_rows<C, KEYS>(k_tile, k, first, n, kv_stride);
    load_rows<C, KEYS>(v_tile, v, first, n, kv_stride);
    load(0);
    cp_async_commit();
    for (int lot = 0; lot < lots; ++lot) {
        int stage = lot % 2, query = first + lot % tiles * BACKWARD_QUERIES;
        bf16 *q_tile = q_tiles + stage * BACKWARD_QUERIES * C, *grad_tile = grad_tiles + stage * BACKWARD_QUERIES * C;
        cp_async_wait<0>();
        __syncthreads();
        if (lot + 1 < lots) load(lot + 1);
        cp_async_commit();
#pragma unroll 1
        for (int part = 0; part < BACKWARD_QUERIES; part += LOT) {
            float s[LOT / 8][4] = {}, dp[LOT / 8][4] = {};
            scores<C>(s, dp, k_tile, v_tile, q_tile, grad_tile, row, part);
#pragma unroll
            for (int j = 0; j < LOT / 8; ++j) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    int in_tile = part + 8 * j + column + e % 2, from = query + in_tile;
                    int key = first + row + e / 2 * 8 + group;
                    bool seen = key <= from && from < own_end[e / 2];
                    float log_sum = sum_tiles[stage * BACKWARD_QUERIES + in_tile];
                    float p = seen ? exp2_fast(s[j][e] * scale - log_sum) : 0.0f;
                    s[j][e] = p;
                    dp[j][e] = p * (dp[j][e] - delta_tiles[stage * BACKWARD_QUERIES + in_tile]);
                }
            }
#pragma unroll
            for (int kk = 0; kk < LOT / 16; ++kk) {
                uint32_t pa[4], dsa[4], b[4];
                as_a(pa, s[2 * kk], s[2 * kk + 1]);
                as_a(dsa, dp[2 * kk], dp[2 * kk + 1]);
#pragma unroll
                for (int j = 0; j < C / 8; j += 2) {
                    load_b_trans<C>(b, grad_tile, j, part / 16 + kk);
                    mma_m16n8k16(dv_sum[j], pa, b[0], b[1]);
                    mma_m16n8k16(dv_sum[j + 1], pa, b[2], b[3]);
                    load_b_trans<C>(b, q_tile, j, part / 16 + kk);
                    mma_m16n8k16(dk_sum[j], dsa, b[0], b[1]);
                    mma_m16n8k16(dk_sum[j + 1], dsa, b[2], b[3]);
                }
            }
        }
    }
    cp_async_wait<0>();
    for (int half = 0; half < 2; ++half) {
        int key = first + row + 8 * half + group;
        if (key >= n) continue;
#pragma unroll
        for (int j = 0; j < C / 8; ++j) {
            size_t to = size_t(key) * kv_stride + 8 * j + column;
            store2(dk + to, dk_sum[j][2 * half] * sizes.scale, dk_sum[j][2 * half + 1] * sizes.scale);
            store2(dv + to, dv_sum[j][2 * half], dv_sum[j][2 * half + 1]);
        }
    }
}

// A block has 64 queries of one head, a warp 16 of them.
template <int C>
__device__ void attention_backward_queries(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *grad,
                                           const float *log_sums, const float *deltas, const uint32_t *starts, bf16 *dq,
                                           Sizes sizes) {
    DYNAMIC_SHARED(shared);
    bf16 *q_tile = reinterpret_cast<bf16 *>(shared), *grad_tile = q_tile + BACKWARD_QUERIES * C;
    bf16 *k_tiles = grad_tile + BACKWARD_QUERIES * C, *v_tiles = k_tiles + 2 * KEYS * C;
    int n = sizes.n, head = blockIdx.y, kv_head = head / (sizes.heads / sizes.kv_heads);
    int first = (gridDim.x - 1 - blockIdx.x) * BACKWARD_QUERIES, last = min(first + BACKWARD_QUERIES, n) - 1;
    int q_stride = sizes.heads * C, kv_stride = sizes.kv_heads * C;
    q += head * C, grad += head * C, dq += head * C, k += kv_head * C, v += kv_head * C;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, column = lane % 4 * 2, row = warp * 16;
    float scale = sizes.scale * LOG2_E, log_sum[2], delta[2];
    for (int half = 0; half < 2; ++half) {
        int query = min(first + row + 8 * half + group, n - 1);
        log_sum[half] = log_sums[size_t(head) * n + query] * LOG2_E;
        delta[half] = deltas[size_t(head) * n + query];
    }
    float dq_sum[C / 8][4] = {};

    int begin = starts[first], stage = 0;
    load_rows<C, BACKWARD_QUERIES>(q_tile, q, first, n, q_stride);
    load_rows<C, BACKWARD_QUERIES>(grad_tile, grad, first, n, q_stride);
    load_rows<C, KEYS>(k_tiles, k, begin, n, kv_stride);
    load_rows<C, KEYS>(v_tiles, v, begin, n, kv_stride);
    cp_async_commit();
    for (int key = begin; key <= last; key += KEYS, stage ^= 1) {
        bf16 *k_tile = k_tiles + stage * KEYS * C, *v_tile = v_tiles + stage * KEYS * C;
        cp_async_wait<0>();
        __syncthreads();
        if (key + KEYS <= last) {
            load_rows<C, KEYS>(k_tiles + (stage ^ 1) * KEYS * C, k, key + KEYS, n, kv_stride);
            load_rows<C, KEYS>(v_tiles + (stage ^ 1) * KEYS * C, v, key + KEYS, n, kv_stride);
        }
        cp_async_commit();
#pragma unroll 1
        for (int part = 0; part < KEYS; part += LOT) {
            float s[LOT / 8][4] = {}, dp[LOT / 8][4] = {};
            scores<C>(s, dp, q_tile, grad_tile, k_tile, v_tile, row, part);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                int query = first + row + 8 * half + group, start = starts[min(query, n - 1)];
#pragma unroll
                for (int j = 0; j < LOT / 8; ++j) {
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; ++e) {
                        int other = key + part + 8 * j + column + e % 2;
                        float p = other <= query && other >= start ? exp2_fast(s[j][e] * scale - log_sum[half]) : 0.0f;
                        dp[j][e] = p * (dp[j][e] - delta[half]);
                    }
                }
            }
#pragma unroll
            for (int kk = 0; kk < LOT / 16; ++kk) {
                uint32_t a[4], b[4];
                as_a(a, dp[2 * kk], dp[2 * kk + 1]);
#pragma unroll
                for (int j = 0; j < C / 8; j += 2) {
                    load_b_trans<C>(b, k_tile, j, part / 16 + kk);
                    mma_m16n8k16(dq_sum[j], a, b[0], b[1]);
                    mma_m16n8k16(dq_sum[j + 1], a, b[2], b[3]);
                }
            }
        }
    }
    cp_async_wait<0>();
    for (int half = 0; half < 2; ++half) {
        int query = first + row + 8 * half + group;
        if (query >= n) continue;
#pragma unroll
        for (int j = 0; j < C / 8; ++j) {
            store2(dq + size_t(query) * q_stride + 8 * j + column, dq_sum[j][2 * half] * sizes.scale,
                   dq_sum[j][2 * half + 1] * sizes.scale);
        }
    }
}

// ---- Any type and head size up to 256, in f32: a warp per query, or per key.

constexpr int MOST_PARTS = 256 / 32;

template <class T> __device__ __forceinline__ float dot(const float *own, const T *other, int c) {
    float sum = 0.0f;
    for (int i = 0; i < c; ++i) sum += own[i] * widen(other[i]);
    return sum;
}

// One row of a head, as f32 in shared memory, one per warp.
template <class T> __device__ __forceinline__ void keep_row(float *own, const T *row, int c) {
    for (int i = threadIdx.x % 32; i < c; i += 32) own[i] = widen(row[i]);
    __syncwarp();
}

// sum += Σ over 32 tokens of weight · row, each lane having one token's weight and every 32nd component of the sum.
template <class T>
__device__ __forceinline__ void add_weighted(float (&sum)[MOST_PARTS], float weight, const T *rows, int tokens, size_t stride, int c) {
    for (int j = 0; j < tokens; ++j) {
        float factor = __shfl_sync(ALL_LANES, weight, j);
        for (int part = 0; part < MOST_PARTS; ++part) {
            int i = part * 32 + threadIdx.x % 32;
            if (i < c) sum[part] += factor * widen(rows[j * stride + i]);
        }
    }
}

template <class T>
__device__ __forceinline__ void write_row(T *row, const float (&sum)[MOST_PARTS], float factor, int c) {
    for (int part = 0; part < MOST_PARTS; ++part) {
        int i = part * 32 + threadIdx.x % 32;
        if (i < c) row[i] = narrow<T>(sum[part] * factor);
    }
}

template <class T>
__device__ void attention_plain(const T *q, const T *k, const T *v, const uint32_t *starts, T *out, float *log_sums, Sizes sizes) {
    __shared__ float rows[4][256];
    int query = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32, c = sizes.head_dim, head = blockIdx.y;
    if (query >= sizes.n) return;
    float *own = rows[threadIdx.x / 32], sum[MOST_PARTS] = {}, most = -INFINITY, total = 0.0f;
    size_t q_stride = size_t(sizes.heads) * c, stride = size_t(sizes.kv_heads) * c;
    int kv_head = head / (sizes.heads / sizes.kv_heads);
    k += kv_head * c, v += kv_head * c;
    keep_row(own, q + query * q_stride + head * c, c);
    for (int key = starts[query]; key <= query; key += 32) {
        int tokens = min(32, query + 1 - key);
        float score = lane < tokens ? dot(own, k + (key + lane) * stride, c) * sizes.scale : -INFINITY;
        float high = fmaxf(most, warp_max(score)), keep = expf(most - high);
        float weight = lane < tokens ? expf(score - high) : 0.0f;
        most = high;
        total = total * keep + warp_sum(weight);
        for (float &x : sum) x *= keep;
        add_weighted(sum, weight, v + key * stride, tokens, stride, c);
    }
    write_row(out + query * q_stride + head * c, sum, 1.0f / total, c);
    if (lane == 0) log_sums[size_t(head) * sizes.n + query] = most + logf(total);
}

template <class T>
__device__ void attention_plain_backward_queries(const T *q, const T *k, const T *v, const T *grad, const float *log_sums,
                                                 const float *deltas, const uint32_t *starts, T *dq, Sizes sizes) {
    __shared__ float q_rows[4][256], grad_rows[4][256];
    int query = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32, c = sizes.head_dim, head = blockIdx.y;
    if (query >= sizes.n) return;
    float *own = q_rows[threadIdx.x / 32], *own_grad = grad_rows[threadIdx.x / 32], sum[MOST_PARTS] = {};
    size_t at = query * size_t(sizes.heads) * c + head * c, stride = size_t(sizes.kv_heads) * c;
    int kv_head = head / (sizes.heads / sizes.kv_heads);
    k += kv_head * c, v += kv_head * c;
    keep_row(own, q + at, c);
    keep_row(own_grad, grad + at, c);
    float log_sum = log_sums[size_t(head) * sizes.n + query], delta = deltas[size_t(head) * sizes.n + query];
    for (int key = starts[query]; key <= query; key += 32) {
        int tokens = min(32, query + 1 - key);
        float ds = 0.0f;
        if (lane < tokens) {
            size_t other = (key + lane) * stride;
            float p = expf(dot(own, k + other, c) * sizes.scale - log_sum);
            ds = p * (dot(own_grad, v + other, c) - delta);
        }
        add_weighted(sum, ds, k + key * stride, tokens, stride, c);
    }
    write_row(dq + at, sum, sizes.scale, c);
}

template <class T>
__device__ void attention_plain_backward_keys(const T *q, const T *k, const T *v, const T *grad, const float *log_sums,
                                              const float *deltas, const uint32_t *ends, T *dk, T *dv, Sizes sizes) {
    __shared__ float k_rows[4][256], v_rows[4][256];
    int key = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32, c = sizes.head_dim, kv_head = blockIdx.y;
    if (key >= sizes.n) return;
    float *own = k_rows[threadIdx.x / 32], *own_v = v_rows[threadIdx.x / 32], dk_sum[MOST_PARTS] = {}, dv_sum[MOST_PARTS] = {};
    size_t at = key * size_t(sizes.kv_heads) * c + kv_head * c, stride = size_t(sizes.heads) * c;
    int per_group = sizes.heads / sizes.kv_heads, end = ends[key];
    keep_row(own, k + at, c);
    keep_row(own_v, v + at, c);
    for (int head = kv_head * per_group; head < (kv_head + 1) * per_group; ++head) {
        for (int query = key; query < end; query += 32) {
            int tokens = min(32, end - query);
            float p = 0.0f, ds = 0.0f;
            if (lane < tokens) {
                size_t other = (query + lane) * stride + head * c, from = size_t(head) * sizes.n + query + lane;
                p = expf(dot(own, q + other, c) * sizes.scale - log_sums[from]);
                ds = p * (dot(own_v, grad + other, c) - deltas[from]);
            }
            add_weighted(dv_sum, p, grad + query * stride + head * c, tokens, stride, c);
            add_weighted(dk_sum, ds, q + query * stride + head * c, tokens, stride, c);
        }
    }
    write_row(dk + at, dk_sum, sizes.scale, c);
    write_row(dv + at, dv_sum, 1.0f, c);
}

// D = rowsum(dO ∘ O) of every head, [heads, N]; a warp per token and head.
template <class T> __device__ void attention_deltas(const T *out, const T *grad, float *deltas, Sizes sizes) {
    int token = blockIdx.x * 4 + threadIdx.x / 32, c = sizes.head_dim, head = blockIdx.y;
    if (token >= sizes.n) return;
    size_t at = token * size_t(sizes.heads) * c + head * c;
    float sum = 0.0f;
    for (int i = threadIdx.x % 32; i < c; i += 32) sum += widen(out[at + i]) * widen(grad[at + i]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) deltas[size_t(head) * sizes.n + token] = sum;
}

#define TENSOR_CORES(C)                                                                                              \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                         \
        attention_##C(const bf16 *q, const bf16 *k, const bf16 *v, const uint32_t *starts, bf16 *out,                \
                      float *log_sums, Sizes sizes) {                                                                \
        attention<C>(q, k, v, starts, out, log_sums, sizes);                                                         \
    }                                                                                                                \
    KERNEL(attention_##C)                                                                                            \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                         \
        attention_backward_keys_##C(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *grad,                   \
                                    const float *log_sums, const float *deltas, const uint32_t *ends, bf16 *dk,      \
                                    bf16 *dv, Sizes sizes) {                                                         \
        attention_backward_keys<C>(q, k, v, grad, log_sums, deltas, ends, dk, dv, sizes);                            \
    }                                                                                                                \
    KERNEL(attention_backward_keys_##C)                                                                              \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                         \
        attention_backward_queries_##C(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *grad,                \
                                       const float *log_sums, const float *deltas, const uint32_t *starts, bf16 *dq, \
                                       Sizes sizes) {                                                                \
        attention_backward_queries<C>(q, k, v, grad, log_sums, deltas, starts, dq, sizes);                           \
    }                                                                                                                \
    KERNEL(attention_backward_queries_##C)
TENSOR_CORES(64)
TENSOR_CORES(128)

#define PLAIN(name, T)                                                                                               \
    extern "C" __global__ void attention_##name(const T *q, const T *k, const T *v, const uint32_t *starts, T *out,  \
                                                float *log_sums, Sizes sizes) {                                      \
        attention_plain(q, k, v, starts, out, log_sums, sizes);                                                      \
    }                                                                                                                \
    KERNEL(attention_##name)                                                                                         \
    extern "C" __global__ void attention_backward_keys_##name(                                                       \
        const T *q, const T *k, const T *v, const T *grad, const float *log_sums, const float *deltas,               \
        const uint32_t *ends, T *dk, T *dv, Sizes sizes) {                                                           \
        attention_plain_backward_keys(q, k, v, grad, log_sums, deltas, ends, dk, dv, sizes);                         \
    }                                                                                                                \
    KERNEL(attention_backward_keys_##name)                                                                           \
    extern "C" __global__ void attention_backward_queries_##name(                                                    \
        const T *q, const T *k, const T *v, const T *grad, const float *log_sums, const float *deltas,               \
        const uint32_t *starts, T *dq, Sizes sizes) {                                                                \
        attention_plain_backward_queries(q, k, v, grad, log_sums, deltas, starts, dq, sizes);                        \
    }                                                                                                                \
    KERNEL(attention_backward_queries_##name)                                                                        \
    extern "C" __global__ void attention_deltas_##name(const T *out, const T *grad, float *deltas, Sizes sizes) {    \
        attention_deltas(out, grad, deltas, sizes);                                                                  \
    }                                                                                                                \
    KERNEL(attention_deltas_##name)
FOR_BOTH_TYPES(PLAIN)
