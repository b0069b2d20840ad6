#pragma once

#include "kernels/attention.h"

namespace tallow {

void store_key_values(const StoreArgs& args);     // does not change the lengths
void attend(const AttentionArgs& args);           // over keys and values stored before

// Keys and values in any strides, which are put into the kernels' form for this call alone. `store.to` says the sizes of
// their heads; its memory, capacity and padding are filled in here, as is `args.kv`.
void attend(AttentionArgs args, StoreArgs store);

}  // namespace tallow
