// Which level's kernels run: chosen at the first use.
#pragma once

#include "core/platform.h"
#include "kernels/table.h"

namespace tallow {

Level active_level();       // TALLOW_CPU names one, else the best that the processor has; throws std::runtime_error
void set_level(Level level);  // for tests; throws std::runtime_error if the processor lacks it
const Kernels& kernels();   // the active level's
const Kernels& kernels_for(Level level);  // empty where the processor lacks the level

}  // namespace tallow
