// Draws a token of each row: see ops.sample. T: type of x (rows, vocab), rows without gaps between their numbers; DIGITS: how
// many groups of 8 bits tell two of its numbers apart, once they are float32; THREADS: of a block. Of the settings those of
// the row count where there is a pointer to them.
//
// The gridDim.x blocks of a row each look after a part of it, and meet where they need each other's sums. Nothing is
// sorted: numbers are looked for digit by digit, the first 8 bits of all, then the next 8 of those that share the first.
// Probabilities are whole numbers, so that their sums are the same in whatever order they are added.
#include "common.cuh"

namespace {

constexpr int BINS = 256, BITS = 8;
constexpr int PARTS = 256, SEARCHES = 3, TALLIES = 1 + SEARCHES * (DIGITS - 1);

// For each digit, how many numbers have it, and how probable they are together.
struct Tally {
    u64 weights[BINS];
    u32 counts[BINS];
};

// What the blocks of a row share: zero between kernels, but for `parts` and `meeting`.
struct Shared {
    u64 parts[PARTS];
    u64 probable;  // the sum of what min_p leaves
    u32 highest;
    u32 meeting;
    Tally tallies[TALLIES];
};

// A whole number that is larger for a larger float; NaN is −inf.
DEVICE u32 ordered(float x) {
    const u32 bits = __float_as_uint(x == x ? x + 0.0f : -infinity());  // -0 is 0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float number(u32 order) {
    return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

// Waits until all blocks of a row are here, which a cooperative launch lets run at once; each sees what the others wrote
// before. The highest bit of the counter changes when all have come.
DEVICE void meet(u32* counter) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        const u32 before = atomicAdd(counter, blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u);
        while (!((*reinterpret_cast<volatile u32*>(counter) ^ before) & 0x80000000u)) {}
        __threadfence();
    }
    __syncthreads();
}

// The sum of what this thread of a warp and those before it have.
DEVICE u64 warp_sum_up_to_here(u64 x) {
#pragma unroll
    for (int step = 1; step < 32; step <<= 1) {
        const u64 before = __shfl_up_sync(0xffffffffu, x, step);
        if (threadIdx.x % 32 >= step) x += before;
    }
    return x;
}

// Likewise of a block, in two numbers at once.
struct Pair {
    u64 a, b;
};
DEVICE Pair sum_up_to_here(Pair x) {
    __shared__ Pair sums[THREADS / 32];
    x = {warp_sum_up_to_here(x.a), warp_sum_up_to_here(x.b)};
    __syncthreads();
    if (threadIdx.x % 32 == 31) sums[threadIdx.x / 32] = x;
    __syncthreads();
    for (int i = 0; i < threadIdx.x / 32; ++i) x.a += sums[i].a, x.b += sums[i].b;
    return x;
}

// As numpy.random.Generator(Philox(key)).random() gives its number `at` (Salmon et al. 2011: Philox-4x64-10).
DEVICE double uniform(u64 key0, u64 key1, u64 at) {
    u64 c[4] = {at / 4 + 1, 0, 0, 0};
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 low0 = 0xD2E7470EE14C6C93ull * c[0], high0 = __umul64hi(0xD2E7470EE14C6C93ull, c[0]);
        const u64 low1 = 0xCA5A826395121157ull * c[2], high1 = __umul64hi(0xCA5A826395121157ull, c[2]);
        c[0] = high1 ^ c[1] ^ key0, c[1] = low1, c[2] = high0 ^ c[3] ^ key1, c[3] = low0;
        key0 += 0x9E3779B97F4A7C15ull, key1 += 0xBB67AE8584CAA73Bull;
    }
    const u64 word = at % 4 == 0 ? c[0] : at % 4 == 1 ? c[1] : at % 4 == 2 ? c[2] : c[3];
    return static_cast<double>(word >> 11) * 0x1p-53;
}

// How probable a number is, beside the highest of its row, which has `one`.
struct Weigher {
    float highest;
    double temperature, one, least;  // less than `least` counts for nothing

    DEVICE double share(float x) const {
        if (x == highest) return 1.0;
        return x > -infinity() ? exp((static_cast<double>(x) - highest) / temperature) : 0.0;
    }
    DEVICE u64 whole(double share) const { return __double2ull_rn(share * one); }
    DEVICE u64 operator()(float x) const {
        const double p = share(x);
        return p >= least ? whole(p) : 0;
    }
};

