#include "actor/group.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "nethack/conditions.h"
#include "nethack/task.h"

namespace pbm::actor {
namespace {

std::uint64_t splitmix64(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Of one alpha, in nats.
double entropy(const float* alpha, std::size_t experts) noexcept {
  double total = 0.0;
  for (std::size_t e = 0; e < experts; ++e) {
    if (alpha[e] > 0.0f) total -= static_cast<double>(alpha[e]) * std::log(static_cast<double>(alpha[e]));
  }
  return total;
}

// Whether a slot of this shape has room for whatever such games bring.
void check_shape(const shm::RolloutShape& shape, const nethack::GameSettings& settings) {
  if (settings.keys.size() != shape.actions) {
    throw std::invalid_argument("the layout's actions are not the game's keys");
  }
  if (shape.condition_words != nethack::condition_words()) {
    throw std::invalid_argument("the layout's condition words are not the engine's");
  }
  if (nethack::shortest_truncated_episode(settings.task) < static_cast<std::int64_t>(shape.max_episode_steps)) {
    throw std::invalid_argument("the game truncates episodes sooner than the layout has room for");
  }
}

}  // namespace

nethack::Seeds episode_seeds(std::uint64_t run_seed, std::uint64_t game, std::uint64_t episode) noexcept {
  const std::uint64_t root = splitmix64(splitmix64(splitmix64(run_seed) ^ game) ^ episode);
  // 63 bits: NLE's own seeds are below sys.maxsize, and they go through signed columns.
  return {.core = splitmix64(root ^ 1) >> 1, .disp = splitmix64(root ^ 2) >> 1, .level_generation = std::nullopt};
}

Group::Group(const std::shared_ptr<const nethack::LibraryFile>& library, const nethack::GameSettings& settings,
             const std::filesystem::path& directory, const shm::RolloutLayout& layout, std::uint64_t run_seed,
             std::uint64_t first_game, std::uint64_t first_episode, std::size_t keep_actions)
    : shape_(layout.shape()), writer_(layout), run_seed_(run_seed), keep_actions_(keep_actions) {
  check_shape(shape_, settings);
  for (std::size_t k = 0; k < shape_.games; ++k) {
    PlayedGame played;
    played.number = first_game + k;
    played.next_episode = first_episode;
    if (shape_.store_reward_terms) played.reward_terms = std::make_unique<PlayedGame::RewardTermsRow>();
    played.game =
        std::make_unique<nethack::Game>(library, settings, directory / ("game-" + std::to_string(played.number)),
                                        played.reward_terms ? played.reward_terms->data() : nullptr);
    games_.push_back(std::move(played));
  }
}

void Group::open(std::uint8_t* slot) {
  if (!started_) {
    for (PlayedGame& played : games_) start_episode(played);
    started_ = true;
  }
  writer_.begin(slot, games_.front().number);
  for (std::size_t k = 0; k < games_.size(); ++k) writer_.write_row(slot, 0, k, games_[k]);
}

void Group::step(std::uint8_t* slot, std::size_t t) {
  if (!started_ || t >= shape_.unroll) throw std::logic_error("step outside an open slot");
  check_actions(slot, t);
  for (std::size_t k = 0; k < games_.size(); ++k) {
    PlayedGame& played = games_[k];
    const std::int32_t action = writer_.action(slot, t, k);
    played.alpha_entropy_sum += entropy(writer_.alpha(slot, t, k), shape_.experts);
    if (played.actions.size() < keep_actions_) played.actions.push_back(static_cast<std::uint8_t>(action));
    const nethack::StepResult result = play(played, action);
    played.previous_action = action;
    played.first = false;
    writer_.write_outcome(slot, t, k, result, played);
    if (result.terminated || result.truncated) {
      if (result.truncated) writer_.write_final(slot, t, k, played);
      writer_.write_record(slot, t, k, played);
      start_episode(played);
    }
    writer_.write_row(slot, t + 1, k, played);
  }
}

void Group::check_actions(std::uint8_t* slot, std::size_t t) const {
  for (std::size_t k = 0; k < games_.size(); ++k) {
    const std::int32_t action = writer_.action(slot, t, k);
    if (action >= 0 && static_cast<std::size_t>(action) < shape_.actions) continue;
    throw std::out_of_range("action " + std::to_string(action) + " of game " + std::to_string(games_[k].number) +
                            " is not one of " + std::to_string(shape_.actions));
  }
}

nethack::StepResult Group::play(PlayedGame& played, std::int32_t action) {
  try {
    return played.game->step(action);
  } catch (const nethack::FatalGameError& error) {
    note_fatal(error);
    if (played.reward_terms) played.reward_terms->fill(0.0);
    return {.reward = 0.0, .terminated = true, .truncated = false};
  }
}

void Group::start_episode(PlayedGame& played) {
  played.frozen_steps = played.game->task().frozen_steps();
  played.actions.clear();
  played.stairs.forget();
  for (int attempt = 1;; ++attempt) {
    try {
      played.game->reset(episode_seeds(run_seed_, played.number, played.next_episode++));
      break;
    } catch (const nethack::FatalGameError& error) {
      note_fatal(error);
      if (attempt == nethack::kStartAttempts) throw;
    }
  }
  played.alpha_entropy_sum = 0.0;
  played.previous_action = static_cast<std::int32_t>(shape_.actions);  // none
  played.first = true;
}

void Group::note_fatal(const nethack::FatalGameError& error) {
  ++fatal_games_;
  last_fatal_reason_ = error.what();
}

std::vector<SavedGame> Group::saved_games() const {
  std::vector<SavedGame> all;
  for (const PlayedGame& played : games_) all.push_back(save_game(played, started_));
  return all;
}

std::size_t Group::restore(const std::vector<SavedGame>& saved) {
  if (saved.size() != games_.size()) throw std::invalid_argument("a saved game for every game, no more and no less");
  if (started_) throw std::logic_error("restore after the games have begun");
  const bool begun = std::ranges::all_of(saved, &SavedGame::begun);
  std::size_t begin_anew = 0;
  for (std::size_t k = 0; k < games_.size(); ++k) {
    games_[k].next_episode = saved[k].next_episode;
    if (!begun || replay(games_[k], saved[k], shape_.actions)) continue;
    start_episode(games_[k]);
    ++begin_anew;
  }
  started_ = begun;
  return begin_anew;
}

}  // namespace pbm::actor
