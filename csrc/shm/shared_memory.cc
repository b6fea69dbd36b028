#include "shm/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "system_call.h"

namespace pbm::shm {
namespace {

FileDescriptor make_file(const char* name, std::size_t bytes) {
  FileDescriptor file(memfd_create(name, MFD_CLOEXEC), "making shared memory failed");
  if (ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) throw_errno("sizing shared memory failed");
  return file;
}

}  // namespace

SharedMemory::SharedMemory(FileDescriptor file, std::size_t bytes)
    : file_(std::move(file)), mapping_(bytes, MAP_SHARED, file_.get(), "mapping shared memory failed") {}

SharedMemory::SharedMemory(const char* name, std::size_t bytes) : SharedMemory(make_file(name, bytes), bytes) {}

SharedMemory SharedMemory::attach(int fd) {
  FileDescriptor file(fcntl(fd, F_DUPFD_CLOEXEC, 0), "the descriptor of shared memory is not open");
  struct stat status{};
  if (fstat(file.get(), &status) != 0) throw_errno("the size of shared memory cannot be read");
  return {std::move(file), static_cast<std::size_t>(status.st_size)};
}

}  // namespace pbm::shm
