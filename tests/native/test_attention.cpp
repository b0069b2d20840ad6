// Attention, over plain keys and over a cache, against sums in double precision; and whole steps of a decoder, on one
// thread and on several at once.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>

#include "check.h"
#include "core/buffers.h"
#include "core/thread_pool.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/packing.h"
#include "ops/positions.h"
#include "random.h"

using namespace tallow;
using testing::Random;

namespace {

struct Shape {
    std::int64_t batch, n, m, heads, kv_heads, d;  // n queries over m keys
};

const Shape shapes[] = {{1, 1, 1, 1, 1, 1},    {2, 3, 5, 4, 2, 7},     {1, 70, 70, 2, 2, 64}, {1, 1, 200, 6, 3, 80},
                        {3, 13, 130, 4, 1, 33}, {1, 7, 0, 2, 2, 8},     {1, 100, 65, 3, 1, 16}, {1, 2, 17, 1, 1, 256},
                        {2, 64, 64, 2, 1, 3},   {1, 5, 1500, 2, 2, 64}};

// Random queries, keys and values (batch, position, head, feature) with a gap behind each position. Keys and values are
// of few digits, which float16 holds too.
struct Problem {
    static constexpr std::int64_t gap = 3;

    Shape shape;
    std::vector<float> q, k, v, mask;
    std::vector<std::int64_t> lengths;
    std::int64_t window = no_window;

    Problem(const Shape& s, Random& random)
        : shape(s),
          q(random.numbers(s.batch * s.n * q_step())),
          k(random.numbers(s.batch * s.m * k_step())),
          v(random.numbers(s.batch * s.m * k_step())) {
        for (std::vector<float>* values : {&k, &v})
            for (float& value : *values) value = std::round(value * 1024) / 1024;
    }
    std::int64_t q_step() const { return shape.heads * shape.d + gap; }
    std::int64_t k_step() const { return shape.kv_heads * shape.d + gap; }

    void add_mask(Random& random) {  // for every head and row the same
        mask = random.numbers(shape.n * shape.m);
        for (float& value : mask) value = random.below(4) ? 3 * value : -std::numeric_limits<float>::infinity();
    }

    AttentionArgs args(std::vector<float>& out, bool causal) const {
        const Shape& s = shape;
        out.assign(s.batch * s.n * s.heads * s.d, 9.0f);
        AttentionArgs args{};
        args.out = out.data();
        args.q = q.data();
        args.batch = s.batch, args.n = s.n, args.heads = s.heads, args.keys = s.m;
        args.q_batch = s.n * q_step(), args.q_position = q_step(), args.q_head = s.d;
        args.lengths = lengths.empty() ? nullptr : lengths.data();
        args.mask = mask.empty() ? nullptr : mask.data();
        args.mask_query = s.m;
        args.scale = 1 / std::sqrt(static_cast<float>(s.d));
        args.causal = causal;
        args.window = window;
        return args;
    }

    StoreArgs store(const KeyValues& to) const {
        const std::int64_t step = k_step();
        return {to,           k.data(),     v.data(), shape.batch, shape.m, shape.m * step, step,
                shape.d, shape.m * step, step, shape.d, nullptr,     nullptr};
    }

    // softmax(scale · q kᵀ + mask) v of one query and head.
    std::vector<double> expected(std::int64_t row, std::int64_t query, std::int64_t head, bool causal) const {
        const Shape& s = shape;
        const std::int64_t held = lengths.empty() ? s.m : lengths[row], seen = causal ? held - (s.n - 1 - query) : held;
        const std::int64_t shared = head / (s.heads / s.kv_heads) * s.d;
        std::vector<double> result(s.d), weights;
        double total = 0;
        const std::int64_t first = std::max<std::int64_t>(0, seen - window);
        for (std::int64_t key = first; key < seen; ++key) {
            double score = 0;
            for (std::int64_t i = 0; i < s.d; ++i)
                score += double(q[(row * s.n + query) * q_step() + head * s.d + i]) *
                         k[(row * s.m + key) * k_step() + shared + i];
            score = score / std::sqrt(double(s.d)) + (mask.empty() ? 0.0 : mask[query * s.m + key]);
            weights.push_back(std::exp(score));  // scores are small
            total += weights.back();
        }
        for (std::int64_t key = first; total > 0 && key < seen; ++key)
            for (std::int64_t i = 0; i < s.d; ++i)
                result[i] += weights[key - first] / total * v[(row * s.m + key) * k_step() + shared + i];
        return result;
    }

