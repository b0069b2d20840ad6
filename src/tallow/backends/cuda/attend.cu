// Attention of one new position of each row, whose key and value are appended to the cache on the way. Queries and keys are
// normalised head by head where there are gains, and turned where there are angles. For compute capability 9.0 and up.
//
// T: type of all, bf16 or f16. HEAD: features of a head. A cluster of CLUSTER blocks takes QUERIES of a (row, kv_head). LANES
// threads read a key together and keep a softmax of their own over the keys that they have met (Milakov and Gimelshein 2018),
// AT_ONCE at a time, with DEPTH times as many under way. These are joined within a warp, and then among the warps of the
// cluster, of whose results each block makes a part (Dao et al. 2023, "Flash-Decoding", with shared memory that blocks write
// for each other in place of memory of the card).
#include "common.cuh"

#if __CUDA_ARCH__ >= 900
namespace {

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int SIZE = Pack<T>::SIZE;
constexpr int LANES = HEAD / SIZE;
constexpr int STREAMS = THREADS / LANES;
constexpr int SLICE = QUERIES * HEAD / CLUSTER;  // of the results, for each block
constexpr int IN_SLICE = SLICE > HEAD ? SLICE / HEAD : 1;  // queries that it is of
constexpr int PITCH = SLICE + 4;                 // of what a warp has found for it: warps begin at different banks
constexpr int PARTS = CLUSTER * WARPS;
constexpr int TEAM = SLICE < THREADS ? THREADS / SLICE : 1;  // threads that make a result
static_assert(LANES >= 2 && LANES <= 32 && STREAMS >= QUERIES + 2 && SLICE >= SIZE, "a head is part of a warp");

// What a block has in shared memory.
struct Memory {
    uint4 under_way[DEPTH][AT_ONCE][2][THREADS];  // keys and values: each thread reads what it has asked for
    float turned[QUERIES + 2][HEAD];              // queries, the new key, the new value
    float sums[PARTS][PITCH];
    float2 softmaxes[PARTS][IN_SLICE];  // the highest score, the total
};

DEVICE float lanes_sum(float x) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// 2^(x - highest), 0 where there is nothing.
DEVICE float weight_of(float x, float highest) { return x == -infinity() ? 0.0f : power_of_two(x - highest); }

// The blocks of a cluster meet: what they wrote before they came can be read by those that have waited.
DEVICE void come_to_cluster() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
DEVICE void wait_for_cluster() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// Writes to where `at` lies in another block's shared memory.
DEVICE u32 in_block(const void* at, int rank) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(at)), "r"(rank));
    return there;
}
DEVICE void send_four(u32 to, const float* x) {
    asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3])
                 : "memory");
}
DEVICE void send_two(u32 to, float x, float y) {
    asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x), "f"(y) : "memory");
}

// A head that LANES threads hold, divided by its root mean square and multiplied by gains, rounded as an operation is.
DEVICE void normalise(float (&x)[SIZE], const Pack<T>& gain, float eps) {
    float squares = 0.0f, gains[SIZE];
    unpack(gains, gain);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) squares = fmaf(x[i], x[i], squares);
    const float inverse = 1.0f / sqrtf(lanes_sum(squares) / static_cast<float>(HEAD) + eps);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) x[i] = rounded<T>(x[i] * inverse * gains[i]);
}

// Cosines and sines of the angles that a thread's features are turned by.
struct Angles {
    float cosines[SIZE], sines[SIZE];
    DEVICE void load(const float* cosine, const float* sine, int lane, bool interleaved) {
        const int pair = interleaved ? lane * SIZE / 2 : lane % (LANES / 2) * SIZE;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            const int at = interleaved ? pair + i / 2 : pair + i;
            cosines[i] = cosine[at], sines[i] = sine[at];
        }
    }
    DEVICE void turn(float (&x)[SIZE], int lane, bool interleaved) const {
        float far[SIZE];
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            const float other = __shfl_xor_sync(0xffffffffu, x[i], LANES / 2);
            far[i] = interleaved ? (i % 2 ? x[i - 1] : -x[i + 1]) : lane < LANES / 2 ? -other : other;
        }
