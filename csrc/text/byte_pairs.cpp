#include "text/byte_pairs.h"

#include <queue>
#include <stdexcept>
#include <string>
#include <tuple>

namespace tallow {

namespace {

std::uint64_t key(std::int64_t left, std::int64_t right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
}

// Bytes of the UTF-8 character that begins with this one.
std::size_t character_bytes(char first) {
    const auto byte = static_cast<unsigned char>(first);
    return byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

struct Symbol {
    std::int64_t id;
    int before, after;  // its neighbours, −1 at the ends
};

// A pair that may be joined: `rank` in the list of merges, the place of its left half, and what its halves were.
using Pair = std::tuple<std::int64_t, int, std::int64_t, std::int64_t>;

}  // namespace

BytePairs::BytePairs(const Strings& tokens, const Strings& merges, bool whole_words)
    : index_(tokens), whole_words_(whole_words) {
    merges_.reserve(static_cast<std::size_t>(merges.size()));
    std::string joined;
    for (std::int64_t rank = 0; rank < merges.size(); ++rank) {
        const std::string_view merge = merges[rank];
        const std::size_t space = merge.find(' ');
        if (space == merge.npos) throw std::invalid_argument("a merge is not two tokens");
        joined.assign(merge.substr(0, space)).append(merge.substr(space + 1));
        const std::int64_t left = find(merge.substr(0, space)), right = find(merge.substr(space + 1)), made = find(joined);
        if (left < 0 || right < 0 || made < 0)
            throw std::invalid_argument("merge " + std::to_string(rank) + " is not of tokens that there are");
        merges_[key(left, right)] = {rank, made};
    }
}

const BytePairs::Merge* BytePairs::merge_of(std::int64_t left, std::int64_t right) const {
    const auto found = merges_.find(key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
}

void BytePairs::encode(std::string_view word, std::vector<std::int64_t>& ids) const {
    if (const std::int64_t id = whole_words_ ? find(word) : -1; id >= 0) return ids.push_back(id);
    std::vector<Symbol> symbols;
    for (std::size_t at = 0; at < word.size();) {
        const std::string_view character = word.substr(at, character_bytes(word[at]));
        at += character.size();
        const int place = static_cast<int>(symbols.size());
        if (const std::int64_t id = find(character); id >= 0) symbols.push_back({id, place - 1, place + 1});
    }
    if (symbols.empty()) return;
    symbols.back().after = -1;
    std::priority_queue<Pair, std::vector<Pair>, std::greater<>> pairs;  // the lowest rank first, then the leftmost
    const auto offer = [&](int left) {
        if (left < 0 || symbols[left].after < 0) return;
        const std::int64_t a = symbols[left].id, b = symbols[symbols[left].after].id;
        if (const Merge* merge = merge_of(a, b)) pairs.emplace(merge->rank, left, a, b);
    };
    for (int i = 0; i < static_cast<int>(symbols.size()); ++i) offer(i);
    while (!pairs.empty()) {
        const auto [rank, place, a, b] = pairs.top();
        pairs.pop();
        Symbol& left = symbols[place];
        if (left.id != a || left.after < 0 || symbols[left.after].id != b) continue;  // one half was joined to another
        Symbol& right = symbols[left.after];
        left.id = merge_of(a, b)->made;
        left.after = right.after;
        right.id = -1;
        if (left.after >= 0) symbols[left.after].before = place;
        offer(left.before);
        offer(place);
    }
    for (int i = 0; i >= 0; i = symbols[i].after) ids.push_back(symbols[i].id);
}

}  // namespace tallow
