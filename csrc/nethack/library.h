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
#include "nethack/arena.h"

namespace pbm::nethack {

// The library wanted to end the process (exit, abort, a fatal error): the game is dead, the process is not.
class FatalGameError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// libnethack.so as installed: the bytes that copies are loaded from, and one memory file that the read-only part of
// every copy is mapped from.
class LibraryFile {
 public:
  // Throws std::runtime_error when the file is missing or is not a 64-bit shared object with the symbols of abi.h.
  static std::shared_ptr<const LibraryFile> open(const std::string& path);

  const std::vector<std::uint8_t>& bytes() const noexcept { return bytes_; }
  // Functions that the library's copies call without a detour through a table (direct_calls.h).
  std::size_t direct_calls() const noexcept { return direct_calls_; }
  int shared_code() const noexcept { return shared_code_.get(); }
  std::size_t read_only_bytes() const noexcept { return read_only_bytes_; }  // from the start, in whole pages
  // Where a loaded copy keeps its state, from its base on: what stays writable after loading.
  std::size_t state_begin() const noexcept { return state_begin_; }
  std::size_t state_end() const noexcept { return state_end_; }

 private:
  explicit LibraryFile(std::vector<std::uint8_t> bytes);

  void read_segments();

  std::vector<std::uint8_t> bytes_;
  std::size_t direct_calls_;
  FileDescriptor shared_code_;
  std::size_t read_only_bytes_ = 0, state_begin_ = 0, state_end_ = 0;
};

struct Destructor {
  void (*function)(void*);
  void* argument;
};

// One private copy, loaded and callable. `time` and `localtime` inside it follow `clock` when that is given. Without
// `terminal` nothing is drawn on NLE's terminal (the tty_* keys).
class Library {
 public:
  Library(std::shared_ptr<const LibraryFile> file, std::optional<std::int64_t> clock, bool terminal);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // Gives the copy the state of a fresh process again. No context of it may be in use.
  void restart();

  std::size_t heap_used() const noexcept { return arena_.used(); }  // bytes

  // Each throws FatalGameError when the library tries to end the process.
  nle_ctx_t* start(nle_obs* observation, nle_settings* settings);
  void step(nle_ctx_t* context, nle_obs* observation);
  void end(nle_ctx_t* context);

  // What a game that is over died of, in NetHack's own words ("killed by a jackal"); `how` is a game_end_type.
  std::string death(int how);

 private:
  void load();
  void unload() noexcept;
  void share_code_pages();
  void remember_state();
  void recall_state() noexcept;
  void begin();
  void finish() noexcept;
  void call_all(std::uintptr_t functions, std::size_t count);
  void replace_functions(const link_map& image);
  void guarded(bool inside_game, const std::function<void()>& call);

  std::shared_ptr<const LibraryFile> file_;
  std::optional<std::int64_t> clock_;
  bool terminal_;
  // Stays open for the object's life: dlopen of a reused descriptor number returns the image already loaded under that
  // name, and two games would silently share their state.
  FileDescriptor memory_file_;
  Arena arena_;
  void* handle_ = nullptr;
  std::uint8_t* base_ = nullptr;
  std::uintptr_t constructors_ = 0, finishers_ = 0;  // DT_INIT_ARRAY and DT_FINI_ARRAY
  std::size_t num_constructors_ = 0, num_finishers_ = 0;
  std::vector<Destructor> destructors_;    // of the C++ objects that now exist
  std::vector<std::size_t> state_pages_;   // offsets from base_ of those that are not all zero in a fresh copy
  std::vector<std::uint8_t> state_bytes_;  // their contents
  nle_start_t start_ = nullptr;
  nle_step_t step_ = nullptr;
  nle_end_t end_ = nullptr;
  nle_yield_t yield_ = nullptr;
  formatkiller_t format_killer_ = nullptr;
};

}  // namespace pbm::nethack
