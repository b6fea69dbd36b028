// libnethack.so as installed, made ready for private copies to be loaded from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "file_descriptor.h"

namespace pbm::nethack {

// The bytes that copies are loaded from, and one memory file that the read-only part of every copy is mapped from.
class LibraryFile {
 public:
  // Throws std::runtime_error when the file is missing or is no 64-bit shared object that is laid out as nle 1.3.0's.
  explicit LibraryFile(const std::string& path);

  const std::vector<std::uint8_t>& bytes() const noexcept { return bytes_; }
  // Functions that the library's copies call without a detour through a table (direct_calls.h).
  std::size_t direct_calls() const noexcept { return direct_calls_; }
  int shared_code() const noexcept { return shared_code_.get(); }
  std::size_t read_only_bytes() const noexcept { return read_only_bytes_; }  // from the start, in whole pages
  // Where a loaded copy keeps its state, in bytes from its base: what stays writable after loading.
  std::size_t state_begin() const noexcept { return state_begin_; }
  std::size_t state_end() const noexcept { return state_end_; }

 private:
  void read_segments();

  std::vector<std::uint8_t> bytes_;
  std::size_t direct_calls_;
  FileDescriptor shared_code_;
  std::size_t read_only_bytes_ = 0, state_begin_ = 0, state_end_ = 0;
};

// A memory file of these bytes; `name` is seen in /proc. Throws std::system_error when memory cannot be had.
FileDescriptor memory_file(const char* name, const std::vector<std::uint8_t>& bytes);

}  // namespace pbm::nethack