    void check(const std::vector<float>& out, bool causal) const {
        const Shape& s = shape;
        for (std::int64_t row = 0; row < s.batch; ++row)
            for (std::int64_t query = 0; query < s.n; ++query)
                for (std::int64_t head = 0; head < s.heads; ++head) {
                    const std::vector<double> wanted = expected(row, query, head, causal);
                    const float* found = out.data() + ((row * s.n + query) * s.heads + head) * s.d;
                    for (std::int64_t i = 0; i < s.d; ++i) CHECK(std::fabs(found[i] - wanted[i]) <= 5e-6);
                }
    }
};

// The keys and values of one layer, in memory that begins as NaN.
class Cache {
public:
    std::vector<std::int64_t> lengths;

    Cache(std::int64_t rows, std::int64_t heads, std::int64_t d, std::int64_t most, Kept kept) : lengths(rows) {
        const std::int64_t capacity = (most + key_panel - 1) / key_panel * key_panel;
        kv_ = {nullptr, nullptr, nullptr, heads, d, (d + 15) / 16 * 16, capacity, kept};
        const std::int64_t positions = rows * heads * capacity, width = kept == Kept::f32 ? 4 : kept == Kept::f16 ? 2 : 1;
        keys_bytes_ = static_cast<std::size_t>(positions * d * width);
        values_bytes_ = static_cast<std::size_t>(positions * kv_.padded * width);
        scales_.assign(static_cast<std::size_t>(2 * positions), std::numeric_limits<float>::quiet_NaN());
        kv_.scales = scales_.data();
        kv_.keys = std::memset(take_buffer(keys_bytes_), 0xff, keys_bytes_);
        kv_.values = std::memset(take_buffer(values_bytes_), 0xff, values_bytes_);
    }
    ~Cache() {
        give_buffer(kv_.keys, keys_bytes_);
        give_buffer(kv_.values, values_bytes_);
    }
    Cache(const Cache&) = delete;

    const KeyValues& memory() const { return kv_; }

