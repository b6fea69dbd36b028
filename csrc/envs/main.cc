// pbm-games: a process that plays some of the games of a vector environment. Started with the block's descriptor
// inherited; imports no interpreter, ends with whoever started it, and leaves Ctrl-C to them.
#include <sys/prctl.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <string>

#include "envs/orders.h"

namespace {

constexpr int kUsage = 64;   // EX_USAGE of sysexits.h
constexpr int kFailed = 70;  // EX_SOFTWARE

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: pbm-games BLOCK_FD WORKER DIRECTORY PARENT_PID\n");
    return kUsage;
  }
  try {
    const std::string name = std::string("pbm-games-") + argv[2];
    prctl(PR_SET_NAME, name.c_str(), 0, 0, 0);
    std::signal(SIGINT, SIG_IGN);
    const auto block = pbm::envs::Block::attach(std::stoi(argv[1]));
    pbm::envs::serve(block, std::stoul(argv[2]), argv[3], static_cast<pid_t>(std::stol(argv[4])));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "pbm-games: %s\n", error.what());
    return kFailed;
  }
  return 0;
}
