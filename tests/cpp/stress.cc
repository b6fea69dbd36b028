// A stress test of the slot and turn protocol: producers in the place of actors, a policy, a consumer in the place of
// the learner, and a reaper that ends producers and policy at random moments. Run by test_stress.py, with sanitizers.
//
//   stress calm SEED       threads, nobody dies, waits without limit: a wake-up that is lost hangs the test
//   stress mortal SEED     threads that leave at random points, as if they had died there
//   stress processes SEED  processes that are killed at random instants
//
// Every rollout carries who filled it and words derived from that. It is checked that each delivered rollout is whole,
// that it comes once and in its group's order, that recurrent state advances by one a step, and that in the end every
// slot is free. The first violation ends the program with code 1 and one line.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "shm/futex.h"
#include "shm/region.h"

namespace {

using namespace pbm::shm;

constexpr std::size_t kActors = 3, kGroupsPerActor = 2, kGroups = kActors * kGroupsPerActor, kBatch = 2, kUnroll = 4;
constexpr std::size_t kCalmRollouts = 20000, kThreadDeaths = 1000, kProcessDeaths = 300, kFewestRollouts = 1000;
constexpr int kForever = 3'600'000, kBlink = 20;  // ms
constexpr unsigned kTimeLimit = 600;              // seconds until SIGALRM

// What the protocol carries. `asked` goes from producer to policy, `answered` and `state` back, all to the consumer.
struct Body {
  std::uint64_t group, serial;
  std::array<std::uint64_t, 16> head;
  std::array<std::uint64_t, kUnroll> asked, answered, state;
  std::array<std::uint64_t, 16> tail;
};

Body& body(Region& region, std::size_t slot) {
  return *reinterpret_cast<Body*>(region.slot(slot) + sizeof(SlotHeader));
}

std::uint64_t mark(std::uint64_t group, std::uint64_t serial, std::uint64_t word) {
  std::uint64_t x = (group << 56) ^ (serial << 8) ^ word;
  x = (x ^ (x >> 31)) * 0x7fb5d329728ea185ULL;
  x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44dULL;
  return x ^ (x >> 33);
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::_Exit(1);
}

struct Death {};

// How a thread dies: condemned, it goes on for a few more breaths and leaves wherever it then is. Processes never see
// this; they are killed.
class Life {
 public:
  explicit Life(bool calm) : timeout_(calm ? kForever : kBlink) {}
  void condemn(int breaths) {
    breaths_.store(breaths);
    condemned_.store(true);
  }
  void breathe() {
    if (condemned_.load() && breaths_.fetch_sub(1) <= 0) throw Death{};
  }
  int timeout() const { return timeout_; }

 private:
  const int timeout_;
  std::atomic<bool> condemned_{false};
  std::atomic<int> breaths_{0};
};

Region make_region() {
  const RolloutShape rollout{.unroll = kUnroll,
                             .games = 1,
                             .actions = 2,
                             .experts = 1,
                             .state = 2,
                             .crop = 3,
                             .condition_words = 1,
                             .store_glyphs = false,
                             .max_episode_steps = 100};
  return Region({.rollout = rollout, .slots = kGroups + kBatch, .actors = kActors, .groups_per_actor = kGroupsPerActor},
                {});
}

std::uint64_t& recurrent_state(Region& region, std::size_t group, std::uint32_t answers) {
  return reinterpret_cast<std::uint64_t*>(region.states(group))[answers % 2];
}

// Words that a policy may still read after their slot went to another owner; its answer then fails. Racing for them is
// part of the protocol, so they are atomic when somebody dies; when nobody does, they are plain and must not race.
class SharedWord {
 public:
  SharedWord(std::uint64_t& word, bool plain) : word_(word), plain_(plain) {}
  void store(std::uint64_t value) {
    if (plain_) {
      word_ = value;
    } else {
      std::atomic_ref(word_).store(value, std::memory_order_relaxed);
    }
  }
  std::uint64_t load() const { return plain_ ? word_ : std::atomic_ref(word_).load(std::memory_order_relaxed); }

 private:
  std::uint64_t& word_;
  bool plain_;
};

// What csrc/actor/actor.cc does, with words instead of games.
class Producer {
 public:
  Producer(Region& region, std::size_t actor, Life& life) : region_(region), actor_(actor), life_(life) {
    for (std::size_t i = 0; i < kGroupsPerActor; ++i) {
      seats_[i].group = actor * kGroupsPerActor + i;
      seats_[i].generation = load(region.group(seats_[i].group)).generation;
      seats_[i].serial = std::uint64_t{seats_[i].generation} << 32;
    }
  }

  void run() {
    ActorBlock& block = region_.actor(actor_);
    for (;;) {
      const std::uint32_t seen = block.bell.load(std::memory_order_acquire);
      if (region_.control().stopped.load(std::memory_order_acquire)) return;
      bool moved = false;
      for (Seat& seat : seats_) moved |= advance(seat);
      if (!moved) futex_wait(block.bell, seen, life_.timeout());
      life_.breathe();
    }
  }