DEVICE void add(u64* to, u64 x) {  // shared memory adds only 32 bits at a time
    u32* const halves = reinterpret_cast<u32*>(to);
    const u32 low = static_cast<u32>(x), before = atomicAdd(halves, low);
    const u32 high = static_cast<u32>(x >> 32) + (before + low < before);
    if (high) atomicAdd(halves + 1, high);
}

// A block's part of a row.
struct Part {
    const T* x;
    i64 begin, end;

    DEVICE float operator[](i64 at) const {
        const float y = to_float(x[at]);
        return y == y ? y : -infinity();
    }
};

// Counts and weighs the digits of numbers whose digits before are `prefix`. Thread t is given those of the t-th largest.
DEVICE Pair tally(const Part& part, const Weigher& weigh, u32 prefix, int digit, Tally* to, u32* meeting, u64* probable) {
    __shared__ Tally mine;
    const int shift = 32 - BITS * (digit + 1);
    const bool weighed = digit < DIGITS - 1;
    if (threadIdx.x < BINS) mine.weights[threadIdx.x] = 0, mine.counts[threadIdx.x] = 0;
    __syncthreads();
    u64 left = 0;
    for (i64 at = part.begin + threadIdx.x; at < part.end; at += THREADS) {
        const float x = part[at];
        const u32 order = ordered(x);
        if (digit && order >> (shift + BITS) != prefix) continue;
        const u32 bin = order >> shift & (BINS - 1);
        atomicAdd(mine.counts + bin, 1u);
        if (!weighed) continue;  // the numbers of a bin are equal: one weight will do
        const double share = weigh.share(x);
        const u64 w = weigh.whole(share);
        if (w) add(mine.weights + bin, w);
        if (share >= weigh.least) left += w;
    }
    __syncthreads();
    if (threadIdx.x < BINS && mine.counts[threadIdx.x]) atomicAdd(to->counts + threadIdx.x, mine.counts[threadIdx.x]);
    if (threadIdx.x < BINS && mine.weights[threadIdx.x]) atomicAdd(to->weights + threadIdx.x, mine.weights[threadIdx.x]);
    if (digit == 0) {
        left = sum_up_to_here({left, 0}).a;
        if (threadIdx.x == THREADS - 1) atomicAdd(probable, left);
    }
    meet(meeting);
    if (threadIdx.x >= BINS) return {0, 0};
    const int bin = BINS - 1 - threadIdx.x;
    const u32 count = __ldcg(to->counts + bin);
    if (weighed) return {count, __ldcg(to->weights + bin)};
    const u32 order = prefix << BITS | bin, rest = order >> (31 - shift) ? 0 : (1u << shift) - 1;
    return {count, count ? count * weigh.whole(weigh.share(number(order << shift | rest))) : 0};
}

// Where a sum over the numbers, the largest first, reaches a goal.
struct Place {
    u32 order;    // of the number
    u64 rank;     // which of its equals, from 1
    u64 weights;  // of all up to it
};

struct Search {
    const Part& part;
    const Weigher& weigh;
    Tally* tallies;  // that nobody has used
    u32* meeting;
    Pair first;  // the tally of the first digit

    // by_count: whether how many they are is summed, or how probable.
    DEVICE Place operator()(bool by_count, u64 goal) {
        __shared__ u32 bin;
        __shared__ Pair above, in_bin;
        Pair before{0, 0};
        u32 prefix = 0;
        for (int digit = 0; digit < DIGITS; ++digit) {
            const Pair own = digit ? tally(part, weigh, prefix, digit, tallies++, meeting, nullptr) : first;
            Pair sum = sum_up_to_here(own);
            sum.a += before.a, sum.b += before.b;
            const u64 up_to = by_count ? sum.a : sum.b, here = by_count ? own.a : own.b;
            __syncthreads();
            if (up_to >= goal && up_to - here < goal)
                bin = BINS - 1 - threadIdx.x, above = {sum.a - own.a, sum.b - own.b}, in_bin = own;
            __syncthreads();
            prefix = prefix << BITS | bin, before = above;
        }
        const u64 each = in_bin.b / in_bin.a;  // of the last digit: the weight of one number
        const u64 rank = by_count ? goal - before.a : (goal - before.b + each - 1) / each;
        return {prefix, rank, before.b + rank * each};
    }
};

