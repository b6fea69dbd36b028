"""What every condition means, said a second time: in numpy, on batches, from the tables of nle.nethack directly.

Slow and plain on purpose, and written from the descriptions rather than from the C++: map conditions look at the set of
glyphs that occurs at all, messages at regular expressions, where the C++ walks squares and characters.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

import numpy as np
from nle import nethack as nh

Batch = dict[str, np.ndarray]
NOTHING = nh.NO_GLYPH
COUNT = nh.MAX_GLYPH + 1
ROWS, COLUMNS = nh.DUNGEON_SHAPE

MONSTERS = [nh.permonst(i) for i in range(nh.NUMMONS)]
OBJECTS = [nh.objclass(i) for i in range(nh.NUM_OBJECTS)]
SYMBOLS = [nh.symdef.from_idx(i).explanation for i in range(nh.MAXPCHARS - nh.MAXEXPCHARS)]


# ---------------------------------------------------------------- sets of glyphs


def chosen(glyphs: Iterable[int]) -> np.ndarray:
    mask = np.zeros(COUNT, bool)
    mask[list(glyphs)] = True
    return mask


def symbols(*explanations: str) -> np.ndarray:
    return chosen(nh.GLYPH_CMAP_OFF + i for i, text in enumerate(SYMBOLS) if i > 0 and text in explanations)


def objects(accept: Callable[[str | None, int], bool]) -> np.ndarray:
    return chosen(
        nh.GLYPH_OBJ_OFF + i for i, item in enumerate(OBJECTS) if accept(nh.OBJ_NAME(item), ord(item.oc_class))
    )


def classes(*names: str) -> np.ndarray:
    wanted = [getattr(nh, f"{name}_CLASS") for name in names]
    return objects(lambda _, oclass: oclass in wanted)


def named(*names: str) -> np.ndarray:
    return objects(lambda name, _: name in names)


def monsters(accept: Callable[[object], bool]) -> np.ndarray:
    """Glyphs of monsters seen or detected, no pets."""
    return chosen(
        offset + i
        for i, monster in enumerate(MONSTERS)
        if accept(monster)
        for offset in (nh.GLYPH_MON_OFF, nh.GLYPH_DETECT_OFF)
    )


def letters(text: str) -> np.ndarray:
    return monsters(lambda m: nh.class_sym.from_mlet(m.mlet).sym in text)


def monsters_named(*names: str) -> np.ndarray:
    assert set(names) <= {m.mname for m in MONSTERS}
    return monsters(lambda m: m.mname in names)


ALL = np.arange(COUNT)
MONSTER = nh.glyph_is_normal_monster(ALL) | nh.glyph_is_detected_monster(ALL)
PET = np.asarray(nh.glyph_is_pet(ALL), bool)
BODY = np.asarray(nh.glyph_is_body(ALL), bool)
STATUE = np.asarray(nh.glyph_is_statue(ALL), bool) | named("statue")
UNSEEN = ALL == nh.GLYPH_INVISIBLE
STONE = ALL == nh.GLYPH_CMAP_OFF
TRAP = np.asarray(nh.glyph_is_trap(ALL), bool)
BOULDER = named("boulder")
# glyph_is_object covers bodies and statues too
ITEM = np.asarray(nh.glyph_is_object(ALL), bool) & ~BOULDER & (ALL != NOTHING)
CORRIDOR = symbols("corridor", "lit corridor")
FLOOR = symbols("floor of a room", "dark part of a room")
CLOSED_DOOR = symbols("closed door")
WALKABLE = CORRIDOR | FLOOR | symbols(
    "doorway", "open door", "staircase up", "staircase down", "ladder up", "ladder down", "altar", "grave",
    "opulent throne", "sink", "fountain", "ice", "lowered drawbridge", "air", "cloud",
)  # fmt: skip
PASSABLE = WALKABLE | ITEM | MONSTER | PET | UNSEEN | TRAP
GOES_ON = PASSABLE | CLOSED_DOOR
PROVISIONS = objects(lambda name, oclass: oclass == nh.FOOD_CLASS and name not in ("corpse", "egg"))
HARMFUL = (
    "cockatrice", "chickatrice", "Medusa", "green slime", "bat", "giant bat", "violet fungus", "little dog", "dog",
    "large dog", "kitten", "housecat", "large cat", "werejackal", "wererat", "werewolf",
)  # fmt: skip
UNSAFE_BODY = chosen(
    nh.GLYPH_BODY_OFF + i for i, m in enumerate(MONSTERS) if m.mname in HARMFUL or m.mflags1 & 0x18000000
)
PASSIVE = monsters_named(
    "acid blob", "gelatinous cube", "chickatrice", "cockatrice", "floating eye", "blue jelly", "spotted jelly",
    "ochre jelly", "energy vortex", "fire vortex", "fire elemental", "brown mold", "yellow mold", "green mold",
    "red mold", "green slime", "black pudding", "rust monster", "disenchanter", "Oracle",
)  # fmt: skip
STICKY = monsters_named(
    "large mimic", "giant mimic", "couatl", "lichen", "violet fungus", "guardian naga", "python", "owlbear",
    "carnivorous ape", "rope golem", "pit fiend", "giant eel", "electric eel", "kraken", "salamander",
)  # fmt: skip
HURTING_TRAPS = symbols(
    "arrow trap", "dart trap", "falling rock trap", "land mine", "rolling boulder trap", "sleeping gas trap",
    "rust trap", "fire trap",
)  # fmt: skip
THROWN = named(
    "dart", "shuriken", "boomerang", "spear", "elven spear", "orcish spear", "dwarvish spear", "silver spear",
    "javelin", "dagger", "elven dagger", "orcish dagger", "silver dagger",
)  # fmt: skip
MONSTER_OF = np.full(COUNT, -1)
for _offset in (nh.GLYPH_MON_OFF, nh.GLYPH_DETECT_OFF):
    MONSTER_OF[_offset : _offset + nh.NUMMONS] = np.arange(nh.NUMMONS)
DIFFICULTY = np.array([m.difficulty for m in MONSTERS])


# ---------------------------------------------------------------- what a batch shows


class View:
    """A batch of observations and what several conditions ask of it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        glyphs = batch["glyphs"].astype(np.int64)
        self.size = len(glyphs)
        rows = np.arange(self.size)
        self.x, self.y = batch["blstats"][:, nh.NLE_BL_X], batch["blstats"][:, nh.NLE_BL_Y]
        self.map = glyphs.copy()
        self.map[rows, self.y, self.x] = NOTHING
        self.goes_on = GOES_ON[glyphs]
        self.goes_on[rows, self.y, self.x] = GOES_ON[glyphs[rows, self.y, self.x]]
        self.occurs = np.zeros((self.size, COUNT), bool)
        self.occurs[rows[:, None], self.map.reshape(self.size, -1)] = True
        padded = np.pad(self.map, ((0, 0), (1, 1), (1, 1)), constant_values=NOTHING)
        offsets = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
        self.around = np.stack([padded[rows, self.y + dy, self.x + dx] for dy, dx in offsets], axis=1)

    def stat(self, name: str) -> np.ndarray:
        return self.batch["blstats"][:, getattr(nh, f"NLE_BL_{name}")]

    def shows(self, glyphs: np.ndarray) -> np.ndarray:
        return self.occurs[:, glyphs].any(axis=1)

    def beside(self, glyphs: np.ndarray) -> np.ndarray:
        return glyphs[self.around].any(axis=1)

    def beside_count(self, glyphs: np.ndarray) -> np.ndarray:
        return glyphs[self.around].sum(axis=1)

    def carries(self, glyphs: np.ndarray) -> np.ndarray:
        kept = self.batch["inv_letters"] != 0
        return (glyphs[np.clip(self.batch["inv_glyphs"], 0, NOTHING)] & kept).any(axis=1)

    def carries_class(self, *names: str) -> np.ndarray:
        kept = self.batch["inv_letters"] != 0
        wanted = [getattr(nh, f"{name}_CLASS") for name in names]
        return (np.isin(self.batch["inv_oclasses"], wanted) & kept).any(axis=1)

    def nearest(self, glyphs: np.ndarray) -> np.ndarray:
        """Chebyshev distance to the nearest of these glyphs; 999 without one."""
        row, column = np.mgrid[0:ROWS, 0:COLUMNS]
        distance = np.maximum(abs(row - self.y[:, None, None]), abs(column - self.x[:, None, None]))
        return np.where(glyphs[self.map], distance, 999).min(axis=(1, 2))

    @functools.cached_property
    def monster_distance(self) -> np.ndarray:
        return self.nearest(MONSTER)

    @functools.cached_property
    def pet_distance(self) -> np.ndarray:
        return self.nearest(PET)

    @functools.cached_property
    def monsters_shown(self) -> np.ndarray:
        return MONSTER[self.map].sum(axis=(1, 2))

    @functools.cached_property
    def squares_known(self) -> np.ndarray:
        return (~STONE[self.batch["glyphs"]]).sum(axis=(1, 2))

    @functools.cached_property
    def hardest_around(self) -> np.ndarray:
        index = MONSTER_OF[self.around]
        return np.where(index >= 0, DIFFICULTY[index], 0).max(axis=1)

    @functools.cached_property
    def hardest_shown(self) -> np.ndarray:
        index = MONSTER_OF[self.map]
        return np.where(index >= 0, DIFFICULTY[index], 0).max(axis=(1, 2))

    @functools.cached_property
    def open_around(self) -> np.ndarray:
        padded = np.pad(self.goes_on, ((0, 0), (1, 1), (1, 1)))
        rows = np.arange(self.size)
        box = [padded[rows, self.y + dy, self.x + dx] for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
        return np.sum(box, axis=0)

    @functools.cached_property
    def room_frontier(self) -> np.ndarray:
        room = (WALKABLE & ~CORRIDOR)[self.batch["glyphs"]]
        stone = np.pad(STONE[self.batch["glyphs"]], ((0, 0), (1, 1), (1, 1)))
        beyond = stone[:, :-2, 1:-1] | stone[:, 2:, 1:-1] | stone[:, 1:-1, :-2] | stone[:, 1:-1, 2:]
        return (room & beyond).any(axis=(1, 2))

    @functools.cached_property
    def corridor_end(self) -> np.ndarray:
        padded = np.pad(self.goes_on.astype(np.int8), ((0, 0), (1, 1), (1, 1)))
        ways = sum(
            padded[:, 1 + dy : 1 + dy + ROWS, 1 + dx : 1 + dx + COLUMNS]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy, dx) != (0, 0)
        )
        return (CORRIDOR[self.map] & (ways <= 1)).any(axis=(1, 2))

    @functools.cached_property
    def monster_in_line(self) -> np.ndarray:
        found = np.zeros(self.size, bool)
        for n in np.flatnonzero(self.monsters_shown):
            for dy, dx in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]:
                for step in range(1, 9):
                    y, x = self.y[n] + step * dy, self.x[n] + step * dx
                    if not (0 <= y < ROWS and 0 <= x < COLUMNS):
                        break
                    glyph = self.batch["glyphs"][n, y, x]
                    if MONSTER[glyph]:
                        found[n] |= step >= 2
                        break
                    if not PASSABLE[glyph]:
                        break
        return found

    @functools.cached_property
    def messages(self) -> list[str]:
        return [bytes(row).split(b"\0")[0].decode("latin1") for row in self.batch["message"]]

    def says(self, pattern: str) -> np.ndarray:
        search = functools.cache(re.compile(pattern).search)
        return np.array([search(message) is not None for message in self.messages], bool)

    def on_stairs(self, way: str) -> np.ndarray:
        return self.says(f"here is a (staircase|ladder) {way} here")

    @functools.cached_property
    def floor_kinds(self) -> list[frozenset[str]]:
        return [floor_kinds(message) for message in self.messages]

    def underfoot(self, kind: str) -> np.ndarray:
        return np.array([kind in kinds for kinds in self.floor_kinds], bool)


