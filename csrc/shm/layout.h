// The layout of a rollout slot: the single truth of field name, dtype, shape and offset, for C++ and Python alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace pbm::shm {

enum class Dtype : std::uint8_t { kU8, kI16, kI32, kI64, kF32, kF64 };

std::size_t item_size(Dtype dtype) noexcept;
const char* dtype_name(Dtype dtype) noexcept;  // numpy's name

// The dtype whose items are T.
template <typename T>
consteval Dtype dtype_of() {
  if constexpr (std::is_same_v<T, std::uint8_t>) return Dtype::kU8;
  if constexpr (std::is_same_v<T, std::int16_t>) return Dtype::kI16;
  if constexpr (std::is_same_v<T, std::int32_t>) return Dtype::kI32;
  if constexpr (std::is_same_v<T, std::int64_t>) return Dtype::kI64;
  if constexpr (std::is_same_v<T, float>) return Dtype::kF32;
  if constexpr (std::is_same_v<T, double>) return Dtype::kF64;
}

struct Field {
  std::string name;
  Dtype dtype;
  std::vector<std::size_t> shape;  // time first where there is time
  std::size_t offset = 0;          // bytes from the start of the slot; no two fields share a cache line

  std::size_t bytes() const;  // throws std::length_error beyond what a process can address
};

// What a rollout's size depends on.
struct RolloutShape {
  std::size_t unroll = 0;           // T
  std::size_t games = 0;            // K, games in the group
  std::size_t actions = 0;          // A
  std::size_t experts = 0;          // E
  std::size_t state = 0;            // S, floats of recurrent state a game; 0: none
  std::size_t crop = 0;             // side of the glyph crop
  std::size_t condition_words = 0;  // 64-bit words of lit conditions
  bool store_glyphs = false;
  bool store_inventory = false;
  std::size_t max_episode_steps = 0;
  bool store_reward_terms = false;
};

// A slot holds a 64-byte header (slot_state.h), then these fields. Observation fields have T + 1 rows: row t is what
// the action in row t was chosen at, row T is the bootstrap observation. See docs/rollouts.md for every field.
class RolloutLayout {
 public:
  // Throws std::invalid_argument for no steps, games, actions, experts or episode steps, and std::length_error beyond
  // what a process can address.
  explicit RolloutLayout(const RolloutShape& shape);

  const RolloutShape& shape() const noexcept { return shape_; }
  const std::vector<Field>& fields() const noexcept { return fields_; }
  const Field& field(const std::string& name) const;  // throws std::out_of_range
  std::size_t slot_bytes() const noexcept { return slot_bytes_; }
  std::uint64_t checksum() const noexcept { return checksum_; }  // of every name, dtype, shape and offset

 private:
  void add(std::string name, Dtype dtype, std::vector<std::size_t> shape);
  void add_observation(const std::string& prefix, std::vector<std::size_t> rows);
  void add_episode_records(std::size_t most);

  RolloutShape shape_;
  std::vector<Field> fields_;
  std::size_t slot_bytes_;
  std::uint64_t checksum_ = 0;
};

}  // namespace pbm::shm
