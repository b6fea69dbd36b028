"""Every condition on an observation made for it: it holds there, and not on one that lacks just that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_conditions
from hypothesis import given, settings
from hypothesis import strategies as st
from nle import nethack as nh
from observations import corpse, lit, monster, observation, pet, place, thing, words

from polybeast_moe import _C

ROOT = Path(__file__).resolve().parents[2]
FLOOR, WALL, CORRIDOR = place("floor of a room"), place("wall"), place("corridor")
AROUND = [(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dx, dy) != (0, 0)]


def at(glyph: int, dx: int = 5, dy: int = 3) -> dict[str, Any]:
    return {"squares": {(dx, dy): glyph}}


def beside(*glyphs: int) -> dict[str, Any]:
    return {"squares": dict(zip(AROUND, glyphs, strict=False))}


def says(message: str) -> dict[str, Any]:
    return {"message": message}


def here(what: str) -> dict[str, Any]:
    return says(f"You see here {what}.")


def has(*names: str) -> dict[str, Any]:
    return {"carried": [thing(name) for name in names]}


def suffers(name: str) -> dict[str, Any]:
    return {"CONDITION": int(getattr(nh, f"BL_MASK_{name}"))}


def known(count: int) -> dict[str, Any]:
    """A map with this many squares that are not blank, the hero's one of them."""
    places = [(dx, dy) for dy in range(-9, 10) for dx in range(-39, 40) if (dx, dy) != (0, 0)]
    return {"squares": dict.fromkeys(places[: count - 1], WALL)}


