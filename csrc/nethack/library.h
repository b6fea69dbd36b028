// Private copies of libnethack.so: one NetHack process image a game, all of them sharing one set of code pages.
#pragma once

#include <link.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "file_descriptor.h"
#include "nethack/abi.h"

namespace pbm::nethack {

// The library wanted to end the process (exit, abort, a fatal error): the game is dead, the process is not.
class FatalGameError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// libnethack.so as installed: its bytes, and one memory file that the read-only segments of every copy are mapped from.
class LibraryFile {
 public:
  // Throws std::runtime_error when the file is missing or is not a 64-bit shared object with the symbols of abi.h.
  static std::shared_ptr<const LibraryFile> open(const std::string& path);

  const std::vector<std::uint8_t>& bytes() const noexcept { return bytes_; }
  const std::vector<ElfW(Phdr)>& read_only_segments() const noexcept { return read_only_segments_; }
  int shared_code() const noexcept { return shared_code_.get(); }

 private:
  explicit LibraryFile(std::vector<std::uint8_t> bytes);

  std::vector<std::uint8_t> bytes_;
  std::vector<ElfW(Phdr)> read_only_segments_;
  FileDescriptor shared_code_;
};

// One private copy, loaded and callable. `time` and `localtime` inside it follow `clock` when that is given.
class Library {
 public:
  Library(std::shared_ptr<const LibraryFile> file, std::optional<std::int64_t> clock);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // Gives the copy the state of a fresh process again.
  void reload();

  // Each throws FatalGameError when the library tries to end the process.
  nle_ctx_t* start(nle_obs* observation, nle_settings* settings);
  void step(nle_ctx_t* context, nle_obs* observation);
  void end(nle_ctx_t* context);

 private:
  void load();
  void unload() noexcept;
  void share_code_pages(std::uintptr_t base);
  void replace_functions(const link_map& image);
  void guarded(bool inside_game, const std::function<void()>& call);

  std::shared_ptr<const LibraryFile> file_;
  std::optional<std::int64_t> clock_;
  // Stays open for the object's life: dlopen of a reused descriptor number returns the image already loaded under that
  // name, and two games would silently share their state.
  FileDescriptor memory_file_;
  void* handle_ = nullptr;
  nle_start_t start_ = nullptr;
  nle_step_t step_ = nullptr;
  nle_end_t end_ = nullptr;
  nle_yield_t yield_ = nullptr;
};

}  // namespace pbm::nethack
