// Whose turn it is with a group of games: the actor's (step them) or the policy's (choose their actions). One word that
// is the whole truth, as with slots.
#pragma once

#include <atomic>
#include <cstdint>

#include "sizes.h"

namespace pbm::shm {

enum class Whose : std::uint8_t {
  kActor = 0,   // to open a slot, or to step with the actions that lie in it
  kPolicy = 1,  // the observation in row `step` of slot `slot` waits for actions
};

struct Turn {
  Whose whose = Whose::kActor;
  std::uint32_t answers = 0;     // how often the policy has answered this group; its parity tells which copy of the
                                 // recurrent state is the current one
  std::uint16_t generation = 0;  // grows when the group gets a new actor: an answer to the old one fails

  constexpr std::uint64_t pack() const noexcept {
    return static_cast<std::uint64_t>(generation) << 48 | static_cast<std::uint64_t>(answers) << 8 |
           static_cast<std::uint64_t>(whose);
  }
  static constexpr Turn unpack(std::uint64_t word) noexcept {
    return {static_cast<Whose>(word & 0xff), static_cast<std::uint32_t>(word >> 8),
            static_cast<std::uint16_t>(word >> 48)};
  }
};

struct alignas(kCacheLine) GroupBlock {
  std::atomic<std::uint64_t> turn{0};
  std::atomic<std::uint32_t> slot{0};  // of the request; written before the turn goes to the policy
  std::atomic<std::uint32_t> step{0};
};

inline Turn load(const GroupBlock& group) noexcept { return Turn::unpack(group.turn.load(std::memory_order_acquire)); }

// The actor asks for actions at row `step` of `slot`. False when the group is no longer this actor's.
inline bool request(GroupBlock& group, std::uint16_t generation, std::uint32_t slot, std::uint32_t step) noexcept {
  std::uint64_t word = group.turn.load(std::memory_order_acquire);
  Turn turn = Turn::unpack(word);
  if (turn.whose != Whose::kActor || turn.generation != generation) return false;
  group.slot.store(slot, std::memory_order_relaxed);
  group.step.store(step, std::memory_order_relaxed);
  turn.whose = Whose::kPolicy;
  return group.turn.compare_exchange_strong(word, turn.pack(), std::memory_order_acq_rel);
}

// The policy gives the turn back, its actions written. False when the request it answers is no longer there.
inline bool answer(GroupBlock& group, std::uint64_t requested) noexcept {
  Turn turn = Turn::unpack(requested);
  turn.whose = Whose::kActor;
  ++turn.answers;
  return group.turn.compare_exchange_strong(requested, turn.pack(), std::memory_order_acq_rel);
}

// A new actor will play this group: whatever was asked or answered before is void.
inline std::uint16_t renew(GroupBlock& group) noexcept {
  std::uint64_t word = group.turn.load(std::memory_order_acquire);
  Turn turn;
  do {
    turn = Turn::unpack(word);
    turn.whose = Whose::kActor;
    ++turn.generation;
  } while (!group.turn.compare_exchange_weak(word, turn.pack(), std::memory_order_acq_rel));
  return turn.generation;
}

}  // namespace pbm::shm
