// GGUF's blocks: which kinds there are, how they lie in a file, and how in a panel.
//
// Each weight is scale · (code - zero) + minimum. A group of inputs shares scale and minimum; in the K types, of several
// groups to a block, these are d · s and -m · t, with d and m the block's (half precision), s and t the group's (bytes).
// Source: github.com/ggml-org/ggml, ggml-common.h (layouts) and ggml-quants.c (meaning).
//
// A panel holds the blocks of its features side by side, each number in the precision of the file:
//
//     d                [feature] half precision
//     m                [feature] half precision, where there are minima (in the K types -m)
//     for each group
//         low bits     [word][feature] 4 bytes: codes of inputs 4 · word to 4 · word + 3 in the low halves of the bytes,
//                      and of those half a group further on in the high halves; or whole codes of 8 bits
//         high bits    [feature] 4 bytes, of codes of 5 or 6 bits: byte i holds those of inputs i, i + 4, i + 8, …
//         s, t         [feature] a byte each, in the K types
#pragma once

#include "kernels/int8/arithmetic.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

struct BlockFormat {
    Storage storage;
    int bits;           // of a code
    int group, groups;  // inputs in a group, groups in a block
    int zero;           // the code that stands for 0
    bool minima;
    // In a file: a block's bytes, where d, m, the groups' scales, and the low and high bits of codes begin; and how many
    // codes have their low bits in the same halves of the bytes.
    int bytes, d, m, scales, low, high, run;
};

constexpr BlockFormat block_formats[] = {
    {Storage::q8_0, 8, 32, 1, weight_offset, false, 34, 0, 0, 0, 2, 0, 0},
    {Storage::q4_0, 4, 32, 1, 8, false, 18, 0, 0, 0, 2, 0, 16},
    {Storage::q4_1, 4, 32, 1, 0, true, 20, 0, 2, 0, 4, 0, 16},
    {Storage::q5_0, 5, 32, 1, 16, false, 22, 0, 0, 0, 6, 2, 16},
    {Storage::q5_1, 5, 32, 1, 0, true, 24, 0, 2, 0, 8, 4, 16},
    {Storage::q4_k, 4, 32, 8, 0, true, 144, 0, 2, 4, 16, 0, 32},
    {Storage::q5_k, 5, 32, 8, 0, true, 176, 0, 2, 4, 48, 16, 32},
    {Storage::q6_k, 6, 16, 16, 32, false, 210, 208, 0, 192, 0, 128, 64},
};
constexpr int block_format_count = sizeof(block_formats) / sizeof(BlockFormat);

constexpr int word_bytes = panel_width * 4;  // of four inputs' codes, a byte each
constexpr int words(BlockFormat f) { return f.group / 4; }
constexpr int low_words(BlockFormat f) { return f.bits == 8 ? words(f) : words(f) / 2; }
constexpr int code_bytes(BlockFormat f) { return panel_width * f.group * f.bits / 8; }
constexpr int header_bytes(BlockFormat f) { return panel_width * (f.minima ? 4 : 2); }
constexpr int group_bytes(BlockFormat f) { return code_bytes(f) + (f.groups > 1 ? panel_width * (f.minima ? 2 : 1) : 0); }
constexpr int block_bytes(BlockFormat f) { return header_bytes(f) + f.groups * group_bytes(f); }

void add_block_packing(Kernels& table);

}  // namespace tallow::TALLOW_LEVEL
