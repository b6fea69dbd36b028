// Private copies of libnethack.so: one NetHack process image a game, all of them sharing one set of code pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "file_descriptor.h"
#include "nethack/abi.h"
#include "nethack/arena.h"
#include "nethack/library_file.h"
#include "nethack/replacements.h"

namespace pbm::nethack {

// The library wanted to end the process (exit, abort, a fatal error): the game is dead, the process is not.
class FatalGameError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One private copy, loaded and callable. `time` and `localtime` inside it follow `clock` when that is given. Without
// `terminal` nothing is drawn on NLE's terminal (the tty_* keys).
class Library {
 public:
  // Throws std::runtime_error when the file cannot be loaded or lacks what is needed of it.
  Library(std::shared_ptr<const LibraryFile> file, std::optional<std::int64_t> clock, bool terminal);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // Gives the copy the state of a fresh process again. No game of it may be running.
  void restart();

  // A running game of the copy, which outlives it. Ends with it.
  struct End {
    Library* library = nullptr;
    void operator()(nle_ctx_t* context) const noexcept;
  };
  using Context = std::unique_ptr<nle_ctx_t, End>;

  // These throw FatalGameError when the library tries to end the process; the context is finished then.
  Context start(nle_obs* observation, nle_settings* settings);
  void step(const Context& context, nle_obs* observation);

  // What a game that is over died of, in NetHack's own words ("killed by a jackal"); `how` is a game_end_type. Throws
  // FatalGameError as they do.
  std::string death(int how);

 private:
  struct Close {
    void operator()(void* handle) const noexcept;
  };
  // Functions that the loader calls when it begins or ends the copy.
  struct FunctionArray {
    std::uintptr_t address = 0;
    std::size_t count = 0;
    void call_all() const;
  };

  void share_code_pages();
  void replace_functions();
  void find_entry_points();
  void remember_state();
  void recall_state() noexcept;
  void begin();
  void finish() noexcept;
  template <typename Function>
  void guarded(bool inside_game, const Function& call);

  std::shared_ptr<const LibraryFile> file_;
  std::optional<std::int64_t> clock_;
  bool terminal_;
  Arena arena_;
  // Stays open for the object's life: dlopen of a reused descriptor number returns the image already loaded under that
  // name, and two games would silently share their state.
  FileDescriptor memory_file_;
  std::unique_ptr<void, Close> handle_;
  std::uint8_t* base_;                      // where the copy was loaded
  FunctionArray constructors_, finishers_;  // DT_INIT_ARRAY and DT_FINI_ARRAY
  std::vector<Destructor> destructors_;     // of the C++ objects that now exist
  std::vector<std::size_t> state_pages_;    // offsets from base_ of those that are not all zero in a fresh copy
  std::vector<std::uint8_t> state_bytes_;   // their contents
  nle_start_t start_ = nullptr;
  nle_step_t step_ = nullptr;
  nle_end_t end_ = nullptr;
  nle_yield_t yield_ = nullptr;
  formatkiller_t format_killer_ = nullptr;
};

}  // namespace pbm::nethack
