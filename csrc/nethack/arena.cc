#include "nethack/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

namespace pbm::nethack {
namespace {

constexpr std::size_t kKeep = std::size_t{1} << 20;  // bytes that an empty arena keeps; beyond, they go back

}  // namespace

Arena::Arena()
    : mapping_(kCapacity, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, "no address space for a game's heap") {}

// A block is its size in eight bytes, then what the caller gets, so that sizes are multiples of 16 and the caller's
// part is aligned. Freed blocks wait by size; above kLargestExact sizes are powers of two, so that they are met again.
std::size_t Arena::block_size(std::size_t bytes) noexcept {
  const std::size_t size = std::max(kSmallest, (bytes + sizeof(std::size_t) + kStep - 1) / kStep * kStep);
  return size <= kLargestExact ? size : std::bit_ceil(size);
}

std::size_t Arena::bin(std::size_t size) noexcept {
  if (size <= kLargestExact) return size / kStep;
  return kLargestExact / kStep + static_cast<std::size_t>(std::bit_width(size / kLargestExact) - 1);
}

void* Arena::allocate(std::size_t bytes) noexcept {
  if (bytes > kCapacity) return nullptr;
  const std::size_t size = block_size(bytes);
  Free*& first = free_[bin(size)];
  if (first != nullptr) {
    void* const block = first;
    first = first->next;
    return block;
  }
  if (size > kCapacity - kStep - used_) return nullptr;
  void* const block = base() + used_ + kStep;  // its size lies in the eight bytes before it
  used_ += size;
  size_of(block) = size;
  return block;
}

void Arena::release(void* block) noexcept {
  Free*& first = free_[bin(size_of(block))];
  first = std::construct_at(static_cast<Free*>(block), first);
}

void Arena::clear() noexcept {
  const std::size_t touched = std::min(kCapacity, used_ + kStep);
  const std::size_t kept = std::min(touched, kKeep);
  std::memset(base(), 0, kept);
  if (touched > kept && madvise(base() + kept, touched - kept, MADV_DONTNEED) != 0) {
    std::memset(base() + kept, 0, touched - kept);  // memory that is locked cannot be given back
  }
  used_ = 0;
  free_.fill(nullptr);
}

}  // namespace pbm::nethack
