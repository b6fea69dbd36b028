// pbm-games: a process that plays some of the games of a vector environment. Started with the block's descriptor
// inherited; imports no interpreter, and ends with whoever started it.
#include <sched.h>

#include <cstdio>
#include <exception>
#include <string>

#include "envs/orders.h"
#include "program.h"

namespace {

// Keeps to one share of the cores, the other workers having the others. All workers are woken at once by one process,
// and the kernel likes to run whom it wakes on the waker's core: two of them then take turns there, and the second core
// idles. Without a share for everybody nothing is changed; nor where the system refuses.
void keep_to_own_cores(std::size_t worker, std::size_t workers) noexcept {
  cpu_set_t allowed, mine;
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  if (workers < 2 || static_cast<std::size_t>(CPU_COUNT(&allowed)) < workers) return;
  std::size_t seen = 0;
  for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed) && seen++ % workers == worker) CPU_SET(core, &mine);
  }
  sched_setaffinity(0, sizeof(mine), &mine);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: pbm-games BLOCK_FD WORKER DIRECTORY PARENT_PID\n");
    return pbm::kUsage;
  }
  const std::string name = std::string("pbm-games-") + argv[2];
  pbm::begin_program(name);
  try {
    const auto block = pbm::envs::Block::attach(std::stoi(argv[1]));
    keep_to_own_cores(std::stoul(argv[2]), block.spec().processes);
    pbm::envs::serve(block, std::stoul(argv[2]), argv[3], static_cast<pid_t>(std::stol(argv[4])));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());
    return pbm::kFailed;
  }
  return 0;
}
