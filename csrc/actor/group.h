// A group: K games stepped together, writing into rollout slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "actor/played_game.h"
#include "actor/rollout_writer.h"
#include "actor/saved_game.h"
#include "nethack/game.h"
#include "shm/layout.h"

namespace pbm::actor {

// Seeds of episode `episode` of game `game` in a run: a documented derivation (docs/engine.md), so that any episode of
// any run can be played again.
nethack::Seeds episode_seeds(std::uint64_t run_seed, std::uint64_t game, std::uint64_t episode) noexcept;

class Group {
 public:
  // Games are numbered from `first_game` on in the whole run, their episodes from `first_episode` on; each game gets a
  // folder of its own under `directory`. Throws std::invalid_argument when the layout is not made for such games.
  Group(const std::shared_ptr<const nethack::LibraryFile>& library, const nethack::GameSettings& settings,
        const std::filesystem::path& directory, const shm::RolloutLayout& layout, std::uint64_t run_seed,
        std::uint64_t first_game, std::uint64_t first_episode, std::size_t keep_actions = 0);

  // What brings every game back to where it is. Episodes are kept up to `keep_actions` actions of each.
  std::vector<SavedGame> saved_games() const;

  // Brings every game to where `saved` was taken, before the first `open`. A game that cannot be brought there (its
  // episode was too long to keep, or comes out differently under other options) begins its next episode instead;
  // returns how many those are. Throws std::invalid_argument when there are not as many as games.
  std::size_t restore(const std::vector<SavedGame>& saved);

  // Begins a slot: row 0 becomes where the games stand now. The first call starts the first episodes.
  void open(std::uint8_t* slot);

  // Plays the actions in row t of `slot`: fills reward, terminated and truncated of row t and the observation of row
  // t + 1; ended games start their next episode, their records and (at the step limit) final observations are kept.
  // Throws std::out_of_range for an action that does not exist, before any game is stepped, and FatalGameError when a
  // game can no longer be started.
  void step(std::uint8_t* slot, std::size_t t);

  std::size_t games() const noexcept { return games_.size(); }
  std::uint64_t fatal_games() const noexcept { return fatal_games_; }
  const std::string& last_fatal_reason() const noexcept { return last_fatal_reason_; }

 private:
  void check_actions(std::uint8_t* slot, std::size_t t) const;
  void start_episode(PlayedGame& played);
  nethack::StepResult play(PlayedGame& played, std::int32_t action);
  void note_fatal(const nethack::FatalGameError& error);

  shm::RolloutShape shape_;
  RolloutWriter writer_;
  std::uint64_t run_seed_;
  std::size_t keep_actions_;
  std::vector<PlayedGame> games_;
  bool started_ = false;
  std::uint64_t fatal_games_ = 0;
  std::string last_fatal_reason_;
};

}  // namespace pbm::actor
