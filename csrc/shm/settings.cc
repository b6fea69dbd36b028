#include "shm/settings.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "text.h"

namespace pbm::shm {

void store_settings(SharedSettings& to, const nethack::GameSettings& from) {
  copy_text(to.library, from.library, "the path of libnethack.so");
  copy_text(to.data_directory, from.data_directory, "the path of NetHack's data");
  copy_text(to.options, from.options, "the string of NetHack's options");
  if (from.keys.size() > std::size(to.keys)) throw std::length_error("too many actions for the shared region");
  std::copy(from.keys.begin(), from.keys.end(), to.keys);
  to.num_keys = static_cast<std::int32_t>(from.keys.size());
  to.task = from.task;
  to.clock = from.clock.value_or(0);
  to.clock_is_pinned = from.clock.has_value();
  to.allow_all_yn_questions = from.allow_all_yn_questions;
  to.allow_all_modes = from.allow_all_modes;
  to.spawn_monsters = from.spawn_monsters;
  to.fix_moon_phase = from.fix_moon_phase;
}

nethack::GameSettings load_settings(const SharedSettings& from) {
  nethack::GameSettings to;
  to.library = from.library;
  to.data_directory = from.data_directory;
  to.options = from.options;
  to.keys.assign(from.keys, from.keys + from.num_keys);
  to.task = from.task;
  if (from.clock_is_pinned) to.clock = from.clock;
  to.allow_all_yn_questions = from.allow_all_yn_questions;
  to.allow_all_modes = from.allow_all_modes;
  to.spawn_monsters = from.spawn_monsters;
  to.fix_moon_phase = from.fix_moon_phase;
  return to;
}

}  // namespace pbm::shm
