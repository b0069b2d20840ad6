#pragma once

#include "kernels/norm.h"

namespace tallow {

void layer_norm(const NormArgs& args);
void rms_norm(const NormArgs& args);

}  // namespace tallow
