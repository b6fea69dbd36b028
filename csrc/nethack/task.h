// Rewards and ends of the tasks of nle.env.tasks, computed from one observation after the other.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "nethack/abi.h"

namespace pbm::nethack {

// The classes of nle.env.tasks; kNetHack is nle.env.base.NLE itself.
enum class TaskKind : std::int32_t {
  kNetHack,
  kScore,
  kStaircase,
  kStaircasePet,
  kOracle,
  kGold,
  kEat,
  kScout,
  kChallenge,
};

// How steps in which the turn counter stands still ("frozen" steps, n of them in a row) are penalised:
// n > 0 ? p : 0, 2^n p, n^2 p, n p, p.
enum class PenaltyMode : std::int32_t { kConstant, kExp, kSquare, kLinear, kAlways };

// By name: "NLE", "NetHackScore", ...; "constant", "exp", ... Throw std::invalid_argument for another name.
TaskKind task_kind(std::string_view name);
PenaltyMode penalty_mode(std::string_view name);

// StepStatus of NLE and its tasks.
enum class EndStatus : std::int32_t { kAborted = -1, kRunning = 0, kDeath = 1, kTaskSuccessful = 2 };

// The names and defaults are those of NLE's constructors (NetHackScore's).
struct TaskSettings {
  TaskKind kind = TaskKind::kScore;
  PenaltyMode penalty_mode = PenaltyMode::kConstant;
  double penalty_step = -0.01;
  double penalty_time = 0.0;
  std::int64_t max_episode_steps = 5000;
  std::int64_t no_progress_timeout = 10'000;  // NetHackChallenge's
};

// The fewest steps after which a limit can truncate an episode.
std::int64_t shortest_truncated_episode(const TaskSettings& settings) noexcept;

// One game's task. The calls of a step, in NLE's order: begin_step, check_limit, end_status, reward.
class Task {
 public:
  explicit Task(const TaskSettings& settings) : settings_(settings) {}

  // Whether the task looks at the map.
  bool reads_glyphs() const noexcept;

  // A new episode, standing at its first observation. Frozen steps go on counting, as in NLE.
  EndStatus begin_episode(const nle_obs& seen);

  // Remembers what the step is going to change.
  void begin_step(const nle_obs& seen) noexcept;

  // NLE._check_abort: the step limit, or in NetHackChallenge also a turn counter that stands still. NLE asks twice a
  // step, after the key and after the prompts, and NetHackChallenge counts both.
  bool check_limit(const nle_obs& seen) noexcept;

  // Counts the step and says how the episode stands after it.
  EndStatus end_status(const nle_obs& seen) noexcept;

  // The reward of the step. NetHackScout remembers what it has counted.
  double reward(const nle_obs& seen, EndStatus status);

  // Steps in a row in which the turn counter stood still. NLE keeps the count from one episode to the next.
  std::int64_t frozen_steps() const noexcept { return frozen_steps_; }
  void set_frozen_steps(std::int64_t steps) noexcept { frozen_steps_ = steps; }

 private:
  bool successful(const nle_obs& seen) const noexcept;
  double time_penalty(const nle_obs& seen) noexcept;
  long newly_explored(const nle_obs& seen);

  TaskSettings settings_;
  std::int64_t steps_ = 0;
  std::int64_t frozen_steps_ = 0;
  long old_score_ = 0, old_time_ = 0, old_gold_ = 0;
  int old_hunger_ = 0;
  std::optional<long> turns_;  // when the limit was last checked
  std::int64_t no_progress_ = 0;
  std::map<std::pair<long, long>, long> explored_;  // squares seen, by dungeon and level
};

}  // namespace pbm::nethack
