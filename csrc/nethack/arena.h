// The heap of one game: what libnethack allocates with malloc. It is emptied whole when an episode begins, so that what
// NetHack forgets to free (about 2 KB an episode) does not add up, and a game's objects lie together.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "memory_mapping.h"

namespace pbm::nethack {

class Arena {
 public:
  Arena();  // throws std::system_error when address space cannot be had

  // A block of at least `bytes` bytes, aligned to 16; null when the arena is full.
  void* allocate(std::size_t bytes) noexcept;
  void release(void* block) noexcept;
  static std::size_t room(void* block) noexcept { return size_of(block) - sizeof(std::size_t); }  // bytes it can hold

  bool contains(const void* block) const noexcept {
    return reinterpret_cast<std::uintptr_t>(block) - reinterpret_cast<std::uintptr_t>(base()) < kCapacity;
  }

  // Forgets every block. All memory reads as zero again: what an episode sees does not depend on the one before.
  void clear() noexcept;

 private:
  static constexpr std::size_t kCapacity = std::size_t{64} << 20;  // of address space; memory is taken as it is used
  static constexpr std::size_t kStep = 16, kSmallest = 32, kLargestExact = 2048;
  static constexpr std::size_t kBins = kLargestExact / kStep + 1 + 32;

  struct Free {
    Free* next;
  };
  static std::size_t block_size(std::size_t bytes) noexcept;
  static std::size_t bin(std::size_t size) noexcept;
  static std::size_t& size_of(void* block) noexcept { return static_cast<std::size_t*>(block)[-1]; }

  std::uint8_t* base() const noexcept { return mapping_.data(); }

  MemoryMapping mapping_;
  std::size_t used_ = 0;  // bytes given out once, in use or free
  std::array<Free*, kBins> free_{};
};

}  // namespace pbm::nethack
