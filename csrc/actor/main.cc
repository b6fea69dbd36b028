// pbm-actor: the process that plays the games of one actor. Started by the learner with the shared region's descriptor
// inherited; imports no interpreter and no torch, and dies with its learner.
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "actor/actor.h"
#include "program.h"
#include "shm/region.h"

namespace {

// Whoever started us may have died between its fork and this call: then there is no signal to wait for.
void die_with(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) std::_Exit(pbm::kFailed);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: pbm-actor REGION_FD RANK ACTOR FIRST_EPISODE DIRECTORY PARENT_PID\n");
    return pbm::kUsage;
  }
  const std::string name = "pbm-actor-" + std::string(argv[2]) + "." + argv[3];
  pbm::begin_program(name);
  try {
    die_with(static_cast<pid_t>(std::stol(argv[6])));
    pbm::shm::Region region = pbm::shm::Region::attach(std::stoi(argv[1]));
    pbm::actor::Actor(region, std::stoul(argv[3]), argv[5], std::stoull(argv[4])).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());  // the supervisor looks for this line
    return pbm::kFailed;
  }
  return 0;
}
