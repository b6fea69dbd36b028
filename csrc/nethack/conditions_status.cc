// Conditions of the status line (blstats): health, hunger, load, ailments, place and progress.
#include "nethack/conditions_facts.h"

namespace pbm::nethack {
namespace {

using namespace tables;

// Which of NetHack's nine ranks an experience level has (botl.c, xlev_to_rank).
long rank_of(long level) { return level <= 2 ? 0 : level <= 30 ? (level + 2) / 4 : 8; }

// Whether a prayer would count the hit points as low (pray.c, critically_low_hp).
bool hp_critical(const Facts& f) {
  const long level = f.stat(NLE_BL_XP), hp = f.stat(NLE_BL_HP);
  const long limit = 15 * level;
  const long most = f.stat(NLE_BL_HPMAX) > limit ? limit : f.stat(NLE_BL_HPMAX);
  const long divisor = 5 + rank_of(level) / 2;
  return hp <= 5 || hp * divisor <= most;
}

bool hp_below(const Facts& f, long numerator, long denominator) {
  return f.stat(NLE_BL_HP) * denominator < f.stat(NLE_BL_HPMAX) * numerator;
}

bool between(long value, long low, long high) { return low <= value && value <= high; }

// The number of the Gnomish Mines (dungeon.def, in order) and hunger states (hack.h).
constexpr long kMines = 2;
enum Hunger : long { kSatiated = 0, kNotHungry = 1, kHungry = 2, kWeak = 3, kFainting = 4 };

constexpr Rule kRules[] = {
    {{"hp_full", "hit points at their maximum"},
     [](const Facts& f) { return f.stat(NLE_BL_HP) >= f.stat(NLE_BL_HPMAX); }},
    {{"hp_scratched", "hit points below their maximum but at least two thirds of it"},
     [](const Facts& f) { return hp_below(f, 1, 1) && !hp_below(f, 2, 3); }},
    {{"hp_wounded", "hit points below two thirds of the maximum but at least one third"},
     [](const Facts& f) { return hp_below(f, 2, 3) && !hp_below(f, 1, 3); }},
    {{"hp_low", "hit points below one third of the maximum"}, [](const Facts& f) { return hp_below(f, 1, 3); }},
    {{"hp_critical", "hit points so low that a prayer would count them as major trouble"}, hp_critical},
    {{"energy_for_spell", "at least the 5 points of energy that a level 1 spell costs"},
     [](const Facts& f) { return f.stat(NLE_BL_ENE) >= 5; }},
    {{"energy_spent", "energy below half of its maximum"},
     [](const Facts& f) { return 2 * f.stat(NLE_BL_ENE) < f.stat(NLE_BL_ENEMAX); }},
    {{"experience_level_1", "experience level 1"}, [](const Facts& f) { return f.stat(NLE_BL_XP) == 1; }},
    {{"experience_level_2_to_4", "experience level 2 to 4"},
     [](const Facts& f) { return between(f.stat(NLE_BL_XP), 2, 4); }},
    {{"experience_level_5_up", "experience level 5 or higher"}, [](const Facts& f) { return f.stat(NLE_BL_XP) >= 5; }},
    {{"depth_1", "on the first level below the surface"}, [](const Facts& f) { return f.stat(NLE_BL_DEPTH) == 1; }},
    {{"depth_2_to_4", "at a depth of 2 to 4"}, [](const Facts& f) { return between(f.stat(NLE_BL_DEPTH), 2, 4); }},
    {{"depth_5_to_9", "at a depth of 5 to 9"}, [](const Facts& f) { return between(f.stat(NLE_BL_DEPTH), 5, 9); }},
    {{"depth_10_down", "at a depth of 10 or more"}, [](const Facts& f) { return f.stat(NLE_BL_DEPTH) >= 10; }},
    {{"in_mines", "in the Gnomish Mines"}, [](const Facts& f) { return f.stat(NLE_BL_DNUM) == kMines; }},
    {{"gold_none", "no gold in the purse"}, [](const Facts& f) { return f.stat(NLE_BL_GOLD) == 0; }},
    {{"gold_some", "some gold, but less than a temple priest wants for protection"},
     [](const Facts& f) { return f.stat(NLE_BL_GOLD) > 0 && f.stat(NLE_BL_GOLD) < 400 * f.stat(NLE_BL_XP); }},
    {{"gold_for_protection", "at least 400 gold an experience level: what a temple priest wants for protection"},
     [](const Facts& f) { return f.stat(NLE_BL_GOLD) >= 400 * f.stat(NLE_BL_XP); }},
    {{"armor_class_poor", "armour class 8 or worse"}, [](const Facts& f) { return f.stat(NLE_BL_AC) >= 8; }},
    {{"armor_class_fair", "armour class 5 to 7"}, [](const Facts& f) { return between(f.stat(NLE_BL_AC), 5, 7); }},
    {{"armor_class_good", "armour class 4 or better"}, [](const Facts& f) { return f.stat(NLE_BL_AC) <= 4; }},
    {{"satiated", "satiated: eating more may choke"},
     [](const Facts& f) { return f.stat(NLE_BL_HUNGER) == kSatiated; }},
    {{"not_hungry", "neither satiated nor hungry"}, [](const Facts& f) { return f.stat(NLE_BL_HUNGER) == kNotHungry; }},
    {{"hungry", "hungry"}, [](const Facts& f) { return f.stat(NLE_BL_HUNGER) == kHungry; }},
    {{"weak", "weak from hunger: major trouble for a prayer"},
     [](const Facts& f) { return f.stat(NLE_BL_HUNGER) == kWeak; }},
    {{"fainting", "fainting or fainted from hunger"},
     [](const Facts& f) { return f.stat(NLE_BL_HUNGER) >= kFainting; }},
    {{"burdened", "burdened by the load: slower"}, [](const Facts& f) { return f.stat(NLE_BL_CAP) == 1; }},
    {{"stressed", "stressed, strained or worse by the load"}, [](const Facts& f) { return f.stat(NLE_BL_CAP) >= 2; }},
    {{"turning_to_stone", "turning to stone"}, [](const Facts& f) { return f.status(BL_MASK_STONE); }},
    {{"turning_to_slime", "turning into green slime"}, [](const Facts& f) { return f.status(BL_MASK_SLIME); }},
    {{"strangled", "being strangled"}, [](const Facts& f) { return f.status(BL_MASK_STRNGL); }},
    {{"sick", "food poisoned or terminally ill"},
     [](const Facts& f) { return f.status(BL_MASK_FOODPOIS | BL_MASK_TERMILL); }},
    {{"blind", "blind"}, [](const Facts& f) { return f.status(BL_MASK_BLIND); }},
    {{"deaf", "deaf"}, [](const Facts& f) { return f.status(BL_MASK_DEAF); }},
    {{"stunned", "stunned: moves go astray"}, [](const Facts& f) { return f.status(BL_MASK_STUN); }},
    {{"confused", "confused: moves may go astray"}, [](const Facts& f) { return f.status(BL_MASK_CONF); }},
    {{"hallucinating", "hallucinating: monsters and objects look random"},
     [](const Facts& f) { return f.status(BL_MASK_HALLU); }},
    {{"airborne", "levitating or flying"}, [](const Facts& f) { return f.status(BL_MASK_LEV | BL_MASK_FLY); }},
    {{"riding", "riding a steed"}, [](const Facts& f) { return f.status(BL_MASK_RIDE); }},
    {{"strength_high", "strength 17 or more: a bonus to hit"},
     [](const Facts& f) { return f.stat(NLE_BL_STR25) >= 17; }},
    {{"dexterity_high", "dexterity 15 or more: a bonus to hit"},
     [](const Facts& f) { return f.stat(NLE_BL_DEX) >= 15; }},
    {{"lawful", "of lawful alignment"}, [](const Facts& f) { return f.stat(NLE_BL_ALIGN) > 0; }},
    {{"neutral", "of neutral alignment"}, [](const Facts& f) { return f.stat(NLE_BL_ALIGN) == 0; }},
    {{"chaotic", "of chaotic alignment"}, [](const Facts& f) { return f.stat(NLE_BL_ALIGN) < 0; }},
    {{"turn_300_at_most", "turn 300 or before: the prayer timeout, 300 at the start, has not run out by itself"},
     [](const Facts& f) { return f.stat(NLE_BL_TIME) <= 300; }},
    {{"turn_1000_passed", "after turn 1000"}, [](const Facts& f) { return f.stat(NLE_BL_TIME) > 1000; }},
};

}  // namespace

RuleGroup status_rules() noexcept { return rule_group<kRules>(); }

}  // namespace pbm::nethack
