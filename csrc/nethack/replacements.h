// The functions of ours that a copy of libnethack calls in place of its own and the C library's (docs/engine.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nethack/abi.h"
#include "nethack/arena.h"

namespace pbm::nethack {

// What is called in place of function `name`; null: that function. Without `terminal` also what draws on NLE's terminal
// is replaced, by functions that do nothing.
void* replacement(std::string_view name, bool terminal) noexcept;

// How many functions have one.
std::size_t count_replacements(bool terminal) noexcept;

// Whether the function is replaced in some copy.
bool is_ever_replaced(std::string_view name) noexcept;

// What a C++ object of the library wants done when the library goes.
struct Destructor {
  void (*function)(void*);
  void* argument;
};

// A call into a copy of the library, as the replaced functions need to know it.
struct Call {
  std::optional<std::int64_t> clock;
  Arena* arena = nullptr;
  std::vector<Destructor>* destructors = nullptr;
  nle_yield_t yield = nullptr;  // set while the game's own stack runs: it can be left through a yield
  void* escape[5] = {};         // elsewhere the call is left by a long jump to here
  std::string fatal;            // why it was left
};

// Makes `call` the one that this thread is in, and afterwards the one before it.
class CurrentCall {
 public:
  explicit CurrentCall(Call& call) noexcept;
  ~CurrentCall();
  CurrentCall(const CurrentCall&) = delete;
  CurrentCall& operator=(const CurrentCall&) = delete;

 private:
  Call* outer_;
};

}  // namespace pbm::nethack
