// Predicates on one NLE observation: the facts that light the condition nodes of a knowledge graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nethack/stairs_memory.h"

namespace pbm::nethack {

// What a condition may look at: one observation as NLE writes it. Of earlier ones only a StairsMemory tells.
struct ObservationView {
  const std::int16_t* glyphs;        // [21 * 79], row by row
  const std::int64_t* blstats;       // [27]
  const std::uint8_t* message;       // [256], NUL padded
  const std::int16_t* inv_glyphs;    // [55]
  const std::uint8_t* inv_oclasses;  // [55]
  const std::uint8_t* inv_letters;   // [55]
  const std::int32_t* misc;          // [3]: in_yn_function, in_getlin, xwaitingforspace
};

struct Condition {
  const char* name;
  const char* description;  // one line: what must be seen for the condition to hold
};

// All conditions, in the order of their bits.
std::span<const Condition> conditions() noexcept;

// Number of 64-bit words that hold one bit a condition.
inline std::size_t condition_words() noexcept { return (conditions().size() + 63) / 64; }

// Writes condition_words() words: bit i % 64 of word i / 64 tells whether condition i holds; spare bits are zero.
// With the memory of the game that the observation belongs to, the hero's stairs are known from before; else a pure
// predicate on the observation.
void evaluate_conditions(const ObservationView& view, std::uint64_t* bits, StairsMemory* memory = nullptr);

}  // namespace pbm::nethack
