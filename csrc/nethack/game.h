// One game of NetHack, stepped with the semantics of nle.env.base.NLE.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nethack/abi.h"
#include "nethack/game_directory.h"
#include "nethack/library.h"
#include "nethack/reward_terms.h"
#include "nethack/task.h"

namespace pbm::nethack {

// What a game is made of. The names are those of NLE's constructor; `options` is NLE's NETHACKOPTIONS joined by commas,
// the player's name included. `keys[a]` is the key that action a presses.
struct GameSettings {
  std::string library;         // path of libnethack.so
  std::string data_directory;  // NLE's nethackdir, which holds nhdat
  std::string options;
  std::vector<int> keys;
  TaskSettings task;
  bool allow_all_yn_questions = false;
  bool allow_all_modes = false;
  bool spawn_monsters = true;
  bool fix_moon_phase = false;
  std::optional<std::int64_t> clock;  // seconds since 1970 that `time` answers; none: the real clock
};

struct Seeds {
  std::uint64_t core = 0;
  std::uint64_t disp = 0;
  std::optional<std::uint64_t> level_generation;
};

// One observation as NLE writes it. The library keeps pointers into it between steps, so it never moves.
struct ObservationBuffers {
  std::array<std::int16_t, kMapSize> glyphs{};
  std::array<long, kBlstatsSize> blstats{};
  std::array<std::uint8_t, kMessageSize> message{};
  std::array<int, kProgramStateSize> program_state{};
  std::array<int, kInternalSize> internal{};
  std::array<int, kMiscSize> misc{};
  std::array<std::int16_t, kInventorySize> inv_glyphs{};
  std::array<std::uint8_t, kInventorySize> inv_letters{};
  std::array<std::uint8_t, kInventorySize> inv_oclasses{};
};

// The outcome of one step. A limit truncates: the game goes on without us, and the observation before NLE plays its
// quit stays readable, so that one can bootstrap from it.
struct StepResult {
  double reward = 0.0;
  bool terminated = false;
  bool truncated = false;
  EndStatus status = EndStatus::kRunning;
  bool limit_at_key = false;  // what NLE returns as `truncated`: the limit held before the step was counted
};

// Values of how_done beside the game_end_types of hack.h.
inline constexpr int kHowDoneAlive = -1;    // not dead: running, at a limit, or the task was done
inline constexpr int kHowDoneGivenUp = -2;  // NetHack itself gave the game up: FatalGameError

// Seeds to try before a game counts as one that cannot be started.
inline constexpr int kStartAttempts = 16;

// What is known of an episode while it runs and when it has ended.
struct EpisodeRecord {
  Seeds seeds;
  std::int64_t score = 0;  // the last in-game score while alive: NLE zeroes blstats after death
  std::int64_t score_after_end = 0;
  double episode_return = 0.0;
  std::int64_t length = 0;  // steps
  std::int64_t depth = 0;   // the deepest level reached
  std::int64_t turns = 0;   // NetHack's turn counter
  std::int64_t gold = 0;    // carried at the last moment alive, less what the hero began with
  int how_done = kHowDoneAlive;
  std::string death;  // what NetHack's own record calls it: "killed by a jackal", "quit"; empty while alive
};

class Game {
 public:
  // `directory` is created for NetHack's own files (levels, locks) and removed with the game.
  // The game observes into buffers of its own. With `reward_terms`, each step writes one row of kRewardTerms there; it
  // outlives the game. Throws std::system_error when the directory or memory cannot be had, std::length_error for paths
  // and options that NetHack has no room for.
  Game(std::shared_ptr<const LibraryFile> library, GameSettings settings, std::filesystem::path directory,
       double* reward_terms = nullptr);
  // The game observes into the arrays that `arrays` points to (see observation.h), which outlive it; keys without one
  // cost nothing.
  Game(std::shared_ptr<const LibraryFile> library, GameSettings settings, std::filesystem::path directory,
       const nle_obs& arrays, double* reward_terms);
  Game(const Game&) = delete;  // the library keeps pointers into it
  Game& operator=(const Game&) = delete;

  // Starts an episode and passes its opening prompts. Returns how it stands, as NLE's reset does: kRunning but for odd
  // settings. Throws FatalGameError when NetHack gives up; then no episode is running.
  EndStatus reset(const Seeds& seeds);

  // Plays action `action` (an index into keys). Throws std::out_of_range for an unknown action and std::logic_error
  // without a running episode. Throws FatalGameError when NetHack gives up: then the episode has ended with this step.
  StepResult step(std::int64_t action);

  const ObservationBuffers& observation() const noexcept { return buffers_; }  // of a game with buffers of its own
  const EpisodeRecord& episode() const noexcept { return episode_; }
  bool ascended() const noexcept { return obs_.how_done == kAscended; }
  Task& task() noexcept { return task_; }
  bool running() const noexcept { return context_ != nullptr; }

 private:
  EndStatus begin_episode(const Seeds& seeds);
  StepResult play(int key);
  void give_up() noexcept;
  void press(int key);
  void pass_prompts(bool agent_may_answer);
  bool asks_what_the_agent_may_answer() const;
  bool prompts() const noexcept;
  void quit();
  void quit_unseen();
  void watch_the_living();
  void note_death();

  GameSettings settings_;
  GameDirectory directory_;
  Library library_;
  std::unique_ptr<nle_settings> nle_settings_;
  nle_obs obs_{};
  ObservationBuffers buffers_;
  Library::Context context_;
  EpisodeRecord episode_;
  std::int64_t first_gold_ = 0;
  Task task_;
  RewardTerms reward_terms_;
  double* reward_terms_row_ = nullptr;
};

}  // namespace pbm::nethack
