#include "shm/region.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "shm/futex.h"
#include "shm/settings.h"
#include "sizes.h"

namespace pbm::shm {
namespace {

constexpr std::uint64_t kMagic = 0x30454f4d5f4d4250ULL;  // "PBM_MOE0"
constexpr std::uint32_t kVersion = 2;

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

RegionHeader& header_of(const SharedMemory& memory) noexcept { return *reinterpret_cast<RegionHeader*>(memory.data()); }

template <typename T>
T* at(const SharedMemory& memory, std::size_t offset) noexcept {
  return reinterpret_cast<T*>(memory.data() + offset);
}

static_assert(std::atomic<double>::is_always_lock_free, "a lock would belong to one process");

std::size_t checked(std::size_t index, std::size_t count, const char* what) {
  if (index >= count) throw std::out_of_range("the region has no " + std::string(what) + " " + std::to_string(index));
  return index;
}

}  // namespace

RegionOffsets::RegionOffsets(const RegionSpec& spec, const RolloutLayout& layout) {
  if (spec.slots == 0 || spec.actors == 0 || spec.groups_per_actor == 0) {
    throw std::invalid_argument("a region needs at least one slot, one actor and one group");
  }
  if (product(spec.actors, spec.groups_per_actor) > kMostGroups) {
    throw std::invalid_argument("a region has at most " + std::to_string(kMostGroups) + " groups");
  }
  group_states_bytes = product(2 * sizeof(float), product(spec.rollout.games, spec.rollout.state));
  actors = round_up(sizeof(RegionHeader), kPage);
  groups = round_up(actors + spec.actors * sizeof(ActorBlock), kPage);
  states = round_up(groups + spec.groups() * sizeof(GroupBlock), kPage);
  slots = round_up(states + product(spec.groups(), group_states_bytes), kPage);
  bytes = slots + product(spec.slots, layout.slot_bytes());
}

Region::Region(const RegionSpec& spec, const nethack::GameSettings& game)
    : spec_(spec), game_(game), layout_(spec.rollout), offsets_(spec, layout_), memory_("pbm-region", offsets_.bytes) {
  RegionHeader& header = *std::construct_at(&header_of(memory_));
  header.version = kVersion;
  header.bytes = offsets_.bytes;
  header.layout_checksum = layout_.checksum();
  header.spec = spec;
  store_settings(header.settings, game);
  for (std::size_t i = 0; i < spec_.actors; ++i) std::construct_at(&actor(i));
  for (std::size_t i = 0; i < groups(); ++i) std::construct_at(&group(i));
  for (std::size_t i = 0; i < spec_.slots; ++i) std::construct_at(&this->header(i));
  header.magic = kMagic;  // last: until now it is no region
}

Region::Region(SharedMemory memory, const RegionSpec& spec, nethack::GameSettings game)
    : spec_(spec), game_(std::move(game)), layout_(spec.rollout), offsets_(spec, layout_), memory_(std::move(memory)) {}

Region Region::attach(int fd) {
  SharedMemory memory = SharedMemory::attach(fd);
  if (memory.bytes() < sizeof(RegionHeader)) throw std::runtime_error("not a shared region: too small");
  const RegionHeader& header = header_of(memory);
  if (header.magic != kMagic || header.version != kVersion || header.bytes != memory.bytes()) {
    throw std::runtime_error("not a shared region of this version");
  }
  Region region(std::move(memory), header.spec, load_settings(header.settings));
  if (region.layout_.checksum() != header.layout_checksum || region.offsets_.bytes != header.bytes) {
    throw std::runtime_error("the shared region was laid out by another build");
  }
  return region;
}

ControlBlock& Region::control() noexcept { return header_of(memory_).control; }
Bells& Region::bells() noexcept { return header_of(memory_).bells; }

ActorBlock& Region::actor(std::size_t index) {
  return at<ActorBlock>(memory_, offsets_.actors)[checked(index, spec_.actors, "actor")];
}

GroupBlock& Region::group(std::size_t index) {
  return at<GroupBlock>(memory_, offsets_.groups)[checked(index, groups(), "group")];
}

std::uint8_t* Region::slot(std::size_t index) {
  return memory_.data() + offsets_.slots + checked(index, spec_.slots, "slot") * layout_.slot_bytes();
}

SlotHeader& Region::header(std::size_t slot_index) { return *reinterpret_cast<SlotHeader*>(slot(slot_index)); }

float* Region::states(std::size_t group_index) {
  const std::size_t before = checked(group_index, groups(), "group") * offsets_.group_states_bytes;
  return at<float>(memory_, offsets_.states + before);
}

std::optional<std::size_t> Region::take_free(Owner owner) {
  for (std::size_t i = 0; i < spec_.slots; ++i) {
    if (hand_over(header(i), Owner::kFree, owner)) return i;
  }
  return std::nullopt;
}

bool Region::deliver(std::size_t index, Owner owner) {
  SlotHeader& slot = header(index);
  slot.delivery.store(header_of(memory_).deliveries.fetch_add(1), std::memory_order_relaxed);
  if (!hand_over(slot, owner, Owner::kDelivered)) return false;
  futex_notify(bells().deliveries);
  return true;
}

std::vector<std::size_t> Region::take_delivered(std::size_t count) {
  // What is delivered while we look waits for the next time: behind our back a group may deliver into a slot that we
  // have passed, then into one that lies ahead, and the second rollout would overtake the first.
  const std::uint64_t horizon = header_of(memory_).deliveries.load();
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
  notify_actors();
}

std::size_t Region::take_back_actor(std::size_t index) {
  std::size_t held = 0;
  for (std::size_t g = index * spec_.groups_per_actor; g < (index + 1) * spec_.groups_per_actor; ++g) {
    renew(group(g));  // before its slots are freed: nobody answers into a slot that is somebody else's
    for (std::size_t i = 0; i < spec_.slots; ++i) held += take_back(header(i), group_owner(g));
  }
  notify_actors();
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
    const GroupBlock& block = group(g);
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
      if (owner == Owner::kFree || owner == group_owner(g)) return true;
    }
  }
  return false;
}

void Region::wake_everybody() noexcept {
  futex_notify(bells().requests);
  futex_notify(bells().deliveries);
  notify_actors();
}

void Region::notify_actors() noexcept {
  auto* const blocks = at<ActorBlock>(memory_, offsets_.actors);
  for (std::size_t i = 0; i < spec_.actors; ++i) futex_notify(blocks[i].bell);
}

}  // namespace pbm::shm
