// What a step brought, in terms that a learner may weigh as it likes, beside the task's own reward.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <map>
#include <string_view>
#include <utility>

#include "nethack/abi.h"

namespace pbm::nethack {

// The columns, in order. Each is 0 in a step after which there is no game to look at, except for `death`.
inline constexpr std::array<std::string_view, 12> kRewardTerms = {
    "score",                 // change of the in-game score
    "gold",                  // change of the gold carried
    "experience_points",     // change of the experience points
    "new_deepest_level",     // levels by which the deepest level reached in this episode went down
    "new_experience_level",  // levels by which the highest experience level of this episode went up
    "new_squares",           // squares of the level that show something for the first time in this episode
    "hit_points",            // change of the hit points
    "hunger",                // change of the nutrition (900 at the start; lower is hungrier)
    "eaten",                 // by how much the nutrition rose; 0 where it fell
    "armour_class",          // change of the armour class (lower protects better)
    "only_prompt",           // 1 when the action raised a prompt and took no time
    "death",                 // 1 when the hero died
};

class RewardTerms {
 public:
  // A new episode, standing at its first observation, whose squares are not new.
  void begin_episode(const nle_obs& seen);

  // Writes the terms of the step that ended at `seen`. `prompted`: the action raised a prompt, passed since or not.
  void write(const nle_obs& seen, bool prompted, double* row);

 private:
  struct Status {
    long score = 0, gold = 0, experience_points = 0, hit_points = 0, hunger = 0, armour_class = 0, time = 0;
  };
  static Status status(const nle_obs& seen) noexcept;
  std::size_t see_squares(const nle_obs& seen);

  Status last_;
  long deepest_level_ = 0, experience_level_ = 0;
  std::map<std::pair<long, long>, std::bitset<kMapSize>> seen_squares_;  // by dungeon and level
};

}  // namespace pbm::nethack
