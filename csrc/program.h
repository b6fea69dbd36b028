// What the programs beside the extension have in common.
#pragma once

#include <sys/prctl.h>

#include <csignal>
#include <string>

namespace pbm {

inline constexpr int kUsage = 64;   // EX_USAGE of sysexits.h
inline constexpr int kFailed = 70;  // EX_SOFTWARE

// Names the process for ps and top, and leaves Ctrl-C and a job scheduler's warning, which come to all processes of a
// job, to the one that started it.
inline void begin_program(const std::string& name) noexcept {
  prctl(PR_SET_NAME, name.c_str(), 0, 0, 0);
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGUSR1, SIG_IGN);
  std::signal(SIGTERM, SIG_DFL);
}

}  // namespace pbm
