#include "nethack/replacements.h"

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>

namespace pbm::nethack {
namespace {

thread_local Call* current_call = nullptr;

// Leaves the library for good. From the game's stack `nle_yield(NULL)` is how NetHack itself ends, so the context is
// left finished and can be freed; outside it (in nle_end) there is nothing to return to but the caller. No destructor
// runs on the way, so whoever calls this holds nothing that needs one.
[[noreturn]] void leave(const char* reason) {
  Call* const call = current_call;
  if (call == nullptr) std::abort();  // not called by us: keep the meaning of the function that was replaced
  call->fatal = reason;
  if (call->yield != nullptr) call->yield(nullptr);
  __builtin_longjmp(call->escape, 1);
}

extern "C" {

void pbm_exit(int status) {
  char reason[64];
  std::snprintf(reason, sizeof reason, "NetHack called exit(%d)", status);
  leave(reason);
}

void pbm_abort() { leave("NetHack called abort()"); }

// NetHack's own `error`, which would otherwise bind to glibc's function of that name and other arguments.
void pbm_error(const char* format, ...) {
  char reason[512] = "NetHack reported a fatal error: ";
  const std::size_t said = std::strlen(reason);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(reason + said, sizeof reason - said, format, arguments);
  va_end(arguments);
  leave(reason);
}

std::time_t pbm_time(std::time_t* out) {
  const std::time_t now = current_call != nullptr && current_call->clock ? *current_call->clock : std::time(nullptr);
  if (out != nullptr) *out = now;
  return now;
}

// A pinned clock is read in UTC, so that a game does not depend on the machine's time zone.
std::tm* pbm_localtime(const std::time_t* when) {
  thread_local std::tm broken_down;
  const bool pinned = current_call != nullptr && current_call->clock;
  return pinned ? gmtime_r(when, &broken_down) : localtime_r(when, &broken_down);
}

// What a constructor of the library's C++ objects asks to be done when the library goes. The C library's list would
// grow with every episode: it gives a place free again only at its end.
int pbm_cxa_atexit(void (*function)(void*), void* argument, void* /*library*/) {
  if (current_call == nullptr) std::abort();  // constructors run under our eyes, or before they can call this
  current_call->destructors->push_back({function, argument});
  return 0;
}

// Blocks of the game's own arena; what the C library has allocated, or when the arena is full, is the C library's.
void* pbm_malloc(std::size_t bytes) {
  void* const block = current_call != nullptr ? current_call->arena->allocate(bytes) : nullptr;
  return block != nullptr ? block : std::malloc(bytes);
}

void pbm_free(void* block) {
  if (block != nullptr && current_call != nullptr && current_call->arena->contains(block)) {
    current_call->arena->release(block);
  } else {
    std::free(block);
  }
}

void* pbm_calloc(std::size_t count, std::size_t bytes) {
  std::size_t total = 0;
  if (__builtin_mul_overflow(count, bytes, &total)) return nullptr;
  void* const block = pbm_malloc(total);
  if (block != nullptr) std::memset(block, 0, total);
  return block;
}

void* pbm_realloc(void* block, std::size_t bytes) {
  if (block == nullptr) return pbm_malloc(bytes);
  if (current_call == nullptr || !current_call->arena->contains(block)) return std::realloc(block, bytes);
  const std::size_t room = Arena::room(block);
  if (bytes <= room) return block;
  void* const larger = pbm_malloc(bytes);
  if (larger == nullptr) return nullptr;
  std::memcpy(larger, block, room);
  current_call->arena->release(block);
  return larger;
}

// What draws on NLE's terminal: the status lines and the map's glyphs, then characters and escape sequences into a
// buffer (nle.c), from there into an emulator. Nothing but the tty_* keys reads it, so where they are not wanted
// nothing is drawn.
void pbm_status_update(int /*field*/, void* /*value*/, int, int, int, unsigned long*) {}
void pbm_print_glyph(int /*window*/, signed char, signed char, int, int) {}
int pbm_putchar(int character) { return character; }
int pbm_puts(const char* /*text*/) { return 0; }
int pbm_xputs(const char* /*text*/) { return 0; }
int pbm_fflush(void* /*stream*/) { return 0; }
}

struct Replacement {
  std::string_view name;
  void* function;
};

const std::array kReplacements = {
    Replacement{"exit", reinterpret_cast<void*>(pbm_exit)},
    Replacement{"_exit", reinterpret_cast<void*>(pbm_exit)},
    Replacement{"abort", reinterpret_cast<void*>(pbm_abort)},
    Replacement{"error", reinterpret_cast<void*>(pbm_error)},
    Replacement{"time", reinterpret_cast<void*>(pbm_time)},
    Replacement{"localtime", reinterpret_cast<void*>(pbm_localtime)},
    Replacement{"malloc", reinterpret_cast<void*>(pbm_malloc)},
    Replacement{"calloc", reinterpret_cast<void*>(pbm_calloc)},
    Replacement{"realloc", reinterpret_cast<void*>(pbm_realloc)},
    Replacement{"free", reinterpret_cast<void*>(pbm_free)},
    Replacement{"__cxa_atexit", reinterpret_cast<void*>(pbm_cxa_atexit)},
};

// The same where no terminal is wanted.
const std::array kTerminalReplacements = {
    Replacement{"tty_status_update", reinterpret_cast<void*>(pbm_status_update)},
    Replacement{"tty_print_glyph", reinterpret_cast<void*>(pbm_print_glyph)},
    Replacement{"nle_putchar", reinterpret_cast<void*>(pbm_putchar)},
    Replacement{"nle_puts", reinterpret_cast<void*>(pbm_puts)},
    Replacement{"nle_xputs", reinterpret_cast<void*>(pbm_xputs)},
    Replacement{"nle_fflush", reinterpret_cast<void*>(pbm_fflush)},
};

template <std::size_t N>
void* find(const std::array<Replacement, N>& replacements, std::string_view name) noexcept {
  const auto* const found = std::ranges::find(replacements, name, &Replacement::name);
  return found == replacements.end() ? nullptr : found->function;
}

}  // namespace

void* replacement(std::string_view name, bool terminal) noexcept {
  void* const function = find(kReplacements, name);
  return function == nullptr && !terminal ? find(kTerminalReplacements, name) : function;
}

std::size_t count_replacements(bool terminal) noexcept {
  return kReplacements.size() + (terminal ? 0 : kTerminalReplacements.size());
}

bool is_ever_replaced(std::string_view name) noexcept { return replacement(name, false) != nullptr; }

CurrentCall::CurrentCall(Call& call) noexcept : outer_(std::exchange(current_call, &call)) {}
CurrentCall::~CurrentCall() { current_call = outer_; }

}  // namespace pbm::nethack
