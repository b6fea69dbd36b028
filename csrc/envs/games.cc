#include "envs/games.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "nethack/observation.h"

namespace pbm::envs {
namespace {

using nethack::EndStatus;
using nethack::FatalGameError;
using nethack::Game;
using nethack::kHowDoneGivenUp;
using nethack::kStartAttempts;

constexpr const char* kLost = "the process that played it died";

// Where the observations of game `i` go.
nethack::nle_obs rows_of(const Block& block, std::size_t i) {
  nethack::nle_obs arrays{};
  for (std::size_t k = 0; k < nethack::kObservationKeys.size(); ++k) {
    if ((block.spec().keys >> k & 1) == 0) continue;
    const auto& key = nethack::kObservationKeys[k];
    key.point(arrays, block.field<std::uint8_t>(std::string(key.name)) + i * key.bytes());
  }
  return arrays;
}

}  // namespace

Games::Games(const Block& block, std::size_t first, std::size_t last, const std::filesystem::path& directory)
    : first_(first),
      todo_(block.field<Todo>("todo")),
      action_(block.field<std::int64_t>("action")),
      frozen_steps_(block.field<std::int64_t>("frozen_steps")),
      end_status_(block.field<std::int64_t>("end_status")),
      seed_core_(block.field<std::uint64_t>("seed_core")),
      seed_disp_(block.field<std::uint64_t>("seed_disp")),
      seed_lgen_(block.field<std::uint64_t>("seed_lgen")),
      has_lgen_(block.field<std::uint8_t>("has_lgen")),
      terminated_(block.field<std::uint8_t>("terminated")),
      truncated_(block.field<std::uint8_t>("truncated")),
      is_ascended_(block.field<std::uint8_t>("is_ascended")),
      reward_(block.field<double>("reward")),
      reward_terms_(block.spec().reward_terms ? block.field<double>("reward_terms") : nullptr),
      return_(block.field<double>("record_return")),
      score_(block.field<std::int64_t>("record_score")),
      score_after_end_(block.field<std::int64_t>("record_score_after_end")),
      length_(block.field<std::int64_t>("record_length")),
      depth_(block.field<std::int64_t>("record_depth")),
      turns_(block.field<std::int64_t>("record_turns")),
      how_done_(block.field<std::int64_t>("record_how_done")),
      death_(block.field<char>("record_death")),
      fatal_reason_(block.field<char>("fatal_reason")) {
  if (first > last || last > block.spec().games) {
    throw std::out_of_range("the block has no games " + std::to_string(first) + " to " + std::to_string(last));
  }
  const auto library = std::make_shared<const nethack::LibraryFile>(block.settings().library);
  for (std::size_t i = first; i < last; ++i) {
    double* terms = reward_terms_ == nullptr ? nullptr : reward_terms_ + i * nethack::kRewardTerms.size();
    games_.push_back(std::make_unique<Game>(library, block.settings(), directory / ("game-" + std::to_string(i)),
                                            rows_of(block, i), terms));
  }
}

void Games::run() {
  for (std::size_t i = first_; i < first_ + games_.size(); ++i) {
    if (todo_[i] == Todo::kStep) step(i);
    if (todo_[i] == Todo::kReset) reset(i);
  }
}

void Games::step(std::size_t i) {
  Game& game = this->game(i);
  if (!game.running()) {  // a process that replaces a dead one finds games under way that it does not have
    write_fatal(i, kLost);
    return;
  }
  try {
    const nethack::StepResult result = game.step(action_[i]);
    reward_[i] = result.reward;
    // As NLE reports it: every end is a termination, and `truncated` says only that the limit held before this step.
    terminated_[i] = result.terminated || result.status == EndStatus::kAborted;
    truncated_[i] = result.limit_at_key;
    end_status_[i] = static_cast<std::int64_t>(result.status);
    is_ascended_[i] = game.ascended();
    frozen_steps_[i] = game.task().frozen_steps();
    if (terminated_[i] || truncated_[i]) write_record(i);
  } catch (const FatalGameError& error) {
    write_fatal(i, error.what());
  }
}

void Games::reset(std::size_t i) {
  Game& game = this->game(i);
  nethack::Seeds seeds{seed_core_[i], seed_disp_[i], std::nullopt};
  if (has_lgen_[i]) seeds.level_generation = seed_lgen_[i];
  game.task().set_frozen_steps(frozen_steps_[i]);
  for (int attempt = 1;; ++attempt) {
    try {
      end_status_[i] = static_cast<std::int64_t>(game.reset(seeds));
      break;
    } catch (const FatalGameError& error) {
      if (attempt == kStartAttempts) {
        throw std::runtime_error("game " + std::to_string(i) + " did not start with " + std::to_string(kStartAttempts) +
                                 " seeds: " + error.what());
      }
      ++seeds.core;  // these seeds give no game: try their neighbours
    }
  }
  seed_core_[i] = seeds.core;
  reward_[i] = 0.0;
  terminated_[i] = truncated_[i] = 0;
  is_ascended_[i] = game.ascended();
  clear_reward_terms(i);
}

void Games::clear_reward_terms(std::size_t i) {
  if (reward_terms_ == nullptr) return;
  std::fill_n(reward_terms_ + i * nethack::kRewardTerms.size(), nethack::kRewardTerms.size(), 0.0);
}

void Games::write_record(std::size_t i) {
  const nethack::EpisodeRecord& episode = game(i).episode();
  return_[i] = episode.episode_return;
  score_[i] = episode.score;
  score_after_end_[i] = episode.score_after_end;
  length_[i] = episode.length;
  depth_[i] = episode.depth;
  turns_[i] = episode.turns;
  how_done_[i] = episode.how_done;
  std::fill_n(death_ + i * nethack::kDeathLength, nethack::kDeathLength, '\0');
  episode.death.copy(death_ + i * nethack::kDeathLength, nethack::kDeathLength);
  std::fill_n(fatal_reason_ + i * kReasonSize, kReasonSize, '\0');
}

void Games::write_fatal(std::size_t i, const std::string& reason) {
  reward_[i] = 0.0;
  terminated_[i] = 1;
  truncated_[i] = 0;
  is_ascended_[i] = 0;
  end_status_[i] = static_cast<std::int64_t>(EndStatus::kDeath);
  clear_reward_terms(i);
  write_record(i);
  how_done_[i] = kHowDoneGivenUp;  // of a lost game too, which has no record of its own
  reason.copy(fatal_reason_ + i * kReasonSize, kReasonSize - 1);
}

}  // namespace pbm::envs
