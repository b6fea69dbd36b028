// Conditions of objects: on the map, next to the hero, underfoot (only the message tells) and carried.
#include "nethack/conditions_facts.h"

namespace pbm::nethack {
namespace {

using tables::Feature;
using tables::NounKind;

constexpr Rule kRules[] = {
    {{"item_known", "an object other than a boulder on the map"},
     [](const Facts& f) { return f.shows(Feature::kItem); }},
    {{"item_adjacent", "an object other than a boulder next to the hero"},
     [](const Facts& f) { return f.beside(Feature::kItem); }},
    {{"weapon_known", "a weapon on the map"}, [](const Facts& f) { return f.shows(Feature::kWeapon); }},
    {{"armor_known", "a piece of armour on the map"}, [](const Facts& f) { return f.shows(Feature::kArmor); }},
    {{"tool_known", "a tool or container on the map"}, [](const Facts& f) { return f.shows(Feature::kTool); }},
    {{"box_known", "a large box, chest or ice box on the map"}, [](const Facts& f) { return f.shows(Feature::kBox); }},
    {{"box_adjacent", "a large box, chest or ice box next to the hero"},
     [](const Facts& f) { return f.beside(Feature::kBox); }},
    {{"food_known", "food other than corpses and eggs on the map"},
     [](const Facts& f) { return f.shows(Feature::kProvisions); }},
    {{"corpse_known", "a corpse on the map"}, [](const Facts& f) { return f.shows(Feature::kCorpse); }},
    {{"corpse_adjacent", "a corpse next to the hero"}, [](const Facts& f) { return f.beside(Feature::kCorpse); }},
    {{"unsafe_corpse_known", "a corpse on the map that is harmful to eat, however fresh"},
     [](const Facts& f) { return f.shows(Feature::kCorpseUnsafe); }},
    {{"potion_known", "a potion on the map"}, [](const Facts& f) { return f.shows(Feature::kPotion); }},
    {{"scroll_or_book_known", "a scroll or spellbook on the map"},
     [](const Facts& f) { return f.shows(Feature::kScroll) || f.shows(Feature::kBook); }},
    {{"wand_or_jewellery_known", "a wand, ring or amulet on the map"},
     [](const Facts& f) { return f.shows(Feature::kWand) || f.shows(Feature::kJewellery); }},
    {{"gold_known", "gold on the map"}, [](const Facts& f) { return f.shows(Feature::kGold); }},
    {{"gold_adjacent", "gold next to the hero"}, [](const Facts& f) { return f.beside(Feature::kGold); }},
    {{"gem_or_rock_known", "a gem or a rock on the map"}, [](const Facts& f) { return f.shows(Feature::kGem); }},
    {{"statue_known", "a statue on the map"}, [](const Facts& f) { return f.shows(Feature::kStatue); }},
    {{"item_underfoot", "the message tells of an object here"}, [](const Facts& f) { return f.says(Said::kItemHere); }},
    {{"many_items_underfoot", "the message tells of several objects here"},
     [](const Facts& f) { return f.says(Said::kManyHere); }},
    {{"weapon_underfoot", "the message tells of a weapon here"},
     [](const Facts& f) { return f.underfoot(NounKind::kWeapon); }},
    {{"armor_underfoot", "the message tells of a piece of armour here"},
     [](const Facts& f) { return f.underfoot(NounKind::kArmor); }},
    {{"tool_underfoot", "the message tells of a tool or container here"},
     [](const Facts& f) { return f.underfoot(NounKind::kTool); }},
    {{"food_underfoot", "the message tells of food other than a corpse here"},
     [](const Facts& f) { return f.underfoot(NounKind::kFood); }},
    {{"corpse_underfoot", "the message tells of a corpse here"},
     [](const Facts& f) { return f.underfoot(NounKind::kCorpse); }},
    {{"magic_item_underfoot", "the message tells of a potion, scroll, wand, ring, amulet or spellbook here"},
     [](const Facts& f) { return f.underfoot(NounKind::kMagic); }},
    {{"stone_underfoot", "the message tells of a gem, rock, statue or boulder here"},
     [](const Facts& f) { return f.underfoot(NounKind::kStone); }},
    {{"has_weapon", "carries a weapon or ammunition"},
     [](const Facts& f) { return f.carries_class(tables::WEAPON_CLASS); }},
    {{"has_thrown_weapon", "carries daggers, darts, spears or the like, made to be thrown"},
     [](const Facts& f) { return f.carries(Feature::kThrown); }},
    {{"has_bow_and_arrows", "carries a bow or crossbow and arrows or bolts"},
     [](const Facts& f) { return f.carries(Feature::kBowOrCrossbow) && f.carries(Feature::kArrow); }},
    {{"has_jewellery", "carries or wears a ring or an amulet"},
     [](const Facts& f) { return f.carries_class(tables::RING_CLASS) || f.carries_class(tables::AMULET_CLASS); }},
    {{"has_tool", "carries a tool or container"}, [](const Facts& f) { return f.carries_class(tables::TOOL_CLASS); }},
    {{"has_digging_tool", "carries a pick-axe or dwarvish mattock"},
     [](const Facts& f) { return f.carries(Feature::kDigger); }},
    {{"has_unlocking_tool", "carries a skeleton key, lock pick or credit card"},
     [](const Facts& f) { return f.carries(Feature::kUnlocker); }},
    {{"has_bag", "carries a sack or bag"}, [](const Facts& f) { return f.carries(Feature::kBag); }},
    {{"has_blindfold_or_towel", "carries a blindfold or a towel"},
     [](const Facts& f) { return f.carries(Feature::kBlindfoldOrTowel); }},
    {{"has_food", "carries food other than corpses and eggs"},
     [](const Facts& f) { return f.carries(Feature::kProvisions); }},
    {{"no_food", "carries nothing edible"}, [](const Facts& f) { return !f.carries_class(tables::FOOD_CLASS); }},
    {{"has_corpse", "carries a corpse"}, [](const Facts& f) { return f.carries(Feature::kCorpse); }},
    {{"has_potion", "carries a potion"}, [](const Facts& f) { return f.carries_class(tables::POTION_CLASS); }},
    {{"has_scroll", "carries a scroll"}, [](const Facts& f) { return f.carries_class(tables::SCROLL_CLASS); }},
    {{"has_spellbook", "carries a spellbook"}, [](const Facts& f) { return f.carries_class(tables::SPBOOK_CLASS); }},
    {{"has_wand", "carries a wand"}, [](const Facts& f) { return f.carries_class(tables::WAND_CLASS); }},
    {{"has_gem_or_rock", "carries a gem or a rock"}, [](const Facts& f) { return f.carries_class(tables::GEM_CLASS); }},
    {{"inventory_large", "15 or more stacks in the inventory"}, [](const Facts& f) { return f.stacks >= 15; }},
};

}  // namespace

RuleGroup item_rules() noexcept { return rule_group<kRules>(); }

}  // namespace pbm::nethack
