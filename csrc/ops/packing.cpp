#include "ops/packing.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/kernels.h"
#include "core/platform.h"
#include "core/slabs.h"
#include "core/thread_pool.h"

namespace tallow {

namespace {

constexpr std::size_t line = 64;

std::size_t round_up(std::size_t value, std::size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

Matrix::Matrix(Storage storage, std::int64_t n, std::int64_t k, std::int64_t group) : packed_{} {
    const MatrixKernels& kernels = tallow::kernels().matrix[static_cast<int>(storage)];
    packed_.kernels = &kernels;
    packed_.storage = storage;
    packed_.n = n;
    packed_.k = k;
    packed_.group = group;
    const std::size_t panels = (n + kernels.panel - 1) / kernels.panel;
    const std::size_t panel_bytes = round_up(round_up(k, kernels.padding) / kernels.padding * kernels.unit_bytes, line);
    packed_.panel_bytes = static_cast<std::int64_t>(panel_bytes);
    const bool apart = storage == Storage::i8 || storage == Storage::i8_groups;
    const std::size_t scales = apart ? panels * kernels.panel * groups() * sizeof(float) : 0;
    bytes_ = panels * panel_bytes + scales;
    memory_ = take_lasting(bytes_);
    packed_.panels = static_cast<unsigned char*>(memory_.get());
    packed_.scales = scales ? reinterpret_cast<float*>(packed_.panels + panels * panel_bytes) : nullptr;
}

Matrix::~Matrix() { wait(); }

std::int64_t Matrix::groups() const { return packed_.k ? packed_.k / packed_.group : 1; }

bool Matrix::scales_finite() const {
    if (!packed_.scales) return true;
    const std::int64_t panel = packed_.kernels->panel, count = (packed_.n + panel - 1) / panel * panel * groups();
    return std::all_of(packed_.scales, packed_.scales + count, [](float scale) { return std::isfinite(scale); });
}

void Matrix::pack(PackArgs args) {
    args.matrix = &packed_;
    const std::int64_t panel = packed_.kernels->panel;
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (panel * packed_.k + 1));
    parallel_for((packed_.n + panel - 1) / panel, grain,
                 [&](std::int64_t begin, std::int64_t end) { packed_.kernels->pack(args, begin, end); });
}

void Matrix::pack_later(std::vector<BlockRows> parts, std::shared_ptr<void> source) {
    source_ = std::move(source);
    packing_ = do_later([this, parts = std::move(parts)] {
        std::vector<const unsigned char*> rows;
        rows.reserve(static_cast<std::size_t>(packed_.n));
        for (const BlockRows& part : parts)
            for (std::int64_t i = 0; i < part.rows; ++i) rows.push_back(part.data + i * part.stride);
        PackArgs args{};
        args.from = packed_.storage;
        args.rows = rows.data();
        pack(args);
        for (const BlockRows& part : parts)
            if (part.mapped && part.rows) drop_pages(part.data, static_cast<std::size_t>(part.rows * part.stride));
    });
}

void Matrix::wait() const {
    if (packing_) packing_->wait();
}

void Matrix::settle() {
    wait();
    packing_.reset();
    source_.reset();
}

void Matrix::rows(const std::int64_t* ids, std::int64_t count, float* out) const {
    parallel_for(count, 16384 / (packed_.k + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
            packed_.kernels->unpack(packed_, ids ? ids[i] : i, out + i * packed_.k);
    });
}

}  // namespace tallow
