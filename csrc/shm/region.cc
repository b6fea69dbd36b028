#include "shm/region.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "shm/settings.h"

namespace pbm::shm {
namespace {

constexpr std::uint64_t kMagic = 0x30454f4d5f4d4250ULL;  // "PBM_MOE0"
constexpr std::uint32_t kVersion = 1;

struct RegionHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint64_t bytes;
  std::uint64_t layout_checksum;
  RegionSpec spec;
  SharedSettings settings;
  ControlBlock control;
  Bells bells;
  std::atomic<std::uint64_t> deliveries;  // the order of delivered slots
};

constexpr std::size_t kPage = 4096;
std::size_t pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

RegionHeader& region_header(std::uint8_t* base) { return *reinterpret_cast<RegionHeader*>(base); }

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

std::size_t checked(std::size_t index, std::size_t count, const char* what) {
  if (index >= count) throw std::out_of_range("the region has no " + std::string(what) + " " + std::to_string(index));
  return index;
}

}  // namespace

Region::Region(const RegionSpec& spec, const nethack::GameSettings& game)
    : Region(FileDescriptor(memfd_create("pbm-region", MFD_CLOEXEC)), spec, game, true) {}

Region::Region(FileDescriptor memory_file, const RegionSpec& spec, const nethack::GameSettings& game, bool create)
    : spec_(spec), game_(game), layout_(spec.rollout), memory_file_(std::move(memory_file)) {
  if (spec.slots == 0 || spec.actors == 0 || spec.groups_per_actor == 0) {
    throw std::invalid_argument("a region needs at least one slot, one actor and one group");
  }
  if (groups() > kMostGroups)
    throw std::invalid_argument("a region has at most " + std::to_string(kMostGroups) + " groups");
  states_bytes_ = 2 * spec.rollout.games * spec.rollout.state * sizeof(float);
  actors_offset_ = pages(sizeof(RegionHeader));
  groups_offset_ = pages(actors_offset_ + spec.actors * sizeof(ActorBlock));
  states_offset_ = pages(groups_offset_ + groups() * sizeof(GroupBlock));
  slots_offset_ = pages(states_offset_ + groups() * states_bytes_);
  bytes_ = slots_offset_ + spec.slots * layout_.slot_bytes();
  if (memory_file_.get() < 0) fail("making a shared region failed");
  if (create && ftruncate(memory_file_.get(), static_cast<off_t>(bytes_)) != 0) fail("sizing a shared region failed");
  map();
  if (!create) return;
  auto& header = *new (base_) RegionHeader{};
  header.bytes = bytes_;
  header.version = kVersion;
  header.layout_checksum = layout_.checksum();
  header.spec = spec;
  store_settings(header.settings, game);
  for (std::size_t i = 0; i < spec_.actors; ++i) new (base_ + actors_offset_ + i * sizeof(ActorBlock)) ActorBlock{};
  for (std::size_t i = 0; i < groups(); ++i) new (base_ + groups_offset_ + i * sizeof(GroupBlock)) GroupBlock{};
  for (std::size_t i = 0; i < spec_.slots; ++i) new (slot(i)) SlotHeader{};
  header.magic = kMagic;  // last: until now it is no region
}

Region Region::attach(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0) fail("the shared region's descriptor is not open");
  if (status.st_size < static_cast<off_t>(sizeof(RegionHeader)))
    throw std::runtime_error("not a shared region: too small");
  void* mapped = mmap(nullptr, sizeof(RegionHeader), PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) fail("mapping the shared region failed");
  const auto& header = *static_cast<const RegionHeader*>(mapped);
  const bool ours = header.magic == kMagic && header.version == kVersion &&
                    header.bytes == static_cast<std::uint64_t>(status.st_size);
  const RegionSpec spec = header.spec;
  const nethack::GameSettings game = ours ? load_settings(header.settings) : nethack::GameSettings{};
  const std::uint64_t checksum = header.layout_checksum;
  munmap(mapped, sizeof(RegionHeader));
  if (!ours) throw std::runtime_error("not a shared region of this version");
  Region region(FileDescriptor(dup(fd)), spec, game, false);
  if (region.layout_.checksum() != checksum || region.bytes_ != static_cast<std::size_t>(status.st_size)) {
    throw std::runtime_error("the shared region was laid out by another build");
  }
  return region;
}

Region::Region(Region&& other) noexcept
    : spec_(other.spec_),
      game_(std::move(other.game_)),
      layout_(std::move(other.layout_)),
      actors_offset_(other.actors_offset_),
      groups_offset_(other.groups_offset_),
      states_offset_(other.states_offset_),
      slots_offset_(other.slots_offset_),
      bytes_(other.bytes_),
      states_bytes_(other.states_bytes_),
      memory_file_(std::move(other.memory_file_)),
      base_(std::exchange(other.base_, nullptr)) {}

Region::~Region() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

void Region::map() {
  void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_file_.get(), 0);
  if (mapped == MAP_FAILED) fail("mapping the shared region failed");
  base_ = static_cast<std::uint8_t*>(mapped);
}

ControlBlock& Region::control() noexcept { return region_header(base_).control; }
Bells& Region::bells() noexcept { return region_header(base_).bells; }

