// pbm-games: a process that plays some of the games of a vector environment. Started with the block's descriptor
// inherited; imports no interpreter, and ends with whoever started it.
#include <cstdio>
#include <exception>
#include <string>

#include "envs/orders.h"
#include "program.h"

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: pbm-games BLOCK_FD WORKER DIRECTORY PARENT_PID\n");
    return pbm::kUsage;
  }
  const std::string name = std::string("pbm-games-") + argv[2];
  pbm::begin_program(name);
  try {
    const auto block = pbm::envs::Block::attach(std::stoi(argv[1]));
    pbm::envs::serve(block, std::stoul(argv[2]), argv[3], static_cast<pid_t>(std::stol(argv[4])));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());
    return pbm::kFailed;
  }
  return 0;
}