# Condition: (what makes it hold, what comes near but does not). {} is the bare map.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hp_full": ({"HP": 50}, {"HP": 49}),
    "hp_scratched": ({"HP": 34}, {"HP": 33}),
    "hp_wounded": ({"HP": 17}, {"HP": 16}),
    "hp_low": ({"HP": 16}, {"HP": 17}),
    # level 3: a fifth of the maximum, of which no more than 15 a level count (pray.c)
    "hp_critical": ({"HP": 9}, {"HP": 10}),
    "energy_for_spell": ({"ENE": 5}, {"ENE": 4}),
    "energy_spent": ({"ENE": 4, "ENEMAX": 9}, {"ENE": 5, "ENEMAX": 10}),
    "experience_level_1": ({"XP": 1}, {"XP": 2}),
    "experience_level_2_to_4": ({"XP": 4}, {"XP": 5}),
    "experience_level_5_up": ({"XP": 5}, {"XP": 4}),
    "depth_1": ({"DEPTH": 1}, {"DEPTH": 2}),
    "depth_2_to_4": ({"DEPTH": 4}, {"DEPTH": 5}),
    "depth_5_to_9": ({"DEPTH": 9}, {"DEPTH": 10}),
    "depth_10_down": ({"DEPTH": 10}, {"DEPTH": 9}),
    "in_mines": ({"DNUM": 2}, {"DNUM": 0}),
    "gold_none": ({"GOLD": 0}, {"GOLD": 1}),
    "gold_some": ({"GOLD": 1199}, {"GOLD": 1200}),
    "gold_for_protection": ({"GOLD": 1200}, {"GOLD": 1199}),
    "armor_class_poor": ({"AC": 8}, {"AC": 7}),
    "armor_class_fair": ({"AC": 5}, {"AC": 4}),
    "armor_class_good": ({"AC": -3}, {"AC": 5}),
    "satiated": ({"HUNGER": 0}, {"HUNGER": 1}),
    "not_hungry": ({"HUNGER": 1}, {"HUNGER": 2}),
    "hungry": ({"HUNGER": 2}, {"HUNGER": 1}),
    "weak": ({"HUNGER": 3}, {"HUNGER": 2}),
    "fainting": ({"HUNGER": 5}, {"HUNGER": 3}),
    "burdened": ({"CAP": 1}, {"CAP": 2}),
    "stressed": ({"CAP": 3}, {"CAP": 1}),
    "turning_to_stone": (suffers("STONE"), suffers("SLIME")),
    "turning_to_slime": (suffers("SLIME"), suffers("STONE")),
    "strangled": (suffers("STRNGL"), suffers("BLIND")),
    "sick": (suffers("TERMILL"), suffers("STUN")),
    "blind": (suffers("BLIND"), suffers("DEAF")),
    "deaf": (suffers("DEAF"), suffers("BLIND")),
    "stunned": (suffers("STUN"), suffers("CONF")),
    "confused": (suffers("CONF"), suffers("STUN")),
    "hallucinating": (suffers("HALLU"), suffers("CONF")),
    "airborne": (suffers("FLY"), suffers("RIDE")),
    "riding": (suffers("RIDE"), suffers("LEV")),
    "strength_high": ({"STR25": 17}, {"STR25": 16}),
    "dexterity_high": ({"DEX": 15}, {"DEX": 14}),
    "lawful": ({"ALIGN": 1}, {"ALIGN": 0}),
    "neutral": ({"ALIGN": 0}, {"ALIGN": -1}),
    "chaotic": ({"ALIGN": -1}, {"ALIGN": 0}),
    "turn_300_at_most": ({"TIME": 300}, {"TIME": 301}),
    "turn_1000_passed": ({"TIME": 1001}, {"TIME": 1000}),
    "monster_shown": (at(monster("newt")), at(pet("kitten"))),
    "monsters_many_shown": (beside(*[monster("newt")] * 3), beside(*[monster("newt")] * 2)),
    "monster_adjacent": (at(monster("newt"), 1, 1), at(monster("newt"), 2, 1)),
    "monsters_two_adjacent": (beside(*[monster("newt")] * 2), beside(monster("newt"), pet("dog"))),
    "monster_near": (at(monster("newt"), 4, 1), at(monster("newt"), 5, 1)),
    "monster_far": (at(monster("newt"), 5, 1), at(monster("newt"), 4, 1)),
    "monster_in_line": (
        {"squares": {(1, 1): FLOOR, (2, 2): FLOOR, (3, 3): monster("newt")}},
        {"squares": {(1, 1): FLOOR, (2, 2): WALL, (3, 3): monster("newt")}},
    ),
    "monster_stronger_adjacent": (beside(monster("soldier ant")), beside(monster("newt"))),
    "monster_out_of_depth_shown": (at(monster("minotaur")), at(monster("soldier ant"))),
    "pet_adjacent": (at(pet("kitten"), 0, -1), at(pet("kitten"), 0, -2)),
    "pet_near": (at(pet("kitten"), 0, -2), at(pet("kitten"), 0, -1)),
    "pet_far": (at(pet("kitten"), 9, 0), at(pet("kitten"), 4, 0)),
    "no_pet_shown": ({}, at(pet("kitten"))),
    "unseen_monster_marked": (at(nh.GLYPH_INVISIBLE), at(monster("newt"))),
    "unseen_monster_adjacent": (beside(nh.GLYPH_INVISIBLE), at(nh.GLYPH_INVISIBLE)),
    "swallowed": (beside(nh.GLYPH_SWALLOW_OFF), {}),
    "hostile_kind_adjacent": (beside(monster("jackal")), beside(monster("gnome"))),
    "fast_monster_shown": (at(monster("soldier ant")), at(monster("jackal"))),
    "slow_monster_adjacent": (beside(monster("newt")), beside(monster("blue jelly"))),
    "petrifying_monster_shown": (at(monster("chickatrice")), at(monster("pyrolisk"))),
    "passive_monster_shown": (at(monster("floating eye")), at(monster("newt"))),
    "passive_monster_adjacent": (beside(monster("floating eye")), at(monster("floating eye"))),
    "sticky_monster_adjacent": (beside(monster("lichen")), beside(monster("newt"))),
    "strong_monster_shown": (at(monster("ogre")), at(monster("newt"))),
    "undead_shown": (at(monster("gnome zombie")), at(monster("gnome"))),
    "shopkeeper_shown": (at(monster("shopkeeper")), at(monster("watchman"))),
    "canine_shown": (at(monster("jackal")), at(pet("little dog"))),
    "rodent_shown": (at(monster("sewer rat")), at(monster("jackal"))),
    "insect_shown": (at(monster("grid bug")), at(monster("newt"))),
    "fungus_shown": (at(monster("lichen")), at(monster("newt"))),
    "reptile_shown": (at(monster("newt")), at(monster("lichen"))),
    "gnome_or_dwarf_shown": (at(monster("gnome lord")), at(monster("goblin"))),
    "orc_or_kobold_shown": (at(monster("goblin")), at(monster("gnome"))),
    "stairs_down_known": (at(place("ladder down")), at(place("staircase up"))),
    "stairs_down_unknown": (at(place("staircase up")), at(place("staircase down"))),
    "stairs_down_adjacent": (beside(place("staircase down")), at(place("staircase down"))),
    "stairs_up_known": (at(place("staircase up")), at(place("staircase down"))),
    "stairs_up_adjacent": (beside(place("staircase up")), at(place("staircase up"))),
    "closed_door_known": (at(place("closed door") + 1), at(place("open door"))),
    "closed_door_adjacent": (beside(place("closed door")), at(place("closed door"))),
    "open_door_known": (at(place("open door") + 1), at(place("closed door"))),
    "open_door_adjacent": (beside(place("open door")), at(place("open door"))),
    "doorway_known": (at(place("doorway")), at(place("open door"))),
    "doorway_adjacent": (beside(place("doorway")), at(place("doorway"))),
    "altar_known": (at(place("altar")), at(place("fountain"))),
    "altar_adjacent": (beside(place("altar")), at(place("altar"))),
    "fountain_known": (at(place("fountain")), at(place("sink"))),
    "fountain_adjacent": (beside(place("fountain")), at(place("fountain"))),
    "sink_known": (at(place("sink")), at(place("fountain"))),
    "water_or_lava_known": (at(place("molten lava")), at(place("ice"))),
    "trap_known": (at(place("squeaky board")), at(place("grave"))),
    "trap_adjacent": (beside(place("pit")), at(place("pit"))),
    "holding_trap_known": (at(place("web")), at(place("arrow trap"))),
    "hurting_trap_known": (at(place("arrow trap")), at(place("web"))),
    "dropping_trap_known": (at(place("trap door")), at(place("pit"))),
    "magic_trap_known": (at(place("polymorph trap")), at(place("pit"))),
    "boulder_known": (at(thing("boulder")), at(thing("rock"))),
    "boulder_adjacent": (beside(thing("boulder")), at(thing("boulder"))),
    "corridor_known": (at(place("lit corridor")), at(FLOOR)),
    "in_corridor": (beside(CORRIDOR), beside(CORRIDOR, FLOOR)),
    "in_room": (beside(*[FLOOR] * 3), beside(*[FLOOR] * 2)),
    "in_the_open": (beside(*[FLOOR] * 7), beside(*[FLOOR] * 6, WALL, WALL)),
    "at_dead_end": (beside(CORRIDOR), beside(CORRIDOR, CORRIDOR)),
    "wall_adjacent": (beside(place("iron bars")), at(WALL)),
    "dark_floor_known": (at(place("dark part of a room")), at(FLOOR)),
    "room_frontier": (at(FLOOR), {"squares": {(5, 3): FLOOR, (4, 3): WALL, (6, 3): WALL, (5, 2): WALL, (5, 4): WALL}}),
    "corridor_end": (
        {"squares": {(4, 0): CORRIDOR, (5, 0): CORRIDOR}},
        {"squares": {(4, 0): CORRIDOR, (5, 0): CORRIDOR, (5, 1): CORRIDOR, (4, 1): CORRIDOR}},
    ),
    "no_frontier": ({}, at(FLOOR)),
    "level_hardly_known": (known(119), known(120)),
    "level_partly_known": (known(399), known(400)),
    "level_well_known": (known(400), known(399)),
    "item_known": (at(corpse("newt")), at(thing("boulder"))),
    "item_adjacent": (beside(thing("dagger")), at(thing("dagger"))),
    "weapon_known": (at(thing("arrow")), at(thing("pick-axe"))),
    "armor_known": (at(thing("helmet")), at(thing("saddle"))),
    "tool_known": (at(thing("pick-axe")), at(thing("dwarvish mattock"))),
    "box_known": (at(thing("chest")), at(thing("sack"))),
    "box_adjacent": (beside(thing("large box")), at(thing("large box"))),
    "food_known": (at(thing("apple")), at(thing("egg"))),
    "corpse_known": (at(corpse("newt")), at(thing("tripe ration"))),
    "corpse_adjacent": (beside(corpse("newt")), at(corpse("newt"))),
    "unsafe_corpse_known": (at(corpse("kobold")), at(corpse("newt"))),
    "potion_known": (at(thing("water")), at(thing("light"))),
    "scroll_or_book_known": (at(thing("blank paper")), at(thing("water"))),
    "wand_or_jewellery_known": (at(thing("wishing")), at(thing("magic lamp"))),
    "gold_known": (at(thing("gold piece")), at(thing("flint"))),
    "gold_adjacent": (beside(thing("gold piece")), at(thing("gold piece"))),
    "gem_or_rock_known": (at(thing("rock")), at(thing("boulder"))),
    "statue_known": (at(nh.GLYPH_STATUE_OFF + 3), at(thing("boulder"))),
    "item_underfoot": (here("a dagger"), says("You see no objects here.")),
    "many_items_underfoot": (says("There are several objects here."), here("a dagger")),
    "weapon_underfoot": (here("3 blessed +1 elven daggers"), here("an iron chain")),
    "armor_underfoot": (here("a ring mail"), here("a ring")),
    "tool_underfoot": (here("a large box"), here("a statue of a newt")),
    "food_underfoot": (here("2 cloves of garlic"), here("a newt corpse")),
    "corpse_underfoot": (here("a newt corpse"), here("a tin")),
    "magic_item_underfoot": (here("a scroll labeled READ ME"), here("a bag")),
    "stone_underfoot": (here("4 gray stones"), here("a dagger")),
    "has_weapon": (has("dagger"), has("pick-axe")),
    "has_thrown_weapon": (has("shuriken"), has("long sword")),
    "has_bow_and_arrows": (has("yumi", "ya"), has("yumi", "dart")),
    "has_jewellery": (has("amulet of ESP"), has("bell")),
    "has_tool": (has("bell"), has("dagger")),
    "has_digging_tool": (has("dwarvish mattock"), has("axe")),
    "has_unlocking_tool": (has("credit card"), has("tin opener")),
    "has_bag": (has("sack"), has("large box")),
    "has_blindfold_or_towel": (has("towel"), has("lenses")),
    "has_food": (has("food ration"), has("egg")),
    "no_food": (has("dagger"), has("egg")),
    "has_corpse": ({"carried": [corpse("lizard")]}, has("food ration")),
    "has_potion": (has("water"), has("blank paper")),
    "has_scroll": (has("identify"), has("dig")),
    "has_spellbook": (has("dig"), has("identify")),
    "has_wand": (has("wishing"), has("dagger")),
    "has_gem_or_rock": (has("flint"), has("dagger")),
    "inventory_large": (has(*["dagger"] * 15), has(*["dagger"] * 14)),
    "prompt_choice": ({"misc": (1, 0, 0)}, {"misc": (0, 1, 1)}),
    "prompt_text_or_more": ({"misc": (0, 0, 1)}, {"misc": (1, 0, 0)}),
    "prompt_direction": (says("In what direction? "), says("What a strange direction!")),
    "prompt_item": (says("What do you want to wield? [a or ?*] "), says("What do you want to eat? [d or ?*] ")),
    "prompt_eat": (says("There is a newt corpse here; eat it? [ynq] (n) "), says("What do you want to read? [i]")),
    "prompt_attack": (says("Really attack the gnome? [yn] (n) "), says("You attack thin air.")),
    "prompt_pray": (says("Are you sure you want to pray? [yn] (n) "), says("You begin praying to Chih Sung-tzu.")),
    "said_blocked": (says("It's a wall."), says("It's a newt.")),
    "said_no_diagonal": (says("You can't move diagonally out of an intact doorway."), says("You move.")),
    "said_boulder_stuck": (says("You try to move the boulder, but in vain."), says("You move the boulder.")),
    "said_door_locked": (says("This door is locked."), says("The door opens.")),
    "said_door_gives_way": (says("WHAMM!  The door crashes open!"), says("WHAMM!")),
    "said_swapped_with_pet": (says("You swap places with your kitten."), says("You stop.")),
    "said_pet_in_the_way": (says("You stop.  Your kitten is in the way!"), says("You stop.")),
    "said_item_moved_by_monster": (says("The kitten picks up a dart."), says("You pick up a dart.")),
    "said_hero_hits": (says("You hit the newt."), says("You miss the newt.")),
    "said_hero_misses": (says("You miss the newt."), says("The newt misses!")),
    "said_hero_kills": (says("You kill the newt!"), says("The newt is killed!")),
    "said_something_dies": (says("The newt is killed!"), says("You kill the newt!")),
    "said_hero_hurt": (says("The jackal bites!"), says("The kitten bites the newt.")),
    "said_monster_misses": (says("The jackal misses!"), says("The kitten misses the newt.")),
    "said_stuck": (says("You cannot escape from the lichen!"), says("You escape a bear trap.")),
    "said_self_hurt": (says("Ouch!  That hurts!"), says("The newt bites!")),
    "said_nothing_hit": (says("You attack thin air."), says("You kick the newt.")),
    "stairs_down_underfoot": (says("There is a staircase down here."), says("There is a staircase up here.")),
    "stairs_up_underfoot": (says("There is a ladder up here."), says("There is a ladder down here.")),
    "said_gold": (says("$ - 12 gold pieces."), says("Your wallet is empty.")),
    "said_no_stairs": (says("You can't go down here."), says("You can't move.")),
    "said_ate": (says("You finish eating the newt corpse."), says("You stop eating.")),
    "said_not_edible": (says("You cannot eat that!"), says("You don't have anything to eat.")),
    "said_sound": (says("You hear bubbling water."), says("You feel feverish.")),
    "said_recovered": (says("You can see again."), says("You see here a dart.")),
    "said_god_angry": (says("You feel that Huan Ti is displeased."), says("You feel a hopeful feeling.")),
    "said_shop": (says("You see here a dart (for sale, 2 zorkmids)."), here("a dart")),
}


