#include "nethack/stairs_memory.h"

#include <algorithm>

#include "nethack/conditions_facts.h"

namespace pbm::nethack {

void StairsMemory::complete(Facts& facts) {
  const Square here{facts.stat(tables::NLE_BL_DNUM), facts.stat(tables::NLE_BL_DLEVEL), facts.stat(tables::NLE_BL_X),
                    facts.stat(tables::NLE_BL_Y)};
  // A prompt may stand in the middle of a change of level, when map and status line disagree.
  const bool prompt = facts.misc[0] != 0 || facts.misc[1] != 0 || facts.misc[2] != 0;
  if (!prompt) learn(facts, here);
  facts.on_stairs_down |= knows({here, true});
  facts.on_stairs_up |= knows({here, false});
  if (prompt) return;
  depth_ = facts.stat(tables::NLE_BL_DEPTH);
  on_down_ = facts.on_stairs_down;
  on_up_ = facts.on_stairs_up;
}

void StairsMemory::forget() { *this = {}; }

void StairsMemory::learn(const Facts& facts, const Square& here) {
  for (int i = 0; i < facts.stairs_shown; ++i) {
    const Facts::Stairs& shown = facts.stairs[i];
    remember({{here.dungeon, here.level, shown.x, shown.y}, shown.down});
  }
  infer_arrival(facts, here);
  begun_ = true;
  if (facts.on_stairs_down) remember({here, true});
  if (facts.on_stairs_up) remember({here, false});
  // A mimic posed as stairs, or a level was changed otherwise than by stairs.
  if (facts.says(Said::kNoWayDown)) std::erase(known_, Stairs{here, true});
  if (facts.says(Said::kNoWayUp)) std::erase(known_, Stairs{here, false});
}

void StairsMemory::infer_arrival(const Facts& facts, const Square& here) {
  const std::int64_t depth = facts.stat(tables::NLE_BL_DEPTH);
  if (!begun_) {
    if (depth == 1 && facts.stat(tables::NLE_BL_TIME) <= 1) remember({here, false});
    return;
  }
  if (on_down_ && depth == depth_ + 1) remember({here, false});
  if (on_up_ && depth == depth_ - 1) remember({here, true});
}

void StairsMemory::remember(const Stairs& stairs) {
  if (!knows(stairs)) known_.push_back(stairs);
}

bool StairsMemory::knows(const Stairs& stairs) const { return std::ranges::find(known_, stairs) != known_.end(); }

}  // namespace pbm::nethack
