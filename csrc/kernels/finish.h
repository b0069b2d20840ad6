// What follows the sums of a product: bias, activation, scale, residual, and out they go.
#pragma once

#include "kernels/activation.h"
#include "kernels/matrix.h"
#include "kernels/product.h"
#include "kernels/simd.h"

namespace tallow::TALLOW_LEVEL {

struct FloatSums {
    const float* sums;
    TALLOW_INLINE F32 at(FloatSums s, int64_t, int64_t index, int64_t) { return load(s.sums + index); }
};

// Finishes `rows` rows of one panel. Sums::at gives the sums of one vector of features: the row in the block, the index
// in the block's sums, `panel_width` a row, and the feature counted through all panels.
template <Activation activation, typename Sums>
void finish_as(const LinearArgs& args, Sums sums, int64_t row, int64_t rows, int64_t panel) {
    const int64_t first = panel * panel_width, features = smaller(panel_width, args.weight->n - first);
    for (int64_t i = 0; i < rows; ++i) {
        float* out = args.out + (row + i) * args.out_stride + first;
        const float* residual = args.residual ? args.residual + (row + i) * args.residual_stride + first : nullptr;
        for (int64_t f = 0; f < features; f += width) {
            const int64_t n = features - f;
            F32 y = Sums::at(sums, i, i * panel_width + f, first + f);
            if (args.bias) y = y + load_partial(args.bias + first + f, n);
            y = activate<activation>(y);
            if (args.scale) y = y * load_partial(args.scale + first + f, n);
            if (residual) y = y + load_partial(residual + f, n);
            store_partial(out + f, y, n);
        }
    }
}

template <typename Sums>
TALLOW_INLINE void finish_panel(const LinearArgs& args, Sums sums, int64_t row, int64_t rows, int64_t panel) {
    switch (args.activation) {
        case Activation::none: return finish_as<Activation::none>(args, sums, row, rows, panel);
        case Activation::gelu: return finish_as<Activation::gelu>(args, sums, row, rows, panel);
        case Activation::gelu_tanh: return finish_as<Activation::gelu_tanh>(args, sums, row, rows, panel);
        case Activation::silu: return finish_as<Activation::silu>(args, sums, row, rows, panel);
        case Activation::relu: return finish_as<Activation::relu>(args, sums, row, rows, panel);
    }
}

}  // namespace tallow::TALLOW_LEVEL
