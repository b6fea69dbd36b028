// A game as a snapshot keeps it: another process can bring a game there by playing its episode again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "actor/played_game.h"
#include "nethack/game.h"

namespace pbm::actor {

struct SavedGame {
  std::uint64_t next_episode = 0;
  bool begun = false;             // the rest says nothing of a game that has not begun
  bool whole = true;              // false: the episode is longer than the actions that were kept
  nethack::Seeds seeds;           // of the running episode
  std::int64_t frozen_steps = 0;  // NLE's count, as it was when the episode began
  std::vector<std::uint8_t> actions;
  double alpha_entropy_sum = 0.0;  // nats
  std::uint64_t fingerprint = 0;   // of the observation and the record: what playing it again must give
};

// What brings another game to where this one is; `begun`: its first episode has.
SavedGame save_game(const PlayedGame& played, bool begun);

// Plays the episode of a saved game again, each action one of `actions`. False when it was not kept whole or does not
// lead where it led: then the game's next episode must be started.
bool replay(PlayedGame& played, const SavedGame& saved, std::size_t actions);

}  // namespace pbm::actor
