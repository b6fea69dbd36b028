#include "shm/layout.h"

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <utility>

#include "fingerprint.h"
#include "nethack/abi.h"
#include "nethack/reward_terms.h"
#include "shm/slot_state.h"
#include "sizes.h"

namespace pbm::shm {
namespace {

std::string describe(const Field& field) {
  std::string text = field.name + ":" + dtype_name(field.dtype) + "@" + std::to_string(field.offset);
  for (const std::size_t n : field.shape) text += "," + std::to_string(n);
  return text + ";";
}

}  // namespace

std::size_t item_size(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kU8:
      return 1;
    case Dtype::kI16:
      return 2;
    case Dtype::kI32:
    case Dtype::kF32:
      return 4;
    case Dtype::kI64:
    case Dtype::kF64:
      return 8;
  }
  return 0;
}

const char* dtype_name(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kU8:
      return "uint8";
    case Dtype::kI16:
      return "int16";
    case Dtype::kI32:
      return "int32";
    case Dtype::kI64:
      return "int64";
    case Dtype::kF32:
      return "float32";
    case Dtype::kF64:
      return "float64";
  }
  return "";
}

std::size_t Field::bytes() const {
  std::size_t bytes = item_size(dtype);
  for (const std::size_t n : shape) bytes = product(bytes, n);
  return bytes;
}

RolloutLayout::RolloutLayout(const RolloutShape& shape) : shape_(shape), slot_bytes_(sizeof(SlotHeader)) {
  if (shape.unroll == 0 || shape.games == 0 || shape.actions == 0 || shape.experts == 0 ||
      shape.max_episode_steps == 0) {
    throw std::invalid_argument("a rollout needs at least one step, game, action, expert and episode step");
  }
  const std::size_t T = shape.unroll, K = shape.games;
  const std::size_t most_finals = product(K, T / shape.max_episode_steps + 1);
  const std::size_t most_records = product(K, T);  // every step may end an episode

  add("first_game", Dtype::kI64, {1});
  add_observation("", {T + 1, K});
  add("first", Dtype::kU8, {T + 1, K});
  add("previous_action", Dtype::kI32, {T + 1, K});
  add("episode_step", Dtype::kI32, {T + 1, K});

  add("action", Dtype::kI32, {T, K});
  add("behaviour_logits", Dtype::kF32, {T, K, shape.actions});
  add("alpha", Dtype::kF32, {T, K, shape.experts});
  add("policy_version", Dtype::kI64, {T});
  add("phase", Dtype::kI32, {T});
  add("routing", Dtype::kI32, {T});
  add("temperature", Dtype::kF64, {T});

  add("reward", Dtype::kF32, {T, K});
  if (shape.store_reward_terms) add("reward_terms", Dtype::kF32, {T, K, nethack::kRewardTerms.size()});
  add("terminated", Dtype::kU8, {T, K});
  add("truncated", Dtype::kU8, {T, K});

  add("initial_state", Dtype::kF32, {K, shape.state});

  // Observations of games at their step limit, in place of the next row, which starts a new episode.
  add("final_count", Dtype::kI32, {1});
  add("final_step", Dtype::kI32, {most_finals});
  add("final_game", Dtype::kI32, {most_finals});
  add("final_previous_action", Dtype::kI32, {most_finals});
  add_observation("final_", {most_finals});

  add_episode_records(most_records);
  slot_bytes_ = round_up(slot_bytes_, kPage);  // slots start on pages
  Fingerprint all;
  for (const Field& field : fields_) {
    const std::string text = describe(field);
    all.add(text.data(), text.size());
  }
  checksum_ = all.value();
}

void RolloutLayout::add_observation(const std::string& prefix, std::vector<std::size_t> rows) {
  const auto with = [&rows](std::initializer_list<std::size_t> item) {
    std::vector<std::size_t> shape = rows;
    shape.insert(shape.end(), item);
    return shape;
  };
  add(prefix + "glyph_crop", Dtype::kI16, with({shape_.crop, shape_.crop}));
  if (shape_.store_glyphs) add(prefix + "glyphs", Dtype::kI16, with({nethack::kRows, nethack::kColumns}));
  add(prefix + "blstats", Dtype::kI64, with({nethack::kBlstatsSize}));
  add(prefix + "message", Dtype::kU8, with({nethack::kMessageSize}));
  if (shape_.store_inventory) {
    add(prefix + "inv_glyphs", Dtype::kI16, with({nethack::kInventorySize}));
    add(prefix + "inv_letters", Dtype::kU8, with({nethack::kInventorySize}));
    add(prefix + "inv_oclasses", Dtype::kU8, with({nethack::kInventorySize}));
  }
  add(prefix + "conditions", Dtype::kI64, with({shape_.condition_words}));
}

void RolloutLayout::add_episode_records(std::size_t most) {
  add("record_count", Dtype::kI32, {1});
  for (const char* name : {"record_step", "record_game", "record_how_done"}) add(name, Dtype::kI32, {most});
  for (const char* name : {"record_score", "record_score_after_end", "record_length", "record_depth", "record_turns",
                           "record_seed_core", "record_seed_disp", "record_gold"}) {
    add(name, Dtype::kI64, {most});
  }
  for (const char* name : {"record_return", "record_alpha_entropy"}) add(name, Dtype::kF64, {most});
  add("record_death", Dtype::kU8, {most, nethack::kDeathLength});
}

void RolloutLayout::add(std::string name, Dtype dtype, std::vector<std::size_t> shape) {
  Field field{std::move(name), dtype, std::move(shape), round_up(slot_bytes_, kCacheLine)};
  slot_bytes_ = field.offset + field.bytes();
  fields_.push_back(std::move(field));
}

const Field& RolloutLayout::field(const std::string& name) const {
  const auto found = std::find_if(fields_.begin(), fields_.end(), [&](const Field& f) { return f.name == name; });
  if (found == fields_.end()) throw std::out_of_range("a rollout has no field " + name);
  return *found;
}

}  // namespace pbm::shm
