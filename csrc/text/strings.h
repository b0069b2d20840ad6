// Lists of strings as GGUF has them: each after its length, 8 bytes. Vocabularies have hundreds of thousands.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace tallow {

// A list in memory that others keep.
class Strings {
public:
    // Throws std::out_of_range if `count` strings from `begin` on do not lie within the bytes.
    Strings(std::string_view bytes, std::uint64_t begin, std::uint64_t count);

    std::int64_t size() const { return static_cast<std::int64_t>(begins_.size()); }
    std::uint64_t end() const { return end_; }  // the byte after the last
    std::string_view operator[](std::int64_t i) const;

private:
    const char* data_;
    std::uint64_t end_;
    std::vector<std::uint64_t> begins_;  // of their lengths
};

// Where each string of a list stands; of several that are equal, the last.
class StringIndex {
public:
    explicit StringIndex(const Strings& strings);
    std::int64_t find(std::string_view text) const;  // −1 if it is not there

private:
    struct Slot {
        std::uint32_t tag, place;  // some bits of the hash; number in the list + 1, or 0
    };
    Slot& slot_of(std::string_view text, std::uint32_t tag, std::size_t from);

    const Strings& strings_;
    std::vector<Slot> slots_;
};

}  // namespace tallow
