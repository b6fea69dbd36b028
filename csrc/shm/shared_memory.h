// Memory that processes share: an anonymous memory file, which they inherit as a descriptor, and its mapping.
#pragma once

#include <cstddef>
#include <cstdint>

#include "file_descriptor.h"
#include "memory_mapping.h"

namespace pbm::shm {

class SharedMemory {
 public:
  // Makes `bytes` bytes of zeros; `name` is seen in /proc. Throws std::system_error when memory cannot be had.
  SharedMemory(const char* name, std::size_t bytes);
  // Maps all of the memory that another process made. Throws std::system_error when `fd` is nothing to map.
  static SharedMemory attach(int fd);

  std::uint8_t* data() const noexcept { return mapping_.data(); }
  std::size_t bytes() const noexcept { return mapping_.bytes(); }
  int fd() const noexcept { return file_.get(); }

 private:
  SharedMemory(FileDescriptor file, std::size_t bytes);

  FileDescriptor file_;
  MemoryMapping mapping_;
};

}  // namespace pbm::shm
