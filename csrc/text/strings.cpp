#include "text/strings.h"

#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>

namespace tallow {

namespace {

std::uint64_t length_at(const char* at) {
    std::uint64_t length;
    std::memcpy(&length, at, sizeof(length));
    return length;
}

}  // namespace

Strings::Strings(std::string_view bytes, std::uint64_t begin, std::uint64_t count) : data_(bytes.data()), end_(begin) {
    if (begin > bytes.size() || count > (bytes.size() - begin) / 8) throw std::out_of_range("cut off");
    begins_.reserve(count);
    for (; count > 0; --count) {
        if (bytes.size() - end_ < 8) throw std::out_of_range("cut off");
        const std::uint64_t length = length_at(data_ + end_);
        if (length > bytes.size() - end_ - 8) throw std::out_of_range("cut off");
        begins_.push_back(end_);
        end_ += 8 + length;
    }
}

std::string_view Strings::operator[](std::int64_t i) const {
    const char* at = data_ + begins_[static_cast<std::size_t>(i)];
    return {at + 8, static_cast<std::size_t>(length_at(at))};
}

StringIndex::StringIndex(const Strings& strings) : strings_(strings) {
    if (strings.size() >= std::numeric_limits<std::uint32_t>::max()) throw std::length_error("too many strings");
    slots_.resize(std::bit_ceil(static_cast<std::size_t>(strings.size()) * 2 + 1));
    for (std::int64_t i = 0; i < strings.size(); ++i) {
        const std::string_view text = strings[i];
        const std::uint64_t hash = std::hash<std::string_view>()(text);
        const auto tag = static_cast<std::uint32_t>(hash >> 32);
        slot_of(text, tag, hash) = {tag, static_cast<std::uint32_t>(i) + 1};
    }
}

// The slot that holds a string, or the empty one where it belongs.
StringIndex::Slot& StringIndex::slot_of(std::string_view text, std::uint32_t tag, std::size_t from) {
    for (std::size_t at = from;; ++at) {
        Slot& slot = slots_[at & (slots_.size() - 1)];
        if (!slot.place || (slot.tag == tag && strings_[slot.place - 1] == text)) return slot;
    }
}

std::int64_t StringIndex::find(std::string_view text) const {
    const std::uint64_t hash = std::hash<std::string_view>()(text);
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    return std::int64_t(const_cast<StringIndex*>(this)->slot_of(text, tag, hash).place) - 1;
}

}  // namespace tallow
