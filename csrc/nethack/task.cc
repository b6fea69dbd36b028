#include "nethack/task.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

#include "nethack/tables.h"

namespace pbm::nethack {
namespace {

// In the order of the enumerations.
constexpr std::array<std::string_view, 9> kTaskNames = {
    "NLE",         "NetHackScore", "NetHackStaircase", "NetHackStaircasePet", "NetHackOracle",
    "NetHackGold", "NetHackEat",   "NetHackScout",     "NetHackChallenge"};
constexpr std::array<std::string_view, 5> kPenaltyModes = {"constant", "exp", "square", "linear", "always"};

template <typename Enum, std::size_t N>
Enum named(const std::array<std::string_view, N>& names, std::string_view name, const char* what) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) throw std::invalid_argument("unknown " + std::string(what) + " " + std::string(name));
  return static_cast<Enum>(found - names.begin());
}

// Whether a square next to the hero (or the hero's own) shows a glyph in [first, first + count). At the map's left and
// top edge numpy reads the slice [-1:...] of NLE's code as empty: nothing is next to the hero there.
bool any_neighbour_shows(const nle_obs& seen, int first, int count) noexcept {
  const long x = seen.blstats[tables::NLE_BL_X], y = seen.blstats[tables::NLE_BL_Y];
  if (x < 1 || y < 1) return false;
  for (long row = y - 1; row <= std::min<long>(y + 1, kRows - 1); ++row) {
    for (long column = x - 1; column <= std::min<long>(x + 1, kColumns - 1); ++column) {
      const int glyph = seen.glyphs[row * kColumns + column];
      if (glyph >= first && glyph < first + count) return true;
    }
  }
  return false;
}

}  // namespace

TaskKind task_kind(std::string_view name) { return named<TaskKind>(kTaskNames, name, "task"); }
PenaltyMode penalty_mode(std::string_view name) { return named<PenaltyMode>(kPenaltyModes, name, "penalty mode"); }

std::int64_t shortest_truncated_episode(const TaskSettings& settings) noexcept {
  const std::int64_t limit = std::max<std::int64_t>(1, settings.max_episode_steps);
  if (settings.kind != TaskKind::kChallenge) return limit;
  const std::int64_t frozen = settings.no_progress_timeout / 2 + settings.no_progress_timeout % 2;  // two checks a step
  return std::min(limit, std::max<std::int64_t>(1, frozen));
}

bool Task::reads_glyphs() const noexcept {
  return settings_.kind == TaskKind::kStaircasePet || settings_.kind == TaskKind::kOracle ||
         settings_.kind == TaskKind::kScout;
}

EndStatus Task::begin_episode(const nle_obs& seen) {
  steps_ = 0;
  turns_.reset();
  no_progress_ = 0;
  explored_.clear();
  if (check_limit(seen)) return EndStatus::kAborted;
  return successful(seen) ? EndStatus::kTaskSuccessful : EndStatus::kRunning;
}

void Task::begin_step(const nle_obs& seen) noexcept {
  old_score_ = seen.blstats[tables::NLE_BL_SCORE];
  old_time_ = seen.blstats[tables::NLE_BL_TIME];
  old_gold_ = seen.blstats[tables::NLE_BL_GOLD];
  old_hunger_ = seen.internal[kHunger];
}

bool Task::check_limit(const nle_obs& seen) noexcept {
  if (settings_.kind != TaskKind::kChallenge) return steps_ >= settings_.max_episode_steps;
  const long turns = seen.blstats[tables::NLE_BL_TIME];
  if (turns_ == turns) {
    ++no_progress_;
  } else {
    turns_ = turns;
    no_progress_ = 0;
  }
  return steps_ >= settings_.max_episode_steps || no_progress_ >= settings_.no_progress_timeout;
}

EndStatus Task::end_status(const nle_obs& seen) noexcept {
  ++steps_;
  const bool limit = check_limit(seen);
  if (seen.done) return EndStatus::kDeath;
  if (limit) return EndStatus::kAborted;
  return successful(seen) ? EndStatus::kTaskSuccessful : EndStatus::kRunning;
}

bool Task::successful(const nle_obs& seen) const noexcept {
  const bool stairs_down = seen.internal[kStairsDown] != 0;
  switch (settings_.kind) {
    case TaskKind::kStaircase:
      return stairs_down;
    case TaskKind::kStaircasePet:
      return stairs_down && any_neighbour_shows(seen, tables::kPetOffset, tables::kMonsterCount);
    case TaskKind::kOracle:
      return any_neighbour_shows(seen, tables::kOracleGlyph, 1);
    default:
      return false;
  }
}

double Task::reward(const nle_obs& seen, EndStatus status) {
  // Before a game starts and after it has ended blstats are zero and say nothing of what the step brought.
  const bool normal = seen.in_normal_game != 0;
  switch (settings_.kind) {
    case TaskKind::kStaircase:
    case TaskKind::kStaircasePet:
    case TaskKind::kOracle:
      return (status == EndStatus::kTaskSuccessful ? 1.0 : 0.0) + time_penalty(seen);
    case TaskKind::kGold:
      return normal ? static_cast<double>(seen.blstats[tables::NLE_BL_GOLD] - old_gold_) + time_penalty(seen) : 0.0;
    case TaskKind::kEat:
      return normal ? static_cast<double>(std::max(0, seen.internal[kHunger] - old_hunger_)) + time_penalty(seen) : 0.0;
    case TaskKind::kScout:
      return normal ? static_cast<double>(newly_explored(seen)) + time_penalty(seen) : 0.0;
    default:
      break;
  }
  const double gained = normal ? static_cast<double>(seen.blstats[tables::NLE_BL_SCORE] - old_score_) : 0.0;
  return settings_.kind == TaskKind::kNetHack ? gained : gained + time_penalty(seen);
}

double Task::time_penalty(const nle_obs& seen) noexcept {
  const long new_time = seen.blstats[tables::NLE_BL_TIME];
  frozen_steps_ = new_time == old_time_ ? frozen_steps_ + 1 : 0;
  const auto frozen = static_cast<double>(frozen_steps_);
  double penalty = 0.0;
  switch (settings_.penalty_mode) {
    case PenaltyMode::kConstant:
      if (frozen_steps_ > 0) penalty += settings_.penalty_step;
      break;
    case PenaltyMode::kExp:
      penalty += std::exp2(frozen) * settings_.penalty_step;
      break;
    case PenaltyMode::kSquare:
      penalty += frozen * frozen * settings_.penalty_step;
      break;
    case PenaltyMode::kLinear:
      penalty += frozen * settings_.penalty_step;
      break;
    case PenaltyMode::kAlways:
      penalty += settings_.penalty_step;
      break;
  }
  return penalty + static_cast<double>(new_time - old_time_) * settings_.penalty_time;
}

long Task::newly_explored(const nle_obs& seen) {
  const long shown = kMapSize - std::count(seen.glyphs, seen.glyphs + kMapSize, tables::kStoneGlyph);
  long& before = explored_[{seen.blstats[tables::NLE_BL_DNUM], seen.blstats[tables::NLE_BL_DLEVEL]}];
  return shown - std::exchange(before, shown);
}

}  // namespace pbm::nethack
