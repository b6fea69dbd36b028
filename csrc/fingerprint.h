// Fingerprints of data: FNV-1a, 64 bit. They tell accidents, not forgeries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pbm {

class Fingerprint {
 public:
  // Takes the bytes of `count` values in.
  template <typename T>
  void add(const T* values, std::size_t count) noexcept {
    static_assert(std::has_unique_object_representations_v<T> || std::is_floating_point_v<T>, "no padding bytes");
    const auto* bytes = reinterpret_cast<const unsigned char*>(values);
    for (std::size_t i = 0; i < count * sizeof(T); ++i) hash_ = (hash_ ^ bytes[i]) * 0x100000001b3ULL;
  }

  std::uint64_t value() const noexcept { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

}  // namespace pbm