 private:
  struct Seat {
    std::size_t group = 0;
    std::uint16_t generation = 0;
    std::uint64_t serial = 0;
    std::optional<std::size_t> slot = std::nullopt;
    std::size_t step = 0;
  };

  bool advance(Seat& seat) {
    if (load(region_.group(seat.group)).whose != Whose::kActor) return false;
    if (seat.slot && !finish_step(seat)) return true;
    const Owner me = group_owner(static_cast<std::uint16_t>(seat.group));
    life_.breathe();
    const std::optional<std::size_t> free = region_.take_free(me);
    if (!free) return false;
    life_.breathe();
    seat.slot = free;
    seat.step = 0;
    ++seat.serial;
    Body& rollout = body(region_, *free);
    rollout.group = seat.group;
    rollout.serial = seat.serial;
    for (std::size_t i = 0; i < rollout.head.size(); ++i) rollout.head[i] = mark(seat.group, seat.serial, i);
    life_.breathe();
    ask(seat);
    return true;
  }

  // True when the rollout is full and delivered.
  bool finish_step(Seat& seat) {
    Body& rollout = body(region_, *seat.slot);
    require(rollout.answered[seat.step] == ~mark(seat.group, seat.serial, 100 + seat.step), "an answer is the group's");
    life_.breathe();
    if (++seat.step < kUnroll) {
      ask(seat);
      return false;
    }
    for (std::size_t i = 0; i < rollout.tail.size(); ++i) rollout.tail[i] = mark(seat.group, seat.serial, 200 + i);
    life_.breathe();
    require(region_.deliver(*seat.slot, group_owner(static_cast<std::uint16_t>(seat.group))), "the owner delivers");
    life_.breathe();
    seat.slot.reset();
    return true;
  }

  void ask(Seat& seat) {
    SharedWord(body(region_, *seat.slot).asked[seat.step], life_.timeout() == kForever)
        .store(mark(seat.group, seat.serial, 100 + seat.step));
    require(region_.request(seat.group, seat.generation, static_cast<std::uint32_t>(*seat.slot),
                            static_cast<std::uint32_t>(seat.step)),
            "the living ask");
    life_.breathe();
  }

  Region& region_;
  const std::size_t actor_;
  Life& life_;
  std::array<Seat, kGroupsPerActor> seats_;
};

void serve(Region& region, Life& life) {
  std::size_t limit = 0;
  for (;;) {
    const std::uint32_t seen = region.bells().requests.load(std::memory_order_acquire);
    if (region.control().stopped.load(std::memory_order_acquire)) return;
    const auto requests = region.requests(1 + limit++ % kGroups);
    for (const Region::Request& request : requests) {
      Body& rollout = body(region, request.slot);
      const std::uint64_t asked = SharedWord(rollout.asked[request.step], life.timeout() == kForever).load();
      life.breathe();
      rollout.answered[request.step] = ~asked;
      const std::uint64_t state = recurrent_state(region, request.group, request.answers);
      rollout.state[request.step] = state;
      recurrent_state(region, request.group, request.answers + 1) = state + 1;
      life.breathe();
      region.answer(request);
      life.breathe();
    }
    if (requests.empty()) futex_wait(region.bells().requests, seen, life.timeout());
    life.breathe();
  }
}

// Takes rollouts and checks them.
class Consumer {
 public:
  explicit Consumer(Region& region) : region_(region) {}

  // Waits for a batch, checks it and gives it back; false when none came in time.
  bool consume(int timeout_ms) {
    const std::uint32_t seen = region_.bells().deliveries.load(std::memory_order_acquire);
    const auto slots = region_.take_delivered(kBatch);
    if (slots.empty()) {
      futex_wait(region_.bells().deliveries, seen, timeout_ms);
      return false;
    }
    for (const std::size_t slot : slots) check(slot);
    for (const std::size_t slot : slots) region_.give_back(slot);
    return true;
  }

  // After everybody has stopped and was taken back: what is still delivered counts, and then every slot is free.
  void finish() {
    for (auto slots = region_.take_delivered(1); !slots.empty(); slots = region_.take_delivered(1)) {
      check(slots[0]);
      region_.give_back(slots[0]);
    }
    for (std::size_t slot = 0; slot < region_.spec().slots; ++slot) {
      const SlotState state = load(region_.header(slot));
      require(state.owner == Owner::kFree, "every slot is free in the end");
      require(state.sequence == sequences_[slot], "every delivery was consumed");
    }
  }

  std::size_t rollouts() const { return rollouts_; }

 private:
  void check(std::size_t slot) {
    const Body& rollout = body(region_, slot);
    const SlotState state = load(region_.header(slot));
    require(state.owner == Owner::kLearner, "what was taken is the learner's");
    require(state.sequence == ++sequences_[slot], "a slot is delivered and consumed in turn");
    require(rollout.group < kGroups, "a rollout names its group");
    require(rollout.serial > serials_[rollout.group], "a group's rollouts come once and in order");
    serials_[rollout.group] = rollout.serial;
    for (std::size_t i = 0; i < rollout.head.size(); ++i) {
      require(rollout.head[i] == mark(rollout.group, rollout.serial, i), "a rollout's beginning is whole");
      require(rollout.tail[i] == mark(rollout.group, rollout.serial, 200 + i), "a rollout's end is whole");
    }
    for (std::size_t t = 0; t < kUnroll; ++t) {
      require(rollout.asked[t] == mark(rollout.group, rollout.serial, 100 + t), "every row is the group's");
      require(rollout.answered[t] == ~rollout.asked[t], "every row is answered");
      require(rollout.state[t] == rollout.state[0] + t, "recurrent state advances by one a step");
    }
    require(rollout.state[0] >= states_[rollout.group], "recurrent state never goes back");
    states_[rollout.group] = rollout.state[kUnroll - 1] + 1;
    ++rollouts_;
  }

