"""Writes tables.h, what the conditions need to know about glyphs and monsters, from the tables of `nle.nethack`.

    python csrc/nethack/generate_tables.py            # rewrite csrc/nethack/tables.h
    python csrc/nethack/generate_tables.py --check    # exit 1 if the file differs

The libnethack that NLE ships comes without headers; its Python module exposes monsters (`permonst`), objects
(`objclass`), map symbols (`symdef`) and glyph ranges. Three things that it does not expose are named here after
NetHack 3.6.7: the order of map symbols (`enum screen_symbols`, rm.h; every use is checked against the symbol's own
explanation), monster flag values (monflag.h) and which monsters have which attack (monst.c).
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
from collections.abc import Iterable

from nle import nethack

TARGET = pathlib.Path(__file__).with_name("tables.h")

# Map symbols by explanation (drawing.c). "dark part of a room" names two: blank stone (first) and remembered floor.
TERRAIN: dict[str, tuple[str, ...]] = {
    "Wall": ("wall", "iron bars", "tree"),
    "Doorway": ("doorway",),
    "OpenDoor": ("open door",),
    "ClosedDoor": ("closed door",),
    "Floor": ("floor of a room", "dark part of a room"),
    "DarkFloor": ("dark part of a room",),
    "Corridor": ("corridor", "lit corridor"),
    "StairsUp": ("staircase up", "ladder up"),
    "StairsDown": ("staircase down", "ladder down"),
    "Altar": ("altar",),
    "Fountain": ("fountain",),
    "Sink": ("sink",),
    "Water": ("water", "molten lava"),
    "Trap": (),  # by glyph_is_trap, below
    "TrapHolds": ("bear trap", "pit", "spiked pit", "web"),
    "TrapDrops": ("hole", "trap door", "level teleporter"),
    "TrapMagic": ("teleportation trap", "magic trap", "anti-magic field", "polymorph trap", "magic portal"),
    "TrapHurts": (
        "arrow trap", "dart trap", "falling rock trap", "land mine", "rolling boulder trap", "sleeping gas trap",
        "rust trap", "fire trap",
    ),
}  # fmt: skip
WALKABLE = {
    "doorway", "open door", "floor of a room", "dark part of a room", "corridor", "lit corridor", "staircase up",
    "staircase down", "ladder up", "ladder down", "altar", "grave", "opulent throne", "sink", "fountain", "ice",
    "lowered drawbridge", "air", "cloud",
}  # fmt: skip

OBJECT_CLASSES: dict[str, tuple[str, ...]] = {
    "Weapon": ("WEAPON_CLASS",),
    "Armor": ("ARMOR_CLASS",),
    "Jewellery": ("RING_CLASS", "AMULET_CLASS"),
    "Tool": ("TOOL_CLASS",),
    "Food": ("FOOD_CLASS",),
    "Potion": ("POTION_CLASS",),
    "Scroll": ("SCROLL_CLASS",),
    "Book": ("SPBOOK_CLASS",),
    "Wand": ("WAND_CLASS",),
    "Gold": ("COIN_CLASS",),
    "Gem": ("GEM_CLASS",),
}
# Single kinds of object, all outside the ranges that NetHack shuffles (o_init.c), so that a glyph names them truly.
OBJECTS: dict[str, tuple[str, ...]] = {
    "Boulder": ("boulder",),
    "Box": ("large box", "chest", "ice box"),
    "Bag": ("sack", "oilskin sack", "bag of holding", "bag of tricks"),
    "Digger": ("pick-axe", "dwarvish mattock"),
    "Unlocker": ("skeleton key", "lock pick", "credit card"),
    "BlindfoldOrTowel": ("blindfold", "towel"),
    "Thrown": (
        "dart", "shuriken", "boomerang", "spear", "elven spear", "orcish spear", "dwarvish spear", "silver spear",
        "javelin", "dagger", "elven dagger", "orcish dagger", "silver dagger",
    ),
    "BowOrCrossbow": ("bow", "elven bow", "orcish bow", "yumi", "crossbow"),
    "Arrow": ("arrow", "elven arrow", "orcish arrow", "silver arrow", "ya", "crossbow bolt"),
}  # fmt: skip
OTHER = ("Provisions", "Item", "Monster", "Pet", "Unseen", "Swallow", "Corpse", "CorpseUnsafe", "Statue")

# Monster classes (monsym.h) by their letter.
CLASSES: dict[str, str] = {
    "Canine": "d", "Rodent": "r", "Insect": "asx", "Fungus": "F", "Reptile": ":S", "Gnome": "Gh", "OrcOrKobold": "ok",
}  # fmt: skip
# Monster flags (monflag.h): word and value.
FLAGS: dict[str, tuple[str, int]] = {
    "Undead": ("mflags2", 0x00000002),
    "AlwaysHostile": ("mflags2", 0x00100000),
    "Strong": ("mflags2", 0x04000000),
}
# Monsters by attack (monst.c).
ATTACKS: dict[str, tuple[str, ...]] = {
    "Petrifies": ("cockatrice", "chickatrice"),  # touch_petrifies(), mondata.h
    "PassiveHarm": (  # AT_NONE: striking it hurts
        "acid blob", "gelatinous cube", "chickatrice", "cockatrice", "floating eye", "blue jelly", "spotted jelly",
        "ochre jelly", "energy vortex", "fire vortex", "fire elemental", "brown mold", "yellow mold", "green mold",
        "red mold", "green slime", "black pudding", "rust monster", "disenchanter", "Oracle",
    ),
    "Sticks": (  # AD_STCK, AD_WRAP, AT_HUGS
        "large mimic", "giant mimic", "couatl", "lichen", "violet fungus", "guardian naga", "python", "owlbear",
        "carnivorous ape", "rope golem", "pit fiend", "giant eel", "electric eel", "kraken", "salamander",
    ),
    "Shopkeeper": ("shopkeeper",),
}  # fmt: skip
NORMAL_SPEED = 12  # hack.h, NORMAL_SPEED
POISONOUS_OR_ACIDIC = 0x10000000 | 0x08000000  # monflag.h, M1_POIS and M1_ACID
# Corpses that eat.c punishes beyond poison and acid: stoning, sliming, stunning, hallucination, lycanthropy, and
# aggravation for eating a pet's kind.
UNSAFE_CORPSES = (
    "cockatrice", "chickatrice", "Medusa", "green slime", "bat", "giant bat", "violet fungus", "little dog", "dog",
    "large dog", "kitten", "housecat", "large cat", "werejackal", "wererat", "werewolf",
)  # fmt: skip
NOT_PROVISIONS = ("corpse", "egg")

MONSTER_KINDS = (*CLASSES, *FLAGS, *ATTACKS, "Fast", "Slow")
FEATURES = ("Stone", "Walkable", *TERRAIN, *OBJECT_CLASSES, *OBJECTS, *OTHER)


# What "You see here ..." can name, by kind: every name and appearance of the classes listed, and some plain words.
NOUN_CLASSES = {"WEAPON_CLASS": "Weapon", "ARMOR_CLASS": "Armor", "TOOL_CLASS": "Tool", "FOOD_CLASS": "Food"}
NOUN_WORDS: dict[str, tuple[str, ...]] = {
    "Corpse": ("corpse",),
    "Magic": ("potion", "scroll", "wand", "ring", "amulet", "spellbook", "novel"),
    "Stone": ("stone", "gem", "rock", "statue", "boulder", "luckstone", "loadstone", "touchstone", "flint"),
}
NOUN_KINDS = (*NOUN_CLASSES.values(), *NOUN_WORDS)


def monsters() -> list[object]:
    """All kinds of monster, by index."""
    return [nethack.permonst(index) for index in range(nethack.NUMMONS)]


def objects() -> list[object]:
    """All kinds of object, by index."""
    return [nethack.objclass(index) for index in range(nethack.NUM_OBJECTS)]


def object_class(item: object) -> int:
    """The class of an object, one of NetHack's *_CLASS numbers."""
    return ord(item.oc_class)  # type: ignore[attr-defined]


