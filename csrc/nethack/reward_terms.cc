#include "nethack/reward_terms.h"

#include <algorithm>
#include <utility>

#include "nethack/tables.h"

namespace pbm::nethack {

RewardTerms::Status RewardTerms::status(const nle_obs& seen) noexcept {
  const long* stats = seen.blstats;
  return {.score = stats[tables::NLE_BL_SCORE],
          .gold = stats[tables::NLE_BL_GOLD],
          .experience_points = stats[tables::NLE_BL_EXP],
          .hit_points = stats[tables::NLE_BL_HP],
          .hunger = seen.internal[kHunger],
          .armour_class = stats[tables::NLE_BL_AC],
          .time = stats[tables::NLE_BL_TIME]};
}

void RewardTerms::begin_episode(const nle_obs& seen) {
  last_ = status(seen);
  deepest_level_ = seen.internal[kDeepestLevel];
  experience_level_ = seen.blstats[tables::NLE_BL_XP];
  seen_squares_.clear();
  see_squares(seen);
}

void RewardTerms::write(const nle_obs& seen, bool prompted, double* row) {
  std::fill_n(row, kRewardTerms.size(), 0.0);
  row[11] = seen.done && seen.how_done <= kGenocided ? 1.0 : 0.0;
  if (!seen.in_normal_game) return;
  const Status now = status(seen), before = std::exchange(last_, now);
  row[0] = static_cast<double>(now.score - before.score);
  row[1] = static_cast<double>(now.gold - before.gold);
  row[2] = static_cast<double>(now.experience_points - before.experience_points);
  const long depth = std::max<long>(deepest_level_, seen.internal[kDeepestLevel]);
  row[3] = static_cast<double>(depth - std::exchange(deepest_level_, depth));
  const long level = std::max(experience_level_, seen.blstats[tables::NLE_BL_XP]);
  row[4] = static_cast<double>(level - std::exchange(experience_level_, level));
  row[5] = static_cast<double>(see_squares(seen));
  row[6] = static_cast<double>(now.hit_points - before.hit_points);
  row[7] = static_cast<double>(now.hunger - before.hunger);
  row[8] = std::max(row[7], 0.0);
  row[9] = static_cast<double>(now.armour_class - before.armour_class);
  row[10] = prompted && now.time == before.time ? 1.0 : 0.0;
}

std::size_t RewardTerms::see_squares(const nle_obs& seen) {
  auto& known = seen_squares_[{seen.blstats[tables::NLE_BL_DNUM], seen.blstats[tables::NLE_BL_DLEVEL]}];
  const std::size_t before = known.count();
  for (std::size_t i = 0; i < known.size(); ++i) {
    if (seen.glyphs[i] != tables::kStoneGlyph) known.set(i);
  }
  return known.count() - before;
}

}  // namespace pbm::nethack