#pragma unroll
        for (int i = 0; i < SIZE; ++i) x[i] = rounded<T>(x[i] * cosines[i] + far[i] * sines[i]);
    }
};

// Softmaxes in the making, of which each lane has its features.
struct Softmaxes {
    float sums[QUERIES][SIZE], highest[QUERIES], totals[QUERIES];
    DEVICE Softmaxes() {
#pragma unroll
        for (int j = 0; j < QUERIES; ++j) {
            highest[j] = -infinity(), totals[j] = 0.0f;
#pragma unroll
            for (int i = 0; i < SIZE; ++i) sums[j][i] = 0.0f;
        }
    }
    // Meets keys; what is not there has a score of -infinity, and zeros for a value.
    template <int COUNT> DEVICE void meet(float (&scores)[QUERIES][COUNT], const Pack<T> (&values)[COUNT]) {
#pragma unroll
        for (int j = 0; j < QUERIES; ++j) {
            float most = highest[j];
#pragma unroll
            for (int a = 0; a < COUNT; ++a) most = fmaxf(most, scores[j][a]);
            const float less = weight_of(highest[j], most);
            highest[j] = most, totals[j] *= less;
#pragma unroll
            for (int i = 0; i < SIZE; ++i) sums[j][i] *= less;
#pragma unroll
            for (int a = 0; a < COUNT; ++a) scores[j][a] = weight_of(scores[j][a], most), totals[j] += scores[j][a];
        }
#pragma unroll
        for (int a = 0; a < COUNT; ++a) {
            float features[SIZE];
            unpack(features, values[a]);
#pragma unroll
            for (int j = 0; j < QUERIES; ++j)
#pragma unroll
                for (int i = 0; i < SIZE; ++i)
                    sums[j][i] = fmaf(scores[j][a], features[i], sums[j][i]);
        }
    }
    // Joins what the streams of a warp have met; afterwards all of them know it.
    DEVICE void join_warp() {
#pragma unroll
        for (int step = LANES; step < 32; step <<= 1)
#pragma unroll
            for (int j = 0; j < QUERIES; ++j) {
                const float other = __shfl_xor_sync(0xffffffffu, highest[j], step);
                const float most = fmaxf(highest[j], other);
                const float own = weight_of(highest[j], most), theirs = weight_of(other, most);
                highest[j] = most;
                totals[j] = own * totals[j] + theirs * __shfl_xor_sync(0xffffffffu, totals[j], step);
#pragma unroll
                for (int i = 0; i < SIZE; ++i)
                    sums[j][i] = own * sums[j][i] + theirs * __shfl_xor_sync(0xffffffffu, sums[j][i], step);
            }
    }
    // Gives each block of the cluster what it needs of this warp.
    DEVICE void send(Memory& memory, int part) const {
        const int lane = threadIdx.x % LANES, twin = threadIdx.x % 32 / LANES;
#pragma unroll
        for (int j = 0; j < QUERIES; ++j) {
            if (j % (32 / LANES) != twin) continue;
            const int at = j * HEAD + lane * SIZE;
            const u32 to = in_block(&memory.sums[part][at % SLICE], at / SLICE);
#pragma unroll
            for (int i = 0; i < SIZE; i += 4) send_four(to + 4 * i, sums[j] + i);
            if (lane * SLICE < HEAD) {  // as many blocks make a part of this query's
                const int rank = (j * HEAD + lane * SLICE) / SLICE;
                send_two(in_block(&memory.softmaxes[part][j % IN_SLICE], rank), highest[j], totals[j]);
            }
        }
    }
};

// A number of this block's slice, made by TEAM threads of what all warps of the cluster have found.
DEVICE float joined(const Memory& memory, int feature) {
    const int query = feature / HEAD, member = threadIdx.x % TEAM;
    float most = -infinity(), sum = 0.0f, total = 0.0f;
#pragma unroll
    for (int part = member; part < PARTS; part += TEAM) most = fmaxf(most, memory.softmaxes[part][query].x);
#pragma unroll
    for (int step = TEAM / 2; step > 0; step >>= 1) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
#pragma unroll
    for (int part = member; part < PARTS; part += TEAM) {
        const float2 softmax = memory.softmaxes[part][query];
        const float share = weight_of(softmax.x, most);
        sum = fmaf(share, memory.sums[part][feature], sum), total = fmaf(share, softmax.y, total);
    }
#pragma unroll
    for (int step = TEAM / 2; step > 0; step >>= 1) {
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
        total += __shfl_xor_sync(0xffffffffu, total, step);
    }
    return sum / total;
}

}  // namespace

