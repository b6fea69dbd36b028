// pbm-actor: the process that plays the games of one actor. Started by the learner with the shared region's descriptor
// inherited; imports no interpreter and no torch, dies with its learner, and leaves Ctrl-C to it.
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "actor/actor.h"
#include "shm/region.h"

namespace {

constexpr int kUsage = 64;   // EX_USAGE of sysexits.h
constexpr int kFailed = 70;  // EX_SOFTWARE

// Whoever started us may have died between its fork and this call: then there is no signal to wait for.
void die_with(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) std::_Exit(kFailed);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: pbm-actor REGION_FD RANK ACTOR FIRST_EPISODE DIRECTORY PARENT_PID\n");
    return kUsage;
  }
  const std::string name = "pbm-actor-" + std::string(argv[2]) + "." + argv[3];
  prctl(PR_SET_NAME, name.c_str(), 0, 0, 0);
  try {
    const auto actor = std::stoul(argv[3]);
    die_with(static_cast<pid_t>(std::stol(argv[6])));
    std::signal(SIGINT, SIG_IGN);
    std::signal(SIGUSR1, SIG_IGN);
    std::signal(SIGTERM, SIG_DFL);
    pbm::shm::Region region = pbm::shm::Region::attach(std::stoi(argv[1]));
    pbm::actor::Actor(region, actor, argv[5], std::stoull(argv[4])).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());  // the supervisor looks for this line
    return kFailed;
  }
  return 0;
}
