// Attention of one new position of each row (or of a few queries of each row to keys that are there already) as a phase of
// a program: queries and keys are normalised head by head where there are gains, and turned where there are angles; the new
// key and value are written at the end of the cache's row; then the queries attend to the row.
//
// The work of a block is a task: QUERIES of one (row, kv_head), and a part of the keys. LANES threads read a key together
// and keep a softmax of their own over the keys that they have met (Milakov and Gimelshein 2018); these are joined within a
// warp, a block, and, by the block that ends last, among those that share a row's keys (Dao et al. 2023, "Flash-Decoding").
#pragma once
#include "program.cuh"

constexpr int LANES = HEAD / SIZE;
constexpr int STREAMS = CONSUMERS / LANES;
constexpr int SHORT = 512;   // keys that one block goes through alone
constexpr int LEAST = 256;   // of a block, of more
constexpr int FEATURES = HEAD + 2;  // of a softmax in the making: sums, the highest score, the total
static_assert(HEAD % SIZE == 0 && LANES >= 2 && LANES <= 32 && (LANES & (LANES - 1)) == 0, "a head is part of a warp");

DEVICE float lanes_sum(float x) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// 2^(x - highest), 0 where there is nothing.
DEVICE float weight_of(float x, float highest) { return x == -infinity() ? 0.0f : power_of_two(x - highest); }

// A head that LANES threads hold, divided by its root mean square and multiplied by a gain, rounded as an operation is.
DEVICE void normalise(float (&x)[SIZE], const T* gain, int lane, float eps) {
    float squares = 0.0f, gains[SIZE];
    read(gains, gain + lane * SIZE);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) squares = fmaf(x[i], x[i], squares);
    const float inverse = 1.0f / sqrtf(lanes_sum(squares) / static_cast<float>(HEAD) + eps);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) x[i] = rounded<T>(x[i] * inverse * gains[i]);
}

// Turns pairs by angles whose cosines and sines (HEAD / 2,) are given, rounded as an operation is.
DEVICE void turn(float (&x)[SIZE], const float* cosines, const float* sines, int lane, bool interleaved) {
#pragma unroll
    for (int i = 0; i < SIZE; ++i) {
        const float far = __shfl_xor_sync(0xffffffffu, x[i], LANES / 2);
        if (interleaved) continue;
        const int pair = lane % (LANES / 2) * SIZE + i;
        x[i] = rounded<T>(x[i] * cosines[pair] + (lane < LANES / 2 ? -far : far) * sines[pair]);
    }
    if (!interleaved) return;
#pragma unroll
    for (int i = 0; i < SIZE; i += 2) {
        const int pair = (lane * SIZE + i) / 2;
        const float u = x[i], v = x[i + 1];
        x[i] = rounded<T>(u * cosines[pair] - v * sines[pair]);
        x[i + 1] = rounded<T>(v * cosines[pair] + u * sines[pair]);
    }
}

