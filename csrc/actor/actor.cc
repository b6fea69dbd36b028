#include "actor/actor.h"

#include <chrono>
#include <stdexcept>

#include "shm/futex.h"
#include "text.h"

namespace pbm::actor {
namespace {

constexpr int kLongestSleep = 200;  // ms: a bell that was lost with a dying process costs no more than this

}  // namespace

Actor::Actor(shm::Region& region, std::size_t index, const std::filesystem::path& directory,
             std::uint64_t first_episode, std::size_t keep_actions)
    : region_(region), index_(index) {
  const auto library = std::make_shared<const nethack::LibraryFile>(region.game().library);
  const std::size_t games = region.spec().rollout.games;
  for (std::size_t i = 0; i < region.spec().groups_per_actor; ++i) {
    const std::size_t number = index * region.spec().groups_per_actor + i;
    seats_.push_back(Seat{.number = number,
                          .generation = shm::load(region.group(number)).generation,
                          .group = Group(library, region.game(), directory, region.layout(), region.spec().run_seed,
                                         number * games, first_episode, keep_actions)});
  }
}

std::vector<std::vector<SavedGame>> Actor::saved_games() const {
  std::vector<std::vector<SavedGame>> all;
  for (const Seat& seat : seats_) all.push_back(seat.group.saved_games());
  return all;
}

std::size_t Actor::restore(const std::vector<std::vector<SavedGame>>& saved) {
  if (saved.size() != seats_.size()) throw std::invalid_argument("saved games of every group, no more and no less");
  std::size_t begin_anew = 0;
  for (std::size_t i = 0; i < seats_.size(); ++i) begin_anew += seats_[i].group.restore(saved[i]);
  return begin_anew;
}

bool Actor::run_once() {
  const auto began = std::chrono::steady_clock::now();
  bool moved = false;
  for (Seat& seat : seats_) moved |= advance(seat);
  if (moved) {
    const auto busy = std::chrono::steady_clock::now() - began;
    region_.actor(index_).busy_nanoseconds.fetch_add(static_cast<std::uint64_t>(std::chrono::nanoseconds(busy).count()),
                                                     std::memory_order_relaxed);
  }
  return moved;
}

void Actor::run() {
  const shm::ControlBlock& control = region_.control();
  shm::ActorBlock& block = region_.actor(index_);
  for (;;) {
    const std::uint32_t seen = block.bell.load(std::memory_order_acquire);
    if (control.stopped.load(std::memory_order_acquire)) return;
    if (!control.paused.load(std::memory_order_acquire) && run_once()) continue;
    shm::futex_wait(block.bell, seen, kLongestSleep);
  }
}

bool Actor::advance(Seat& seat) {
  const shm::Turn turn = shm::load(region_.group(seat.number));
  // Of another generation: somebody else plays this group, after this actor was taken for dead.
  if (turn.whose != shm::Whose::kActor || turn.generation != seat.generation) return false;
  const shm::Owner me = shm::group_owner(seat.number);
  if (seat.slot) {
    std::uint8_t* slot = region_.slot(*seat.slot);
    seat.group.step(slot, seat.step);
    ++seat.step;
    report(seat);
    if (seat.step < region_.spec().rollout.unroll) {
      ask(seat);
      return true;
    }
    region_.deliver(*seat.slot, me);
    seat.slot.reset();
  }
  const std::optional<std::size_t> free = region_.take_free(me);
  if (!free) return false;
  seat.slot = free;
  seat.step = 0;
  seat.group.open(region_.slot(*free));
  ask(seat);
  return true;
}

void Actor::report(Seat& seat) {
  shm::ActorBlock& block = region_.actor(index_);
  block.heartbeat.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t fatal = seat.group.fatal_games();
  if (fatal == seat.fatal_games_told) return;
  copy_beginning(block.last_fatal_reason, seat.group.last_fatal_reason());
  // Last: who sees the count can read the reason.
  block.fatal_games.fetch_add(static_cast<std::uint32_t>(fatal - seat.fatal_games_told), std::memory_order_release);
  seat.fatal_games_told = fatal;
}

void Actor::ask(Seat& seat) {
  region_.request(seat.number, seat.generation, static_cast<std::uint32_t>(*seat.slot),
                  static_cast<std::uint32_t>(seat.step));
}

}  // namespace pbm::actor