  Region& region_;
  std::array<std::uint32_t, kGroups + kBatch> sequences_{};
  std::array<std::uint64_t, kGroups> serials_{}, states_{};
  std::size_t rollouts_ = 0;
};

// A thread that does one part until it dies or the run stops.
class Mortal {
 public:
  Mortal(bool calm, const std::function<void(Life&)>& part) : life_(std::make_unique<Life>(calm)) {
    thread_ = std::thread([&life = *life_, part] {
      try {
        part(life);
      } catch (const Death&) {
      }
    });
  }
  void end(int breaths) {
    life_->condemn(breaths);
    thread_.join();
  }
  void join() { thread_.join(); }

 private:
  std::unique_ptr<Life> life_;
  std::thread thread_;
};

std::function<void(Life&)> part_of(Region& region, std::size_t index) {
  if (index == kActors) return [&region](Life& life) { serve(region, life); };
  return [&region, index](Life& life) { Producer(region, index, life).run(); };
}

std::size_t run_threads(bool calm, unsigned seed) {
  Region region = make_region();
  Consumer consumer(region);
  std::vector<Mortal> parts;
  for (std::size_t i = 0; i <= kActors; ++i) parts.emplace_back(calm, part_of(region, i));
  if (calm) {
    while (consumer.rollouts() < kCalmRollouts) consumer.consume(kForever);
  } else {
    std::mt19937 dice(seed);
    // The reaper has a thread of its own, so that slots are taken back while the consumer takes and returns others.
    std::atomic<bool> reaping{true};
    std::thread reaper([&] {
      for (std::size_t deaths = 0; deaths < kThreadDeaths; ++deaths) {
        std::this_thread::sleep_for(std::chrono::microseconds(dice() % 2000));
        const std::size_t victim = dice() % parts.size();
        parts[victim].end(static_cast<int>(dice() % 40));
        if (victim < kActors) region.take_back_actor(victim);
        parts[victim] = Mortal(calm, part_of(region, victim));
      }
      reaping.store(false);
    });
    while (reaping.load() || consumer.rollouts() < kFewestRollouts) consumer.consume(kBlink);
    reaper.join();
  }
  region.control().stopped.store(1);
  region.wake_everybody();
  for (Mortal& part : parts) part.join();
  for (std::size_t actor = 0; actor < kActors; ++actor) region.take_back_actor(actor);
  consumer.finish();
  return consumer.rollouts();
}

pid_t fork_part(Region& region, std::size_t index) {
  const pid_t parent = getpid(), child = fork();
  require(child >= 0, "fork");
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) std::_Exit(1);
  Region mine = Region::attach(region.fd());  // at an address of its own, as an exec'd process would
  Life life(false);
  part_of(mine, index)(life);
  std::_Exit(0);
}

void bury(pid_t child) {
  int status = 0;
  require(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child, "a child can be ended");
  require(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "no child ends by itself");
}

std::size_t run_processes(unsigned seed) {
  Region region = make_region();
  Consumer consumer(region);
  std::mt19937 dice(seed);
  std::array<pid_t, kActors + 1> children;
  for (std::size_t i = 0; i <= kActors; ++i) children[i] = fork_part(region, i);
  for (std::size_t deaths = 0; deaths < kProcessDeaths; ++deaths) {
    for (std::size_t batches = dice() % 20; batches > 0;) batches -= consumer.consume(kBlink);
    usleep(dice() % 500);
    const std::size_t victim = dice() % children.size();
    bury(children[victim]);
    if (victim < kActors) region.take_back_actor(victim);
    children[victim] = fork_part(region, victim);
  }
  for (std::size_t batches = 20; batches > 0;) batches -= consumer.consume(kBlink);  // it still runs
  for (std::size_t i = 0; i <= kActors; ++i) bury(children[i]);
  for (std::size_t actor = 0; actor < kActors; ++actor) region.take_back_actor(actor);
  consumer.finish();
  return consumer.rollouts();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc == 3 ? argv[1] : "";
  if (mode != "calm" && mode != "mortal" && mode != "processes") {
    std::fprintf(stderr, "usage: stress calm|mortal|processes SEED\n");
    return 64;
  }
  alarm(kTimeLimit);
  const auto seed = static_cast<unsigned>(std::stoul(argv[2]));
  const std::size_t rollouts = mode == "processes" ? run_processes(seed) : run_threads(mode == "calm", seed);
  std::printf("%zu rollouts\n", rollouts);
  return 0;
}
