// Conditions of the creatures on the map. A glyph does not tell peaceful from hostile: only kinds are named.
#include "nethack/conditions_facts.h"

namespace pbm::nethack {
namespace {

using tables::Feature;
using Kind = tables::MonsterKind;

long experience_level(const Facts& f) { return f.stat(tables::NLE_BL_XP); }

// The highest difficulty that NetHack creates at random here (makemon.c, rndmonst).
long most_difficult_here(const Facts& f) { return (f.stat(tables::NLE_BL_DEPTH) + experience_level(f)) / 2; }

constexpr Rule kRules[] = {
    {{"monster_shown", "a monster that is no pet on the map"}, [](const Facts& f) { return f.monsters_shown > 0; }},
    {{"monsters_many_shown", "three or more monsters that are no pets on the map"},
     [](const Facts& f) { return f.monsters_shown >= 3; }},
    {{"monster_adjacent", "a monster that is no pet next to the hero"},
     [](const Facts& f) { return f.monsters_adjacent > 0; }},
    {{"monsters_two_adjacent", "two or more monsters that are no pets next to the hero"},
     [](const Facts& f) { return f.monsters_adjacent >= 2; }},
    {{"monster_near", "the nearest monster that is no pet 2 to 4 squares away"},
     [](const Facts& f) { return f.nearest_monster >= 2 && f.nearest_monster <= 4; }},
    {{"monster_far", "the nearest monster that is no pet 5 or more squares away"},
     [](const Facts& f) { return f.nearest_monster >= 5 && f.nearest_monster < Facts::kFar; }},
    {{"monster_in_line", "a monster 2 to 8 squares away in one of the eight directions with a clear path to it"},
     [](const Facts& f) { return f.monster_in_line; }},
    {{"monster_stronger_adjacent", "a monster next to the hero of a difficulty above the experience level"},
     [](const Facts& f) { return f.hardest_adjacent > experience_level(f); }},
    {{"monster_out_of_depth_shown", "a monster on the map too difficult to be created here at random"},
     [](const Facts& f) { return f.hardest_shown > most_difficult_here(f); }},
    {{"pet_adjacent", "a pet next to the hero"}, [](const Facts& f) { return f.nearest_pet == 1; }},
    {{"pet_near", "the nearest pet 2 to 4 squares away"},
     [](const Facts& f) { return f.nearest_pet >= 2 && f.nearest_pet <= 4; }},
    {{"pet_far", "the nearest pet 5 or more squares away"},
     [](const Facts& f) { return f.nearest_pet >= 5 && f.nearest_pet < Facts::kFar; }},
    {{"no_pet_shown", "no pet on the map"}, [](const Facts& f) { return f.nearest_pet == Facts::kFar; }},
    {{"unseen_monster_marked", "a remembered, unseen monster marked on the map"},
     [](const Facts& f) { return f.shows(Feature::kUnseen); }},
    {{"unseen_monster_adjacent", "a remembered, unseen monster marked next to the hero"},
     [](const Facts& f) { return f.beside(Feature::kUnseen); }},
    {{"swallowed", "inside a monster"}, [](const Facts& f) { return f.shows(Feature::kSwallow); }},
    {{"hostile_kind_adjacent", "a monster next to the hero of a kind that is always created hostile"},
     [](const Facts& f) { return f.beside(Kind::kAlwaysHostile); }},
    {{"fast_monster_shown", "a monster on the map faster than speed 12"},
     [](const Facts& f) { return f.shows(Kind::kFast); }},
    {{"slow_monster_adjacent", "a monster next to the hero slower than speed 12, but moving"},
     [](const Facts& f) { return f.beside(Kind::kSlow); }},
    {{"petrifying_monster_shown", "a cockatrice or chickatrice on the map: never touch it bare-handed"},
     [](const Facts& f) { return f.shows(Kind::kPetrifies); }},
    {{"passive_monster_shown", "a monster on the map that harms who strikes it: floating eye, jelly, mold, ..."},
     [](const Facts& f) { return f.shows(Kind::kPassiveHarm); }},
    {{"passive_monster_adjacent", "a monster next to the hero that harms who strikes it"},
     [](const Facts& f) { return f.beside(Kind::kPassiveHarm); }},
    {{"sticky_monster_adjacent", "a monster next to the hero that holds on: lichen, mimic, python, ..."},
     [](const Facts& f) { return f.beside(Kind::kSticks); }},
    {{"strong_monster_shown", "a monster on the map of a strong kind"},
     [](const Facts& f) { return f.shows(Kind::kStrong); }},
    {{"undead_shown", "an undead monster on the map"}, [](const Facts& f) { return f.shows(Kind::kUndead); }},
    {{"shopkeeper_shown", "a shopkeeper on the map"}, [](const Facts& f) { return f.shows(Kind::kShopkeeper); }},
    {{"canine_shown", "a dog, jackal or wolf that is no pet on the map"},
     [](const Facts& f) { return f.shows(Kind::kCanine); }},
    {{"rodent_shown", "a rat or another rodent on the map"}, [](const Facts& f) { return f.shows(Kind::kRodent); }},
    {{"insect_shown", "an insect, spider or grid bug on the map"},
     [](const Facts& f) { return f.shows(Kind::kInsect); }},
    {{"fungus_shown", "a lichen, mold or another fungus on the map"},
     [](const Facts& f) { return f.shows(Kind::kFungus); }},
    {{"reptile_shown", "a newt, lizard, snake or another reptile on the map"},
     [](const Facts& f) { return f.shows(Kind::kReptile); }},
    {{"gnome_or_dwarf_shown", "a gnome, dwarf, hobbit or the like on the map"},
     [](const Facts& f) { return f.shows(Kind::kGnome); }},
    {{"orc_or_kobold_shown", "an orc, goblin or kobold on the map"},
     [](const Facts& f) { return f.shows(Kind::kOrcOrKobold); }},
};

}  // namespace

RuleGroup monster_rules() noexcept { return rule_group<kRules>(); }

}  // namespace pbm::nethack
