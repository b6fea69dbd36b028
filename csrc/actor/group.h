// A group: K games stepped together, writing into rollout slots.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "nethack/conditions.h"
#include "nethack/game.h"
#include "shm/layout.h"

namespace pbm::actor {

// Seeds of episode `episode` of game `game` in a run: a documented derivation (docs/engine.md), so that any episode of
// any run can be played again.
nethack::Seeds episode_seeds(std::uint64_t run_seed, std::uint64_t game, std::uint64_t episode) noexcept;

// Where the typed rows of a slot's fields lie, looked up by name once.
struct Column {
  std::size_t offset = 0;
  std::size_t row_bytes = 0;  // of one (t, k) or one entry, for the fields written here
};

// Where one game stands, so that another process can bring a game there by playing it again.
struct Standing {
  std::uint64_t next_episode = 0;
  bool begun = false;             // the rest says nothing of a game that has not begun
  bool whole = true;              // false: the episode is longer than the actions that were kept
  nethack::Seeds seeds;           // of the running episode
  std::int64_t frozen_steps = 0;  // NLE's count, as it was when the episode began
  std::vector<std::uint8_t> actions;
  double alpha_entropy_sum = 0.0;
  std::uint64_t fingerprint = 0;  // of the observation and the record: what playing it again must give
};

class Group {
 public:
  // Games are numbered from `first_game` on in the whole run; each gets a folder of its own under `directory`.
  Group(const std::shared_ptr<const nethack::LibraryFile>& library, const nethack::GameSettings& settings,
        const std::filesystem::path& directory, const shm::RolloutLayout& layout, std::uint64_t run_seed,
        std::uint64_t first_game, std::uint64_t first_episode, std::size_t keep_actions = 0);

  // Where every game stands. Episodes are kept up to `keep_actions` actions of each.
  std::vector<Standing> standing() const;

  // Brings every game to where `standing` was taken, before the first `open`. A game that cannot be brought there (its
  // episode was too long to keep, or comes out differently under other options) begins its next episode instead;
  // returns how many those are. Throws std::invalid_argument when there are not as many as games.
  std::size_t restore(const std::vector<Standing>& standing);

  // Begins a slot: row 0 becomes where the games stand now. The first call starts the first episodes.
  void open(std::uint8_t* slot);

  // Plays the actions in row t of `slot`: fills reward, terminated and truncated of row t and the observation of row
  // t + 1; ended games start their next episode, their records and (at the step limit) final observations are kept.
  // Throws std::out_of_range for an action that does not exist.
  void step(std::uint8_t* slot, std::size_t t);

  std::size_t games() const noexcept { return players_.size(); }
  std::uint64_t fatal_games() const noexcept { return fatal_games_; }
  const std::string& last_fatal_reason() const noexcept { return last_fatal_reason_; }

 private:
  using Terms = std::array<double, nethack::kRewardTerms.size()>;
  struct Player {
    std::unique_ptr<Terms> reward_terms;  // of the last step, where they are stored; outlives the game
    std::unique_ptr<nethack::Game> game;
    std::uint64_t number = 0;  // in the whole run
    std::uint64_t next_episode = 0;
    double alpha_entropy_sum = 0.0;     // over the steps of the running episode
    std::int64_t frozen_steps = 0;      // of the task when the running episode began
    std::vector<std::uint8_t> actions;  // of the running episode, the first keep_actions_
    std::int32_t previous_action = 0;
    bool first = true;
    nethack::StairsMemory stairs;  // of the running episode
  };
  struct ObservationColumns {
    Column glyph_crop, glyphs, blstats, message, inv_glyphs, inv_letters, inv_oclasses, conditions;
  };

  template <typename T>
  T* row(std::uint8_t* slot, const Column& column, std::size_t index) const {
    return reinterpret_cast<T*>(slot + column.offset + index * column.row_bytes);
  }
  static ObservationColumns observation_columns(const shm::RolloutLayout& layout, const std::string& prefix,
                                                std::size_t leading_dimensions);
  void check_actions(std::uint8_t* slot, std::size_t t) const;
  void start_episode(Player& player);
  bool replay(Player& player, const Standing& standing);
  nethack::StepResult play(Player& player, std::int32_t action);
  void write_observation(std::uint8_t* slot, const ObservationColumns& columns, std::size_t index,
                         Player& player) const;
  void write_row(std::uint8_t* slot, std::size_t t, std::size_t k);
  void write_final(std::uint8_t* slot, std::size_t t, std::size_t k);
  void write_record(std::uint8_t* slot, std::size_t t, std::size_t k) const;

  shm::RolloutShape shape_;
  std::uint64_t run_seed_;
  std::vector<Player> players_;
  std::uint64_t fatal_games_ = 0;
  std::string last_fatal_reason_;
  bool started_ = false;
  std::size_t keep_actions_ = 0;

  ObservationColumns observation_, final_observation_;
  Column first_game_, first_, previous_action_, episode_step_, action_, alpha_, reward_, reward_terms_, terminated_,
      truncated_;
  Column final_count_, final_step_, final_game_, final_previous_action_;
  Column record_count_, record_step_, record_game_, record_how_done_, record_score_, record_score_after_end_,
      record_length_, record_depth_, record_turns_, record_seed_core_, record_seed_disp_, record_return_,
      record_alpha_entropy_, record_gold_, record_death_;
};

}  // namespace pbm::actor