// x rounded up to a whole number from 1 to `most`.
DEVICE u64 at_least_one(double x, u64 most) { return max(1ull, min(most, static_cast<u64>(ceil(x)))); }

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    sample(i64* out, const T* x, const u64* draws, const i64* lengths, Shared* scratch, i64 vocab, i64 stride,
           const double* temperatures, const i64* top_ks, const double* top_ps, const double* min_ps, double temperature,
           i64 top_k, double top_p, double min_p, double one) {
    next_may_start();
    wait_for_previous();
    const i64 row = blockIdx.y;
    if (temperatures) temperature = temperatures[row];
    if (top_ks) top_k = top_ks[row];
    if (top_ps) top_p = top_ps[row];
    if (min_ps) min_p = min_ps[row];
    const bool greedy = temperature == 0.0;
    const i64 size = (vocab + gridDim.x - 1) / gridDim.x;
    Shared* const shared = scratch + row;
    Part part{x + row * stride, min(blockIdx.x * size, vocab), min((blockIdx.x + 1) * size, vocab)};

    __shared__ u32 top;
    if (threadIdx.x == 0) top = 0;
    __syncthreads();
    u32 highest = 0;
    for (i64 at = part.begin + threadIdx.x; at < part.end; at += THREADS) highest = max(highest, ordered(part[at]));
    highest = __reduce_max_sync(0xffffffffu, highest);
    if (threadIdx.x % 32 == 0) atomicMax(&top, highest);
    __syncthreads();
    if (threadIdx.x == 0) atomicMax(&shared->highest, top);
    meet(&shared->meeting);
    const Weigher weigh{number(__ldcg(&shared->highest)), temperature, one, min_p};

    const double u = greedy ? 0.0 : uniform(draws[3 * row], draws[3 * row + 1], lengths[row] - draws[3 * row + 2]);
    const bool cut = !greedy && ((top_k > 0 && top_k < vocab) || top_p < 1.0);
    Place drawn{};
    if (cut) {  // each cut leaves the first of the numbers, the largest first: what counts is the sum of the fewest
        const Pair first = tally(part, weigh, 0, 0, shared->tallies, &shared->meeting, &shared->probable);
        __shared__ u64 all;
        const u64 weights = sum_up_to_here(first).b;
        if (threadIdx.x == THREADS - 1) all = weights;
        __syncthreads();
        Search search{part, weigh, shared->tallies + 1, &shared->meeting, first};
        u64 total = all;
        if (top_k > 0 && top_k < vocab) total = search(true, top_k).weights;
        if (top_p < 1.0) total = search(false, at_least_one(top_p * total, total)).weights;
        total = min(total, __ldcg(&shared->probable));
        drawn = search(false, at_least_one(floor(u * total) + 1.0, total));
    }

    // The last step is in the order of ids: among the equals of the number drawn, or among all where nothing is cut.
    const auto measure = [&](i64 at) -> u64 {
        if (cut) return ordered(part[at]) >> (32 - BITS * DIGITS) == drawn.order;
        return greedy ? part[at] == weigh.highest : weigh(part[at]);
    };
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const i64 run = (part.end - part.begin + THREADS / 32 - 1) / (THREADS / 32);
    const i64 begin = min(part.begin + warp * run, part.end), end = min(begin + run, part.end);
    u64 own = 0;
    for (i64 at = begin + lane; at < end; at += 32) own += measure(at);
    own = __shfl_sync(0xffffffffu, warp_sum_up_to_here(own), 31);  // of the whole warp
    u64 sum = sum_up_to_here({lane == 31 ? own : 0, 0}).a;
    if (threadIdx.x == THREADS - 1) shared->parts[blockIdx.x] = sum;
    meet(&shared->meeting);
    __shared__ u64 before, total;
    const u64 parts = threadIdx.x < gridDim.x ? __ldcg(shared->parts + threadIdx.x) : 0;
    const u64 up_to = sum_up_to_here({parts, 0}).a;
    if (threadIdx.x == blockIdx.x) before = up_to - parts;
    if (threadIdx.x == THREADS - 1) total = up_to;
    __syncthreads();
    const u64 goal = cut ? drawn.rank : at_least_one(floor(u * total) + 1.0, total);
    sum = before + __shfl_sync(0xffffffffu, sum, 31) - own;
    if (sum < goal && sum + own >= goal) {
        for (i64 at = begin + lane; sum < goal; at += 32) {
            const u64 here = at < end ? measure(at) : 0, up_to_here = sum + warp_sum_up_to_here(here);
            if (up_to_here >= goal && up_to_here - here < goal) out[row] = at;
            sum = __shfl_sync(0xffffffffu, up_to_here, 31);
        }
    }

    for (i64 i = blockIdx.x * THREADS + threadIdx.x; i < TALLIES * BINS; i += gridDim.x * THREADS) {
        shared->tallies[i / BINS].counts[i % BINS] = 0;
        shared->tallies[i / BINS].weights[i % BINS] = 0;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) shared->highest = 0, shared->probable = 0;
}
