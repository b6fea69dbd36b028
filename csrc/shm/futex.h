// Waiting for a word in shared memory to change. std::atomic::wait is private to a process, hence the system call.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <ctime>

namespace pbm::shm {

// Sleeps until the word is no longer `seen`, somebody wakes it, a signal comes, or `timeout_ms` has passed. Callers
// look again at what they wait for in any case. To lose no wake-up: read the word, look for work, then wait on what was
// read; whoever makes work changes the word after the work can be seen.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, int timeout_ms) noexcept {
  const timespec timeout{timeout_ms / 1000, static_cast<long>(timeout_ms % 1000) * 1'000'000};
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

// Changes the word and wakes everybody who waits for that.
inline void futex_notify(std::atomic<std::uint32_t>& word) noexcept {
  word.fetch_add(1, std::memory_order_acq_rel);
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

static_assert(sizeof(std::atomic<std::uint32_t>) == 4);

}  // namespace pbm::shm