def check_names(wanted: Iterable[str], known: Iterable[str | None], what: str) -> None:
    """Stops if a wanted name is not known."""
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise SystemExit(f"generate_tables: no such {what} in nle.nethack: {', '.join(unknown)}")


def monster_kinds(monster: object) -> set[str]:
    """The kinds that one permonst belongs to."""
    letter = nethack.class_sym.from_mlet(monster.mlet).sym  # type: ignore[attr-defined]
    name, speed = monster.mname, monster.mmove  # type: ignore[attr-defined]
    kinds = {kind for kind, letters in CLASSES.items() if letter in letters}
    kinds |= {kind for kind, (word, value) in FLAGS.items() if getattr(monster, word) & value}
    kinds |= {kind for kind, names in ATTACKS.items() if name in names}
    if speed not in (0, NORMAL_SPEED):
        kinds.add("Fast" if speed > NORMAL_SPEED else "Slow")
    return kinds


def corpse_features(monster: object) -> set[str]:
    """The features of the corpse of one permonst."""
    features = {"Item", "Food", "Corpse"}
    if monster.mflags1 & POISONOUS_OR_ACIDIC or monster.mname in UNSAFE_CORPSES:  # type: ignore[attr-defined]
        features.add("CorpseUnsafe")
    return features


def object_features(index: int) -> set[str]:
    """The features of an object's glyph. A class and a kind outside the shuffled ranges survive NLE's shuffling."""
    item, name = nethack.objclass(index), nethack.OBJ_NAME(nethack.objclass(index))
    features = {kind for kind, names in OBJECTS.items() if name in names}
    features |= {
        kind for kind, classes in OBJECT_CLASSES.items() if object_class(item) in (getattr(nethack, c) for c in classes)
    }
    if "Food" in features and name not in NOT_PROVISIONS:
        features.add("Provisions")
    if name == "statue":
        features.add("Statue")
    if name != "boulder":
        features.add("Item")
    return features