def test_every_condition_has_a_case() -> None:
    assert list(CASES) == _C.condition_names()


@pytest.mark.parametrize("name", CASES)
def test_condition_holds_where_it_should_and_only_there(name: str) -> None:
    holds, does_not = CASES[name]
    assert name in lit(observation(**holds))
    assert name not in lit(observation(**does_not))


def test_names_are_unique_and_descriptions_are_one_line() -> None:
    names, descriptions = _C.condition_names(), _C.condition_descriptions()
    assert len(set(names)) == len(names) == len(descriptions) >= 150
    assert all(text and "\n" not in text for text in descriptions)


def test_spare_bits_are_zero() -> None:
    row = words({key: value[None] for key, value in observation().items()})[0]
    assert len(row) == (len(_C.condition_names()) + 63) // 64
    spare = len(_C.condition_names()) % 64
    assert spare == 0 or int(row[-1]) >> spare == 0


def test_the_heros_own_glyph_is_no_monster_and_no_corpse_matters_under_it() -> None:
    assert not lit(observation()) & {"monster_shown", "item_known", "monster_adjacent"}
    assert "item_known" not in lit(observation(squares={(0, 0): corpse("newt")}))


def of_difficulty(wanted: int) -> int:
    return nh.GLYPH_MON_OFF + next(i for i in range(nh.NUMMONS) if nh.permonst(i).difficulty == wanted)


