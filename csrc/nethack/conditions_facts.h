// What the conditions are made of: one pass over an observation gathers the facts, a rule is a predicate on them.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <utility>

#include "nethack/conditions.h"
#include "nethack/tables.h"

namespace pbm::nethack {

// What the message line says: one entry for each meaning that some phrase of NetHack 3.6.7 has.
enum class Said : unsigned {
  kDirectionPrompt,
  kItemPrompt,
  kEatPrompt,
  kAttackPrompt,
  kPrayPrompt,
  kBlocked,
  kDiagonalDoor,
  kBoulderStuck,
  kDoorLocked,
  kDoorOpens,
  kPetSwap,
  kPetBlocks,
  kPetActs,
  kHeroHits,
  kHeroMisses,
  kHeroKills,
  kSomethingDies,
  kHeroHurt,
  kMonsterMisses,
  kStuck,
  kSelfHurt,
  kThinAir,
  kItemHere,
  kManyHere,
  kStairsDownHere,
  kStairsUpHere,
  kGotGold,
  kNoWayDown,
  kNoWayUp,
  kAte,
  kCannotEat,
  kHears,
  kRecovers,
  kPrayerBad,
  kShop,
  kCount
};

// Everything that the rules may ask, gathered once an observation.
struct Facts {
  const std::int64_t* blstats = nullptr;
  const std::int32_t* misc = nullptr;

  // The map. Feature bits of all squares but the hero's, and of the eight squares around the hero.
  std::uint64_t shown = 0;
  std::uint64_t adjacent = 0;
  // MonsterKind bits of monsters that are not pets.
  std::uint32_t kinds_shown = 0;
  std::uint32_t kinds_adjacent = 0;
  int monsters_shown = 0;
  int monsters_adjacent = 0;
  int nearest_monster = kFar;  // Chebyshev distance in squares
  int nearest_pet = kFar;
  int hardest_shown = 0;  // NetHack's difficulty
  int hardest_adjacent = 0;
  bool monster_in_line = false;
  int squares_known = 0;
  int open_neighbours = 0;  // neighbours of the hero that are not rock, wall or boulder
  int floor_neighbours = 0;
  int corridor_neighbours = 0;
  bool room_frontier = false;
  bool corridor_end = false;
  struct Stairs {
    std::int16_t x, y;
    bool down;
  };
  std::array<Stairs, 8> stairs;  // staircases and ladders on the map; a level has four at most
  int stairs_shown = 0;
  bool on_stairs_down = false;  // the hero: by the message, or as StairsMemory knows
  bool on_stairs_up = false;

  // The inventory.
  std::uint64_t carried = 0;          // Feature bits of the carried objects' glyphs
  std::uint32_t carried_classes = 0;  // one bit an object class
  int stacks = 0;

  // The message line.
  std::bitset<static_cast<std::size_t>(Said::kCount)> said;
  unsigned floor_nouns = 0;  // one bit a NounKind, from "You see here ..."

  static constexpr int kFar = 100;

  long stat(int index) const { return static_cast<long>(blstats[index]); }
  bool status(int mask) const { return (blstats[tables::NLE_BL_CONDITION] & mask) != 0; }
  bool shows(tables::Feature feature) const { return (shown >> static_cast<unsigned>(feature)) & 1; }
  bool beside(tables::Feature feature) const { return (adjacent >> static_cast<unsigned>(feature)) & 1; }
  bool shows(tables::MonsterKind kind) const { return (kinds_shown >> static_cast<unsigned>(kind)) & 1; }
  bool beside(tables::MonsterKind kind) const { return (kinds_adjacent >> static_cast<unsigned>(kind)) & 1; }
  bool carries(tables::Feature feature) const { return (carried >> static_cast<unsigned>(feature)) & 1; }
  bool carries_class(int object_class) const { return (carried_classes >> object_class) & 1; }
  bool says(Said meaning) const { return said[static_cast<std::size_t>(meaning)]; }
  bool underfoot(tables::NounKind kind) const { return (floor_nouns >> static_cast<unsigned>(kind)) & 1; }
};

// One condition and what makes it hold.
struct Rule {
  Condition condition;
  bool (*holds)(const Facts&);
};

// The rules about one subject: at most 64, bit i of the word that `lit` returns is rule i.
struct RuleGroup {
  std::span<const Rule> rules;
  std::uint64_t (*lit)(const Facts&);
};

// A group from a constexpr array of rules: knowing them at compile time, the compiler inlines every predicate.
template <const auto& kRules>
constexpr RuleGroup rule_group() {
  constexpr std::size_t kSize = std::size(kRules);
  static_assert(kSize <= 64, "a group of rules fills one word at most");
  return {kRules, [](const Facts& facts) {
            return [&facts]<std::size_t... kIndex>(std::index_sequence<kIndex...>) {
              return ((std::uint64_t{kRules[kIndex].holds(facts)} << kIndex) | ...);
            }(std::make_index_sequence<kSize>());
          }};
}

RuleGroup status_rules() noexcept;
RuleGroup monster_rules() noexcept;
RuleGroup terrain_rules() noexcept;
RuleGroup item_rules() noexcept;
RuleGroup message_rules() noexcept;

// Each fills its part of the facts.
void read_map(const ObservationView& view, Facts& facts) noexcept;
void read_inventory(const ObservationView& view, Facts& facts) noexcept;
void read_message(const ObservationView& view, Facts& facts) noexcept;

}  // namespace pbm::nethack
