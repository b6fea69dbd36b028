// Writes what a group's games show and bring into rollout slots; docs/rollouts.md tells of every field.
#pragma once

#include <cstddef>
#include <cstdint>

#include "actor/played_game.h"
#include "actor/rollout_columns.h"
#include "shm/layout.h"

namespace pbm::actor {

// t: step of the slot, k: game of the group.
class RolloutWriter {
 public:
  explicit RolloutWriter(const shm::RolloutLayout& layout);

  // What the policy has chosen.
  std::int32_t action(std::uint8_t* slot, std::size_t t, std::size_t k) const noexcept {
    return *columns_.action.row(slot, cell(t, k));
  }
  const float* alpha(std::uint8_t* slot, std::size_t t, std::size_t k) const noexcept {  // [E]
    return columns_.alpha.row(slot, cell(t, k));
  }

  // An empty rollout of the games from `first_game` on.
  void begin(std::uint8_t* slot, std::uint64_t first_game) const noexcept;
  // Where a game stands before step t is made.
  void write_row(std::uint8_t* slot, std::size_t t, std::size_t k, PlayedGame& played) const;
  // What step t brought.
  void write_outcome(std::uint8_t* slot, std::size_t t, std::size_t k, const nethack::StepResult& result,
                     const PlayedGame& played) const noexcept;
  // The observation at which step t has truncated an episode.
  void write_final(std::uint8_t* slot, std::size_t t, std::size_t k, PlayedGame& played) const;
  // The record of an episode that step t has ended.
  void write_record(std::uint8_t* slot, std::size_t t, std::size_t k, const PlayedGame& played) const noexcept;

 private:
  std::size_t cell(std::size_t t, std::size_t k) const noexcept { return t * shape_.games + k; }
  void write_observation(std::uint8_t* slot, const ObservationColumns& columns, std::size_t index,
                         PlayedGame& played) const;

  shm::RolloutShape shape_;
  RolloutColumns columns_;
};

}  // namespace pbm::actor
