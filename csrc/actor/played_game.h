// One game of a group, with what its group keeps beside it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "nethack/conditions.h"
#include "nethack/game.h"
#include "nethack/reward_terms.h"

namespace pbm::actor {

struct PlayedGame {
  using RewardTermsRow = std::array<double, nethack::kRewardTerms.size()>;

  std::unique_ptr<RewardTermsRow> reward_terms;  // of the last step, where they are stored; outlives the game
  std::unique_ptr<nethack::Game> game;
  std::uint64_t number = 0;  // in the whole run
  std::uint64_t next_episode = 0;

  // Of the running episode:
  double alpha_entropy_sum = 0.0;     // nats, over its steps
  std::int64_t frozen_steps = 0;      // of the task when it began
  std::vector<std::uint8_t> actions;  // the first ones, as many as are kept
  std::int32_t previous_action = 0;
  bool first = true;
  nethack::StairsMemory stairs;
};

// A game's own buffers, as conditions read them.
inline nethack::ObservationView view_of(const nethack::ObservationBuffers& seen) noexcept {
  static_assert(sizeof(long) == sizeof(std::int64_t));
  return {.glyphs = seen.glyphs.data(),
          .blstats = reinterpret_cast<const std::int64_t*>(seen.blstats.data()),
          .message = seen.message.data(),
          .inv_glyphs = seen.inv_glyphs.data(),
          .inv_oclasses = seen.inv_oclasses.data(),
          .inv_letters = seen.inv_letters.data(),
          .misc = seen.misc.data()};
}

}  // namespace pbm::actor
