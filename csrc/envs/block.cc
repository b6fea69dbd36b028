#include "envs/block.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "shm/settings.h"

namespace pbm::envs {
namespace {

constexpr std::uint64_t kMagic = 0x31564e455f4d4250ULL;  // "PBM_ENV1"
constexpr std::size_t kAlignment = 64;

struct BlockHeader {
  std::uint64_t magic;
  std::uint64_t bytes;
  BlockSpec spec;
  shm::SharedSettings settings;
  OrderWords orders;
};

BlockHeader& header_of(std::uint8_t* base) { return *reinterpret_cast<BlockHeader*>(base); }

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

}  // namespace

Block::Block(const BlockSpec& spec, const nethack::GameSettings& settings)
    : Block(FileDescriptor(memfd_create("pbm-games", MFD_CLOEXEC)), spec, settings) {
  auto& header = *new (base_) BlockHeader{};
  header.bytes = bytes_;
  header.spec = spec;
  shm::store_settings(header.settings, settings);
  for (std::size_t i = 0; i < spec_.processes; ++i) new (&worker(i)) WorkerWords{};
  header.magic = kMagic;
}

Block::Block(FileDescriptor memory_file, const BlockSpec& spec, const nethack::GameSettings& settings)
    : spec_(spec), settings_(settings), memory_file_(std::move(memory_file)) {
  if (spec.games == 0) throw std::invalid_argument("a block needs at least one game");
  if (spec.processes > spec.games) throw std::invalid_argument("a block needs at least one game for each process");
  lay_out();
  if (memory_file_.get() < 0) fail("making shared memory for games failed");
  struct stat status{};
  if (fstat(memory_file_.get(), &status) != 0) fail("the games' shared memory is not open");
  if (status.st_size == 0 && ftruncate(memory_file_.get(), static_cast<off_t>(bytes_)) != 0)
    fail("sizing shared memory for games failed");
  void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_file_.get(), 0);
  if (mapped == MAP_FAILED) fail("mapping the games' shared memory failed");
  base_ = static_cast<std::uint8_t*>(mapped);
}

Block Block::attach(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0) fail("the games' shared memory is not open");
  if (status.st_size < static_cast<off_t>(sizeof(BlockHeader))) throw std::runtime_error("not a block of games");
  void* mapped = mmap(nullptr, sizeof(BlockHeader), PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) fail("mapping the games' shared memory failed");
  const auto& header = *static_cast<const BlockHeader*>(mapped);
  const bool ours = header.magic == kMagic && header.bytes == static_cast<std::uint64_t>(status.st_size);
  const BlockSpec spec = header.spec;
  const nethack::GameSettings settings = ours ? shm::load_settings(header.settings) : nethack::GameSettings{};
  munmap(mapped, sizeof(BlockHeader));
  if (!ours) throw std::runtime_error("not a block of games of this version");
  Block block(FileDescriptor(dup(fd)), spec, settings);
  if (block.bytes_ != static_cast<std::size_t>(status.st_size))
    throw std::runtime_error("the block of games was laid out by another build");
  return block;
}

Block::Block(Block&& other) noexcept
    : spec_(other.spec_),
      settings_(std::move(other.settings_)),
      fields_(std::move(other.fields_)),
      workers_offset_(other.workers_offset_),
      bytes_(other.bytes_),
      memory_file_(std::move(other.memory_file_)),
      base_(std::exchange(other.base_, nullptr)) {}

Block::~Block() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

OrderWords& Block::orders() const noexcept { return header_of(base_).orders; }

WorkerWords& Block::worker(std::size_t index) const noexcept {
  return reinterpret_cast<WorkerWords*>(base_ + workers_offset_)[index];
}

void Block::lay_out() {
  workers_offset_ = aligned(sizeof(BlockHeader));
  bytes_ = aligned(workers_offset_ + spec_.processes * sizeof(WorkerWords));
  // Orders.
  add("todo", "uint8", 1, {});
  add("action", "int64", 8, {});
  for (const char* name : {"seed_core", "seed_disp", "seed_lgen"}) add(name, "uint64", 8, {});
  add("has_lgen", "bool", 1, {});
  add("frozen_steps", "int64", 8, {});  // of the task: read after a step, written before a reset
  // Outcomes.
  add("reward", "float64", 8, {});
  for (const char* name : {"terminated", "truncated", "is_ascended"}) add(name, "bool", 1, {});
  add("end_status", "int64", 8, {});
  if (spec_.reward_terms) {
    add("reward_terms", "float64", 8 * nethack::kRewardTerms.size(), {nethack::kRewardTerms.size()});
  }
  // Records of episodes, written when one ends.
  add("record_return", "float64", 8, {});
  for (const char* name : {"score", "score_after_end", "length", "depth", "turns", "how_done"}) {
    add(std::string("record_") + name, "int64", 8, {});
  }
  add("record_death", "S" + std::to_string(nethack::kDeathLength), nethack::kDeathLength, {});
  add("fatal_reason", "S" + std::to_string(kReasonSize), kReasonSize, {});
  // Observations.
  for (std::size_t i = 0; i < nethack::kObservationKeys.size(); ++i) {
    if ((spec_.keys >> i & 1) == 0) continue;
    const auto& key = nethack::kObservationKeys[i];
    add(std::string(key.name), std::string(key.dtype), key.bytes(),
        std::vector<std::size_t>(key.shape.begin(), key.shape.begin() + static_cast<std::ptrdiff_t>(key.dimensions)));
  }
}

void Block::add(const std::string& name, const std::string& dtype, std::size_t row_bytes,
                std::vector<std::size_t> shape) {
  shape.insert(shape.begin(), spec_.games);
  fields_.push_back({name, dtype, std::move(shape), bytes_});
  bytes_ = aligned(bytes_ + spec_.games * row_bytes);
}

std::size_t Block::offset(const std::string& name) const {
  for (const Field& field : fields_) {
    if (field.name == name) return field.offset;
  }
  throw std::out_of_range("the block of games has no field " + name);
}

}  // namespace pbm::envs
