#include "envs/orders.h"

#include <unistd.h>

#include <exception>
#include <stdexcept>
#include <string>

#include "envs/games.h"
#include "shm/futex.h"
#include "text.h"

namespace pbm::envs {
namespace {

constexpr int kLookForParent = 200;  // ms between looks at whether the parent is still there

bool all_finished(const Block& block) noexcept {
  const std::uint32_t order = block.orders().order.load(std::memory_order_acquire);
  for (std::size_t i = 0; i < block.spec().processes; ++i) {
    if (block.worker(i).finished.load(std::memory_order_seq_cst) != order) return false;
  }
  return true;
}

}  // namespace

void give_order(const Block& block) noexcept { shm::futex_notify(block.orders().order); }

bool wait_for_workers(const Block& block, int timeout_ms) noexcept {
  const std::uint32_t seen = block.orders().finished.load(std::memory_order_acquire);
  if (all_finished(block)) return true;
  shm::futex_wait(block.orders().finished, seen, timeout_ms);
  return all_finished(block);
}

void serve(const Block& block, std::size_t worker, const std::filesystem::path& directory, pid_t parent) {
  if (worker >= block.spec().processes) {
    throw std::out_of_range("the block of games has no worker " + std::to_string(worker));
  }
  OrderWords& orders = block.orders();
  WorkerWords& mine = block.worker(worker);
  Games games(block, block.first_game(worker), block.first_game(worker + 1), directory);
  // The first order of a worker that replaces another is the one that the other did not finish.
  while (!orders.stopped.load(std::memory_order_acquire) && getppid() == parent) {
    const std::uint32_t order = orders.order.load(std::memory_order_acquire);
    if (order == mine.finished.load(std::memory_order_relaxed)) {
      shm::futex_wait(orders.order, order, kLookForParent);
      continue;
    }
    try {
      games.run();
    } catch (const std::exception& error) {
      copy_beginning(mine.error, error.what());
    }
    mine.finished.store(order, std::memory_order_seq_cst);
    if (all_finished(block)) shm::futex_notify(orders.finished);
  }
}

void stop_workers(const Block& block) noexcept {
  block.orders().stopped.store(1, std::memory_order_release);
  shm::futex_notify(block.orders().order);
}

}  // namespace pbm::envs
