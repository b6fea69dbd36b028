"""The nearest landmarks, against their definition square by square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nle import nethack as nh

from polybeast_moe import _C
from polybeast_moe.envs import NetHackVectorEnv
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.evaluation.observe import RAW_KEYS
from polybeast_moe.models.landmarks import LANDMARKS, LandmarkEncoder

ROWS, COLUMNS = nh.DUNGEON_SHAPE
X, Y = 40, 10
STONE = nh.GLYPH_CMAP_OFF
NAMES = list(LANDMARKS)


def symbol(explanation: str) -> int:
    symbols = range(1, nh.MAXPCHARS)
    return STONE + next(i for i in symbols if nh.symdef.from_idx(i).explanation == explanation)


def creature(name: str) -> int:
    return next(i for i in range(nh.NUMMONS) if nh.permonst(i).mname == name)


def thing(name: str) -> int:
    kinds = range(nh.NUM_OBJECTS)
    return nh.GLYPH_OBJ_OFF + next(i for i in kinds if nh.OBJ_NAME(nh.objclass(i)) == name)


FLOOR, CORRIDOR, WALL = symbol("floor of a room"), symbol("corridor"), symbol("wall")
HERO, NEWT, KITTEN = creature("monk"), creature("newt"), creature("kitten") + nh.GLYPH_PET_OFF
SHOWN = {
    "stairs_down": [symbol("staircase down"), symbol("ladder down")],
    "stairs_up": [symbol("staircase up"), symbol("ladder up")],
    "door": [symbol("doorway"), symbol("open door"), symbol("open door") + 1, symbol("closed door")],
    "object": [thing("dagger"), thing("gold piece"), nh.GLYPH_BODY_OFF + creature("newt"), nh.GLYPH_STATUE_OFF],
    "monster": [NEWT, NEWT + nh.GLYPH_DETECT_OFF],
    "pet": [KITTEN],
}
NOTHING = [WALL, thing("boulder"), symbol("fountain"), symbol("arrow trap"), nh.GLYPH_INVISIBLE, nh.NO_GLYPH]


@pytest.fixture(scope="module")
def encoder() -> LandmarkEncoder:
    return LandmarkEncoder()


def seen(squares: dict[tuple[int, int], int], hero: tuple[int, int] = (X, Y)) -> tuple[torch.Tensor, torch.Tensor]:
    """A blank map with glyphs by offset (right, down) from the hero, and its blstats; one row."""
    glyphs = torch.full((1, ROWS, COLUMNS), STONE, dtype=torch.int16)
    for (dx, dy), glyph in {(0, 0): HERO, **squares}.items():
        glyphs[0, hero[1] + dy, hero[0] + dx] = glyph
    blstats = torch.zeros(1, 27, dtype=torch.int64)
    blstats[0, nh.NLE_BL_X], blstats[0, nh.NLE_BL_Y] = hero
    return glyphs, blstats


def dark(rows: int) -> torch.Tensor:
    return torch.zeros(rows, _C.condition_words(), dtype=torch.int64)


def found(encoder: LandmarkEncoder, squares: dict[tuple[int, int], int]) -> dict[str, list[float]]:
    features = encoder.features(*seen(squares), dark(1))[0]
    return {name: row.tolist() for name, row in zip(NAMES, features, strict=True) if row.any()}


@pytest.mark.parametrize(("name", "glyph"), [(name, glyph) for name, glyphs in SHOWN.items() for glyph in glyphs])
def test_each_landmark_is_described_by_where_it_is(encoder: LandmarkEncoder, name: str, glyph: int) -> None:
    described = found(encoder, {(-6, 4): glyph})
    assert described[name] == pytest.approx([1, -0.6, 0.4, -1, 1, 1 / 7])
    assert set(described) <= {name, "frontier"}


def test_a_blank_map_and_what_is_no_landmark_give_zeros(encoder: LandmarkEncoder) -> None:
    assert found(encoder, {}) == {}
    for glyph in NOTHING:
        assert not found(encoder, {(3, 1): glyph}).keys() - {"frontier"}
    assert found(encoder, {(0, 0): SHOWN["stairs_down"][0]}) == {}, "the hero's own square does not count"


def test_the_nearest_counts_and_of_equals_the_straight_one(encoder: LandmarkEncoder) -> None:
    assert found(encoder, {(5, 0): NEWT, (-3, 2): NEWT})["monster"][1:3] == pytest.approx([-0.3, 0.2])
    assert found(encoder, {(-3, -3): NEWT, (3, 0): NEWT})["monster"][1:3] == pytest.approx([0.3, 0.0])


def room(corridor: dict[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    """A closed room around the hero, three squares each way, and what a test adds."""
    walls = {(dx, dy): WALL for dx in range(-4, 5) for dy in range(-4, 5)}
    floor = {(dx, dy): FLOOR for dx in range(-3, 4) for dy in range(-3, 4) if (dx, dy) != (0, 0)}
    return {**walls, **floor, **corridor}


def test_a_frontier_is_where_the_unexplored_begins(encoder: LandmarkEncoder) -> None:
    assert found(encoder, room({})) == {}
    door = symbol("doorway")
    assert found(encoder, room({(4, 1): door}))["frontier"][1:3] == pytest.approx([0.4, 0.1])
    corridor = {(4, 1): door, (5, 1): CORRIDOR, (6, 2): CORRIDOR}
    assert found(encoder, room(corridor))["frontier"][1:3] == pytest.approx([0.6, 0.2])
    beyond = {(7, 1): WALL, (7, 2): door, (7, 3): WALL, (8, 2): WALL}
    assert "frontier" not in found(encoder, room({**corridor, **beyond}))
    on_the_way = {(-2, 0): CORRIDOR, (-3, 0): CORRIDOR, (-1, 0): CORRIDOR, (1, 0): CORRIDOR}
    assert found(encoder, on_the_way)["frontier"][1:3] == pytest.approx([0.1, 0.0]), "the square ahead"


@pytest.mark.parametrize(("name", "condition"), [(way, f"{way}_underfoot") for way in ("stairs_down", "stairs_up")])
def test_stairs_underfoot_are_at_distance_nought(encoder: LandmarkEncoder, name: str, condition: str) -> None:
    conditions, bit = dark(2), _C.condition_names().index(condition)
    conditions[1, bit // 64] = torch.tensor(1) << (bit % 64)
    glyphs, blstats = seen({(5, 0): SHOWN[name][0]})
    elsewhere, here = encoder.features(glyphs.repeat(2, 1, 1), blstats.repeat(2, 1), conditions)[:, NAMES.index(name)]
    assert elsewhere[1] == 0.5
    assert here.tolist() == [1, 0, 0, 0, 0, 1]


POOL = [STONE, STONE, STONE, FLOOR, CORRIDOR, WALL, *NOTHING, *(glyph for glyphs in SHOWN.values() for glyph in glyphs)]


def random_maps(seed: int, rows: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    glyphs = np.full((rows, ROWS, COLUMNS), STONE, dtype=np.int16)
    for row in range(rows):
        width, height = rng.integers(1, COLUMNS + 1), rng.integers(1, ROWS + 1)
        left, top = rng.integers(0, COLUMNS - width + 1), rng.integers(0, ROWS - height + 1)
        pool = rng.choice(POOL, size=rng.integers(1, 12))
        glyphs[row, top : top + height, left : left + width] = rng.choice(pool, size=(height, width))
    blstats = np.zeros((rows, 27), dtype=np.int64)
    blstats[:, 0], blstats[:, 1] = rng.integers(0, COLUMNS, rows), rng.integers(0, ROWS, rows)
    return torch.from_numpy(glyphs), torch.from_numpy(blstats)


def by_definition(glyphs: np.ndarray, x: int, y: int) -> dict[str, tuple[int, int]]:
    """The offsets of the nearest, for the glyphs of `POOL`."""
    floor = [FLOOR, symbol("fountain"), *SHOWN["stairs_down"], *SHOWN["stairs_up"], *SHOWN["door"][:3]]
    through = [*floor, CORRIDOR, *SHOWN["door"], *SHOWN["object"], *SHOWN["monster"], *SHOWN["pet"]]
    through += [symbol("arrow trap"), nh.GLYPH_INVISIBLE]

    def around(row: int, column: int, straight: bool) -> list[int]:
        steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (abs(a) + abs(b) == 1 if straight else a or b)]
        return [int(glyphs[row + a, column + b]) for a, b in steps if 0 <= row + a < ROWS and 0 <= column + b < COLUMNS]

    def kinds(row: int, column: int) -> set[str]:
        glyph = int(glyphs[row, column])
        shown = {name for name, glyphs_of in SHOWN.items() if glyph in glyphs_of}
        edge = glyph in floor and STONE in around(row, column, straight=True)
        end = glyph == CORRIDOR and sum(other in through for other in around(row, column, straight=False)) <= 1
        return shown | ({"frontier"} if edge or end else set())

    nearest: dict[str, tuple[tuple[int, int, int], tuple[int, int]]] = {}
    for row in range(ROWS):
        for column in range(COLUMNS):
            if glyphs[row, column] == STONE or (row, column) == (y, x):
                continue
            dx, dy = column - x, row - y
            rank = max(abs(dx), abs(dy)), abs(dx) + abs(dy), row * COLUMNS + column
            for name in kinds(row, column):
                nearest[name] = min(nearest.get(name, (rank, (dx, dy))), (rank, (dx, dy)))
    return {name: offset for name, (_, offset) in nearest.items()}


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_any_map_is_read_by_the_definition(encoder: LandmarkEncoder, seed: int) -> None:
    glyphs, blstats = random_maps(seed)
    for find in (encoder.by_numba, encoder.by_torch):
        present, offsets = find(glyphs, blstats[:, :2])
        for row in range(len(glyphs)):
            wanted = by_definition(glyphs[row].numpy(), *blstats[row, :2].tolist())
            shown = {name: tuple(offsets[row, i].tolist()) for i, name in enumerate(NAMES) if present[row, i]}
            assert shown == wanted
        assert not offsets[~present].any()


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_row_does_not_depend_on_its_neighbours(encoder: LandmarkEncoder, seed: int) -> None:
    glyphs, blstats = random_maps(seed, rows=3)
    together = encoder.features(glyphs, blstats, dark(3))
    alone = [encoder.features(glyphs[i : i + 1], blstats[i : i + 1], dark(1)) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(0, 10))
def test_moving_map_and_hero_alike_moves_nothing(encoder: LandmarkEncoder, seed: int, right: int, down: int) -> None:
    glyphs, blstats = random_maps(seed)
    glyphs[:, :, [0, *range(COLUMNS - 21, COLUMNS)]] = STONE  # room to move, and blank all round, as beyond the map
    glyphs[:, [0, *range(ROWS - 11, ROWS)]] = STONE
    moved, at = glyphs.roll((down, right), (1, 2)), blstats.clone()
    at[:, 0] += right
    at[:, 1] += down
    assert torch.equal(encoder.features(glyphs, blstats, dark(4)), encoder.features(moved, at, dark(4)))


def test_in_real_games_a_landmark_is_there_when_the_conditions_say_so(encoder: LandmarkEncoder) -> None:
    """The engine's conditions are computed on their own, in C++."""
    implied = {
        "stairs_down": ["stairs_down_known"],
        "stairs_up": ["stairs_up_known"],
        "door": ["doorway_known", "open_door_known", "closed_door_known"],
        "object": ["item_known"],
        "monster": ["monster_shown"],
        "frontier": ["room_frontier", "corridor_end"],
    }
    names = _C.condition_names()
    env = NetHackVectorEnv("NetHackScore-v0", 8, observation_keys=RAW_KEYS, clock=1_600_000_000)
    raw, _ = env.reset(seed=1)
    generator, shares = np.random.default_rng(0), dict.fromkeys(NAMES, 0.0)
    for _ in range(250):
        words = _C.evaluate_conditions(*(raw[key] for key in (*RAW_KEYS[:4], "inv_oclasses", "inv_letters", "misc")))
        conditions = torch.from_numpy(words.view(np.int64).copy())
        inputs = (torch.from_numpy(raw[key].copy()) for key in ("glyphs", "blstats"))
        present = encoder.features(*inputs, conditions)[:, :, 0].bool()
        for name, conditions_of in implied.items():
            bits = [names.index(condition) for condition in conditions_of]
            lit = np.any([words[:, bit // 64] >> np.uint64(bit % 64) & np.uint64(1) != 0 for bit in bits], axis=0)
            assert np.array_equal(present[:, NAMES.index(name)].numpy(), lit), name
            shares[name] += lit.mean() / 250
        raw, *_ = env.step(generator.integers(len(ACTIONS), size=8))
    env.close()
    assert all(0 < shares[name] < 1 for name in ("stairs_up", "door", "object", "monster", "frontier")), shares


def test_the_geometry_has_no_gradient_but_its_reading_does(encoder: LandmarkEncoder) -> None:
    glyphs, blstats = seen({(2, 0): NEWT, (0, 3): SHOWN["stairs_down"][0]})
    encoder(glyphs, blstats, dark(1)).sum().backward()
    assert encoder.out.weight.grad.abs().sum() > 0
