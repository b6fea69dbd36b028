// Conditions of the level: what the map shows of it, remembered squares included, and what is around the hero.
#include "nethack/conditions_facts.h"

namespace pbm::nethack {
namespace {

using tables::Feature;

constexpr Rule kRules[] = {
    {{"stairs_down_known", "a staircase or ladder down on the map or under the hero"},
     [](const Facts& f) { return f.shows(Feature::kStairsDown) || f.on_stairs_down; }},
    {{"stairs_down_unknown", "no staircase or ladder down on the map, nor under the hero"},
     [](const Facts& f) { return !f.shows(Feature::kStairsDown) && !f.on_stairs_down; }},
    {{"stairs_down_adjacent", "a staircase or ladder down next to the hero"},
     [](const Facts& f) { return f.beside(Feature::kStairsDown); }},
    {{"stairs_up_known", "a staircase or ladder up on the map or under the hero"},
     [](const Facts& f) { return f.shows(Feature::kStairsUp) || f.on_stairs_up; }},
    {{"stairs_up_adjacent", "a staircase or ladder up next to the hero"},
     [](const Facts& f) { return f.beside(Feature::kStairsUp); }},
    {{"closed_door_known", "a closed door on the map"}, [](const Facts& f) { return f.shows(Feature::kClosedDoor); }},
    {{"closed_door_adjacent", "a closed door next to the hero"},
     [](const Facts& f) { return f.beside(Feature::kClosedDoor); }},
    {{"open_door_known", "an open door on the map"}, [](const Facts& f) { return f.shows(Feature::kOpenDoor); }},
    {{"open_door_adjacent", "an open door next to the hero"},
     [](const Facts& f) { return f.beside(Feature::kOpenDoor); }},
    {{"doorway_known", "a doorway without a door, or with a broken one, on the map"},
     [](const Facts& f) { return f.shows(Feature::kDoorway); }},
    {{"doorway_adjacent", "a doorway without a door, or with a broken one, next to the hero"},
     [](const Facts& f) { return f.beside(Feature::kDoorway); }},
    {{"altar_known", "an altar on the map"}, [](const Facts& f) { return f.shows(Feature::kAltar); }},
    {{"altar_adjacent", "an altar next to the hero"}, [](const Facts& f) { return f.beside(Feature::kAltar); }},
    {{"fountain_known", "a fountain on the map"}, [](const Facts& f) { return f.shows(Feature::kFountain); }},
    {{"fountain_adjacent", "a fountain next to the hero"}, [](const Facts& f) { return f.beside(Feature::kFountain); }},
    {{"sink_known", "a kitchen sink on the map"}, [](const Facts& f) { return f.shows(Feature::kSink); }},
    {{"water_or_lava_known", "water or lava on the map"}, [](const Facts& f) { return f.shows(Feature::kWater); }},
    {{"trap_known", "a trap on the map"}, [](const Facts& f) { return f.shows(Feature::kTrap); }},
    {{"trap_adjacent", "a trap next to the hero"}, [](const Facts& f) { return f.beside(Feature::kTrap); }},
    {{"holding_trap_known", "a bear trap, pit or web on the map"},
     [](const Facts& f) { return f.shows(Feature::kTrapHolds); }},
    {{"hurting_trap_known", "a trap on the map that hurts: arrows, darts, rocks, gas, rust, fire, mines"},
     [](const Facts& f) { return f.shows(Feature::kTrapHurts); }},
    {{"dropping_trap_known", "a trap door, hole or level teleporter on the map: a way to another level"},
     [](const Facts& f) { return f.shows(Feature::kTrapDrops); }},
    {{"magic_trap_known", "a teleportation, magic, anti-magic or polymorph trap or a portal on the map"},
     [](const Facts& f) { return f.shows(Feature::kTrapMagic); }},
    {{"boulder_known", "a boulder on the map"}, [](const Facts& f) { return f.shows(Feature::kBoulder); }},
    {{"boulder_adjacent", "a boulder next to the hero"}, [](const Facts& f) { return f.beside(Feature::kBoulder); }},
    {{"corridor_known", "a corridor on the map"}, [](const Facts& f) { return f.shows(Feature::kCorridor); }},
    {{"in_corridor", "corridor but no room floor next to the hero"},
     [](const Facts& f) { return f.corridor_neighbours > 0 && f.floor_neighbours == 0; }},
    {{"in_room", "three or more squares of room floor next to the hero"},
     [](const Facts& f) { return f.floor_neighbours >= 3; }},
    {{"in_the_open", "seven or more of the hero's eight neighbours open"},
     [](const Facts& f) { return f.open_neighbours >= 7; }},
    {{"at_dead_end", "at most one of the hero's eight neighbours open"},
     [](const Facts& f) { return f.open_neighbours <= 1; }},
    {{"wall_adjacent", "a wall, tree or iron bars next to the hero"},
     [](const Facts& f) { return f.beside(Feature::kWall); }},
    {{"dark_floor_known", "room floor out of sight or unlit on the map"},
     [](const Facts& f) { return f.shows(Feature::kDarkFloor); }},
    {{"room_frontier", "room floor, a doorway or the like on the map that borders on unseen squares"},
     [](const Facts& f) { return f.room_frontier; }},
    {{"corridor_end", "a corridor square on the map from which at most one way leads on"},
     [](const Facts& f) { return f.corridor_end; }},
    {{"no_frontier", "no bordering on unseen squares: neither room frontier nor corridor end"},
     [](const Facts& f) { return !f.room_frontier && !f.corridor_end; }},
    {{"level_hardly_known", "fewer than 120 squares of the level on the map"},
     [](const Facts& f) { return f.squares_known < 120; }},
    {{"level_partly_known", "120 to 399 squares of the level on the map"},
     [](const Facts& f) { return f.squares_known >= 120 && f.squares_known < 400; }},
    {{"level_well_known", "400 or more squares of the level on the map"},
     [](const Facts& f) { return f.squares_known >= 400; }},
};

}  // namespace

RuleGroup terrain_rules() noexcept { return rule_group<kRules>(); }

}  // namespace pbm::nethack