@functools.cache
def noun_kinds() -> dict[str, str]:
    kinds = {nh.WEAPON_CLASS: "weapon", nh.ARMOR_CLASS: "armor", nh.TOOL_CLASS: "tool", nh.FOOD_CLASS: "food"}
    nouns: dict[str, str] = {}
    for item in OBJECTS:
        kind = kinds.get(ord(item.oc_class))
        for name in (nh.OBJ_NAME(item), nh.OBJ_DESCR(item)):
            if kind and name and name != "corpse":
                nouns[name] = kind
                several = name.replace("knife", "knives").replace("staff", "staves").replace("leaf", "leaves")
                nouns[re.sub(r"^(.*?) of ", r"\1s of ", several)] = kind
    nouns |= dict.fromkeys(["potion", "scroll", "wand", "ring", "amulet", "spellbook", "novel"], "magic")
    stones = ("stone", "gem", "rock", "statue", "boulder", "luckstone", "loadstone", "touchstone", "flint")
    nouns |= dict.fromkeys(stones, "stone")
    return nouns | {"corpse": "corpse"}


@functools.cache
def noun_pattern() -> re.Pattern[str]:
    longest_first = sorted(noun_kinds(), key=len, reverse=True)
    return re.compile(rf"(?<![A-Za-z])({'|'.join(map(re.escape, longest_first))})s?(?![A-Za-z])")


