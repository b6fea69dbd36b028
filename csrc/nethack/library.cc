#include "nethack/library.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "sizes.h"
#include "system_call.h"

namespace pbm::nethack {
namespace {

constexpr int kCollapse = 25;  // MADV_COLLAPSE, which older headers lack

void* open_copy(const FileDescriptor& file) {
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  // Functions are bound now: what is bound later would be forgotten with the rest of the state, and bound again.
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw std::runtime_error(std::string("loading libnethack.so failed: ") + dlerror());
  return handle;
}

const link_map& image_of(void* handle) {
  link_map* image = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &image) != 0) throw std::runtime_error("dlinfo failed on libnethack.so");
  return *image;
}

template <typename Function>
Function symbol(void* handle, const char* name) {
  void* const address = dlsym(handle, name);
  if (address == nullptr) throw std::runtime_error(std::string("libnethack.so has no symbol ") + name);
  return reinterpret_cast<Function>(address);
}

// A value of the dynamic section; 0 when it has none. Of addresses the loader has relocated some.
ElfW(Addr) dynamic_value(const link_map& image, ElfW(Sxword) tag) {
  const ElfW(Dyn)* entry = image.l_ld;
  while (entry->d_tag != DT_NULL && entry->d_tag != tag) ++entry;
  return entry->d_tag == tag ? entry->d_un.d_ptr : 0;
}

}  // namespace

void Library::Close::operator()(void* handle) const noexcept { dlclose(handle); }

void Library::FunctionArray::call_all() const {
  using Function = void (*)();
  for (std::size_t i = 0; i < count; ++i) reinterpret_cast<const Function*>(address)[i]();
}

Library::Library(std::shared_ptr<const LibraryFile> file, std::optional<std::int64_t> clock, bool terminal)
    : file_(std::move(file)),
      clock_(clock),
      terminal_(terminal),
      memory_file_(memory_file("libnethack", file_->bytes())),
      handle_(open_copy(memory_file_)),
      base_(reinterpret_cast<std::uint8_t*>(image_of(handle_.get()).l_addr)) {
  share_code_pages();
  replace_functions();
  find_entry_points();
  remember_state();
  // The loader has constructed, and the C library keeps the destructors: from here on both are ours.
  guarded(false, [this] { finishers_.call_all(); });
  begin();
}

Library::~Library() { finish(); }

// Many copies would each bring their own code into the processor's caches, at three to five times the cost of a step.
// The read-only segments are position independent and identical, so every copy maps the same physical pages; in one
// mapping, which may be executed as a whole, so that the kernel can back its start by one huge page: each copy has
// addresses of its own, and 32 copies need more translations than the processor keeps. Kernels that cannot do that
// refuse the advice, which costs nothing.
void Library::share_code_pages() {
  void* const mapped =
      mmap(base_, file_->read_only_bytes(), PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file_->shared_code(), 0);
  if (mapped == MAP_FAILED) throw_errno("sharing code pages failed");
  madvise(mapped, kHugePage, kCollapse);
  // Nobody maps these bytes of the copy's own file any more. Where they cannot be given back they only take memory.
  fallocate(memory_file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
            static_cast<off_t>(file_->read_only_bytes()));
}

// Every function is called through its slot in .got.plt, which stays writable: point some of the slots at ours.
void Library::replace_functions() {
  const link_map& image = image_of(handle_.get());
  const auto* const symbols = reinterpret_cast<const ElfW(Sym)*>(dynamic_value(image, DT_SYMTAB));
  const auto* const names = reinterpret_cast<const char*>(dynamic_value(image, DT_STRTAB));
  const auto* const slots = reinterpret_cast<const ElfW(Rela)*>(dynamic_value(image, DT_JMPREL));
  if (symbols == nullptr || names == nullptr || slots == nullptr) {
    throw std::runtime_error("libnethack.so has no procedure linkage table");
  }
  const std::size_t num_slots = dynamic_value(image, DT_PLTRELSZ) / sizeof(ElfW(Rela));
  std::size_t replaced = 0;
  for (std::size_t i = 0; i < num_slots; ++i) {
    const std::string_view name = names + symbols[ELF64_R_SYM(slots[i].r_info)].st_name;
    void* const function = replacement(name, terminal_);
    if (function == nullptr) continue;
    std::memcpy(base_ + slots[i].r_offset, &function, sizeof function);
    ++replaced;
  }
  if (replaced != count_replacements(terminal_)) {
    throw std::runtime_error("libnethack.so lacks a function that must be replaced");
  }
}

void Library::find_entry_points() {
  const link_map& image = image_of(handle_.get());
  constructors_ = {image.l_addr + dynamic_value(image, DT_INIT_ARRAY),
                   dynamic_value(image, DT_INIT_ARRAYSZ) / sizeof(void*)};
  finishers_ = {image.l_addr + dynamic_value(image, DT_FINI_ARRAY),
                dynamic_value(image, DT_FINI_ARRAYSZ) / sizeof(void*)};
  start_ = symbol<nle_start_t>(handle_.get(), "nle_start");
  step_ = symbol<nle_step_t>(handle_.get(), "nle_step");
  end_ = symbol<nle_end_t>(handle_.get(), "nle_end");
  yield_ = symbol<nle_yield_t>(handle_.get(), "nle_yield");
  format_killer_ = symbol<formatkiller_t>(handle_.get(), "formatkiller");
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

// As the loader would end and begin the copy: destructors of its C++ objects (strings live in the C++ library's heap),
// the memory of a fresh copy, constructors.
void Library::restart() {
  finish();
  begin();
}

void Library::begin() {
  arena_.clear();
  recall_state();
  guarded(false, [this] { constructors_.call_all(); });
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

template <typename Function>
void Library::guarded(bool inside_game, const Function& call) {
  Call record{.clock = clock_,
              .arena = &arena_,
              .destructors = &destructors_,
              .yield = inside_game ? yield_ : nullptr,
              .escape = {},
              .fatal = {}};
  {
    const CurrentCall current(record);
    if (__builtin_setjmp(record.escape) == 0) call();
  }
  if (!record.fatal.empty()) throw FatalGameError(record.fatal);
}

void Library::End::operator()(nle_ctx_t* context) const noexcept {
  try {
    library->guarded(false, [this, context] { library->end_(context); });
  } catch (const FatalGameError&) {
    // The game is over and the state of its copy is forgotten next: there is nothing left to lose.
  }
}

Library::Context Library::start(nle_obs* observation, nle_settings* settings) {
  Context context(nullptr, {this});
  guarded(true, [&] { context.reset(start_(observation, nullptr, settings)); });
  return context;
}

void Library::step(const Context& context, nle_obs* observation) {
  guarded(true, [&] { step_(context.get(), observation); });
}

std::string Library::death(int how) {
  char text[kDeathLength + 1] = "";  // as wide as topten.c's own, which asks the same function
  guarded(false, [&] { format_killer_(text, sizeof text, how, 0); });
  return text;
}

}  // namespace pbm::nethack
