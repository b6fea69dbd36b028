#include "nethack/library_file.h"

#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "nethack/direct_calls.h"
#include "nethack/replacements.h"
#include "sizes.h"
#include "system_call.h"

namespace pbm::nethack {
namespace {

std::vector<std::uint8_t> read_library(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path);
  std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (bytes.size() < sizeof(ElfW(Ehdr)) || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0 ||
      bytes[EI_CLASS] != ELFCLASS64) {
    throw std::runtime_error(path + " is not a 64-bit shared object");
  }
  return bytes;
}

}  // namespace

FileDescriptor memory_file(const char* name, const std::vector<std::uint8_t>& bytes) {
  FileDescriptor file(memfd_create(name, MFD_CLOEXEC), "making a memory file for libnethack failed");
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t written = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_errno("writing libnethack to memory failed");
    done += static_cast<std::size_t>(written);
  }
  return file;
}

LibraryFile::LibraryFile(const std::string& path)
    : bytes_(read_library(path)),
      direct_calls_(call_directly(bytes_, is_ever_replaced)),
      shared_code_(memory_file("libnethack-code", bytes_)) {
  read_segments();
}

// Finds the read-only part and the state, and asks the loader to place copies at multiples of a huge page.
void LibraryFile::read_segments() {
  ElfW(Ehdr) header;
  std::memcpy(&header, bytes_.data(), sizeof header);
  if (header.e_phoff > bytes_.size() || header.e_phnum > (bytes_.size() - header.e_phoff) / sizeof(ElfW(Phdr))) {
    throw std::runtime_error("libnethack.so is truncated");
  }
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    std::uint8_t* const at = bytes_.data() + header.e_phoff + i * sizeof segment;
    std::memcpy(&segment, at, sizeof segment);
    const std::size_t end = segment.p_vaddr + segment.p_memsz;
    if (segment.p_type == PT_GNU_RELRO) state_begin_ = std::max(state_begin_, round_up(end, kPage));
    if (segment.p_type != PT_LOAD) continue;
    if (segment.p_flags & PF_W) {
      state_begin_ = std::max<std::size_t>(state_begin_, segment.p_vaddr);
      state_end_ = end;
    } else if (segment.p_vaddr == segment.p_offset) {
      read_only_bytes_ = std::max(read_only_bytes_, round_up(end, kPage));
      segment.p_align = kHugePage;
      std::memcpy(at, &segment, sizeof segment);
    }
  }
  if (read_only_bytes_ == 0 || read_only_bytes_ > bytes_.size() || state_begin_ >= state_end_) {
    throw std::runtime_error("libnethack.so is not laid out as nle 1.3.0's");
  }
}

}  // namespace pbm::nethack
