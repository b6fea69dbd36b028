// What an observer remembers of one game's stairs, so as to know which the hero stands on.
#pragma once

#include <cstdint>
#include <vector>

namespace pbm::nethack {

struct Facts;

// The hero's glyph hides what he stands on, and stepping onto bare stairs brings no message. This remembers where each
// level showed stairs or a ladder, and infers what NetHack's rules tell: a game begins on the stairs up (allmain.c),
// and who takes stairs arrives on those that lead back (do.c).
//
// It takes every observation of a game, in order; the same one twice changes nothing.
class StairsMemory {
 public:
  // Takes an observation's facts in and completes them: on_stairs_down, on_stairs_up.
  void complete(Facts& facts);

  // Before the first observation of another game.
  void forget();

 private:
  struct Square {
    std::int64_t dungeon = 0, level = 0, x = 0, y = 0;  // as blstats has them
    bool operator==(const Square&) const = default;
  };
  struct Stairs {
    Square square;
    bool down = false;
    bool operator==(const Stairs&) const = default;
  };

  void learn(const Facts& facts, const Square& here);
  void infer_arrival(const Facts& facts, const Square& here);
  void remember(const Stairs& stairs);
  bool knows(const Stairs& stairs) const;

  std::vector<Stairs> known_;
  bool begun_ = false;
  // Of the last observation without a prompt.
  std::int64_t depth_ = 0;
  bool on_down_ = false, on_up_ = false;
};

}  // namespace pbm::nethack