// Softmaxes of QUERIES in the making, of which each lane has its features.
template <int QUERIES> struct Softmax {
    float sums[QUERIES][SIZE], highest[QUERIES], totals[QUERIES];
    DEVICE void clear() {
#pragma unroll
        for (int j = 0; j < QUERIES; ++j) {
            highest[j] = -infinity(), totals[j] = 0.0f;
#pragma unroll
            for (int i = 0; i < SIZE; ++i) sums[j][i] = 0.0f;
        }
    }
    // Meets keys whose scores are known; what has a score of -infinity must not reach the sum, whatever it holds.
    template <int COUNT> DEVICE void meet(int j, const float (&scores)[COUNT], const Pack<T> (&values)[COUNT]) {
        float most = highest[j];
#pragma unroll
        for (int a = 0; a < COUNT; ++a) most = fmaxf(most, scores[a]);
        const float less = weight_of(highest[j], most);
        highest[j] = most, totals[j] *= less;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sums[j][i] *= less;
#pragma unroll
        for (int a = 0; a < COUNT; ++a) {
            if (scores[a] == -infinity()) continue;
            const float part = weight_of(scores[a], most);
            float features[SIZE];
            unpack(features, values[a]);
            totals[j] += part;
#pragma unroll
            for (int i = 0; i < SIZE; ++i) sums[j][i] = fmaf(part, features[i], sums[j][i]);
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
};

// Positions that a row holds, past the first cache: whoever appends may have run meanwhile.
DEVICE i64 length_of(const Attend& in, i64 row) { return __ldcg(in.lengths + row); }

// The pages of a row.
DEVICE const int* pages_of(const Attend& in, i64 row) { return in.table + row * pages_for(in.capacity); }

// What a task is about.
struct Task {
    int row, kv_head, first, split;  // first: of its queries, which are those of the kv_head, position by position
    DEVICE Task(const Attend& in, int number, int blocks, int splits, int queries) {
        split = number % splits, number /= splits;
        first = number % blocks * queries, number /= blocks;
        kv_head = number % static_cast<int>(in.kv_heads), row = number / static_cast<int>(in.kv_heads);
    }
};

// The last block of a row's joins what all have found, (splits, QUERIES, FEATURES) floats. `target` takes a query's feature;
// `shares` is memory for (QUERIES, 32) floats.
template <int QUERIES, class Target>
DEVICE void join_splits(const float* found, int splits, int count, float* shares, const Target& target) {
    for (int j = threadIdx.x / 32; j < QUERIES; j += WARPS) {
        const int s = threadIdx.x % 32;
        const float* part = found + (s * QUERIES + j) * FEATURES + HEAD;
        const float score = s < splits ? __ldcg(part) : -infinity(), all = s < splits ? __ldcg(part + 1) : 0.0f;
        float most = score;
#pragma unroll
        for (int step = 16; step > 0; step >>= 1) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
        const float own = weight_of(score, most), total = warp_sum(own * all);
        shares[j * 32 + s] = total > 0.0f ? own / total : 0.0f;
    }
    sync_consumers();
    for (int i = threadIdx.x; i < count * HEAD; i += CONSUMERS) {
        const int j = i / HEAD;
        float sum = 0.0f;
#pragma unroll 4
        for (int s = 0; s < splits; ++s)
            sum = fmaf(shares[j * 32 + s], __ldcg(found + (s * QUERIES + j) * FEATURES + i % HEAD), sum);
        target(j, i % HEAD, sum);
    }
}

template <int QUERIES> DEVICE void run_task(const Attend& in, const Task& task, int blocks, int splits, float* work, u32 launch) {
    float* const turned = work;                          // queries, then the new key and value
    float* const joined = work + (QUERIES + 2) * HEAD;   // (WARPS, QUERIES, FEATURES)
    const int lane = threadIdx.x % LANES, stream = threadIdx.x / LANES;
    const int group = static_cast<int>(in.heads / in.kv_heads), queries = static_cast<int>(in.n) * group;
    const int length = static_cast<int>(min(length_of(in, task.row), in.capacity));
    const int share = (length + splits - 1) / splits, begin = task.split * share, end = min(begin + share, length);
    const bool newest = (in.flags & APPENDS) && task.split == splits - 1;

    const int wanted = (in.flags & APPENDS) ? QUERIES + 2 : QUERIES;
    for (int pass = 0; pass * STREAMS < wanted; ++pass) {  // all lanes take part, the last ones again in what is done
        const int each = min(pass * STREAMS + stream, wanted - 1);
        const int index = min(task.first + min(each, QUERIES - 1), queries - 1), at = index / group;
        const int head = task.kv_head * group + index % group;
        const void* from = each == QUERIES ? in.k : each == QUERIES + 1 ? in.v : in.q;
        const i64 place = each == QUERIES       ? task.row * in.k_stride_b + task.kv_head * HEAD
                          : each == QUERIES + 1 ? task.row * in.v_stride_b + task.kv_head * HEAD
                                                : task.row * in.q_stride_b + at * in.q_stride_n + head * HEAD;
        float x[SIZE], raw[SIZE];
        if (in.flags & WIRED) wait_for_first(from, place, launch);
        unpack(x, arriving(from, place + lane * SIZE, in.flags & WIRED, launch));
#pragma unroll
        for (int i = 0; i < SIZE; ++i) raw[i] = x[i];
        if (in.q_gain) normalise(x, each < QUERIES ? in.q_gain : in.k_gain, lane, static_cast<float>(in.eps));
        if (in.cosines) {
            const i64 angles = task.row * in.angle_stride;
            turn(x, in.cosines + angles, in.sines + angles, lane, in.flags & INTERLEAVED);
        }
        if (each == QUERIES + 1)
#pragma unroll
            for (int i = 0; i < SIZE; ++i) x[i] = raw[i];
#pragma unroll
        for (int i = 0; i < SIZE; ++i) turned[each * HEAD + lane * SIZE + i] = x[i];
        if (in.turned && task.split == 0 && each < QUERIES && task.first + each < queries)
            write(in.turned + ((task.row * in.n + at) * in.heads + head) * HEAD + lane * SIZE, x);
        if (newest && task.first == 0 && each >= QUERIES && length < in.capacity) {
            const i64 place = place_of(pages_of(in, task.row), length, in.kv_heads, task.kv_head);
            write(each == QUERIES ? in.keys + place * HEAD + lane * SIZE : in.values + place * in.value_width + lane * SIZE, x);
        }
    }
    sync_consumers();

    const float factor = static_cast<float>(in.scale) * LOG2E;  // scores in powers of two
    const auto score_of = [&](int j, const float (&features)[SIZE]) {
        float query[SIZE], score = 0.0f;
        read(query, turned + j * HEAD + lane * SIZE);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) score = fmaf(query[i], features[i], score);
        return lanes_sum(score) * factor;
    };
    const int* const pages = pages_of(in, task.row);
    constexpr int AHEAD = QUERIES == 1 ? 6 : 2;  // keys that a stream reads at a time
    Softmax<QUERIES> softmax;
    softmax.clear();
    for (int base = begin; base < end; base += STREAMS * AHEAD) {  // the same for all threads
        Pack<T> key[AHEAD], value[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; ++a) {
            const i64 at = place_of(pages, min(base + a * STREAMS + stream, end - 1), in.kv_heads, task.kv_head);
            key[a] = load_pack(in.keys + at * HEAD + lane * SIZE);
            value[a] = load_pack(in.values + at * in.value_width + lane * SIZE);
        }
#pragma unroll
        for (int j = 0; j < QUERIES; ++j) {
            float scores[AHEAD];
#pragma unroll
            for (int a = 0; a < AHEAD; ++a) {
                float features[SIZE];
                unpack(features, key[a]);
                const float score = score_of(j, features);
                scores[a] = base + a * STREAMS + stream < end ? score : -infinity();
            }
            softmax.meet(j, scores, value);
        }
    }
    if (newest) {  // the new key is met by the first stream
        float features[SIZE];
        read(features, turned + (QUERIES + 1) * HEAD + lane * SIZE);
        const Pack<T> value[1] = {pack(features, T{})};
#pragma unroll
        for (int j = 0; j < QUERIES; ++j) {
            read(features, turned + QUERIES * HEAD + lane * SIZE);
            float score[1] = {score_of(j, features)};
            if (stream) score[0] = -infinity();
            softmax.meet(j, score, value);
        }
    }
    softmax.join_warp();
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 < LANES)
#pragma unroll
        for (int j = 0; j < QUERIES; ++j) {
            float* to = joined + (warp * QUERIES + j) * FEATURES;
#pragma unroll
            for (int i = 0; i < SIZE; ++i) to[lane * SIZE + i] = softmax.sums[j][i];
            if (lane == 0) to[HEAD] = softmax.highest[j], to[HEAD + 1] = softmax.totals[j];
        }
    sync_consumers();

    const int pair = task.row * static_cast<int>(in.kv_heads) + task.kv_head;
    const i64 spot = static_cast<i64>(pair) * blocks + task.first / QUERIES;
    float* const found = in.scratch + spot * QUERIES * in.splits * FEATURES;
    const auto target = [&](int j, int feature, float y) {
        const int index = task.first + j;
        const i64 head = (task.row * in.n + index / group) * in.heads + task.kv_head * group + index % group;
        leave(in.out, in.out_wire, head * HEAD + feature, y, launch);
    };
    for (int i = threadIdx.x; i < QUERIES * HEAD; i += CONSUMERS) {
        const int j = i / HEAD, feature = i % HEAD;
        float most = -infinity(), sum = 0.0f, total = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) most = fmaxf(most, joined[(w * QUERIES + j) * FEATURES + HEAD]);
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            const float* one = joined + (w * QUERIES + j) * FEATURES;
            const float part = weight_of(one[HEAD], most);
            sum = fmaf(part, one[feature], sum), total = fmaf(part, one[HEAD + 1], total);
        }
        if (splits > 1) {
            float* const to = found + (task.split * QUERIES + j) * FEATURES;
            to[feature] = sum;
            if (feature == 0) to[HEAD] = most, to[HEAD + 1] = total;
        } else if (task.first + j < queries) {
            target(j, feature, total > 0.0f ? sum / total : 0.0f);
        }
    }
    if (splits > 1) {
        u32* const last = reinterpret_cast<u32*>(turned);
        __threadfence();
        sync_consumers();
        if (threadIdx.x == 0) *last = atomicInc(in.tickets + spot, splits - 1) == static_cast<u32>(splits) - 1;
        sync_consumers();
        if (*last) {
            __threadfence();
            join_splits<QUERIES>(found, splits, min(QUERIES, queries - task.first), joined, target);
        }
    }
    sync_consumers();  // the next task has the same memory
}