@pytest.mark.parametrize(
    ("name", "holds", "does_not"),
    [
        ("experience_level_2_to_4", {"XP": 2}, {"XP": 1}),
        ("depth_2_to_4", {"DEPTH": 2}, {"DEPTH": 1}),
        ("depth_5_to_9", {"DEPTH": 5}, {"DEPTH": 4}),
        ("gold_some", {"GOLD": 1}, {"GOLD": 0}),
        ("armor_class_fair", {"AC": 7}, {"AC": 8}),
        ("armor_class_good", {"AC": 4}, {"AC": 5}),
        ("fainting", {"HUNGER": 4}, {"HUNGER": 3}),
        ("stressed", {"CAP": 2}, {"CAP": 1}),
        ("monster_near", at(monster("newt"), 2, 1), at(monster("newt"), 1, 1)),
        ("monster_stronger_adjacent", {"XP": 3, **beside(of_difficulty(4))}, {"XP": 3, **beside(of_difficulty(3))}),
        ("monster_out_of_depth_shown", {"XP": 4, **at(of_difficulty(8))}, {"XP": 4, **at(of_difficulty(7))}),
        ("pet_near", at(pet("kitten"), 4, 0), at(pet("kitten"), 5, 0)),
        ("pet_far", at(pet("kitten"), 5, 0), at(pet("kitten"), 4, 0)),
        ("level_partly_known", known(120), known(119)),
    ],
)
def test_edges_that_the_cases_above_are_not_at(name: str, holds: dict[str, Any], does_not: dict[str, Any]) -> None:
    assert name in lit(observation(**holds))
    assert name not in lit(observation(**does_not))


