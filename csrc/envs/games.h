// Plays some of the games of a block: carries out what its rows ask for and writes what came of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "envs/block.h"

namespace pbm::envs {

class Games {
 public:
  // Plays games [first, last) of `block`, which outlives this, with folders of their own under `directory`. Throws
  // std::out_of_range for games that the block has not, and std::runtime_error for a library that cannot be loaded.
  Games(const Block& block, std::size_t first, std::size_t last, const std::filesystem::path& directory);

  // Carries out `todo` of every game. A game that NetHack gives up ends as terminated with a reason. Throws
  // std::out_of_range for an action that does not exist, std::runtime_error when a game cannot be started at all.
  void run();

 private:
  nethack::Game& game(std::size_t i) { return *games_[i - first_]; }  // by its number in the whole block
  void step(std::size_t i);
  void reset(std::size_t i);
  void clear_reward_terms(std::size_t i);
  void write_record(std::size_t i);
  void write_fatal(std::size_t i, const std::string& reason);

  std::size_t first_;
  std::vector<std::unique_ptr<nethack::Game>> games_;

  // Rows of the block, by game of the whole block.
  Todo* todo_;
  std::int64_t *action_, *frozen_steps_, *end_status_;
  std::uint64_t *seed_core_, *seed_disp_, *seed_lgen_;
  std::uint8_t *has_lgen_, *terminated_, *truncated_, *is_ascended_;
  double *reward_, *reward_terms_, *return_;
  std::int64_t *score_, *score_after_end_, *length_, *depth_, *turns_, *how_done_;
  char *death_, *fatal_reason_;
};

}  // namespace pbm::envs
