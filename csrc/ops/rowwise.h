#pragma once

#include "kernels/rowwise.h"

namespace tallow {

void activate(const ActivationArgs& args);
void softmax(const SoftmaxArgs& args);
void argmax(const ArgmaxArgs& args);

// log softmax(x) of each row at a given place, and at the `top` places where it is largest: of equals, the lowest. Where it
// is NaN everywhere, these are the first places. Outside the row it is NaN.
void top_logprobs(const LogprobArgs& args);

}  // namespace tallow