// How a phase is cut into tasks. A short context is cut into more, for its keys are near when they are read again.
struct Cut {
    int queries, blocks, splits, tasks, first;  // first: task of this block
    DEVICE Cut(const Attend& in, int phase) {
        int longest = 0;
        for (int row = 0; row < in.batch; ++row) longest = max(longest, static_cast<int>(length_of(in, row)));
        const int all = static_cast<int>(in.n * (in.heads / in.kv_heads));
        queries = longest <= SHORT ? 1 : GROUP;
        blocks = (all + queries - 1) / queries;
        splits = longest <= SHORT ? 1 : max(1, min(static_cast<int>(in.splits), (longest + LEAST - 1) / LEAST));
        tasks = static_cast<int>(in.batch * in.kv_heads) * blocks * splits;
        first = (blockIdx.x + phase * 29) % gridDim.x;
    }
};

// Asks for the keys and values of this block's first task, which have been there for long.
DEVICE void expect_keys(const Attend& in, int phase) {
    if (in.q_gain && threadIdx.x < 2 * HEAD / SIZE) prefetch((threadIdx.x & 1 ? in.k_gain : in.q_gain) + threadIdx.x / 2 * SIZE);
    const Cut cut(in, phase);
    if (cut.first >= cut.tasks) return;
    const Task task(in, cut.first, cut.blocks, cut.splits, cut.queries);
    const int length = static_cast<int>(min(length_of(in, task.row), in.capacity)), share = (length + cut.splits - 1) / cut.splits;
    const int numbers = min(share, length - task.split * share) * HEAD;
    for (int at = threadIdx.x * (128 / sizeof(T)); at < numbers; at += CONSUMERS * (128 / sizeof(T))) {
        const i64 place = place_of(pages_of(in, task.row), task.split * share + at / HEAD, in.kv_heads, task.kv_head);
        prefetch(in.keys + place * HEAD + at % HEAD);
        prefetch(in.values + place * in.value_width + at % HEAD);
    }
}

// One phase, for the consumers of a block.
DEVICE void run_attend(const Attend& in, int phase, float* work, u32 launch) {
    const Cut cut(in, phase);
    for (int number = cut.first; number < cut.tasks; number += gridDim.x) {
        const Task task(in, number, cut.blocks, cut.splits, cut.queries);
        if (GROUP == 1 || cut.queries == 1)
            run_task<1>(in, task, cut.blocks, cut.splits, work, launch);
        else
            run_task<GROUP>(in, task, cut.blocks, cut.splits, work, launch);
    }
}