def terrain_features(index: int) -> set[str]:
    """The features of a map symbol (`enum screen_symbols`, rm.h)."""
    explanation = nethack.symdef.from_idx(index).explanation
    if index == 0:
        return {"Stone"}
    if nethack.glyph_is_trap(nethack.GLYPH_CMAP_OFF + index):
        return {"Trap"} | {kind for kind, names in TERRAIN.items() if explanation in names}
    features = {kind for kind, names in TERRAIN.items() if explanation in names}
    return features | ({"Walkable"} if explanation in WALKABLE else set())


def glyph_features(glyph: int, all_monsters: list[object]) -> set[str]:
    """The features of any glyph; none for zaps, explosions, warnings and NO_GLYPH."""
    if nethack.glyph_is_pet(glyph):
        return {"Pet"}
    if nethack.glyph_is_normal_monster(glyph) or nethack.glyph_is_detected_monster(glyph):
        return {"Monster"}
    if nethack.glyph_is_invisible(glyph):
        return {"Unseen"}
    if nethack.glyph_is_swallow(glyph):
        return {"Swallow"}
    if nethack.glyph_is_body(glyph):
        return corpse_features(all_monsters[glyph - nethack.GLYPH_BODY_OFF])
    if nethack.glyph_is_statue(glyph):
        return {"Item", "Statue"}
    if nethack.glyph_is_normal_object(glyph):
        return object_features(glyph - nethack.GLYPH_OBJ_OFF)
    if nethack.glyph_is_cmap(glyph) and glyph < nethack.GLYPH_EXPLODE_OFF:
        return terrain_features(glyph - nethack.GLYPH_CMAP_OFF)
    return set()


def plural(name: str) -> str:
    """NetHack's plural of the few heads for which adding an s at the end is wrong (objnam.c, makeplural)."""
    head, of, rest = name.partition(" of ")
    for singular, several in (("knife", "knives"), ("staff", "staves"), ("leaf", "leaves")):
        head = head.replace(singular, several)
    return f"{head}s{of}{rest}" if of else head


def nouns() -> dict[str, str]:
    """Noun to kind, for all nouns that a look at the floor can show."""
    found: dict[str, str] = {}
    wanted = {getattr(nethack, name): kind for name, kind in NOUN_CLASSES.items()}
    for item in objects():
        kind = wanted.get(object_class(item))
        for name in (nethack.OBJ_NAME(item), nethack.OBJ_DESCR(item)):
            if kind and name and name not in ("corpse", "strange object"):
                found[name] = found[plural(name)] = kind
    for kind, words in NOUN_WORDS.items():
        found.update(dict.fromkeys(words, kind))
    return found


def mask(names: Iterable[str], universe: tuple[str, ...]) -> int:
    """One bit a name, in the order of the universe."""
    return sum(1 << universe.index(name) for name in set(names))


def enum(name: str, values: Iterable[str], doc: str) -> str:
    """A C++ enumeration."""
    body = "\n".join(f"  k{value}," for value in values)
    return f"// {doc}\nenum class {name} : unsigned {{\n{body}\n}};\n"


def runs(values: list[int]) -> str:
    """The values as {count, value} pairs, six a line."""
    pairs = [f"{{{len(list(group))}, {value:#x}}}" for value, group in itertools.groupby(values)]
    lines = [", ".join(pairs[i : i + 6]) for i in range(0, len(pairs), 6)]
    return ",\n".join(f"    {line}" for line in lines)


def array(kind: str, name: str, values: Iterable[object], per_line: int) -> str:
    """A C++ array."""
    texts = [str(value) for value in values]
    lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    body = ",\n".join(f"    {line}" for line in lines)
    return f"inline constexpr {kind} {name}[{len(texts)}] = {{\n{body}}};\n"


