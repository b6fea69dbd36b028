#include "envs/block.h"

#include <memory>
#include <stdexcept>
#include <utility>

#include "shm/settings.h"
#include "sizes.h"

namespace pbm::envs {
namespace {

constexpr std::uint64_t kMagic = 0x31564e455f4d4250ULL;  // "PBM_ENV1"

struct BlockHeader {
  std::uint64_t magic;
  std::uint64_t bytes;
  BlockSpec spec;
  shm::SharedSettings settings;
  OrderWords orders;
};

BlockHeader& header_of(const shm::SharedMemory& memory) noexcept {
  return *reinterpret_cast<BlockHeader*>(memory.data());
}

}  // namespace

BlockLayout::BlockLayout(const BlockSpec& spec) : spec_(spec) {
  if (spec.games == 0) throw std::invalid_argument("a block needs at least one game");
  if (spec.processes > spec.games) throw std::invalid_argument("a block needs at least one game for each process");
  workers = round_up(sizeof(BlockHeader), kCacheLine);
  bytes = workers + product(spec.processes, sizeof(WorkerWords));
  add_orders();
  add_outcomes();
  add_records();
  add_observations();
}

void BlockLayout::add_orders() {
  add("todo", "uint8", 1);
  add("action", "int64", 8);
  for (const char* name : {"seed_core", "seed_disp", "seed_lgen"}) add(name, "uint64", 8);
  add("has_lgen", "bool", 1);
  add("frozen_steps", "int64", 8);  // of the task: read after a step, written before a reset
}

void BlockLayout::add_outcomes() {
  add("reward", "float64", 8);
  for (const char* name : {"terminated", "truncated", "is_ascended"}) add(name, "bool", 1);
  add("end_status", "int64", 8);
  if (spec_.reward_terms) add("reward_terms", "float64", 8, {nethack::kRewardTerms.size()});
}

// Of episodes, written when one ends.
void BlockLayout::add_records() {
  add("record_return", "float64", 8);
  for (const char* name : {"score", "score_after_end", "length", "depth", "turns", "how_done"}) {
    add(std::string("record_") + name, "int64", 8);
  }
  add("record_death", "S" + std::to_string(nethack::kDeathLength), nethack::kDeathLength);
  add("fatal_reason", "S" + std::to_string(kReasonSize), kReasonSize);
}

void BlockLayout::add_observations() {
  for (std::size_t i = 0; i < nethack::kObservationKeys.size(); ++i) {
    if ((spec_.keys >> i & 1) == 0) continue;
    const nethack::ObservationKey& key = nethack::kObservationKeys[i];
    add(std::string(key.name), std::string(key.dtype), key.item_size,
        std::vector<std::size_t>(key.shape.begin(), key.shape.begin() + static_cast<std::ptrdiff_t>(key.dimensions)));
  }
}

void BlockLayout::add(const std::string& name, const std::string& dtype, std::size_t item_bytes,
                      std::vector<std::size_t> shape) {
  shape.insert(shape.begin(), spec_.games);
  const std::size_t offset = round_up(bytes, kCacheLine);
  std::size_t field_bytes = item_bytes;
  for (const std::size_t n : shape) field_bytes = product(field_bytes, n);
  fields.push_back({name, dtype, std::move(shape), offset});
  bytes = offset + field_bytes;
}

Block::Block(const BlockSpec& spec, const nethack::GameSettings& settings)
    : spec_(spec), settings_(settings), layout_(spec), memory_("pbm-games", layout_.bytes) {
  BlockHeader& header = *std::construct_at(&header_of(memory_));
  header.bytes = layout_.bytes;
  header.spec = spec;
  shm::store_settings(header.settings, settings);
  for (std::size_t i = 0; i < spec_.processes; ++i) std::construct_at(&worker(i));
  header.magic = kMagic;  // last: until now it is no block
}

Block::Block(shm::SharedMemory memory, const BlockSpec& spec, nethack::GameSettings settings)
    : spec_(spec), settings_(std::move(settings)), layout_(spec), memory_(std::move(memory)) {}

Block Block::attach(int fd) {
  shm::SharedMemory memory = shm::SharedMemory::attach(fd);
  if (memory.bytes() < sizeof(BlockHeader)) throw std::runtime_error("not a block of games: too small");
  const BlockHeader& header = header_of(memory);
  if (header.magic != kMagic || header.bytes != memory.bytes()) {
    throw std::runtime_error("not a block of games of this version");
  }
  Block block(std::move(memory), header.spec, shm::load_settings(header.settings));
  if (block.layout_.bytes != header.bytes) {
    throw std::runtime_error("the block of games was laid out by another build");
  }
  return block;
}

OrderWords& Block::orders() const noexcept { return header_of(memory_).orders; }

WorkerWords& Block::worker(std::size_t index) const noexcept {
  return reinterpret_cast<WorkerWords*>(base() + layout_.workers)[index];
}

std::size_t Block::offset(const std::string& name) const {
  for (const Field& field : layout_.fields) {
    if (field.name == name) return field.offset;
  }
  throw std::out_of_range("the block of games has no field " + name);
}

}  // namespace pbm::envs