@functools.cache
def floor_kinds(message: str) -> frozenset[str]:
    """The kinds of what "You see here ..." names."""
    found = set()
    for phrase in re.findall(r"You (?:see|feel) here (.*?)(?:  |$)", message):
        noun = noun_pattern().search(phrase)
        if noun:
            found.add(noun_kinds()[noun.group(1)])
    return frozenset(found)


def critically_low(v: View) -> np.ndarray:
    """pray.c, critically_low_hp(FALSE)."""
    level = v.stat("XP")
    divisor = np.select([level <= 5, level <= 13, level <= 21, level <= 29], [5, 6, 7, 8], 9)
    return (v.stat("HP") <= 5) | (v.stat("HP") * divisor <= np.minimum(v.stat("HPMAX"), 15 * level))


def bits(v: View, *names: str) -> np.ndarray:
    mask = sum(getattr(nh, f"BL_MASK_{name}") for name in names)
    return v.stat("CONDITION") & mask != 0


def within(values: np.ndarray, low: int, high: int) -> np.ndarray:
    return (low <= values) & (values <= high)


CONDITIONS: dict[str, Callable[[View], np.ndarray]] = {
    "hp_full": lambda v: v.stat("HP") >= v.stat("HPMAX"),
    "hp_scratched": lambda v: (v.stat("HP") < v.stat("HPMAX")) & (3 * v.stat("HP") >= 2 * v.stat("HPMAX")),
    "hp_wounded": lambda v: (3 * v.stat("HP") < 2 * v.stat("HPMAX")) & (3 * v.stat("HP") >= v.stat("HPMAX")),
    "hp_low": lambda v: 3 * v.stat("HP") < v.stat("HPMAX"),
    "hp_critical": critically_low,
    "energy_for_spell": lambda v: v.stat("ENE") >= 5,
    "energy_spent": lambda v: v.stat("ENE") < v.stat("ENEMAX") / 2,
    "experience_level_1": lambda v: v.stat("XP") == 1,
    "experience_level_2_to_4": lambda v: within(v.stat("XP"), 2, 4),
    "experience_level_5_up": lambda v: v.stat("XP") >= 5,
    "depth_1": lambda v: v.stat("DEPTH") == 1,
    "depth_2_to_4": lambda v: within(v.stat("DEPTH"), 2, 4),
    "depth_5_to_9": lambda v: within(v.stat("DEPTH"), 5, 9),
    "depth_10_down": lambda v: v.stat("DEPTH") >= 10,
    "in_mines": lambda v: v.stat("DNUM") == 2,
    "gold_none": lambda v: v.stat("GOLD") == 0,
    "gold_some": lambda v: (v.stat("GOLD") > 0) & (v.stat("GOLD") < 400 * v.stat("XP")),
    "gold_for_protection": lambda v: v.stat("GOLD") >= 400 * v.stat("XP"),
    "armor_class_poor": lambda v: v.stat("AC") >= 8,
    "armor_class_fair": lambda v: within(v.stat("AC"), 5, 7),
    "armor_class_good": lambda v: v.stat("AC") <= 4,
    "satiated": lambda v: v.stat("HUNGER") == 0,
    "not_hungry": lambda v: v.stat("HUNGER") == 1,
    "hungry": lambda v: v.stat("HUNGER") == 2,
    "weak": lambda v: v.stat("HUNGER") == 3,
    "fainting": lambda v: v.stat("HUNGER") >= 4,
    "burdened": lambda v: v.stat("CAP") == 1,
    "stressed": lambda v: v.stat("CAP") >= 2,
    "turning_to_stone": lambda v: bits(v, "STONE"),
    "turning_to_slime": lambda v: bits(v, "SLIME"),
    "strangled": lambda v: bits(v, "STRNGL"),
    "sick": lambda v: bits(v, "FOODPOIS", "TERMILL"),
    "blind": lambda v: bits(v, "BLIND"),
    "deaf": lambda v: bits(v, "DEAF"),
    "stunned": lambda v: bits(v, "STUN"),
    "confused": lambda v: bits(v, "CONF"),
    "hallucinating": lambda v: bits(v, "HALLU"),
    "airborne": lambda v: bits(v, "LEV", "FLY"),
    "riding": lambda v: bits(v, "RIDE"),
    "strength_high": lambda v: v.stat("STR25") >= 17,
    "dexterity_high": lambda v: v.stat("DEX") >= 15,
    "lawful": lambda v: v.stat("ALIGN") > 0,
    "neutral": lambda v: v.stat("ALIGN") == 0,
    "chaotic": lambda v: v.stat("ALIGN") < 0,
    "turn_300_at_most": lambda v: v.stat("TIME") <= 300,
    "turn_1000_passed": lambda v: v.stat("TIME") > 1000,
    "monster_shown": lambda v: v.monsters_shown > 0,
    "monsters_many_shown": lambda v: v.monsters_shown >= 3,
    "monster_adjacent": lambda v: v.beside(MONSTER),
    "monsters_two_adjacent": lambda v: v.beside_count(MONSTER) >= 2,
    "monster_near": lambda v: within(v.monster_distance, 2, 4),
    "monster_far": lambda v: within(v.monster_distance, 5, 99),
    "monster_in_line": lambda v: v.monster_in_line,
    "monster_stronger_adjacent": lambda v: v.hardest_around > v.stat("XP"),
    "monster_out_of_depth_shown": lambda v: v.hardest_shown > (v.stat("DEPTH") + v.stat("XP")) // 2,
    "pet_adjacent": lambda v: v.beside(PET),
    "pet_near": lambda v: within(v.pet_distance, 2, 4),
    "pet_far": lambda v: within(v.pet_distance, 5, 99),
    "no_pet_shown": lambda v: ~v.shows(PET),
    "unseen_monster_marked": lambda v: v.shows(UNSEEN),
    "unseen_monster_adjacent": lambda v: v.beside(UNSEEN),
    "swallowed": lambda v: v.shows(np.asarray(nh.glyph_is_swallow(ALL), bool)),
    "hostile_kind_adjacent": lambda v: v.beside(monsters(lambda m: bool(m.mflags2 & 0x00100000))),
    "fast_monster_shown": lambda v: v.shows(monsters(lambda m: m.mmove > 12)),
    "slow_monster_adjacent": lambda v: v.beside(monsters(lambda m: 0 < m.mmove < 12)),
    "petrifying_monster_shown": lambda v: v.shows(monsters_named("cockatrice", "chickatrice")),
    "passive_monster_shown": lambda v: v.shows(PASSIVE),
    "passive_monster_adjacent": lambda v: v.beside(PASSIVE),
    "sticky_monster_adjacent": lambda v: v.beside(STICKY),
    "strong_monster_shown": lambda v: v.shows(monsters(lambda m: bool(m.mflags2 & 0x04000000))),
    "undead_shown": lambda v: v.shows(monsters(lambda m: bool(m.mflags2 & 0x00000002))),
    "shopkeeper_shown": lambda v: v.shows(monsters_named("shopkeeper")),
    "canine_shown": lambda v: v.shows(letters("d")),
    "rodent_shown": lambda v: v.shows(letters("r")),
    "insect_shown": lambda v: v.shows(letters("asx")),
    "fungus_shown": lambda v: v.shows(letters("F")),
    "reptile_shown": lambda v: v.shows(letters(":S")),
    "gnome_or_dwarf_shown": lambda v: v.shows(letters("Gh")),
    "orc_or_kobold_shown": lambda v: v.shows(letters("ok")),
    "stairs_down_known": lambda v: v.shows(symbols("staircase down", "ladder down")) | v.on_stairs("down"),
    "stairs_down_unknown": lambda v: ~v.shows(symbols("staircase down", "ladder down")) & ~v.on_stairs("down"),
    "stairs_down_adjacent": lambda v: v.beside(symbols("staircase down", "ladder down")),
    "stairs_up_known": lambda v: v.shows(symbols("staircase up", "ladder up")) | v.on_stairs("up"),
    "stairs_up_adjacent": lambda v: v.beside(symbols("staircase up", "ladder up")),
    "closed_door_known": lambda v: v.shows(CLOSED_DOOR),
    "closed_door_adjacent": lambda v: v.beside(CLOSED_DOOR),
    "open_door_known": lambda v: v.shows(symbols("open door")),
    "open_door_adjacent": lambda v: v.beside(symbols("open door")),
    "doorway_known": lambda v: v.shows(symbols("doorway")),
    "doorway_adjacent": lambda v: v.beside(symbols("doorway")),
    "altar_known": lambda v: v.shows(symbols("altar")),
    "altar_adjacent": lambda v: v.beside(symbols("altar")),
    "fountain_known": lambda v: v.shows(symbols("fountain")),
    "fountain_adjacent": lambda v: v.beside(symbols("fountain")),
    "sink_known": lambda v: v.shows(symbols("sink")),
    "water_or_lava_known": lambda v: v.shows(symbols("water", "molten lava")),
    "trap_known": lambda v: v.shows(TRAP),
    "trap_adjacent": lambda v: v.beside(TRAP),
    "holding_trap_known": lambda v: v.shows(symbols("bear trap", "pit", "spiked pit", "web")),
    "hurting_trap_known": lambda v: v.shows(HURTING_TRAPS),
    "dropping_trap_known": lambda v: v.shows(symbols("hole", "trap door", "level teleporter")),
    "magic_trap_known": lambda v: v.shows(
        symbols("teleportation trap", "magic trap", "anti-magic field", "polymorph trap", "magic portal")
    ),
    "boulder_known": lambda v: v.shows(BOULDER),
    "boulder_adjacent": lambda v: v.beside(BOULDER),
    "corridor_known": lambda v: v.shows(CORRIDOR),
    "in_corridor": lambda v: v.beside(CORRIDOR) & ~v.beside(FLOOR),
    "in_room": lambda v: v.beside_count(FLOOR) >= 3,
    "in_the_open": lambda v: v.open_around >= 7,
    "at_dead_end": lambda v: v.open_around <= 1,
    "wall_adjacent": lambda v: v.beside(symbols("wall", "iron bars", "tree")),
    "dark_floor_known": lambda v: v.shows(symbols("dark part of a room")),
    "room_frontier": lambda v: v.room_frontier,
    "corridor_end": lambda v: v.corridor_end,
    "no_frontier": lambda v: ~v.room_frontier & ~v.corridor_end,
    "level_hardly_known": lambda v: v.squares_known < 120,
    "level_partly_known": lambda v: within(v.squares_known, 120, 399),
    "level_well_known": lambda v: v.squares_known >= 400,
    "item_known": lambda v: v.shows(ITEM),
    "item_adjacent": lambda v: v.beside(ITEM),
    "weapon_known": lambda v: v.shows(classes("WEAPON")),
    "armor_known": lambda v: v.shows(classes("ARMOR")),
    "tool_known": lambda v: v.shows(classes("TOOL")),
    "box_known": lambda v: v.shows(named("large box", "chest", "ice box")),
    "box_adjacent": lambda v: v.beside(named("large box", "chest", "ice box")),
    "food_known": lambda v: v.shows(PROVISIONS),
    "corpse_known": lambda v: v.shows(BODY),
    "corpse_adjacent": lambda v: v.beside(BODY),
    "unsafe_corpse_known": lambda v: v.shows(UNSAFE_BODY),
    "potion_known": lambda v: v.shows(classes("POTION")),
    "scroll_or_book_known": lambda v: v.shows(classes("SCROLL", "SPBOOK")),
    "wand_or_jewellery_known": lambda v: v.shows(classes("WAND", "RING", "AMULET")),
    "gold_known": lambda v: v.shows(classes("COIN")),
    "gold_adjacent": lambda v: v.beside(classes("COIN")),
    "gem_or_rock_known": lambda v: v.shows(classes("GEM")),
    "statue_known": lambda v: v.shows(STATUE),
    "item_underfoot": lambda v: v.says("You (see|feel) here "),
    "many_items_underfoot": lambda v: v.says(" objects here"),
    "weapon_underfoot": lambda v: v.underfoot("weapon"),
    "armor_underfoot": lambda v: v.underfoot("armor"),
    "tool_underfoot": lambda v: v.underfoot("tool"),
    "food_underfoot": lambda v: v.underfoot("food"),
    "corpse_underfoot": lambda v: v.underfoot("corpse"),
    "magic_item_underfoot": lambda v: v.underfoot("magic"),
    "stone_underfoot": lambda v: v.underfoot("stone"),
    "has_weapon": lambda v: v.carries_class("WEAPON"),
    "has_thrown_weapon": lambda v: v.carries(THROWN),
    "has_bow_and_arrows": lambda v: (
        v.carries(named("bow", "elven bow", "orcish bow", "yumi", "crossbow"))
        & v.carries(named("arrow", "elven arrow", "orcish arrow", "silver arrow", "ya", "crossbow bolt"))
    ),
    "has_jewellery": lambda v: v.carries_class("RING", "AMULET"),
    "has_tool": lambda v: v.carries_class("TOOL"),
    "has_digging_tool": lambda v: v.carries(named("pick-axe", "dwarvish mattock")),
    "has_unlocking_tool": lambda v: v.carries(named("skeleton key", "lock pick", "credit card")),
    "has_bag": lambda v: v.carries(named("sack", "oilskin sack", "bag of holding", "bag of tricks")),
    "has_blindfold_or_towel": lambda v: v.carries(named("blindfold", "towel")),
    "has_food": lambda v: v.carries(PROVISIONS),
    "no_food": lambda v: ~v.carries_class("FOOD"),
    "has_corpse": lambda v: v.carries(BODY),
    "has_potion": lambda v: v.carries_class("POTION"),
    "has_scroll": lambda v: v.carries_class("SCROLL"),
    "has_spellbook": lambda v: v.carries_class("SPBOOK"),
    "has_wand": lambda v: v.carries_class("WAND"),
    "has_gem_or_rock": lambda v: v.carries_class("GEM"),
    "inventory_large": lambda v: (v.batch["inv_letters"] != 0).sum(axis=1) >= 15,
    "prompt_choice": lambda v: v.batch["misc"][:, 0] != 0,
    "prompt_text_or_more": lambda v: v.batch["misc"][:, 1:].any(axis=1),
    "prompt_direction": lambda v: v.says(r"direction\?"),
    "prompt_item": lambda v: v.says("What do you want to ") & ~v.says(r"want to eat\?|eat it\? \["),
    "prompt_eat": lambda v: v.says(r"want to eat\?|eat it\? \["),
    "prompt_attack": lambda v: v.says("Really attack "),
    "prompt_pray": lambda v: v.says(r"want to pray\?"),
    "said_blocked": lambda v: v.says("It's a wall|It's solid stone|It's an iron bar|You cannot pass through"),
    "said_no_diagonal": lambda v: v.says("t move diagonally"),
    "said_boulder_stuck": lambda v: v.says("but in vain|why you cannot move it"),
    "said_door_locked": lambda v: v.says("door is locked"),
    "said_door_gives_way": lambda v: v.says("door (opens|crashes open|shatters)|it (crashes open|shatters to pieces)"),
    "said_swapped_with_pet": lambda v: v.says("You swap places"),
    "said_pet_in_the_way": lambda v: v.says(r"blocks your path|in the way!|You stop\. "),
    "said_item_moved_by_monster": lambda v: v.says(" (drops|picks up|eats) "),
    "said_hero_hits": lambda v: v.says("You (hit|smite|strike|bite|claw) |You kick the |from your powerful strike"),
    "said_hero_misses": lambda v: v.says("You miss "),
    "said_hero_kills": lambda v: v.says("You (kill|destroy) "),
    "said_something_dies": lambda v: v.says(" is (killed|destroyed)!"),
    "said_hero_hurt": lambda v: v.says(
        " (bites|hits|kicks|stings|butts|explodes)!| touches you|You are hit by|You get zapped"
    ),
    "said_monster_misses": lambda v: v.says(" misses!"),
    "said_stuck": lambda v: v.says(
        "caught in a bear trap|jaws on your|You fall into a pit|You land on a set of|still in a pit|crawl to the edge"
        "|stuck to the web|stumble into a spider web|You cannot escape from|swings itself around you"
    ),
    "said_self_hurt": lambda v: v.says("Ouch!|That hurts!|Dumb move!|You strain a muscle"),
    "said_nothing_hit": lambda v: v.says("thin air|kick at empty space"),
    "stairs_down_underfoot": lambda v: v.on_stairs("down"),
    "stairs_up_underfoot": lambda v: v.on_stairs("up"),
    "said_gold": lambda v: v.says("gold piece"),
    "said_no_stairs": lambda v: v.says("go (down|up) here"),
    "said_ate": lambda v: v.says("You finish eating| is (bland\\.|terrible!)| delicious!| tastes "),
    "said_not_edible": lambda v: v.says("cannot eat that"),
    "said_sound": lambda v: v.says("You hear "),
    "said_recovered": lambda v: v.says("You can (see|move|hear) again|feels better"),
    "said_god_angry": lambda v: v.says("is displeased|hast angered me|relearn thy lessons"),
    "said_shop": lambda v: v.says("for sale, |Usage fee|Will you please leave your|You owe "),
}


def evaluate(batch: Batch) -> dict[str, np.ndarray]:
    """Returns bool [N] by condition, for a batch of observations [N, ...] under NLE's names."""
    view = View(batch)
    return {name: np.asarray(holds(view), bool) for name, holds in CONDITIONS.items()}
