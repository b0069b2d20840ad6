#pragma once

#include "kernels/rowwise.h"

namespace tallow {

void activate(const ActivationArgs& args);
void softmax(const SoftmaxArgs& args);
void argmax(const ArgmaxArgs& args);

}  // namespace tallow
