// Byte-pair encoding (Sennrich et al. 2016, "Neural machine translation of rare words with subword units"): a word's
// characters are joined, always the pair that comes first in a list of merges, until no pair is in it.
#pragma once

#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/strings.h"

namespace tallow {

class BytePairs {
public:
    // tokens: by id. merges: two tokens with a space between; what they make is a token too. whole_words: a word that is a
    // token is not made by merges. Throws std::invalid_argument if a merge is of no tokens.
    BytePairs(const Strings& tokens, const Strings& merges, bool whole_words);

    // Appends the ids of a word. Characters that are no tokens are left out.
    void encode(std::string_view word, std::vector<std::int64_t>& ids) const;
    std::int64_t find(std::string_view token) const { return index_.find(token); }  // −1 if there is none

private:
    struct Merge {
        std::int64_t rank, made;
    };
    const Merge* merge_of(std::int64_t left, std::int64_t right) const;

    StringIndex index_;
    std::unordered_map<std::uint64_t, Merge> merges_;
    bool whole_words_;
};

}  // namespace tallow
