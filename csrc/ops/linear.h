#pragma once

#include "kernels/matrix.h"

namespace tallow {

void linear(const LinearArgs& args);

}  // namespace tallow
