// The shared region of one rank, in one anonymous memory file that its processes inherit: a header, the control block,
// a block for every actor and every group, the recurrent states, and the rollout slots.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "nethack/game.h"
#include "shm/layout.h"
#include "shm/shared_memory.h"
#include "shm/slot_state.h"
#include "shm/turn.h"
#include "sizes.h"

namespace pbm::shm {

// What a region is made for.
struct RegionSpec {
  RolloutShape rollout;
  std::size_t slots = 0;
  std::size_t actors = 1;
  std::size_t groups_per_actor = 1;
  std::uint64_t run_seed = 0;

  std::size_t groups() const noexcept { return actors * groups_per_actor; }
};

// What the learner tells everybody while the run goes on.
struct alignas(kCacheLine) ControlBlock {
  // Written by the learner.
  std::atomic<std::int32_t> phase{0};    // its index
  std::atomic<std::int32_t> routing{0};  // 0 softmax, 1 sparsemax
  std::atomic<double> temperature{1.0};
  std::atomic<std::int32_t> paused{0};
  std::atomic<std::int32_t> stopped{0};
  // Written by the policy worker.
  alignas(kCacheLine) std::atomic<std::uint64_t> answers{0};  // groups answered, its heartbeat
  std::atomic<std::uint64_t> policy_busy_nanoseconds{0};
};

// Words that change when there may be something to do; each is waited on by one kind of process.
struct alignas(kCacheLine) Bells {
  alignas(kCacheLine) std::atomic<std::uint32_t> requests{0};    // a group waits for the policy
  alignas(kCacheLine) std::atomic<std::uint32_t> deliveries{0};  // a slot waits for the learner
};

struct alignas(kCacheLine) ActorBlock {
  std::atomic<std::uint32_t> bell{0};  // an answer to one of its groups, or a free slot
  std::atomic<std::uint32_t> fatal_games{0};
  std::atomic<std::uint64_t> heartbeat{0};  // group steps made
  std::atomic<std::uint64_t> busy_nanoseconds{0};
  std::array<char, 256> last_fatal_reason{};
};

// Where its parts begin, in bytes from its start; each on a page of its own.
struct RegionOffsets {
  // Throws std::invalid_argument for no slots, actors or groups, and for too many groups.
  RegionOffsets(const RegionSpec& spec, const RolloutLayout& layout);

  std::size_t group_states_bytes;  // the recurrent states of one group
  std::size_t actors, groups, states, slots;
  std::size_t bytes;  // of the whole region
};

class Region {
 public:
  // Makes a region of free slots. Throws as RegionOffsets, std::length_error for settings that do not fit, and
  // std::system_error when memory cannot be had.
  Region(const RegionSpec& spec, const nethack::GameSettings& game);
  // Maps the region that another process made. Throws std::system_error when `fd` is nothing to map, and
  // std::runtime_error when it is no region, or one of another build.
  static Region attach(int fd);

  const RegionSpec& spec() const noexcept { return spec_; }
  const RolloutLayout& layout() const noexcept { return layout_; }
  const nethack::GameSettings& game() const noexcept { return game_; }
  int fd() const noexcept { return memory_.fd(); }
  std::size_t groups() const noexcept { return spec_.groups(); }

  ControlBlock& control() noexcept;
  Bells& bells() noexcept;

  // These throw std::out_of_range for what the region does not have.
  ActorBlock& actor(std::size_t index);
  GroupBlock& group(std::size_t index);
  std::uint8_t* slot(std::size_t index);
  SlotHeader& header(std::size_t slot_index);
  float* states(std::size_t group_index);  // [2, K, S]: two copies, see Turn::answers

  // A free slot, now `owner`'s; none when there is none.
  std::optional<std::size_t> take_free(Owner owner);
  // Delivers a slot that `owner` has filled. False when it was taken back meanwhile.
  bool deliver(std::size_t slot, Owner owner);
  // Delivered slots, oldest first, now the learner's: `count` of them, or none while fewer wait.
  std::vector<std::size_t> take_delivered(std::size_t count);
  void give_back(std::size_t slot);  // throws std::logic_error when it is not the learner's
  // Frees whatever the groups of an actor that is no more had begun; returns how many slots it held.
  std::size_t take_back_actor(std::size_t actor);

  // Asks for actions at row `step` of `slot`; false when the group has a new actor, or its turn is the policy's.
  bool request(std::size_t group, std::uint16_t generation, std::uint32_t slot, std::uint32_t step);
  // A group that waits for actions.
  struct Request {
    std::size_t group;
    std::uint64_t turn;  // the word that an answer replaces
    std::uint32_t slot, step;
    std::uint32_t answers;  // see Turn
  };
  // At most `limit` of them, looked for from group `first` on, round all groups.
  std::vector<Request> requests(std::size_t limit, std::size_t first = 0);
  bool answer(const Request& request);  // false when the group has a new actor meanwhile

  // Whether an actor has the turn with a group that holds a slot, or could take one: it should be making steps.
  bool actor_has_work(std::size_t actor);

  void wake_everybody() noexcept;

 private:
  Region(SharedMemory memory, const RegionSpec& spec, nethack::GameSettings game);
  void notify_actors() noexcept;

  RegionSpec spec_;
  nethack::GameSettings game_;
  RolloutLayout layout_;
  RegionOffsets offsets_;
  SharedMemory memory_;
};

}  // namespace pbm::shm
