// Who owns a rollout slot: one atomic word that is the whole truth, so that a process may die between any two
// instructions. Owner, generation and sequence change together, by compare-and-swap.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "sizes.h"

namespace pbm::shm {

enum class Owner : std::uint16_t {
  kFree = 0,
  kDelivered = 1,  // full, waiting for the learner
  kLearner = 2,
  kFirstGroup = 16,  // owner kFirstGroup + g: group g fills it
};

constexpr std::size_t kMostGroups = 0x10000 - static_cast<std::size_t>(Owner::kFirstGroup);

// The owner that group `group` of a region is, below kMostGroups.
constexpr Owner group_owner(std::size_t group) noexcept {
  return static_cast<Owner>(static_cast<std::size_t>(Owner::kFirstGroup) + group);
}

struct SlotState {
  Owner owner = Owner::kFree;
  std::uint16_t generation = 0;  // grows when a slot is taken back: a stale owner's next swap fails
  std::uint32_t sequence = 0;    // grows with every delivery

  constexpr std::uint64_t pack() const noexcept {
    return static_cast<std::uint64_t>(owner) << 48 | static_cast<std::uint64_t>(generation) << 32 | sequence;
  }
  static constexpr SlotState unpack(std::uint64_t word) noexcept {
    return {static_cast<Owner>(word >> 48), static_cast<std::uint16_t>(word >> 32), static_cast<std::uint32_t>(word)};
  }
};

struct alignas(kCacheLine) SlotHeader {
  std::atomic<std::uint64_t> state{0};
  std::atomic<std::uint64_t> delivery{0};  // its place in the order of deliveries; written before it is delivered
};
static_assert(sizeof(SlotHeader) == kCacheLine && std::atomic<std::uint64_t>::is_always_lock_free);

inline SlotState load(const SlotHeader& slot) noexcept {
  return SlotState::unpack(slot.state.load(std::memory_order_acquire));
}

// Hands the slot from one owner to another. False, and nothing changed, when it is not (or no longer) `from`'s.
inline bool hand_over(SlotHeader& slot, Owner from, Owner to) noexcept {
  std::uint64_t word = slot.state.load(std::memory_order_acquire);
  SlotState state = SlotState::unpack(word);
  if (state.owner != from) return false;
  state.owner = to;
  if (to == Owner::kDelivered) ++state.sequence;
  return slot.state.compare_exchange_strong(word, state.pack(), std::memory_order_acq_rel);
}

// Frees a slot whose owner has died; what it held is lost.
inline bool take_back(SlotHeader& slot, Owner dead) noexcept {
  std::uint64_t word = slot.state.load(std::memory_order_acquire);
  SlotState state = SlotState::unpack(word);
  if (state.owner != dead) return false;
  state.owner = Owner::kFree;
  ++state.generation;
  return slot.state.compare_exchange_strong(word, state.pack(), std::memory_order_acq_rel);
}

}  // namespace pbm::shm
