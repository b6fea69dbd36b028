// An owned mapping of memory.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "system_call.h"

namespace pbm {

class MemoryMapping {
 public:
  // As mmap(2), readable and writable, where the kernel likes. Throws std::system_error with `what`.
  MemoryMapping(std::size_t bytes, int flags, int fd, const char* what) : bytes_(bytes) {
    void* const mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (mapped == MAP_FAILED) throw_errno(what);
    data_ = static_cast<std::uint8_t*>(mapped);
  }
  MemoryMapping(MemoryMapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  MemoryMapping& operator=(MemoryMapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MemoryMapping() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }

  std::uint8_t* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  std::uint8_t* data_ = nullptr;
  std::size_t bytes_;
};

}  // namespace pbm
