// GameSettings as shared memory can hold it, so that another process can make the same games.
#pragma once

#include <cstdint>

#include "nethack/abi.h"
#include "nethack/game.h"

namespace pbm::shm {

struct SharedSettings {
  char library[4096];
  char data_directory[4096];
  char options[sizeof nethack::nle_settings::options];
  std::int32_t keys[256];
  std::int32_t num_keys;
  nethack::TaskSettings task;
  std::int64_t clock;
  bool clock_is_pinned, allow_all_yn_questions, allow_all_modes, spawn_monsters, fix_moon_phase;
};

// Throws std::length_error for what does not fit.
void store_settings(SharedSettings& to, const nethack::GameSettings& from);
nethack::GameSettings load_settings(const SharedSettings& from);

}  // namespace pbm::shm
