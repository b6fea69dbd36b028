// An actor: steps its groups of games in turn, each whenever its actions have come, and fills rollout slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "actor/group.h"
#include "shm/region.h"

namespace pbm::actor {

class Actor {
 public:
  // Plays the groups of actor `index` of `region`, which outlives this. `first_episode` numbers its games' next
  // episodes; an actor that replaces a dead one begins beyond what that one can have played. Their files go under
  // `directory`. `keep_actions`: see Group.
  Actor(shm::Region& region, std::size_t index, const std::filesystem::path& directory, std::uint64_t first_episode,
        std::size_t keep_actions = 0);

  // What brings the games of each group back, [groups][games], before the first step; see Group.
  std::vector<std::vector<SavedGame>> saved_games() const;
  std::size_t restore(const std::vector<std::vector<SavedGame>>& saved);

  // Moves every group that can move by one step; false when none could: all wait for the policy or for a free slot.
  bool run_once();

  // Plays until the control block says stop. Sleeps while nothing can move.
  void run();

 private:
  struct Seat {
    std::size_t number;  // of the group in the region
    std::uint16_t generation;
    Group group;
    std::optional<std::size_t> slot = std::nullopt;
    std::size_t step = 0;  // the row that waits for actions
    std::uint64_t fatal_games_told = 0;
  };

  bool advance(Seat& seat);
  void ask(Seat& seat);
  void report(Seat& seat);

  shm::Region& region_;
  std::size_t index_;
  std::vector<Seat> seats_;
};

}  // namespace pbm::actor
