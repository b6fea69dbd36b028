// How the process of a vector environment has its games played by others: it counts an order up, they carry it out.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>

#include "envs/block.h"

namespace pbm::envs {

// Has all workers carry out what the block's rows ask for.
void give_order(const Block& block) noexcept;

// Whether all have carried the last order out; waits up to `timeout_ms` for it.
bool wait_for_workers(const Block& block, int timeout_ms) noexcept;

// A worker's whole life: plays its games, in folders under `directory`, for `parent` until told to stop or until
// `parent` is no more. Throws std::out_of_range for a worker that the block has not, and what Games' constructor
// throws.
void serve(const Block& block, std::size_t worker, const std::filesystem::path& directory, pid_t parent);

// Ends every worker once it has carried out what it is at.
void stop_workers(const Block& block) noexcept;

}  // namespace pbm::envs
