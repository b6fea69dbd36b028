// Sizes of memory, in bytes.
#pragma once

#include <cstddef>
#include <stdexcept>

namespace pbm {

inline constexpr std::size_t kCacheLine = 64;
inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

constexpr std::size_t round_up(std::size_t bytes, std::size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

// a * b. Throws std::length_error beyond what a process can address, so that sums of a few products cannot overflow.
constexpr std::size_t product(std::size_t a, std::size_t b) {
  constexpr std::size_t kAddressable = std::size_t{1} << 47;
  std::size_t result = 0;
  if (__builtin_mul_overflow(a, b, &result) || result > kAddressable) {
    throw std::length_error("more memory than a process can address");
  }
  return result;
}

}  // namespace pbm
