#include "nethack/library.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string_view>

#include "nethack/direct_calls.h"

namespace pbm::nethack {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr int kCollapse = 25;  // MADV_COLLAPSE, which older headers lack

std::size_t pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// What the replaced functions need to know of the call into a library that this thread is in the middle of.
struct Call {
  std::optional<std::int64_t> clock;
  Arena* arena = nullptr;
  std::vector<Destructor>* destructors = nullptr;
  nle_yield_t yield = nullptr;  // set while the game's own stack runs: it can be left through a yield
  void* escape[5] = {};         // elsewhere the call is left by a long jump
  std::string fatal;
};
thread_local Call* current_call = nullptr;

// Leaves the library for good. From the game's stack `nle_yield(NULL)` is how NetHack itself ends, so the context is
// left finished and can be freed; outside it (in nle_end) there is nothing to return to but the caller.
[[noreturn]] void leave(std::string reason) {
  Call* call = current_call;
  if (call == nullptr) std::abort();  // not called by us: keep the meaning of the function that was replaced
  call->fatal = std::move(reason);
  if (call->yield != nullptr) call->yield(nullptr);
  __builtin_longjmp(call->escape, 1);
}

extern "C" {

void pbm_exit(int status) { leave("NetHack called exit(" + std::to_string(status) + ")"); }
void pbm_abort() { leave("NetHack called abort()"); }

// NetHack's own `error`, which would otherwise bind to glibc's function of that name and other arguments.
void pbm_error(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  leave(std::string("NetHack reported a fatal error: ") + text);
}

std::time_t pbm_time(std::time_t* out) {
  const std::time_t now = current_call != nullptr && current_call->clock ? *current_call->clock : std::time(nullptr);
  if (out != nullptr) *out = now;
  return now;
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
  void* block = current_call != nullptr ? current_call->arena->allocate(bytes) : nullptr;
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
  std::size_t total;
  if (__builtin_mul_overflow(count, bytes, &total)) return nullptr;
  void* block = pbm_malloc(total);
  if (block != nullptr) std::memset(block, 0, total);
  return block;
}

void* pbm_realloc(void* block, std::size_t bytes) {
  if (block == nullptr) return pbm_malloc(bytes);
  if (current_call == nullptr || !current_call->arena->contains(block)) return std::realloc(block, bytes);
  return current_call->arena->reallocate(block, bytes);
}

// A pinned clock is read in UTC, so that a game does not depend on the machine's time zone.
std::tm* pbm_localtime(const std::time_t* when) {
  thread_local std::tm broken_down;
  const bool pinned = current_call != nullptr && current_call->clock;
  return pinned ? gmtime_r(when, &broken_down) : localtime_r(when, &broken_down);
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
void* find(const std::array<Replacement, N>& replacements, std::string_view name) {
  const auto found =
      std::find_if(replacements.begin(), replacements.end(), [name](const auto& r) { return r.name == name; });
  return found == replacements.end() ? nullptr : found->function;
}

bool is_replaced(std::string_view name) {
  return find(kReplacements, name) != nullptr || find(kTerminalReplacements, name) != nullptr;
}

FileDescriptor memory_file(const char* name, const std::vector<std::uint8_t>& bytes) {
  FileDescriptor fd(memfd_create(name, MFD_CLOEXEC));
  if (fd.get() < 0) throw std::runtime_error(std::string("memfd_create failed: ") + std::strerror(errno));
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t written = ::write(fd.get(), bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      throw std::runtime_error(std::string("writing libnethack to memory failed: ") + std::strerror(errno));
    done += static_cast<std::size_t>(written);
  }
  return fd;
}

template <typename Function>
Function symbol(void* handle, const char* name) {
  void* address = dlsym(handle, name);
  if (address == nullptr) throw std::runtime_error(std::string("libnethack.so has no symbol ") + name);
  return reinterpret_cast<Function>(address);
}

}  // namespace

std::shared_ptr<const LibraryFile> LibraryFile::open(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path);
  std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (bytes.size() < sizeof(ElfW(Ehdr)) || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0 ||
      bytes[EI_CLASS] != ELFCLASS64) {
    throw std::runtime_error(path + " is not a 64-bit shared object");
  }
  return std::shared_ptr<const LibraryFile>(new LibraryFile(std::move(bytes)));
}

LibraryFile::LibraryFile(std::vector<std::uint8_t> bytes)
    : bytes_(std::move(bytes)),
      direct_calls_(call_directly(bytes_, is_replaced)),
      shared_code_(memory_file("libnethack-code", bytes_)) {
  read_segments();
}

// Finds the read-only part and the state, and asks the loader to place copies at multiples of a huge page.
void LibraryFile::read_segments() {
  ElfW(Ehdr) header;
  std::memcpy(&header, bytes_.data(), sizeof header);
  if (header.e_phoff + header.e_phnum * sizeof(ElfW(Phdr)) > bytes_.size()) {
    throw std::runtime_error("libnethack.so is truncated");
  }
  for (int i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    std::uint8_t* const at = bytes_.data() + header.e_phoff + i * sizeof segment;
    std::memcpy(&segment, at, sizeof segment);
    const std::size_t end = segment.p_vaddr + segment.p_memsz;
    if (segment.p_type == PT_GNU_RELRO) state_begin_ = std::max(state_begin_, pages(end));
    if (segment.p_type != PT_LOAD) continue;
    if (segment.p_flags & PF_W) {
      state_begin_ = std::max<std::size_t>(state_begin_, segment.p_vaddr);
      state_end_ = end;
    } else if (segment.p_vaddr == segment.p_offset) {
      read_only_bytes_ = std::max(read_only_bytes_, pages(end));
      segment.p_align = kHugePage;
      std::memcpy(at, &segment, sizeof segment);
    }
  }
  if (read_only_bytes_ == 0 || read_only_bytes_ > bytes_.size() || state_begin_ >= state_end_) {
    throw std::runtime_error("libnethack.so is not laid out as nle 1.3.0's");
  }
}

Library::Library(std::shared_ptr<const LibraryFile> file, std::optional<std::int64_t> clock, bool terminal)
    : file_(std::move(file)),
      clock_(clock),
      terminal_(terminal),
      memory_file_(memory_file("libnethack", file_->bytes())) {
  load();
}

Library::~Library() { unload(); }

void Library::load() {
  const std::string path = "/proc/self/fd/" + std::to_string(memory_file_.get());
  // Functions are bound now: what is bound later would be forgotten with the rest of the state, and bound again.
  handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) throw std::runtime_error(std::string("loading libnethack.so failed: ") + dlerror());
  try {
    link_map* image = nullptr;
    if (dlinfo(handle_, RTLD_DI_LINKMAP, &image) != 0) throw std::runtime_error("dlinfo failed on libnethack.so");
    base_ = reinterpret_cast<std::uint8_t*>(image->l_addr);
    share_code_pages();
    replace_functions(*image);
    start_ = symbol<nle_start_t>(handle_, "nle_start");
    step_ = symbol<nle_step_t>(handle_, "nle_step");
    end_ = symbol<nle_end_t>(handle_, "nle_end");
    yield_ = symbol<nle_yield_t>(handle_, "nle_yield");
    format_killer_ = symbol<formatkiller_t>(handle_, "formatkiller");
    remember_state();
    // The loader has constructed, and the C library keeps the destructors: from here on both are ours.
    guarded(false, [this] { call_all(finishers_, num_finishers_); });
    begin();
  } catch (...) {
    unload();
    throw;
  }
}

