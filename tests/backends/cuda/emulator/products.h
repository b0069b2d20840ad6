// Products on the tensor cores: of a warp (mma), and of a warpgroup in the background (wgmma).
#pragma once
#include "numbers.h"

namespace emulator {

// What a lane gives to a product of its warp: its words' halves as floats.
template <bool BF16> void give_operands(const unsigned* words, int count) {
    float* const mine = block->operands[turn_of_warp()][warp()][lane()];
    for (int i = 0; i < 2 * count; ++i) {
        const unsigned bits = i % 2 ? words[i / 2] >> 16 : words[i / 2] & 0xffff;
        mine[i] = BF16 ? from_bf16(bits) : from_f16(bits);
    }
}

// Element (row, k) of the left operand (16, 16), which lies among the lanes as PTX says.
inline float left_operand(const float (&lanes)[WARP][12], int row, int k) {
    return lanes[row % 8 * 4 + k % 8 / 2][2 * ((row >= 8) + 2 * (k >= 8)) + k % 2];
}

// mma.m16n8k16
template <bool BF16>
void multiply_matrices(float& s0, float& s1, float& s2, float& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                       unsigned b0, unsigned b1) {
    const auto& lanes = block->operands[turn_of_warp()][warp()];
    const unsigned mine[6] = {a0, a1, a2, a3, b0, b1};
    give_operands<BF16>(mine, 6);
    meet_warp();
    float* const sums[4] = {&s0, &s1, &s2, &s3};
    for (int c = 0; c < 4; ++c) {
        const int row = lane() / 4 + c / 2 * 8, column = lane() % 4 * 2 + c % 2;
        for (int k = 0; k < 16; ++k)
            *sums[c] += left_operand(lanes, row, k) * lanes[column * 4 + k % 8 / 2][2 * (4 + (k >= 8)) + k % 2];
    }
}

// Bits of a matrix that lies in shared memory where a descriptor says, in the layout of the 128-byte swizzle.
inline unsigned half_in(unsigned long long descriptor, int major, int minor) {
    const auto field = [&](int shift) { return static_cast<unsigned>(descriptor >> shift & 0x3fff) << 4; };
    const unsigned start = field(0), panels = field(16), eights = field(32);
    if (descriptor >> 62 != 1) complain("a descriptor of another layout");
    unsigned at = start + major / 8 * eights + major % 8 * 128 + minor / 64 * panels + minor % 64 * 2;
    at ^= at >> 3 & 0x70;
    if (at + 2 > block->size) complain("a product leaves shared memory");
    return *reinterpret_cast<const unsigned short*>(block->shared + at);
}

// wgmma.m64nNk16: the left operand in registers, each warp's 16 rows its own, or in shared memory; the right one there.
// Nothing is read or written before it is waited for.
template <bool BF16> void multiply_late(const Product& p) {
    const auto& lanes = block->operands[turn_of_warp()][warp()];
    unsigned left[4];
    for (int i = 0; i < 4; ++i) {
        const int row = warp() % 4 * 16 + lane() / 4 + i % 2 * 8, k = lane() % 4 * 2 + i / 2 * 8;
        left[i] = p.left_at ? half_in(p.left_at, row, k + 1) << 16 | half_in(p.left_at, row, k) : p.left[i];
    }
    give_operands<BF16>(left, 4);
    meet_warp();
    const auto right_operand = [&](int k, int column) {
        const unsigned half = p.transposed ? half_in(p.right, k, column) : half_in(p.right, column, k);
        return BF16 ? from_bf16(half) : from_f16(half);
    };
    for (int i = 0; i < p.count; ++i) {
        const int row = lane() / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane() % 4 * 2 + i % 2;
        float sum = p.keep ? p.sums[i] : 0.0f;
        for (int k = 0; k < 16; ++k) sum += left_operand(lanes, row, k) * right_operand(k, column);
        p.sums[i] = sum;
    }
}
template <bool BF16, int N>
void multiply_later(float (&sums)[N], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned long long right,
                    int keep, int transposed) {
    block->fibers[block->current]->products.back().push_back(
        {sums, N, {a0, a1, a2, a3}, 0, right, keep != 0, transposed != 0, &multiply_late<BF16>});
}
template <bool BF16, int N>
void multiply_later(float (&sums)[N], unsigned long long left, unsigned long long right, int keep) {
    block->fibers[block->current]->products.back().push_back(
        {sums, N, {}, left, right, keep != 0, false, &multiply_late<BF16>});
}
inline void close_products() { block->fibers[block->current]->products.emplace_back(); }
inline void wait_for_products(int left) {  // for all but as many of the closed groups
    auto& groups = block->fibers[block->current]->products;
    while (static_cast<int>(groups.size()) - 1 > left) {
        for (const Product& product : groups.front()) product.run(product);
        groups.erase(groups.begin());
    }
}

}  // namespace emulator
