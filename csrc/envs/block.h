// The memory that a vector environment shares with whoever plays its games: what to do, what came of it, and the
// observations, one row a game. An anonymous memory file, so that processes can inherit it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "nethack/game.h"
#include "nethack/observation.h"
#include "shm/shared_memory.h"
#include "sizes.h"

namespace pbm::envs {

// What a game is asked to do.
enum class Todo : std::uint8_t { kNothing = 0, kStep = 1, kReset = 2 };

struct Field {
  std::string name;
  std::string dtype;               // numpy's name
  std::vector<std::size_t> shape;  // games first
  std::size_t offset;              // bytes from the block's start
};

struct BlockSpec {
  std::size_t games = 0;
  std::size_t processes = 0;  // that play them; 0: the one that made the block
  std::uint32_t keys = 0;     // bit i: nethack::kObservationKeys[i] is wanted
  bool reward_terms = false;
};

// One process that plays games for another.
struct alignas(kCacheLine) WorkerWords {
  std::atomic<std::uint32_t> finished{0};  // the last order that it has carried out
  std::array<char, 512> error{};           // why it could not, empty when it could
};

struct alignas(kCacheLine) OrderWords {
  alignas(kCacheLine) std::atomic<std::uint32_t> order{0};     // counts up; workers wait for it to change
  alignas(kCacheLine) std::atomic<std::uint32_t> finished{0};  // changes when all have carried out the order
  alignas(kCacheLine) std::atomic<std::uint32_t> stopped{0};
};

inline constexpr std::size_t kReasonSize = 160;  // bytes of a row of fatal_reason

// Where a block's parts lie: its header, the words of its workers, then the fields.
class BlockLayout {
 public:
  // Throws std::invalid_argument for no games or more processes than games.
  explicit BlockLayout(const BlockSpec& spec);

  std::size_t workers;  // bytes from the block's start
  std::size_t bytes;    // of the whole block
  std::vector<Field> fields;

 private:
  void add(const std::string& name, const std::string& dtype, std::size_t item_bytes,
           std::vector<std::size_t> shape = {});
  void add_orders();
  void add_outcomes();
  void add_records();
  void add_observations();

  BlockSpec spec_;
};

class Block {
 public:
  // Throws as BlockLayout, std::length_error for settings that do not fit, and std::system_error when memory cannot be
  // had.
  Block(const BlockSpec& spec, const nethack::GameSettings& settings);
  // Maps the block that another process made. Throws std::system_error when `fd` is nothing to map, and
  // std::runtime_error when it is no block, or one of another build.
  static Block attach(int fd);

  const BlockSpec& spec() const noexcept { return spec_; }
  const nethack::GameSettings& settings() const noexcept { return settings_; }
  const std::vector<Field>& fields() const noexcept { return layout_.fields; }
  int fd() const noexcept { return memory_.fd(); }
  std::uint8_t* base() const noexcept { return memory_.data(); }

  OrderWords& orders() const noexcept;
  WorkerWords& worker(std::size_t index) const noexcept;  // of spec().processes

  // The games of worker w: [first_game(w), first_game(w + 1)).
  std::size_t first_game(std::size_t worker) const noexcept { return worker * spec_.games / spec_.processes; }

  // Where a field begins; throws std::out_of_range for a name that the block has not.
  template <typename T>
  T* field(const std::string& name) const {
    return reinterpret_cast<T*>(base() + offset(name));
  }

 private:
  Block(shm::SharedMemory memory, const BlockSpec& spec, nethack::GameSettings settings);
  std::size_t offset(const std::string& name) const;

  BlockSpec spec_;
  nethack::GameSettings settings_;
  BlockLayout layout_;
  shm::SharedMemory memory_;
};

}  // namespace pbm::envs