ActorBlock& Region::actor(std::size_t index) {
  const std::size_t i = checked(index, spec_.actors, "actor");
  return reinterpret_cast<ActorBlock*>(base_ + actors_offset_)[i];
}

GroupBlock& Region::group(std::size_t index) {
  const std::size_t i = checked(index, groups(), "group");
  return reinterpret_cast<GroupBlock*>(base_ + groups_offset_)[i];
}

std::uint8_t* Region::slot(std::size_t index) {
  return base_ + slots_offset_ + checked(index, spec_.slots, "slot") * layout_.slot_bytes();
}

float* Region::states(std::size_t group) {
  return reinterpret_cast<float*>(base_ + states_offset_ + checked(group, groups(), "group") * states_bytes_);
}

std::optional<std::size_t> Region::take_free(Owner owner) {
  for (std::size_t i = 0; i < spec_.slots; ++i) {
    if (hand_over(header(i), Owner::kFree, owner)) return i;
  }
  return std::nullopt;
}

bool Region::deliver(std::size_t index, Owner owner) {
  SlotHeader& slot = header(index);
  slot.delivery.store(region_header(base_).deliveries.fetch_add(1), std::memory_order_relaxed);
  if (!hand_over(slot, owner, Owner::kDelivered)) return false;
  futex_notify(bells().deliveries);
  return true;
}

std::vector<std::size_t> Region::take_delivered(std::size_t count) {
  // What is delivered while we look waits for the next time: behind our back a group may deliver into a slot that we
  // have passed, then into one that lies ahead, and the second rollout would overtake the first.
  const std::uint64_t horizon = region_header(base_).deliveries.load();
  std::vector<std::pair<std::uint64_t, std::size_t>> waiting;
  for (std::size_t i = 0; i < spec_.slots; ++i) {
    if (shm::load(header(i)).owner != Owner::kDelivered) continue;
    const std::uint64_t delivery = header(i).delivery.load();
    if (delivery < horizon) waiting.emplace_back(delivery, i);
  }
  if (waiting.size() < count) return {};
  std::sort(waiting.begin(), waiting.end());
  std::vector<std::size_t> taken;
  for (std::size_t i = 0; i < count; ++i) {
    hand_over(header(waiting[i].second), Owner::kDelivered, Owner::kLearner);  // the learner alone takes them
    taken.push_back(waiting[i].second);
  }
  return taken;
}

void Region::give_back(std::size_t index) {
  if (!hand_over(header(index), Owner::kLearner, Owner::kFree)) {
    throw std::logic_error("slot " + std::to_string(index) + " is not the learner's");
  }
  for (std::size_t i = 0; i < spec_.actors; ++i) futex_notify(actor(i).bell);
}

std::size_t Region::take_back_actor(std::size_t index) {
  std::size_t held = 0;
  for (std::size_t g = index * spec_.groups_per_actor; g < (index + 1) * spec_.groups_per_actor; ++g) {
    renew(group(g));  // before its slots are freed: nobody answers into a slot that is somebody else's
    for (std::size_t i = 0; i < spec_.slots; ++i)
      held += take_back(header(i), group_owner(static_cast<std::uint16_t>(g)));
  }
  for (std::size_t i = 0; i < spec_.actors; ++i) futex_notify(actor(i).bell);
  return held;
}

bool Region::request(std::size_t index, std::uint16_t generation, std::uint32_t slot, std::uint32_t step) {
  if (!shm::request(group(index), generation, slot, step)) return false;
  futex_notify(bells().requests);
  return true;
}

std::vector<Region::Request> Region::requests(std::size_t limit, std::size_t first) {
  std::vector<Request> found;
  for (std::size_t i = 0; i < groups() && found.size() < limit; ++i) {
    const std::size_t g = (first + i) % groups();
    GroupBlock& block = group(g);
    const std::uint64_t word = block.turn.load(std::memory_order_acquire);
    const Turn turn = Turn::unpack(word);
    if (turn.whose != Whose::kPolicy) continue;
    found.push_back({g, word, block.slot.load(std::memory_order_relaxed), block.step.load(std::memory_order_relaxed),
                     turn.answers});
  }
  return found;
}

bool Region::answer(const Request& request) {
  const bool valid = shm::answer(group(request.group), request.turn);
  control().answers.fetch_add(1, std::memory_order_relaxed);
  futex_notify(actor(request.group / spec_.groups_per_actor).bell);
  return valid;
}

bool Region::actor_has_work(std::size_t index) {
  for (std::size_t g = index * spec_.groups_per_actor; g < (index + 1) * spec_.groups_per_actor; ++g) {
    if (shm::load(group(g)).whose != Whose::kActor) continue;
    for (std::size_t i = 0; i < spec_.slots; ++i) {
      const Owner owner = shm::load(header(i)).owner;
      if (owner == Owner::kFree || owner == group_owner(static_cast<std::uint16_t>(g))) return true;
    }
  }
  return false;
}

void Region::wake_everybody() noexcept {
  futex_notify(bells().requests);
  futex_notify(bells().deliveries);
  for (std::size_t i = 0; i < spec_.actors; ++i)
    futex_notify(reinterpret_cast<ActorBlock*>(base_ + actors_offset_)[i].bell);
}

}  // namespace pbm::shm