void Library::unload() noexcept {
  if (handle_ == nullptr) return;
  finish();
  dlclose(handle_);
  handle_ = nullptr;
}

// As the loader would end and begin the copy: destructors of its C++ objects (strings live in the C++ library's heap),
// the memory of a fresh copy, constructors.
void Library::restart() {
  finish();
  begin();
}

void Library::begin() {
  arena_.clear();
  recall_state();
  guarded(false, [this] { call_all(constructors_, num_constructors_); });
}

void Library::finish() noexcept {
  while (!destructors_.empty()) {
    const Destructor last = destructors_.back();
    destructors_.pop_back();
    try {
      guarded(false, [&last] { last.function(last.argument); });
    } catch (const FatalGameError&) {
      // Its memory is forgotten next.
    }
  }
}

void Library::call_all(std::uintptr_t functions, std::size_t count) {
  using Function = void (*)();
  for (std::size_t i = 0; i < count; ++i) reinterpret_cast<const Function*>(functions)[i]();
}

void Library::remember_state() {
  for (std::size_t page = file_->state_begin(); page < file_->state_end(); page += kPage) {
    const std::uint8_t* const from = base_ + page;
    const std::uint8_t* const to = from + std::min(kPage, file_->state_end() - page);
    if (std::all_of(from, to, [](std::uint8_t byte) { return byte == 0; })) continue;
    state_pages_.push_back(page);
    state_bytes_.insert(state_bytes_.end(), from, to);
    state_bytes_.resize(state_pages_.size() * kPage);
  }
}

void Library::recall_state() noexcept {
  std::memset(base_ + file_->state_begin(), 0, file_->state_end() - file_->state_begin());
  for (std::size_t i = 0; i < state_pages_.size(); ++i) {
    const std::size_t bytes = std::min(kPage, file_->state_end() - state_pages_[i]);
    std::memcpy(base_ + state_pages_[i], state_bytes_.data() + i * kPage, bytes);
  }
}

