// The observation arrays that NLE can fill: names, types and shapes as in nle.nethack.OBSERVATION_DESC.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "nethack/abi.h"

namespace pbm::nethack {

struct ObservationKey {
  std::string_view name;
  std::string_view dtype;  // numpy's name
  std::size_t item_size;
  std::array<std::size_t, 3> shape;  // padded with ones
  std::size_t dimensions;
  std::size_t pointer;  // offset of its pointer in nle_obs

  constexpr std::size_t bytes() const noexcept { return item_size * shape[0] * shape[1] * shape[2]; }

  // Makes NLE write this array to `where` (null: not at all).
  void point(nle_obs& observation, void* where) const noexcept {
    std::memcpy(reinterpret_cast<char*>(&observation) + pointer, &where, sizeof where);
  }
  void* where(const nle_obs& observation) const noexcept {
    void* found;
    std::memcpy(&found, reinterpret_cast<const char*>(&observation) + pointer, sizeof found);
    return found;
  }
};

inline constexpr std::array<ObservationKey, 17> kObservationKeys = {{
    {"glyphs", "int16", 2, {kRows, kColumns, 1}, 2, offsetof(nle_obs, glyphs)},
    {"chars", "uint8", 1, {kRows, kColumns, 1}, 2, offsetof(nle_obs, chars)},
    {"colors", "uint8", 1, {kRows, kColumns, 1}, 2, offsetof(nle_obs, colors)},
    {"specials", "uint8", 1, {kRows, kColumns, 1}, 2, offsetof(nle_obs, specials)},
    {"blstats", "int64", 8, {kBlstatsSize, 1, 1}, 1, offsetof(nle_obs, blstats)},
    {"message", "uint8", 1, {kMessageSize, 1, 1}, 1, offsetof(nle_obs, message)},
    {"program_state", "int32", 4, {kProgramStateSize, 1, 1}, 1, offsetof(nle_obs, program_state)},
    {"internal", "int32", 4, {kInternalSize, 1, 1}, 1, offsetof(nle_obs, internal)},
    {"inv_glyphs", "int16", 2, {kInventorySize, 1, 1}, 1, offsetof(nle_obs, inv_glyphs)},
    {"inv_letters", "uint8", 1, {kInventorySize, 1, 1}, 1, offsetof(nle_obs, inv_letters)},
    {"inv_oclasses", "uint8", 1, {kInventorySize, 1, 1}, 1, offsetof(nle_obs, inv_oclasses)},
    {"inv_strs", "uint8", 1, {kInventorySize, kTextLength, 1}, 2, offsetof(nle_obs, inv_strs)},
    {"screen_descriptions", "uint8", 1, {kRows, kColumns, kTextLength}, 3, offsetof(nle_obs, screen_descriptions)},
    {"tty_chars", "uint8", 1, {kTerminalRows, kTerminalColumns, 1}, 2, offsetof(nle_obs, tty_chars)},
    {"tty_colors", "int8", 1, {kTerminalRows, kTerminalColumns, 1}, 2, offsetof(nle_obs, tty_colors)},
    {"tty_cursor", "uint8", 1, {2, 1, 1}, 1, offsetof(nle_obs, tty_cursor)},
    {"misc", "int32", 4, {kMiscSize, 1, 1}, 1, offsetof(nle_obs, misc)},
}};

}  // namespace pbm::nethack
