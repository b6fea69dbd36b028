#include "shm/region.h"

#include <sys/mman.h>

#include <cerrno>
#include <new>
#include <stdexcept>
#include <system_error>

namespace pbm::shm {
namespace {

constexpr std::uint64_t kMagic = 0x30454f4d5f4d4250ULL;  // "PBM_MOE0"
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kFirstSlot = 4096;

struct RegionHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t slots;
  std::uint64_t slot_bytes;
  std::uint64_t layout_checksum;
  ControlBlock control;
};
static_assert(sizeof(RegionHeader) <= kFirstSlot);

}  // namespace

Region::Region(RolloutLayout layout, std::size_t slots)
    : layout_(std::move(layout)), slots_(slots), bytes_(kFirstSlot + slots * layout_.slot_bytes()) {
  if (slots == 0) throw std::invalid_argument("a region needs at least one slot");
  memory_file_ = FileDescriptor(memfd_create("pbm-region", MFD_CLOEXEC));
  if (memory_file_.get() < 0 || ftruncate(memory_file_.get(), static_cast<off_t>(bytes_)) != 0) {
    throw std::system_error(errno, std::generic_category(), "making a shared region failed");
  }
  void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_file_.get(), 0);
  if (mapped == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mapping the shared region failed");
  base_ = static_cast<std::uint8_t*>(mapped);
  new (base_) RegionHeader{kMagic, kVersion, static_cast<std::uint32_t>(slots), layout_.slot_bytes(), layout_.checksum(), {}};
  for (std::size_t i = 0; i < slots_; ++i) new (slot(i)) SlotHeader{};
}

Region::~Region() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

ControlBlock& Region::control() noexcept { return reinterpret_cast<RegionHeader*>(base_)->control; }

std::uint8_t* Region::slot(std::size_t index) {
  if (index >= slots_) throw std::out_of_range("the region has no slot " + std::to_string(index));
  return base_ + kFirstSlot + index * layout_.slot_bytes();
}

}  // namespace pbm::shm
