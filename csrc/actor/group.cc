#include "actor/group.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "fingerprint.h"
#include "nethack/tables.h"

namespace pbm::actor {
namespace {

using nethack::Game;
using nethack::kColumns;
using nethack::kRows;

constexpr auto kBeyondMap = static_cast<std::int16_t>(nethack::tables::kNoGlyph);

std::uint64_t splitmix64(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

double entropy(const float* alpha, std::size_t experts) noexcept {
  double total = 0.0;
  for (std::size_t e = 0; e < experts; ++e) {
    if (alpha[e] > 0.0f) total -= static_cast<double>(alpha[e]) * std::log(static_cast<double>(alpha[e]));
  }
  return total;
}

std::uint64_t fingerprint(const Game& game) noexcept {
  const nethack::ObservationBuffers& seen = game.observation();
  const nethack::EpisodeRecord& episode = game.episode();
  Fingerprint all;
  all.add(seen.glyphs.data(), seen.glyphs.size());
  all.add(seen.blstats.data(), seen.blstats.size());
  all.add(seen.message.data(), seen.message.size());
  all.add(seen.inv_glyphs.data(), seen.inv_glyphs.size());
  all.add(&episode.score, 1);
  all.add(&episode.turns, 1);
  all.add(&episode.length, 1);
  all.add(&episode.episode_return, 1);
  return all.value();
}

// A row is what follows the leading dimensions: (t, k) has two, an entry of a list one.
Column column(const shm::RolloutLayout& layout, const std::string& name, std::size_t leading_dimensions) {
  const shm::Field& field = layout.field(name);
  std::size_t row_bytes = shm::item_size(field.dtype);
  for (std::size_t i = leading_dimensions; i < field.shape.size(); ++i) row_bytes *= field.shape[i];
  return {field.offset, row_bytes};
}

nethack::ObservationView view_of(const nethack::ObservationBuffers& seen) {
  static_assert(sizeof(long) == sizeof(std::int64_t));
  return {seen.glyphs.data(),       reinterpret_cast<const std::int64_t*>(seen.blstats.data()),
          seen.message.data(),      seen.inv_glyphs.data(),
          seen.inv_oclasses.data(), seen.inv_letters.data(),
          seen.misc.data()};
}

// Lets the memory of the stairs see where the game stands, for itself.
void see_stairs(const nethack::Game& game, nethack::StairsMemory& memory) {
  std::vector<std::uint64_t> unused(nethack::condition_words());
  nethack::evaluate_conditions(view_of(game.observation()), unused.data(), &memory);
}

// The square of side `side` around (x, y); squares beyond the map hold kBeyondMap.
void cut_crop(const std::int16_t* glyphs, long x, long y, std::size_t side, std::int16_t* crop) {
  const long half = static_cast<long>(side / 2), width = static_cast<long>(side);
  const long left = x - half;
  const long from = std::max(0L, -left), to = std::min(width, kColumns - left);
  for (long r = 0; r < width; ++r, crop += side) {
    const long map_row = y - half + r;
    if (map_row < 0 || map_row >= kRows || from >= to) {
      std::fill_n(crop, side, kBeyondMap);
      continue;
    }
    std::fill(crop, crop + from, kBeyondMap);
    std::copy(glyphs + map_row * kColumns + left + from, glyphs + map_row * kColumns + left + to, crop + from);
    std::fill(crop + to, crop + width, kBeyondMap);
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
    : shape_(layout.shape()), run_seed_(run_seed), keep_actions_(keep_actions) {
  if (settings.keys.size() != shape_.actions)
    throw std::invalid_argument("the layout's actions are not the game's keys");
  if (shape_.condition_words != nethack::condition_words()) {
    throw std::invalid_argument("the layout's condition words are not the engine's");
  }
  for (std::size_t k = 0; k < shape_.games; ++k) {
    Player player;
    player.number = first_game + k;
    player.next_episode = first_episode;
    if (shape_.store_reward_terms) player.reward_terms = std::make_unique<Terms>();
    player.game = std::make_unique<Game>(library, settings, directory / ("game-" + std::to_string(player.number)),
                                         shape_.store_reward_terms ? player.reward_terms->data() : nullptr);
    players_.push_back(std::move(player));
  }
  first_game_ = column(layout, "first_game", 1);
  observation_ = observation_columns(layout, "", 2);
  final_observation_ = observation_columns(layout, "final_", 1);
  first_ = column(layout, "first", 2);
  previous_action_ = column(layout, "previous_action", 2);
  episode_step_ = column(layout, "episode_step", 2);
  action_ = column(layout, "action", 2);
  alpha_ = column(layout, "alpha", 2);
  reward_ = column(layout, "reward", 2);
  if (shape_.store_reward_terms) reward_terms_ = column(layout, "reward_terms", 2);
  terminated_ = column(layout, "terminated", 2);
  truncated_ = column(layout, "truncated", 2);
  final_count_ = column(layout, "final_count", 1);
  final_step_ = column(layout, "final_step", 1);
  final_game_ = column(layout, "final_game", 1);
  final_previous_action_ = column(layout, "final_previous_action", 1);
  record_count_ = column(layout, "record_count", 1);
  record_step_ = column(layout, "record_step", 1);
  record_game_ = column(layout, "record_game", 1);
  record_how_done_ = column(layout, "record_how_done", 1);
  record_score_ = column(layout, "record_score", 1);
  record_score_after_end_ = column(layout, "record_score_after_end", 1);
  record_length_ = column(layout, "record_length", 1);
  record_depth_ = column(layout, "record_depth", 1);
  record_turns_ = column(layout, "record_turns", 1);
  record_seed_core_ = column(layout, "record_seed_core", 1);
  record_seed_disp_ = column(layout, "record_seed_disp", 1);
  record_return_ = column(layout, "record_return", 1);
  record_alpha_entropy_ = column(layout, "record_alpha_entropy", 1);
  record_gold_ = column(layout, "record_gold", 1);
  record_death_ = column(layout, "record_death", 1);
}

Group::ObservationColumns Group::observation_columns(const shm::RolloutLayout& layout, const std::string& prefix,
                                                     std::size_t leading_dimensions) {
  ObservationColumns columns;
  columns.glyph_crop = column(layout, prefix + "glyph_crop", leading_dimensions);
  if (layout.shape().store_glyphs) columns.glyphs = column(layout, prefix + "glyphs", leading_dimensions);
  columns.blstats = column(layout, prefix + "blstats", leading_dimensions);
  columns.message = column(layout, prefix + "message", leading_dimensions);
  if (layout.shape().store_inventory) {
    columns.inv_glyphs = column(layout, prefix + "inv_glyphs", leading_dimensions);
    columns.inv_letters = column(layout, prefix + "inv_letters", leading_dimensions);
    columns.inv_oclasses = column(layout, prefix + "inv_oclasses", leading_dimensions);
  }
  columns.conditions = column(layout, prefix + "conditions", leading_dimensions);
  return columns;
}

void Group::open(std::uint8_t* slot) {
  if (!started_) {
    for (Player& player : players_) start_episode(player);
    started_ = true;
  }
  *row<std::int64_t>(slot, first_game_, 0) = static_cast<std::int64_t>(players_.front().number);
  *row<std::int32_t>(slot, final_count_, 0) = 0;
  *row<std::int32_t>(slot, record_count_, 0) = 0;
  for (std::size_t k = 0; k < players_.size(); ++k) write_row(slot, 0, k);
}

void Group::step(std::uint8_t* slot, std::size_t t) {
  if (!started_ || t >= shape_.unroll) throw std::logic_error("step outside an open slot");
  const std::size_t games = players_.size();
  check_actions(slot, t);  // before any game is stepped
  for (std::size_t k = 0; k < games; ++k) {
    Player& player = players_[k];
    const std::size_t cell = t * games + k;
    const std::int32_t action = *row<std::int32_t>(slot, action_, cell);
    player.alpha_entropy_sum += entropy(row<float>(slot, alpha_, cell), shape_.experts);
    if (player.actions.size() < keep_actions_) player.actions.push_back(static_cast<std::uint8_t>(action));
    const nethack::StepResult result = play(player, action);
    *row<float>(slot, reward_, cell) = static_cast<float>(result.reward);
    if (player.reward_terms) std::ranges::copy(*player.reward_terms, row<float>(slot, reward_terms_, cell));
    *row<std::uint8_t>(slot, terminated_, cell) = result.terminated;
    *row<std::uint8_t>(slot, truncated_, cell) = result.truncated;
    player.previous_action = action;
    player.first = false;
    if (result.terminated || result.truncated) {
      if (result.truncated) write_final(slot, t, k);
      write_record(slot, t, k);
      start_episode(player);
    }
    write_row(slot, t + 1, k);
  }
}

void Group::check_actions(std::uint8_t* slot, std::size_t t) const {
  for (std::size_t k = 0; k < players_.size(); ++k) {
    const std::int32_t action = *row<std::int32_t>(slot, action_, t * players_.size() + k);
    if (action >= 0 && static_cast<std::size_t>(action) < shape_.actions) continue;
    throw std::out_of_range("action " + std::to_string(action) + " of game " + std::to_string(players_[k].number) +
                            " is not one of " + std::to_string(shape_.actions));
  }
}

nethack::StepResult Group::play(Player& player, std::int32_t action) {
  try {
    return player.game->step(action);
  } catch (const nethack::FatalGameError& error) {
    ++fatal_games_;
    last_fatal_reason_ = error.what();
    if (player.reward_terms) player.reward_terms->fill(0.0);
    return {.reward = 0.0, .terminated = true, .truncated = false};
  }
}

void Group::start_episode(Player& player) {
  player.frozen_steps = player.game->task().frozen_steps();
  player.actions.clear();
  player.stairs.forget();
  for (int attempt = 0;; ++attempt) {
    try {
      player.game->reset(episode_seeds(run_seed_, player.number, player.next_episode++));
      break;
    } catch (const nethack::FatalGameError& error) {
      ++fatal_games_;
      last_fatal_reason_ = error.what();
      if (attempt + 1 == nethack::kStartAttempts) throw;
    }
  }
  player.alpha_entropy_sum = 0.0;
  player.previous_action = static_cast<std::int32_t>(shape_.actions);  // none
  player.first = true;
}

std::vector<Standing> Group::standing() const {
  std::vector<Standing> all;
  for (const Player& player : players_) {
    Standing one;
    one.next_episode = player.next_episode;
    one.begun = started_;
    if (started_) {
      const nethack::EpisodeRecord& episode = player.game->episode();
      one.whole = player.actions.size() == static_cast<std::size_t>(episode.length);
      one.seeds = episode.seeds;
      one.frozen_steps = player.frozen_steps;
      if (one.whole) one.actions = player.actions;
      one.alpha_entropy_sum = player.alpha_entropy_sum;
      one.fingerprint = fingerprint(*player.game);
    }
    all.push_back(std::move(one));
  }
  return all;
}

std::size_t Group::restore(const std::vector<Standing>& standing) {
  if (standing.size() != players_.size()) throw std::invalid_argument("a standing for every game, no more and no less");
  if (started_) throw std::logic_error("restore after the games have begun");
  const bool begun = std::all_of(standing.begin(), standing.end(), [](const Standing& one) { return one.begun; });
  std::size_t begin_anew = 0;
  for (std::size_t k = 0; k < players_.size(); ++k) {
    Player& player = players_[k];
    player.next_episode = standing[k].next_episode;
    if (!begun || replay(player, standing[k])) continue;
    start_episode(player);
    ++begin_anew;
  }
  started_ = begun;
  return begin_anew;
}

// Plays a kept episode again; false when it does not lead where it led.
bool Group::replay(Player& player, const Standing& standing) {
  if (!standing.whole) return false;
  player.game->task().set_frozen_steps(standing.frozen_steps);
  try {
    player.game->reset(standing.seeds);
    player.stairs.forget();
    for (const std::uint8_t action : standing.actions) {
      if (action >= shape_.actions) return false;
      see_stairs(*player.game, player.stairs);
      const nethack::StepResult result = player.game->step(action);
      if (result.terminated || result.truncated) return false;
    }
  } catch (const nethack::FatalGameError&) {
    return false;
  }
  player.frozen_steps = standing.frozen_steps;
  player.actions = standing.actions;
  player.alpha_entropy_sum = standing.alpha_entropy_sum;
  player.first = standing.actions.empty();
  player.previous_action = static_cast<std::int32_t>(player.first ? shape_.actions : standing.actions.back());
  return fingerprint(*player.game) == standing.fingerprint;
}

void Group::write_observation(std::uint8_t* slot, const ObservationColumns& columns, std::size_t index,
                              Player& player) const {
  const nethack::ObservationBuffers& seen = player.game->observation();
  cut_crop(seen.glyphs.data(), seen.blstats[nethack::tables::NLE_BL_X], seen.blstats[nethack::tables::NLE_BL_Y],
           shape_.crop, row<std::int16_t>(slot, columns.glyph_crop, index));
  if (shape_.store_glyphs) {
    std::memcpy(row<std::int16_t>(slot, columns.glyphs, index), seen.glyphs.data(), sizeof seen.glyphs);
  }
  std::memcpy(row<std::int64_t>(slot, columns.blstats, index), seen.blstats.data(), sizeof seen.blstats);
  std::memcpy(row<std::uint8_t>(slot, columns.message, index), seen.message.data(), sizeof seen.message);
  if (shape_.store_inventory) {
    std::memcpy(row<std::int16_t>(slot, columns.inv_glyphs, index), seen.inv_glyphs.data(), sizeof seen.inv_glyphs);
    std::memcpy(row<std::uint8_t>(slot, columns.inv_letters, index), seen.inv_letters.data(), sizeof seen.inv_letters);
    std::memcpy(row<std::uint8_t>(slot, columns.inv_oclasses, index), seen.inv_oclasses.data(),
                sizeof seen.inv_oclasses);
  }
  nethack::evaluate_conditions(view_of(seen), row<std::uint64_t>(slot, columns.conditions, index), &player.stairs);
}

void Group::write_row(std::uint8_t* slot, std::size_t t, std::size_t k) {
  const std::size_t cell = t * players_.size() + k;
  Player& player = players_[k];
  write_observation(slot, observation_, cell, player);
  *row<std::uint8_t>(slot, first_, cell) = player.first;
  *row<std::int32_t>(slot, previous_action_, cell) = player.previous_action;
  *row<std::int32_t>(slot, episode_step_, cell) = static_cast<std::int32_t>(player.game->episode().length);
}

void Group::write_final(std::uint8_t* slot, std::size_t t, std::size_t k) {
  const auto index = static_cast<std::size_t>((*row<std::int32_t>(slot, final_count_, 0))++);
  *row<std::int32_t>(slot, final_step_, index) = static_cast<std::int32_t>(t);
  *row<std::int32_t>(slot, final_game_, index) = static_cast<std::int32_t>(k);
  *row<std::int32_t>(slot, final_previous_action_, index) = players_[k].previous_action;
  write_observation(slot, final_observation_, index, players_[k]);
}

void Group::write_record(std::uint8_t* slot, std::size_t t, std::size_t k) const {
  const Player& player = players_[k];
  const nethack::EpisodeRecord& episode = player.game->episode();
  const auto i = static_cast<std::size_t>((*row<std::int32_t>(slot, record_count_, 0))++);
  *row<std::int32_t>(slot, record_step_, i) = static_cast<std::int32_t>(t);
  *row<std::int32_t>(slot, record_game_, i) = static_cast<std::int32_t>(k);
  *row<std::int32_t>(slot, record_how_done_, i) = episode.how_done;
  *row<std::int64_t>(slot, record_score_, i) = episode.score;
  *row<std::int64_t>(slot, record_score_after_end_, i) = episode.score_after_end;
  *row<std::int64_t>(slot, record_length_, i) = episode.length;
  *row<std::int64_t>(slot, record_depth_, i) = episode.depth;
  *row<std::int64_t>(slot, record_turns_, i) = episode.turns;
  *row<std::int64_t>(slot, record_seed_core_, i) = static_cast<std::int64_t>(episode.seeds.core);
  *row<std::int64_t>(slot, record_seed_disp_, i) = static_cast<std::int64_t>(episode.seeds.disp);
  *row<std::int64_t>(slot, record_gold_, i) = episode.gold;
  auto* const death = row<char>(slot, record_death_, i);
  std::fill_n(death, nethack::kDeathLength, '\0');
  episode.death.copy(death, nethack::kDeathLength);
  *row<double>(slot, record_return_, i) = episode.episode_return;
  *row<double>(slot, record_alpha_entropy_, i) =
      player.alpha_entropy_sum / static_cast<double>(std::max<std::int64_t>(1, episode.length));
}

}  // namespace pbm::actor
