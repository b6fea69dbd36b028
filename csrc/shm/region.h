// The shared region of one rank: a header, the control block and the rollout slots, in one anonymous memory file.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "file_descriptor.h"
#include "shm/layout.h"
#include "shm/slot_state.h"

namespace pbm::shm {

// What the learner tells everybody while the run goes on. One writer: the learner's trainer.
struct alignas(64) ControlBlock {
  std::atomic<std::int64_t> policy_version{0};
  std::atomic<std::int32_t> phase{0};
  std::atomic<std::int32_t> routing{0};
  std::atomic<double> temperature{1.0};
  std::atomic<std::int32_t> paused{0};
  std::atomic<std::int32_t> stop{0};
};

class Region {
 public:
  // Makes a region of `slots` free slots. Throws std::system_error when memory cannot be had.
  Region(RolloutLayout layout, std::size_t slots);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  const RolloutLayout& layout() const noexcept { return layout_; }
  std::size_t slots() const noexcept { return slots_; }
  ControlBlock& control() noexcept;
  std::uint8_t* slot(std::size_t index);  // throws std::out_of_range
  SlotHeader& header(std::size_t index) { return *reinterpret_cast<SlotHeader*>(slot(index)); }

 private:
  RolloutLayout layout_;
  std::size_t slots_;
  std::size_t bytes_;
  FileDescriptor memory_file_;
  std::uint8_t* base_ = nullptr;
};

}  // namespace pbm::shm
