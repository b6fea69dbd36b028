// The memory that a vector environment shares with whoever plays its games: what to do, what came of it, and the
// observations, one row a game. An anonymous memory file, so that processes can inherit it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "file_descriptor.h"
#include "nethack/game.h"
#include "nethack/observation.h"

namespace pbm::envs {

// What a game is asked to do.
enum class Todo : std::uint8_t { kNothing = 0, kStep = 1, kReset = 2 };

struct Field {
  std::string name;
  std::string dtype;               // numpy's name
  std::vector<std::size_t> shape;  // games first
  std::size_t offset;
};

struct BlockSpec {
  std::size_t games = 0;
  std::size_t processes = 0;  // that play them; 0: the one that made the block
  std::uint32_t keys = 0;     // bit i: nethack::kObservationKeys[i] is wanted
  bool reward_terms = false;
};

// One process that plays games for another.
struct alignas(64) WorkerWords {
  std::atomic<std::uint32_t> finished{0};  // the last order that it has carried out
  std::array<char, 512> error{};           // why it could not, empty when it could
};

struct alignas(64) OrderWords {
  alignas(64) std::atomic<std::uint32_t> order{0};     // counts up; workers wait for it to change
  alignas(64) std::atomic<std::uint32_t> finished{0};  // changes when all have carried out the order
  alignas(64) std::atomic<std::uint32_t> stopped{0};
};

inline constexpr std::size_t kReasonSize = 160;

class Block {
 public:
  // Throws std::system_error when memory cannot be had, std::invalid_argument for no games or more processes than
  // games.
  Block(const BlockSpec& spec, const nethack::GameSettings& settings);
  // Maps the block that another process made. Throws std::runtime_error when it is none, or of another build.
  static Block attach(int fd);
  ~Block();
  Block(Block&& other) noexcept;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  const BlockSpec& spec() const noexcept { return spec_; }
  const nethack::GameSettings& settings() const noexcept { return settings_; }
  const std::vector<Field>& fields() const noexcept { return fields_; }
  int fd() const noexcept { return memory_file_.get(); }
  std::uint8_t* base() const noexcept { return base_; }

  OrderWords& orders() const noexcept;
  WorkerWords& worker(std::size_t index) const noexcept;

  // The games of a worker: [first_game(w), first_game(w + 1)).
  std::size_t first_game(std::size_t worker) const noexcept { return worker * spec_.games / spec_.processes; }

  // Where a field begins; throws std::out_of_range for a name that the block has not.
  template <typename T>
  T* field(const std::string& name) const {
    return reinterpret_cast<T*>(base_ + offset(name));
  }

 private:
  Block(FileDescriptor memory_file, const BlockSpec& spec, const nethack::GameSettings& settings);
  void lay_out();
  void add(const std::string& name, const std::string& dtype, std::size_t row_bytes, std::vector<std::size_t> shape);
  std::size_t offset(const std::string& name) const;

  BlockSpec spec_;
  nethack::GameSettings settings_;
  std::vector<Field> fields_;
  std::size_t workers_offset_ = 0, bytes_ = 0;
  FileDescriptor memory_file_;
  std::uint8_t* base_ = nullptr;
};

}  // namespace pbm::envs
