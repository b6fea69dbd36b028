#include "nethack/conditions.h"

#include <algorithm>
#include <array>
#include <vector>

#include "nethack/conditions_facts.h"

namespace pbm::nethack {
namespace {

// All groups in bit order, and their conditions as one contiguous array.
struct Catalogue {
  std::array<RuleGroup, 5> groups{status_rules(), monster_rules(), terrain_rules(), item_rules(), message_rules()};
  std::vector<Condition> conditions;

  Catalogue() {
    for (const RuleGroup& group : groups) {
      for (const Rule& rule : group.rules) conditions.push_back(rule.condition);
    }
  }
};

const Catalogue& catalogue() {
  static const Catalogue instance;
  return instance;
}

// Writes the low `count` bits of a word at a bit position; the target's bits from there on are zero.
void append(std::uint64_t word, std::size_t position, std::size_t count, std::uint64_t* bits) {
  const std::size_t shift = position % 64;
  bits[position / 64] |= word << shift;
  if (shift + count > 64) bits[position / 64 + 1] |= word >> (64 - shift);
}

}  // namespace

std::span<const Condition> conditions() noexcept { return catalogue().conditions; }

void evaluate_conditions(const ObservationView& view, std::uint64_t* bits, StairsMemory* memory) {
  Facts facts;
  facts.blstats = view.blstats;
  facts.misc = view.misc;
  read_map(view, facts);
  read_inventory(view, facts);
  read_message(view, facts);
  if (memory) memory->complete(facts);
  std::fill_n(bits, condition_words(), 0);
  std::size_t position = 0;
  for (const RuleGroup& group : catalogue().groups) {
    append(group.lit(facts), position, group.rules.size(), bits);
    position += group.rules.size();
  }
}

}  // namespace pbm::nethack
