// An owned file descriptor.
#pragma once

#include <unistd.h>

#include <utility>

#include "system_call.h"

namespace pbm {

class FileDescriptor {
 public:
  // Owns what a system call returned; throws std::system_error when it failed.
  FileDescriptor(int fd, const char* what) : fd_(fd) {
    if (fd < 0) throw_errno(what);
  }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  int get() const noexcept { return fd_; }

 private:
  int fd_;
};

}  // namespace pbm
