#include "nethack/library.h"

#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string_view>

namespace pbm::nethack {
namespace {

// What the replaced functions need to know of the call into a library that this thread is in the middle of.
struct Call {
  std::optional<std::int64_t> clock;
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

// A pinned clock is read in UTC, so that a game does not depend on the machine's time zone.
std::tm* pbm_localtime(const std::time_t* when) {
  thread_local std::tm broken_down;
  const bool pinned = current_call != nullptr && current_call->clock;
  return pinned ? gmtime_r(when, &broken_down) : localtime_r(when, &broken_down);
}
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
};

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
    : bytes_(std::move(bytes)), shared_code_(memory_file("libnethack-code", bytes_)) {
  ElfW(Ehdr) header;
  std::memcpy(&header, bytes_.data(), sizeof header);
  if (header.e_phoff + header.e_phnum * sizeof(ElfW(Phdr)) > bytes_.size()) {
    throw std::runtime_error("libnethack.so is truncated");
  }
  for (int i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    std::memcpy(&segment, bytes_.data() + header.e_phoff + i * sizeof segment, sizeof segment);
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_W) == 0) read_only_segments_.push_back(segment);
  }
}

Library::Library(std::shared_ptr<const LibraryFile> file, std::optional<std::int64_t> clock)
    : file_(std::move(file)), clock_(clock), memory_file_(memory_file("libnethack", file_->bytes())) {
  load();
}

Library::~Library() { unload(); }

void Library::reload() {
  unload();
  load();
}

void Library::load() {
  const std::string path = "/proc/self/fd/" + std::to_string(memory_file_.get());
  handle_ = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (handle_ == nullptr) throw std::runtime_error(std::string("loading libnethack.so failed: ") + dlerror());
  try {
    link_map* image = nullptr;
    if (dlinfo(handle_, RTLD_DI_LINKMAP, &image) != 0) throw std::runtime_error("dlinfo failed on libnethack.so");
    share_code_pages(image->l_addr);
    replace_functions(*image);
    start_ = symbol<nle_start_t>(handle_, "nle_start");
    step_ = symbol<nle_step_t>(handle_, "nle_step");
    end_ = symbol<nle_end_t>(handle_, "nle_end");
    yield_ = symbol<nle_yield_t>(handle_, "nle_yield");
  } catch (...) {
    unload();
    throw;
  }
}

void Library::unload() noexcept {
  if (handle_ != nullptr) dlclose(handle_);
  handle_ = nullptr;
}

// Many copies would each bring their own code into the processor's caches, at three to five times the cost of a step.
// The read-only segments are position independent and identical, so every copy maps the same physical pages.
void Library::share_code_pages(std::uintptr_t base) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  for (const ElfW(Phdr) & segment : file_->read_only_segments()) {
    const std::uintptr_t slack = segment.p_vaddr % page;
    const int protection = PROT_READ | ((segment.p_flags & PF_X) ? PROT_EXEC : 0);
    void* mapped = mmap(reinterpret_cast<void*>(base + segment.p_vaddr - slack), segment.p_filesz + slack, protection,
                        MAP_PRIVATE | MAP_FIXED, file_->shared_code(), static_cast<off_t>(segment.p_offset - slack));
    if (mapped == MAP_FAILED)
      throw std::runtime_error(std::string("sharing code pages failed: ") + std::strerror(errno));
  }
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
    for (const Replacement& replacement : kReplacements) {
      if (name != replacement.name) continue;
      std::memcpy(reinterpret_cast<void*>(image.l_addr + slots[i].r_offset), &replacement.function, sizeof(void*));
      ++replaced;
    }
  }
  if (replaced != kReplacements.size())
    throw std::runtime_error("libnethack.so lacks a function that must be replaced");
}

void Library::guarded(bool inside_game, const std::function<void()>& call) {
  Call record{.clock = clock_, .yield = inside_game ? yield_ : nullptr, .escape = {}, .fatal = {}};
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

}  // namespace pbm::nethack
