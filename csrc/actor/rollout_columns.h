// Where the fields of a slot lie: looked up by name once, so that a step adds offsets and no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "shm/layout.h"

namespace pbm::actor {

// One field, as rows of T.
template <typename T>
class Column {
 public:
  Column() = default;  // of a field that the layout was asked not to have

  // A row is what follows the first `leading` dimensions: (t, k) has two, an entry of a list one. Throws
  // std::out_of_range for an unknown field, std::logic_error for one of another type.
  Column(const shm::RolloutLayout& layout, const std::string& name, std::size_t leading) {
    const shm::Field& field = layout.field(name);
    if (field.dtype != shm::dtype_of<T>()) throw std::logic_error("a rollout's " + name + " is of another type");
    offset_ = field.offset;
    for (std::size_t i = leading; i < field.shape.size(); ++i) row_items_ *= field.shape[i];
  }

  T* row(std::uint8_t* slot, std::size_t index) const noexcept {
    return reinterpret_cast<T*>(slot + offset_) + index * row_items_;
  }

 private:
  std::size_t offset_ = 0;  // bytes
  std::size_t row_items_ = 1;
};

struct ObservationColumns {
  ObservationColumns(const shm::RolloutLayout& layout, const std::string& prefix, std::size_t leading);

  Column<std::int16_t> glyph_crop, glyphs;
  Column<std::int64_t> blstats;
  Column<std::uint8_t> message;
  Column<std::int16_t> inv_glyphs;
  Column<std::uint8_t> inv_letters, inv_oclasses;
  Column<std::int64_t> conditions;
};

// Of the observations at step limits.
struct FinalColumns {
  explicit FinalColumns(const shm::RolloutLayout& layout);

  Column<std::int32_t> count, step, game, previous_action;
  ObservationColumns observation;
};

// Of the records of episodes.
struct RecordColumns {
  explicit RecordColumns(const shm::RolloutLayout& layout);

  Column<std::int32_t> count, step, game, how_done;
  Column<std::int64_t> score, score_after_end, length, depth, turns, seed_core, seed_disp, gold;
  Column<double> episode_return, alpha_entropy;
  Column<std::uint8_t> death;
};

struct RolloutColumns {
  explicit RolloutColumns(const shm::RolloutLayout& layout);

  Column<std::int64_t> first_game;
  ObservationColumns observation;
  Column<std::uint8_t> first;
  Column<std::int32_t> previous_action, episode_step;
  Column<std::int32_t> action;
  Column<float> alpha;
  Column<float> reward, reward_terms;
  Column<std::uint8_t> terminated, truncated;
  FinalColumns finals;
  RecordColumns records;
};

}  // namespace pbm::actor
