// The heap of one game: what libnethack allocates with malloc. It is emptied whole when an episode begins, so that what
// NetHack forgets to free (about 2 KB an episode) does not add up, and a game's objects lie together.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace pbm::nethack {

class Arena {
 public:
  Arena();  // throws std::system_error when address space cannot be had
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // These mean what they mean in C; null when the arena is full. Blocks are aligned to 16 bytes.
  void* allocate(std::size_t bytes) noexcept;
  void* reallocate(void* block, std::size_t bytes) noexcept;
  void release(void* block) noexcept;

  bool contains(const void* block) const noexcept {
    return static_cast<std::size_t>(static_cast<const std::uint8_t*>(block) - base_) < kCapacity;
  }
  std::size_t used() const noexcept { return used_; }

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

  std::uint8_t* base_;
  std::size_t used_ = 0;
  std::array<Free*, kBins> free_{};
};

}  // namespace pbm::nethack
