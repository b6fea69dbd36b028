#include "nethack/direct_calls.h"

#include <dlfcn.h>
#include <elf.h>

#include <cstring>
#include <optional>

namespace pbm::nethack {
namespace {

// A stub of the table: `jmp *slot(%rip)`, `push index`, `jmp` to the loader's resolver.
constexpr std::size_t kStub = 16, kJumpBytes = 6;
constexpr std::uint8_t kIndirectJump[] = {0xff, 0x25}, kPush = 0x68, kDirectJump = 0xe9;

using Image = std::vector<std::uint8_t>;

template <typename T>
std::optional<T> read(const Image& image, std::size_t at) {
  if (at > image.size() || image.size() - at < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, image.data() + at, sizeof value);
  return value;
}

struct Tables {
  std::size_t slots = 0, slots_bytes = 0, symbols = 0, names = 0;
  std::size_t code_begin = 0, code_end = 0;
};

// Where the tables lie. In the segments that are only read, addresses are places in the file.
std::optional<Tables> find_tables(const Image& image) {
  const auto header = read<Elf64_Ehdr>(image, 0);
  if (!header) return std::nullopt;
  Tables tables;
  for (int i = 0; i < header->e_phnum; ++i) {
    const auto segment = read<Elf64_Phdr>(image, header->e_phoff + i * sizeof(Elf64_Phdr));
    if (!segment) return std::nullopt;
    if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X) != 0) {
      if (segment->p_vaddr != segment->p_offset) return std::nullopt;
      tables.code_begin = segment->p_offset;
      tables.code_end = segment->p_offset + segment->p_filesz;
    }
    if (segment->p_type != PT_DYNAMIC) continue;
    for (std::size_t at = segment->p_offset; at < segment->p_offset + segment->p_filesz; at += sizeof(Elf64_Dyn)) {
      const auto entry = read<Elf64_Dyn>(image, at);
      if (!entry) return std::nullopt;
      if (entry->d_tag == DT_JMPREL) tables.slots = entry->d_un.d_ptr;
      if (entry->d_tag == DT_PLTRELSZ) tables.slots_bytes = entry->d_un.d_val;
      if (entry->d_tag == DT_SYMTAB) tables.symbols = entry->d_un.d_ptr;
      if (entry->d_tag == DT_STRTAB) tables.names = entry->d_un.d_ptr;
    }
  }
  if (tables.slots == 0 || tables.symbols == 0 || tables.names == 0 || tables.code_end > image.size())
    return std::nullopt;
  return tables;
}

// Whether the stub at `at` is that of slot number `index`, whose address lies at `slot`.
bool is_stub(const Image& image, std::size_t at, std::uint32_t index, std::size_t slot) {
  const auto offset = read<std::int32_t>(image, at + sizeof kIndirectJump);
  const auto pushed = read<std::uint32_t>(image, at + kJumpBytes + 1);
  return offset && pushed && std::memcmp(image.data() + at, kIndirectJump, sizeof kIndirectJump) == 0 &&
         image[at + kJumpBytes] == kPush && *pushed == index &&
         at + kJumpBytes + static_cast<std::size_t>(static_cast<std::int64_t>(*offset)) == slot;
}

// The function that a slot is bound to, when that is one of the library's own that may be called directly.
std::optional<std::size_t> own_function(const Image& image, const Tables& tables, const Elf64_Rela& slot,
                                        bool (*keep)(std::string_view)) {
  const auto symbol = read<Elf64_Sym>(image, tables.symbols + ELF64_R_SYM(slot.r_info) * sizeof(Elf64_Sym));
  if (!symbol || symbol->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(symbol->st_info) != STT_FUNC) return std::nullopt;
  const std::size_t name_at = tables.names + symbol->st_name;
  if (name_at >= image.size() || std::memchr(image.data() + name_at, 0, image.size() - name_at) == nullptr)
    return std::nullopt;
  const char* const name = reinterpret_cast<const char*>(image.data() + name_at);
  if (keep(name) || dlsym(RTLD_DEFAULT, name) != nullptr) return std::nullopt;
  if (symbol->st_value < tables.code_begin || symbol->st_value >= tables.code_end) return std::nullopt;
  return symbol->st_value;
}

}  // namespace

std::size_t call_directly(Image& image, bool (*keep)(std::string_view name)) {
  const auto tables = find_tables(image);
  if (!tables) return 0;
  const auto slot = [&](std::size_t i) { return read<Elf64_Rela>(image, tables->slots + i * sizeof(Elf64_Rela)); };
  const auto first_slot = slot(0);
  std::size_t stub = (tables->code_begin + kStub - 1) / kStub * kStub;
  while (stub < tables->code_end && !(first_slot && is_stub(image, stub, 0, first_slot->r_offset))) stub += kStub;
  std::size_t changed = 0;
  for (std::uint32_t i = 0; i < tables->slots_bytes / sizeof(Elf64_Rela); ++i, stub += kStub) {
    const auto entry = slot(i);
    if (!entry || stub + kStub > tables->code_end || !is_stub(image, stub, i, entry->r_offset)) break;
    const auto function = own_function(image, *tables, *entry, keep);
    if (!function) continue;
    const auto distance = static_cast<std::int32_t>(static_cast<std::int64_t>(*function) -
                                                    static_cast<std::int64_t>(stub + 1 + sizeof(std::int32_t)));
    image[stub] = kDirectJump;
    std::memcpy(image.data() + stub + 1, &distance, sizeof distance);
    ++changed;
  }
  return changed;
}

}  // namespace pbm::nethack
