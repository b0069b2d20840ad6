#include <optional>
#include <stdexcept>

#include <nanobind/stl/optional.h>

#include "ops/attention.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

namespace {

using MaybeArray = std::optional<Array>;

void require(bool fits, const char* what) {
    if (!fits) throw std::invalid_argument(std::string("attention: ") + what + " do not fit");
}

// (batch, n, heads, features) floats with adjacent features.
void check_sequence(const Array& x, const char* what) {
    x.check(DType::f32, what);
    require(x.ndim == 4 && x.rows_contiguous(), what);
}

const std::int64_t* row_numbers(const MaybeArray& x, std::int64_t rows, const char* what) {
    if (!x) return nullptr;
    require(x->ndim == 1 && x->shape[0] == rows && x->contiguous(), what);
    return x->as<const std::int64_t>(DType::i64, what);
}

Kept kept_as(DType dtype) {
    require(dtype == DType::f32 || dtype == DType::f16 || dtype == DType::i8, "keys and values");
    return dtype == DType::f32 ? Kept::f32 : dtype == DType::f16 ? Kept::f16 : Kept::i8;
}

// The rows of a cache that are in use, by its arrays.
KeyValues cached(const Array& keys, const Array& values, const MaybeArray& scales, std::int64_t rows) {
    require(keys.ndim == 5 && values.ndim == 4 && keys.contiguous() && values.contiguous(), "keys and values");
    require(keys.shape[0] >= rows && values.shape[0] == keys.shape[0] && keys.shape[1] == values.shape[1] &&
                keys.shape[4] == key_panel && values.shape[2] == keys.shape[2] * key_panel &&
                values.shape[3] == (keys.shape[3] + 15) / 16 * 16 && keys.shape[3] <= widest_head &&
                keys.dtype == values.dtype,
            "keys and values");
    const Kept kept = kept_as(keys.dtype);
    require(scales.has_value() == (kept == Kept::i8), "scales");
    if (scales)
        require(scales->ndim == 4 && scales->contiguous() && scales->shape[0] == keys.shape[0] &&
                    scales->shape[1] == keys.shape[1] && scales->shape[2] == 2 && scales->shape[3] == values.shape[2],
                "scales");
    return {keys.data,     values.data,     scales ? scales->as<float>(DType::f32, "scales") : nullptr,
            keys.shape[1], keys.shape[3],   values.shape[3],
            values.shape[2], kept};
}

StoreArgs store_args(const KeyValues& to, const Array& k, const Array& v) {
    check_sequence(k, "keys");
    check_sequence(v, "values");
    for (int i = 0; i < 4; ++i) require(k.shape[i] == v.shape[i], "values");
    require(k.shape[2] == to.heads && k.shape[3] == to.head_dim, "keys");
    return {to,
            static_cast<const float*>(k.data),
            static_cast<const float*>(v.data),
            k.shape[0],
            k.shape[1],
            k.strides[0] / 4,
            k.strides[1] / 4,
            k.strides[2] / 4,
            v.strides[0] / 4,
            v.strides[1] / 4,
            v.strides[2] / 4,
            nullptr,
            nullptr};
}

AttentionArgs attention_args(const Array& out, const Array& q, const KeyValues& kv, std::int64_t keys,
                             const MaybeArray& lengths, const MaybeArray& mask, float scale, bool causal,
                             std::int64_t window) {
    check_sequence(q, "queries");
    require(out.ndim == 4 && out.contiguous(), "results");
    for (int i = 0; i < 4; ++i) require(out.shape[i] == q.shape[i], "results");
    require(kv.heads > 0 && q.shape[2] % kv.heads == 0 && q.shape[3] == kv.head_dim, "heads");
    AttentionArgs args{};
    args.out = out.as<float>(DType::f32, "results");
    args.q = static_cast<const float*>(q.data);
    args.kv = kv;
    args.batch = q.shape[0];
    args.n = q.shape[1];
    args.heads = q.shape[2];
    args.keys = keys;
    args.q_batch = q.strides[0] / 4;
    args.q_position = q.strides[1] / 4;
    args.q_head = q.strides[2] / 4;
    args.lengths = row_numbers(lengths, args.batch, "lengths");
    args.scale = scale;
    args.causal = causal;
    require(window >= 1 && window <= no_window && (causal || window == no_window), "window");
    args.window = window;
    if (mask) {  // (batch, heads, n, at least all keys), with strides of 0 where it is broadcast
        args.mask = mask->as<const float>(DType::f32, "mask");
        require(mask->ndim == 4 && mask->shape[0] == args.batch && mask->shape[1] == args.heads &&
                    mask->shape[2] == args.n && mask->shape[3] >= keys && mask->rows_contiguous(),
                "mask and keys");
        args.mask_batch = mask->strides[0] / 4;
        args.mask_head = mask->strides[1] / 4;
        args.mask_query = mask->strides[2] / 4;
    }
    return args;
}

void bind_plain(nb::module_& m) {
    m.def("attention", [](const Array& out, const Array& q, const Array& k, const Array& v, float scale, bool causal,
                          std::int64_t window, const MaybeArray& mask, const MaybeArray& lengths) {
        require(k.ndim == 4 && k.shape[0] == (q.ndim == 4 ? q.shape[0] : -1) && k.shape[3] <= widest_head, "keys");
        KeyValues kv{};
        kv.heads = k.shape[2];
        kv.head_dim = k.shape[3];
        const StoreArgs store = store_args(kv, k, v);
        const AttentionArgs args = attention_args(out, q, kv, k.shape[1], lengths, mask, scale, causal, window);
        perform([args, store] { attend(args, store); });
    }, nb::arg("out"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("scale"), nb::arg("causal"),
       nb::arg("window"), nb::arg("mask").none(), nb::arg("lengths").none());
}

void bind_cached(nb::module_& m) {
    m.def("cached_attention", [](const Array& out, const Array& q, const Array& keys, const Array& values,
                                 const MaybeArray& scales, const Array& lengths, std::int64_t longest, float scale, bool causal,
                                 std::int64_t window, const MaybeArray& mask) {
        const KeyValues kv = cached(keys, values, scales, q.ndim == 4 ? q.shape[0] : 0);
        require(longest <= kv.capacity, "lengths");
        const AttentionArgs args = attention_args(out, q, kv, longest, lengths, mask, scale, causal, window);
        perform([args] { attend(args); });
    }, nb::arg("out"), nb::arg("q"), nb::arg("keys"), nb::arg("values"), nb::arg("scales").none(), nb::arg("lengths"),
       nb::arg("longest"), nb::arg("scale"), nb::arg("causal"), nb::arg("window"),
       nb::arg("mask").none());

    // Adds to `lengths` what was appended.
    m.def("kv_append", [](const Array& keys, const Array& values, const MaybeArray& scales, const Array& lengths,
                          const Array& k, const Array& v, const MaybeArray& counts) {
        StoreArgs args = store_args(cached(keys, values, scales, k.ndim == 4 ? k.shape[0] : 0), k, v);
        std::int64_t* held = const_cast<std::int64_t*>(row_numbers(lengths, args.batch, "lengths"));
        args.lengths = held;
        args.counts = row_numbers(counts, args.batch, "counts");
        perform([args, held] {
            auto count = [&](std::int64_t row) { return args.counts ? args.counts[row] : args.n; };
            for (std::int64_t row = 0; row < args.batch; ++row)
                require(held[row] >= 0 && count(row) >= 0 && count(row) <= args.n &&
                            held[row] <= args.to.capacity - count(row),
                        "lengths");
            store_key_values(args);
            for (std::int64_t row = 0; row < args.batch; ++row) held[row] += count(row);
        });
    }, nb::arg("keys"), nb::arg("values"), nb::arg("scales").none(), nb::arg("lengths"), nb::arg("k"), nb::arg("v"),
       nb::arg("counts").none());
}

}  // namespace

void bind_attention(nb::module_& m) {
    bind_plain(m);
    bind_cached(m);
}

}  // namespace tallow
