// Activation functions on vectors, for the kernels of one level.
#pragma once

#include "kernels/matrix.h"
#include "kernels/simd.h"

namespace tallow::TALLOW_LEVEL {

// x Φ(x), as max(x, 0) - |x| Φ(-|x|). Φ(-z) is a polynomial of degree 15 in (z / 2.7 - 1) on [0, 5.4] (a least-squares
// fit reweighted until its error is level, 4e-8; with rounding 1.4e-7), and 0 beyond, where the product is below 2e-7.
TALLOW_INLINE F32 gelu(F32 x) {
    const F32 end = set(5.4f);
    const F32 z = abs(x), inside = min(z, end);
    const F32 u = fma(inside, set(0.370370358f), set(-1.0f));
    F32 q = fma(set(-0.00549130887f), u, set(0.00649914052f));
    q = fma(q, u, set(0.0263372622f));
    q = fma(q, u, set(-0.0440972857f));
    q = fma(q, u, set(-0.036269296f));
    q = fma(q, u, set(0.122431554f));
    q = fma(q, u, set(-0.0481788218f));
    q = fma(q, u, set(-0.136519164f));
    q = fma(q, u, set(0.211709112f));
    q = fma(q, u, set(-0.0715815201f));
    q = fma(q, u, set(-0.154969156f));
    q = fma(q, u, set(0.267241061f));
    q = fma(q, u, set(-0.215000659f));
    q = fma(q, u, set(0.102559298f));
    q = fma(q, u, set(-0.0281371083f));
    q = fma(q, u, set(0.0034669626f));
    q = if_less(z, end, q, set(0.0f));
    return fma(set(0.0f) - inside, q, max(set(0.0f), x));  // max gives x where x is NaN
}

TALLOW_INLINE F32 silu(F32 x) { return x / (set(1.0f) + exp(set(0.0f) - x)); }

// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, with (1 + tanh a) / 2 = 1 / (1 + exp(-2a)).
TALLOW_INLINE F32 gelu_tanh(F32 x) {
    const F32 inner = fma(x * x * x, set(0.044715f), x) * set(-1.59576912f);
    return x / (set(1.0f) + exp(inner));
}

TALLOW_INLINE F32 relu(F32 x) { return max(set(0.0f), x); }

template <Activation activation>
TALLOW_INLINE F32 activate(F32 x) {
    if constexpr (activation == Activation::gelu) return gelu(x);
    if constexpr (activation == Activation::gelu_tanh) return gelu_tanh(x);
    if constexpr (activation == Activation::silu) return silu(x);
    if constexpr (activation == Activation::relu) return relu(x);
    return x;
}

}  // namespace tallow::TALLOW_LEVEL
