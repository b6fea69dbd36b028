// What a failed system call becomes.
#pragma once

#include <cerrno>
#include <string>
#include <system_error>

namespace pbm {

// Throws what `errno` says, with `what` before it: which operation failed.
[[noreturn]] inline void throw_errno(const std::string& what) {
  const int error = errno;  // before anything else can change it
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace pbm
