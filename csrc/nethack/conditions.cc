#include "nethack/conditions.h"

#include <algorithm>
#include <array>
#include <vector>

#include "nethack/conditions_facts.h"

namespace pbm::nethack {
namespace {

// All rules in bit order, and their conditions as one contiguous array.
struct Catalogue {
  std::vector<Rule> rules;
  std::vector<Condition> conditions;

  Catalogue() {
    for (const auto group : {status_rules(), monster_rules(), terrain_rules(), item_rules(), message_rules()}) {
      rules.insert(rules.end(), group.begin(), group.end());
    }
    for (const Rule& rule : rules) conditions.push_back(rule.condition);
  }
};

const Catalogue& catalogue() {
  static const Catalogue instance;
  return instance;
}

}  // namespace

std::span<const Condition> conditions() noexcept { return catalogue().conditions; }

void evaluate_conditions(const ObservationView& view, std::uint64_t* bits) noexcept {
  Facts facts;
  facts.blstats = view.blstats;
  facts.misc = view.misc;
  read_map(view, facts);
  read_inventory(view, facts);
  read_message(view, facts);
  const std::vector<Rule>& rules = catalogue().rules;
  std::fill_n(bits, condition_words(), 0);
  for (std::size_t i = 0; i < rules.size(); ++i) {
    bits[i / 64] |= static_cast<std::uint64_t>(rules[i].holds(facts)) << (i % 64);
  }
}

}  // namespace pbm::nethack