@pytest.mark.parametrize(
    ("level", "part"), [(5, 5), (6, 6), (13, 6), (14, 7), (21, 7), (22, 8), (29, 8), (30, 9)]
)  # pray.c: by every second rank
def test_hit_points_are_critical_at_a_part_that_shrinks_with_the_rank(level: int, part: int) -> None:
    stats = {"XP": level, "HPMAX": 10 * part}
    assert "hp_critical" in lit(observation(HP=10, **stats))
    assert "hp_critical" not in lit(observation(HP=11, **stats))


def test_a_throw_reaches_eight_squares() -> None:
    def newt_beyond(squares: int) -> set[str]:
        return lit(observation({**{(dx, 0): FLOOR for dx in range(1, squares)}, (squares, 0): monster("newt")}))

    assert "monster_in_line" not in newt_beyond(1)
    assert "monster_in_line" in newt_beyond(2) & newt_beyond(8)
    assert "monster_in_line" not in newt_beyond(9)


def test_the_longest_noun_counts() -> None:
    assert "armor_underfoot" in lit(observation(message="You see here a red dragon scale mail."))
    assert "food_underfoot" not in lit(observation(message="You see here a tinning kit."))
    assert "tool_underfoot" in lit(observation(message="You see here a tinning kit."))


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        ("You smite the newt.", "said_hero_hits"),
        ("You strike the newt!", "said_hero_hits"),
        ("The newt staggers from your powerful strike!", "said_hero_hits"),
        ("As you kick the door, it crashes open!", "said_door_gives_way"),
        ("As you kick the door, it shatters to pieces!", "said_door_gives_way"),
        ("This cram ration is bland.", "said_ate"),
        ("This pancake is terrible!", "said_ate"),
    ],
)
def test_other_words_for_the_same_event(message: str, condition: str) -> None:
    assert condition in lit(observation(message=message))