// Many copies would each bring their own code into the processor's caches, at three to five times the cost of a step.
// The read-only segments are position independent and identical, so every copy maps the same physical pages; in one
// mapping, which may be executed as a whole, so that the kernel can back its start by one huge page: each copy has
// addresses of its own, and 32 copies need more translations than the processor keeps. Kernels that cannot do that
// refuse the advice, which costs nothing.
void Library::share_code_pages() {
  void* mapped =
      mmap(base_, file_->read_only_bytes(), PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file_->shared_code(), 0);
  if (mapped == MAP_FAILED) throw std::runtime_error(std::string("sharing code pages failed: ") + std::strerror(errno));
  madvise(mapped, kHugePage, kCollapse);
  // Nobody maps these bytes of the copy's own file any more.
  fallocate(memory_file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
            static_cast<off_t>(file_->read_only_bytes()));
}

// Every function is called through its slot in .got.plt, which stays writable: point some of the slots at ours.
void Library::replace_functions(const link_map& image) {
  const ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
  const ElfW(Rela)* slots = nullptr;
  std::size_t slots_bytes = 0;
  for (const ElfW(Dyn)* entry = image.l_ld; entry->d_tag != DT_NULL; ++entry) {
    switch (entry->d_tag) {
      case DT_SYMTAB:
        symbols = reinterpret_cast<const ElfW(Sym)*>(entry->d_un.d_ptr);
        break;
      case DT_STRTAB:
        names = reinterpret_cast<const char*>(entry->d_un.d_ptr);
        break;
      case DT_JMPREL:
        slots = reinterpret_cast<const ElfW(Rela)*>(entry->d_un.d_ptr);
        break;
      case DT_PLTRELSZ:
        slots_bytes = entry->d_un.d_val;
        break;
      case DT_INIT_ARRAY:
        constructors_ = image.l_addr + entry->d_un.d_ptr;
        break;
      case DT_INIT_ARRAYSZ:
        num_constructors_ = entry->d_un.d_val / sizeof(void*);
        break;
      case DT_FINI_ARRAY:
        finishers_ = image.l_addr + entry->d_un.d_ptr;
        break;
      case DT_FINI_ARRAYSZ:
        num_finishers_ = entry->d_un.d_val / sizeof(void*);
        break;
      default:
        break;
    }
  }
  if (symbols == nullptr || names == nullptr || slots == nullptr) {
    throw std::runtime_error("libnethack.so has no procedure linkage table");
  }
  std::size_t replaced = 0;
  for (std::size_t i = 0; i < slots_bytes / sizeof(ElfW(Rela)); ++i) {
    const std::string_view name = names + symbols[ELF64_R_SYM(slots[i].r_info)].st_name;
    void* function = find(kReplacements, name);
    if (function == nullptr && !terminal_) function = find(kTerminalReplacements, name);
    if (function == nullptr) continue;
    std::memcpy(reinterpret_cast<void*>(image.l_addr + slots[i].r_offset), &function, sizeof function);
    ++replaced;
  }
  if (replaced != kReplacements.size() + (terminal_ ? 0 : kTerminalReplacements.size()))
    throw std::runtime_error("libnethack.so lacks a function that must be replaced");
}

void Library::guarded(bool inside_game, const std::function<void()>& call) {
  Call record{.clock = clock_,
              .arena = &arena_,
              .destructors = &destructors_,
              .yield = inside_game ? yield_ : nullptr,
              .escape = {},
              .fatal = {}};
  Call* const outer = current_call;
  current_call = &record;
  if (__builtin_setjmp(record.escape) == 0) call();
  current_call = outer;
  if (!record.fatal.empty()) throw FatalGameError(record.fatal);
}

nle_ctx_t* Library::start(nle_obs* observation, nle_settings* settings) {
  nle_ctx_t* context = nullptr;
  try {
    guarded(true, [&] { context = start_(observation, nullptr, settings); });
  } catch (const FatalGameError&) {
    if (context != nullptr) end(context);  // it was left through a yield and is finished, not broken
    throw;
  }
  return context;
}

void Library::step(nle_ctx_t* context, nle_obs* observation) {
  guarded(true, [&] { step_(context, observation); });
}

void Library::end(nle_ctx_t* context) {
  guarded(false, [&] { end_(context); });
}

std::string Library::death(int how) {
  char text[kDeathLength + 1] = "";  // as wide as topten.c's own, which asks the same function
  guarded(false, [&] { format_killer_(text, sizeof text, how, 0); });
  return text;
}

}  // namespace pbm::nethack