    void append(StoreArgs args, const std::int64_t* counts = nullptr) {
        args.to = kv_;
        args.lengths = lengths.data();
        args.counts = counts;
        store_key_values(args);
        for (std::size_t row = 0; row < lengths.size(); ++row) lengths[row] += counts ? counts[row] : args.n;
    }

private:
    KeyValues kv_;
    std::size_t keys_bytes_, values_bytes_;
    std::vector<float> scales_;
};

// `count` positions from `first` on.
StoreArgs stretch(StoreArgs args, std::int64_t first, std::int64_t count) {
    args.k += first * args.k_position;
    args.v += first * args.v_position;
    args.n = count;
    return args;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// The weights of a decoder of one layer.
struct Weights {
    static constexpr std::int64_t heads = 4, d = 24, dim = heads * d;

    std::vector<float> scale, frequencies;
    Matrix qkv, out;

    explicit Weights(Random& random)
        : scale(random.numbers(dim)),
          frequencies(random.numbers(d / 2)),
          qkv(Storage::i8, 3 * dim, dim, dim),
          out(Storage::f16, dim, dim, dim) {
        for (Matrix* matrix : {&qkv, &out}) {
            const std::vector<float> values = random.numbers(matrix->packed().n * dim);
            PackArgs args{};
            args.from = Storage::f32;
            args.source = values.data();
            args.row_stride = dim;
            args.column_stride = 1;
            matrix->pack(args);
        }
    }
};

LinearArgs linear_args(const Matrix& matrix, const std::vector<float>& x, std::vector<float>& out) {
    LinearArgs args{};
    args.weight = &matrix.packed();
    args.x.data = x.data();
    args.x.stride = Weights::dim;
    args.rows = 1;
    args.out = out.data();
    args.out_stride = matrix.packed().n;
    return args;
}

// A decoder at work: a step is a list of calls that are made again and again on the same memory, as in a recording.
class Decoder {
public:
    Decoder(const Weights& weights, std::uint64_t seed, std::int64_t most)
        : cache_(1, Weights::heads, Weights::d, most, static_cast<Kept>(seed % 3)),
          x_(Random(seed).numbers(Weights::dim)),
          normed_(Weights::dim),
          qkv_(3 * Weights::dim),
          turned_(2 * Weights::dim),
          mixed_(Weights::dim),
          cos_(Weights::d / 2),
          sin_(Weights::d / 2) {
        constexpr std::int64_t heads = Weights::heads, d = Weights::d, dim = Weights::dim;
        const NormArgs norm{normed_.data(), x_.data(), weights.scale.data(), nullptr, 1, dim, dim, dim, 1, dim, 1e-6f};
        const LinearArgs project = linear_args(weights.qkv, normed_, qkv_);
        const PositionsArgs position{&position_, cache_.lengths.data(), nullptr, 1, 1};
        const AnglesArgs angles{cos_.data(), sin_.data(), &position_, weights.frequencies.data(), 1, d / 2, 1.0f};
        // Queries and keys are turned together: twice as many heads.
        const RopeArgs turn{turned_.data(), qkv_.data(), 0, 0, d, cos_.data(), sin_.data(), 0, 1, 2 * heads, d / 2};
        const StoreArgs store{cache_.memory(), turned_.data() + dim, qkv_.data() + 2 * dim, 1, 1, 0, 0, d, 0, 0, d,
                              nullptr, nullptr};
        AttentionArgs look{};
        look.out = mixed_.data(), look.q = turned_.data(), look.kv = cache_.memory();
        look.batch = 1, look.n = 1, look.heads = heads, look.keys = most, look.q_head = d;
        look.lengths = cache_.lengths.data(), look.scale = 0.2f, look.causal = true;
        LinearArgs finish = linear_args(weights.out, mixed_, x_);
        finish.residual = x_.data();
        finish.residual_stride = dim;
        calls_ = {[norm] { rms_norm(norm); },         [project] { linear(project); },
                  [position] { next_positions(position); }, [angles] { rotary_angles(angles); },
                  [turn] { rope(turn, 1); },          [this, store] { cache_.append(store); },
                  [look] { attend(look); },           [finish] { linear(finish); }};
    }

    std::vector<float> run(int steps) {
        for (int step = 0; step < steps; ++step)
            for (const std::function<void()>& call : calls_) call();
        return x_;
    }

private:
    Cache cache_;
    std::vector<float> x_, normed_, qkv_, turned_, mixed_, cos_, sin_;
    std::int64_t position_ = 0;
    std::vector<std::function<void()>> calls_;
};

}  // namespace

LEVEL_TEST(attention_over_plain_keys) {
    Random random(21);
    std::vector<float> out;
    for (const Shape& shape : shapes)
        for (bool causal : {false, true})
            for (int options = 0; options < 4; ++options) {
                Problem problem(shape, random);
                if (options & 1) problem.add_mask(random);
                if (options & 2)
                    for (std::int64_t row = 0; row < shape.batch; ++row)
                        problem.lengths.push_back(random.below(shape.m + 1));
                KeyValues sizes{};
                sizes.heads = shape.kv_heads;
                sizes.head_dim = shape.d;
                attend(problem.args(out, causal), problem.store(sizes));
                problem.check(out, causal);
            }
}

LEVEL_TEST(attention_in_a_window) {
    Random random(26);
    std::vector<float> out, whole;
    for (const Shape& shape : shapes)
        for (std::int64_t window : {1, 7, 64, 65, 1000})
            for (Kept kept : {Kept::f32, Kept::f16}) {
                Problem problem(shape, random);
                problem.window = window;
                for (std::int64_t row = 0; row < shape.batch; ++row)
                    problem.lengths.push_back(random.below(shape.m + 1));
                // What no query sees is not there.
                for (std::int64_t row = 0; row < shape.batch; ++row)
                    for (std::int64_t key = 0; key < problem.lengths[row] - (shape.n - 1) - window; ++key)
                        for (std::vector<float>* values : {&problem.k, &problem.v}) {
                            auto begin = values->begin() + (row * shape.m + key) * problem.k_step();
                            std::fill(begin, begin + problem.k_step(), std::numeric_limits<float>::quiet_NaN());
                        }
                Cache cache(shape.batch, shape.kv_heads, shape.d, shape.m, kept);
                cache.append(problem.store(cache.memory()));
                for (int threads : {1, 3}) {
                    ThreadPool::instance().set_threads(threads);
                    AttentionArgs args = problem.args(out, true);
                    args.kv = cache.memory();
                    attend(args);
                    if (threads == 1) whole = out;
                    CHECK(same_bits(out, whole));
                }
                problem.check(out, true);
            }
    ThreadPool::instance().set_threads(2);
}

LEVEL_TEST(attention_over_a_cache_whatever_pieces_came) {
    Random random(22);
    std::vector<float> out, whole;
    for (const Shape& shape : shapes)
        for (Kept kept : {Kept::f32, Kept::f16, Kept::i8}) {
            Problem problem(shape, random);
            Cache once(shape.batch, shape.kv_heads, shape.d, shape.m, kept);
            once.append(problem.store(once.memory()));
            Cache pieces(shape.batch, shape.kv_heads, shape.d, shape.m, kept);
            for (std::int64_t first = 0; first < shape.m;) {
                const std::int64_t count = std::min(shape.m - first, 1 + random.below(40));
                pieces.append(stretch(problem.store(pieces.memory()), first, count));
                first += count;
            }
            for (int threads : {1, 3}) {
                ThreadPool::instance().set_threads(threads);
                for (const Cache* cache : {&once, &pieces}) {
                    AttentionArgs args = problem.args(out, true);
                    args.kv = cache->memory();
                    args.lengths = cache->lengths.data();
                    attend(args);
                    if (threads == 1 && cache == &once) whole = out;
                    CHECK(same_bits(out, whole));
                }
            }
            if (kept != Kept::i8) problem.check(whole, true);  // tests/backends/cpu holds rounded ones against the reference
        }
    ThreadPool::instance().set_threads(2);
}

LEVEL_TEST(rows_of_a_cache_are_of_unequal_lengths) {
    Random random(23);
    const Shape shape{3, 1, 80, 4, 2, 32};
    const std::int64_t counts[] = {80, 0, 33};
    Problem problem(shape, random), padded = problem;
    for (std::int64_t row = 0; row < shape.batch; ++row)  // what counts of a row stands last
        for (std::vector<float>* values : {&padded.k, &padded.v}) {
            auto begin = values->begin() + row * shape.m * padded.k_step();
            std::rotate(begin, begin + counts[row] * padded.k_step(), begin + shape.m * padded.k_step());
        }
    Cache cache(shape.batch, shape.kv_heads, shape.d, shape.m, Kept::f32);
    cache.append(padded.store(cache.memory()), counts);
    problem.lengths = cache.lengths;
    std::vector<float> out;
    AttentionArgs args = problem.args(out, true);
    args.kv = cache.memory();
    attend(args);
    problem.check(out, true);
}

LEVEL_TEST(a_query_alone_is_as_among_others) {
    Random random(24);
    const Shape shape{1, 90, 90, 4, 2, 40};
    Problem problem(shape, random);
    std::vector<float> whole, out;
    Cache cache(1, shape.kv_heads, shape.d, shape.m, Kept::f32);
    const StoreArgs store = problem.store(cache.memory());
    for (std::int64_t query = 0; query < shape.n; ++query) {
        cache.append(stretch(store, query, 1));
        AttentionArgs args = problem.args(out, true);
        args.out = out.data() + query * shape.heads * shape.d;
        args.q += query * args.q_position;
        args.n = 1;
        args.kv = cache.memory();
        args.lengths = cache.lengths.data();
        attend(args);
        whole.insert(whole.end(), args.out, args.out + shape.heads * shape.d);
    }
    AttentionArgs args = problem.args(out, true);
    args.kv = cache.memory();
    args.lengths = cache.lengths.data();
    attend(args);
    CHECK(same_bits(out, whole));
}

LEVEL_TEST(decoders_on_several_threads) {
    constexpr int count = 4, steps = 70;
    Random random(25);
    ThreadPool::instance().set_threads(3);
    const Weights weights(random);
    Problem problem({1, 60, 300, 6, 6, 64}, random);
    std::vector<float> wanted;
    KeyValues sizes{};
    sizes.heads = 6, sizes.head_dim = 64;
    attend(problem.args(wanted, false), problem.store(sizes));
    std::vector<std::vector<float>> alone, together(count);
    for (int i = 0; i < count; ++i) alone.push_back(Decoder(weights, i, steps).run(steps));
    std::vector<std::thread> callers;
    bool same[count] = {};
    for (int i = 0; i < count; ++i)
        callers.emplace_back([&, i] {
            std::vector<float> out;
            attend(problem.args(out, false), problem.store(sizes));  // large enough for the pool
            together[i] = Decoder(weights, i, steps).run(steps);
            same[i] = same_bits(out, wanted);
        });
    for (std::thread& caller : callers) caller.join();
    for (int i = 0; i < count; ++i) {
        CHECK(same[i]);
        CHECK(same_bits(together[i], alone[i]));
        CHECK(std::isfinite(alone[i][0]) && (i == 0 || !same_bits(alone[i], alone[0])));
    }
    ThreadPool::instance().set_threads(2);
}