def constants() -> str:
    """Glyphs that the engine looks for; NLE's indices, masks and object classes under their own names."""
    oracle = [monster.mname for monster in monsters()].index("Oracle")  # type: ignore[attr-defined]
    names = {
        "kGlyphCount": nethack.MAX_GLYPH + 1,
        "kMonsterCount": nethack.NUMMONS,
        "kPetOffset": nethack.GLYPH_PET_OFF,
        "kDetectedOffset": nethack.GLYPH_DETECT_OFF,
        "kOracleGlyph": nethack.GLYPH_MON_OFF + oracle,
        "kStoneGlyph": nethack.GLYPH_CMAP_OFF,  # S_stone, the first map symbol
        "kNoGlyph": nethack.NO_GLYPH,
    }
    lines = [f"inline constexpr int {name} = {value};" for name, value in names.items()]
    prefixes = ("NLE_BL_", "BL_MASK_")
    for name in sorted(n for n in dir(nethack) if n.startswith(prefixes) and n != "BL_MASK_BITS"):
        lines.append(f"inline constexpr int {name} = {getattr(nethack, name)};")
    classes = sorted(n for n in dir(nethack) if n.endswith("_CLASS"))
    lines += [f"inline constexpr int {name} = {getattr(nethack, name)};" for name in classes]
    return "\n".join(lines) + "\n"


def check() -> None:
    """Every name used above exists in NLE's tables, or the script stops."""
    symbols = [nethack.symdef.from_idx(index).explanation for index in range(nethack.MAXPCHARS)]
    check_names(itertools.chain(WALKABLE, *TERRAIN.values()), symbols, "map symbol")
    check_names(itertools.chain(UNSAFE_CORPSES, *ATTACKS.values()), [m.mname for m in monsters()], "monster")  # type: ignore[attr-defined]
    names = [nethack.OBJ_NAME(item) for item in objects()]
    check_names(itertools.chain(NOT_PROVISIONS, *OBJECTS.values()), names, "object")
    assert len(FEATURES) <= 64
    assert len(MONSTER_KINDS) <= 32


HEADER = """// Generated by generate_tables.py from the tables of nle.nethack (NetHack 3.6.7). Do not edit.
#pragma once

#include <cstdint>
#include <string_view>

// clang-format off
namespace pbm::nethack::tables {

"""


def render() -> str:
    """The text of tables.h."""
    check()
    everyone, floor = monsters(), sorted(nouns().items())
    glyphs = [mask(glyph_features(glyph, everyone), FEATURES) for glyph in range(nethack.MAX_GLYPH + 1)]
    kinds = [f"{mask(monster_kinds(monster), MONSTER_KINDS):#x}" for monster in everyone]
    levels = [monster.difficulty for monster in everyone]  # type: ignore[attr-defined]
    parts = [
        constants(),
        enum("Feature", FEATURES, "What a glyph shows: one bit each in kGlyphFeatureRuns."),
        array("std::string_view", "kFeatureNames", [f'"{name}"' for name in FEATURES], 6),
        enum("MonsterKind", MONSTER_KINDS, "What a kind of monster is like: one bit each in kMonsterKinds."),
        enum("NounKind", NOUN_KINDS, "What a noun in a message about the floor names."),
        "struct Run {\n  int count;\n  std::uint64_t value;\n};\n"
        "// Feature bits of glyph 0, 1, ...: a run-length encoding.\n"
        f"inline constexpr Run kGlyphFeatureRuns[] = {{\n{runs(glyphs)}}};\n",
        "// By monster index.\n" + array("std::uint32_t", "kMonsterKinds", kinds, 12),
        "// NetHack's own difficulty of a monster, by monster index.\n"
        + array("std::uint8_t", "kMonsterDifficulty", levels, 24),
        "struct Noun {\n  std::string_view text;\n  NounKind kind;\n};\n// Sorted by text.\n"
        + array("Noun", "kNouns", [f'{{"{text}", NounKind::k{kind}}}' for text, kind in floor], 3),
    ]
    return HEADER + "\n".join(parts) + "\n}  // namespace pbm::nethack::tables\n// clang-format on\n"


def main() -> None:
    """Writes or checks the file."""
    parser = argparse.ArgumentParser(description="Write csrc/nethack/tables.h from nle.nethack.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    text = render()
    if not arguments.check:
        TARGET.write_text(text)
    elif TARGET.read_text() != text:
        raise SystemExit(f"{TARGET} differs from what generate_tables.py writes: run it without --check")


if __name__ == "__main__":
    main()