// out, q, turned: (rows, heads, HEAD), turned may be null; k, v: (rows, kv_heads, HEAD); the strides are from row to row.
// `early`: whether no kernel of the recording has changed the cache: then its keys are read before the kernel before has
// ended. `window`: how many of the last positions are seen, the new one included. `ended` is zero between kernels. The grid
// is (CLUSTER, kv_heads for each QUERIES of a group, rows).
extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 2)
    attend(T* out, T* turned, const T* q, const T* k, const T* v, T* keys, T* values, const int* table, i64* lengths,
           const float* cosines, const float* sines, const T* q_gain, const T* k_gain, u32* ended, i64 heads_,
           i64 kv_heads_, i64 capacity, i64 q_stride, i64 k_stride, i64 v_stride, i64 angle_stride, i64 interleaved,
           i64 early, i64 window, double scale, double eps) {
    next_may_start();
    extern __shared__ __align__(16) unsigned char shared[];
    Memory& memory = *reinterpret_cast<Memory*>(shared);
    const int lane = threadIdx.x % LANES, stream = threadIdx.x / LANES, warp = threadIdx.x / 32;
    const int heads = static_cast<int>(heads_), kv_heads = static_cast<int>(kv_heads_), group = heads / kv_heads;
    const int row = blockIdx.z, kv_head = blockIdx.y % kv_heads, first = blockIdx.y / kv_heads * QUERIES, rank = blockIdx.x;
    const int* const pages = table + row * pages_for(capacity);
    come_to_cluster();
    if (!early) wait_for_previous();
    const int length = static_cast<int>(min(__ldcg(lengths + row), capacity));
    const int begin = max(length + 1 - static_cast<int>(window), 0);  // the new position is of the window too

    // The keys of a batch: AT_ONCE of each stream, side by side in the cache for the streams of a block.
    const auto position = [&](int batch, int a) {
        return begin + ((batch * AT_ONCE + a) * CLUSTER + rank) * STREAMS + stream;
    };
    const auto expect = [&](int batch) {
#pragma unroll
        for (int a = 0; a < AT_ONCE; ++a) {
            const int at = position(batch, a);
            if (at < length) {
                const i64 place = place_of(pages, at, kv_heads, kv_head) * HEAD + lane * SIZE;
                copy_early(&memory.under_way[batch % DEPTH][a][0][threadIdx.x], keys + place);
                copy_early(&memory.under_way[batch % DEPTH][a][1][threadIdx.x], values + place);
            }
        }
        copies_end();
    };
#pragma unroll
    for (int batch = 0; batch < DEPTH; ++batch) expect(batch);

    // Queries, the new key and the new value, one in each of the first streams.
    const int each = min(stream, QUERIES + 1);
    const T* const gains = each < QUERIES ? q_gain : k_gain;
    const bool normed = gains && each <= QUERIES;
    Pack<T> gain = {};
    if (normed) gain = load_pack(gains + lane * SIZE);
    if (early) wait_for_previous();
    if (warp * (32 / LANES) < QUERIES + 2) {
        const int head = kv_head * group + min(first + min(each, QUERIES - 1), group - 1);
        const T* const from = each < QUERIES    ? q + row * q_stride + head * HEAD
                              : each == QUERIES ? k + row * k_stride + kv_head * HEAD
                                                : v + row * v_stride + kv_head * HEAD;
        const Pack<T> given = load_pack(from + lane * SIZE);
        Angles angles;
        if (cosines) angles.load(cosines + row * angle_stride, sines + row * angle_stride, lane, interleaved);
        float x[SIZE];
        unpack(x, given);
        if (q_gain) {
            float y[SIZE];
            unpack(y, given);
            normalise(y, gain, static_cast<float>(eps));
#pragma unroll
            for (int i = 0; i < SIZE; ++i) x[i] = normed ? y[i] : x[i];
        }
        if (cosines) angles.turn(x, lane, interleaved);
        if (each > QUERIES) unpack(x, given);
        if (stream == each) {
#pragma unroll
            for (int i = 0; i < SIZE; ++i) memory.turned[each][lane * SIZE + i] = x[i];
            if (turned && rank == 0 && each < QUERIES && first + each < group)
                write(turned + (row * heads + head) * HEAD + lane * SIZE, x);
            if (rank == 0 && first == 0 && each >= QUERIES && length < capacity) {
                const i64 place = place_of(pages, length, kv_heads, kv_head) * HEAD + lane * SIZE;
                write((each == QUERIES ? keys : values) + place, x);
            }
        }
    }
    __syncthreads();
    // All threads of this block have read the length: the last block of all, which learns that it is, may move it.
    u32 before = 0;
    if (threadIdx.x == 0) before = atomicInc(ended, gridDim.x * gridDim.y * gridDim.z - 1);

    const float factor = static_cast<float>(scale) * LOG2E;  // scores in powers of two
    float query[QUERIES][SIZE];
#pragma unroll
    for (int j = 0; j < QUERIES; ++j)
#pragma unroll
        for (int i = 0; i < SIZE; ++i) query[j][i] = memory.turned[j][lane * SIZE + i] * factor;
    const auto score_of = [&](int j, const float (&features)[SIZE]) {
        float score = 0.0f;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) score = fmaf(query[j][i], features[i], score);
        return lanes_sum(score);
    };
    Softmaxes softmaxes;
    for (int batch = 0; position(batch, 0) - stream < length; ++batch) {  // the same for all threads of a block
        wait_for_copies<DEPTH - 1>();
        float scores[QUERIES][AT_ONCE], features[SIZE];
        Pack<T> value[AT_ONCE];
#pragma unroll
        for (int a = 0; a < AT_ONCE; ++a) {
            const bool there = position(batch, a) < length;
            const uint4 none = make_uint4(0, 0, 0, 0);
            unpack(features, Pack<T>{there ? memory.under_way[batch % DEPTH][a][0][threadIdx.x] : none});
            value[a].bits = there ? memory.under_way[batch % DEPTH][a][1][threadIdx.x] : none;
#pragma unroll
            for (int j = 0; j < QUERIES; ++j) {
                const float score = score_of(j, features);
                scores[j][a] = there ? score : -infinity();
            }
        }
        softmaxes.meet(scores, value);
        expect(batch + DEPTH);
    }
    if (rank == 0 && warp == 0) {  // the new key is met by the first stream
        float scores[QUERIES][1], features[SIZE];
        read(features, memory.turned[QUERIES] + lane * SIZE);
#pragma unroll
        for (int j = 0; j < QUERIES; ++j) {
            const float score = score_of(j, features);
            scores[j][0] = stream == 0 ? score : -infinity();
        }
        read(features, memory.turned[QUERIES + 1] + lane * SIZE);
        const Pack<T> value[1] = {stream == 0 ? pack(features, T{}) : Pack<T>{}};
        softmaxes.meet(scores, value);
    }
    softmaxes.join_warp();
    wait_for_cluster();  // all its blocks have begun, and have memory
    softmaxes.send(memory, rank * WARPS + warp);
    come_to_cluster();
    wait_for_cluster();
    for (int feature = threadIdx.x / TEAM; feature < SLICE; feature += THREADS / TEAM) {
        const float y = joined(memory, feature);
        const int at = rank * SLICE + feature, head = first + at / HEAD;
        if (head < group && threadIdx.x % TEAM == 0)
            out[(row * heads + kv_head * group + head) * HEAD + at % HEAD] = Rounded<T>::of(y);
    }
    if (threadIdx.x == 0 && before == gridDim.x * gridDim.y * gridDim.z - 1)
        for (int i = 0; i < gridDim.z; ++i) ++lengths[i];
}
#else
extern "C" __global__ void attend() {}
#endif