def test_a_full_message_without_terminator_is_read_to_its_end() -> None:
    text = "." * (256 - len("You hear bubbling water.")) + "You hear bubbling water."
    assert "said_sound" in lit(observation(message=text))


PIECES = st.sampled_from([case["message"] for pair in CASES.values() for case in pair if "message" in case])


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.lists(PIECES, max_size=3))
def test_any_observation_reads_as_the_reference_reads_it(seed: int, density: float, pieces: list[str]) -> None:
    """Maps and inventories of random glyphs: play shows few of the six thousand."""
    rng = np.random.default_rng(seed)
    batch = {key: np.stack([value] * 4) for key, value in observation(message="  ".join(pieces)[:255]).items()}
    filled = rng.random(batch["glyphs"].shape) < density * rng.choice([0.02, 1.0])
    pool = rng.integers(0, nh.MAX_GLYPH + 1, size=rng.integers(1, 40))
    ground = nh.GLYPH_CMAP_OFF + rng.integers(0, 42, size=batch["glyphs"].shape)
    batch["glyphs"] = np.where(filled, rng.choice(pool, batch["glyphs"].shape), batch["glyphs"]).astype(np.int16)
    batch["glyphs"] = np.where(rng.random(filled.shape) < density / 2, ground, batch["glyphs"]).astype(np.int16)
    batch["blstats"][:, nh.NLE_BL_X] = rng.integers(0, 79, 4)
    batch["blstats"][:, nh.NLE_BL_Y] = rng.integers(0, 21, 4)
    batch["blstats"][:, 2:] = rng.integers(-2, 40, (4, 25))
    carried = rng.integers(0, 56)
    batch["inv_glyphs"][:, :carried] = rng.integers(nh.GLYPH_BODY_OFF, nh.GLYPH_CMAP_OFF, (4, carried))
    batch["inv_oclasses"][:, :carried] = rng.integers(0, nh.MAXOCLASSES + 1, (4, carried))
    batch["inv_letters"][:, :carried] = ord("a")
    assert_agrees_with_reference(batch)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_nonsense_is_read_without_harm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = {}
    for key, value in observation().items():
        low, high = max(np.iinfo(value.dtype).min, -(2**31)), min(np.iinfo(value.dtype).max, 2**31 - 1)
        noise[key] = rng.integers(low, high, (3, *value.shape), value.dtype)
    assert words(noise).shape == (3, len(words(noise)[0]))


def assert_agrees_with_reference(batch: dict[str, np.ndarray]) -> None:
    expected = reference_conditions.evaluate(batch)
    rows = words(batch)
    for index, name in enumerate(_C.condition_names()):
        seen = (rows[:, index // 64] >> np.uint64(index % 64)) & np.uint64(1) == 1
        wrong = np.flatnonzero(seen != expected[name])
        assert not len(wrong), f"{name} differs on {len(wrong)} of {len(seen)} observations, first {wrong[0]}"


def test_tables_are_what_the_generator_writes() -> None:
    script = ROOT / "csrc" / "nethack" / "generate_tables.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True)


def test_the_documentation_lists_every_condition() -> None:
    text = (ROOT / "docs" / "graph.md").read_text()
    rows = [
        f"| `{name}` | {what} |" for name, what in zip(_C.condition_names(), _C.condition_descriptions(), strict=True)
    ]
    assert "\n".join(rows) in text
