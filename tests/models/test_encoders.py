"""What the encoders make of an observation."""

from __future__ import annotations

import pytest
import torch
from nle import nethack

from polybeast_moe.models.full_map import FullMapEncoder
from polybeast_moe.models.glyphs import GlyphCropEncoder, glyph_groups
from polybeast_moe.models.inventory import InventoryEncoder
from polybeast_moe.models.status import BlstatsEncoder, MessageEncoder


def test_glyph_groups_follow_nles_classes() -> None:
    groups = glyph_groups().tolist()
    assert len(groups) == nethack.MAX_GLYPH + 1
    jackal, fox, newt = (
        next(i for i in range(nethack.NUMMONS) if nethack.permonst(i).mname == name)
        for name in ("jackal", "fox", "newt")
    )
    assert groups[jackal] == groups[fox] != groups[newt]
    assert groups[jackal + nethack.GLYPH_PET_OFF] == groups[fox + nethack.GLYPH_PET_OFF] != groups[jackal]
    assert groups.count(groups[nethack.NO_GLYPH]) == 1
    floor, stairs = nethack.GLYPH_CMAP_OFF + 19, nethack.GLYPH_CMAP_OFF + 24
    assert groups[floor] != groups[stairs]
    assert 100 < len(set(groups)) < 400


def test_glyphs_of_a_group_share_what_it_learns() -> None:
    encoder = GlyphCropEncoder(crop_size=5, embedding=4, channels=6, out_features=8)
    torch.nn.init.zeros_(encoder.glyph.weight)
    groups = glyph_groups()
    one, other = (groups == groups[0]).nonzero().flatten()[:2].tolist()
    crops = torch.full((2, 5, 5), nethack.NO_GLYPH, dtype=torch.int16)
    crops[0, 2, 2], crops[1, 2, 2] = one, other
    first, second = encoder(crops)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("crop", [3, 5, 9, 11])
def test_inference_encodes_a_crop_as_training_does(crop: int) -> None:
    encoder = GlyphCropEncoder(crop_size=crop, embedding=4, channels=6, out_features=8)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    crops = torch.randint(0, nethack.MAX_GLYPH + 1, (7, crop, crop)).short()
    with torch.no_grad():
        torch.testing.assert_close(encoder(crops, weights_version=1), encoder(crops), rtol=1e-4, atol=1e-5)
        encoder.glyph.weight += 1
        torch.testing.assert_close(encoder(crops, weights_version=2), encoder(crops), rtol=1e-4, atol=1e-5)
    assert encoder(crops, weights_version=2).requires_grad


def test_every_square_of_the_crop_is_seen() -> None:
    encoder = GlyphCropEncoder(crop_size=9, embedding=4, channels=8, out_features=16)
    crops = torch.full((82, 9, 9), nethack.GLYPH_CMAP_OFF, dtype=torch.int16)
    for square in range(81):
        crops[square + 1, square // 9, square % 9] = 0
    dark, *changed = encoder(crops)
    assert all(not torch.allclose(row, dark) for row in changed)


def test_blstats_are_normalised_by_the_table() -> None:
    blstats = torch.zeros(2, 27, dtype=torch.int64)
    blstats[:, nethack.NLE_BL_HP] = torch.tensor([5, 0])
    blstats[:, nethack.NLE_BL_HPMAX] = torch.tensor([20, 0])  # zero after a death
    blstats[:, nethack.NLE_BL_GOLD] = torch.tensor([99, 10**9])
    blstats[:, nethack.NLE_BL_HUNGER] = torch.tensor([1, 6])
    blstats[:, nethack.NLE_BL_CONDITION] = torch.tensor([nethack.BL_MASK_BLIND | nethack.BL_MASK_STONE, 0])
    blstats[:, nethack.NLE_BL_ALIGN] = torch.tensor([-1, -128])
    encoder = BlstatsEncoder()
    features = encoder(blstats)
    assert features.shape == (2, encoder.out_features)
    assert features.isfinite().all()
    assert features.abs().max() < 6
    linear, align, logs, ratios, states, mask = features[0].split([14, 1, 6, 2, 21, 13])
    assert linear[0] == -1.0
    assert align.item() == -1.0
    torch.testing.assert_close(logs[0], torch.tensor(100.0).log() / 5)
    assert ratios.tolist() == [0.25, 0.0]
    assert states.nonzero().flatten().tolist() == [1, 7, 13]  # not hungry, unencumbered, Dungeons of Doom
    assert mask.nonzero().flatten().tolist() == [0, 5]


def test_machine_code_encodes_as_torch_does() -> None:
    blstats = torch.randint(-200, 500, (50, 27))
    blstats[0] = 0
    torch.testing.assert_close(BlstatsEncoder()(blstats), BlstatsEncoder().by_torch(blstats))
    messages = torch.randint(0, 256, (50, 256)).byte()
    messages[0] = 65
    torch.testing.assert_close(MessageEncoder()(messages), MessageEncoder().by_torch(messages))


def test_message_is_a_bag_of_characters() -> None:
    def encode(text: bytes) -> torch.Tensor:
        line = torch.zeros(1, 256, dtype=torch.uint8)
        line[0, : len(text)] = torch.tensor(list(text), dtype=torch.uint8)
        return MessageEncoder()(line)[0]

    assert torch.equal(encode(b"You hit it!"), encode(b"!ti tih uoY"))
    assert not torch.equal(encode(b"You hit it!"), encode(b"You miss it!"))
    assert encode(b"").abs().sum() == 0
    torch.testing.assert_close(encode(b"aab")[ord("a") - 32].exp(), torch.tensor(3.0))
    assert encode(b"~ ").nonzero().flatten().tolist() == [0, 94]


def test_every_square_of_the_map_is_seen() -> None:
    encoder = FullMapEncoder(embedding=4, out_features=64)
    table = torch.randn(nethack.MAX_GLYPH + 1, 4)
    maps = torch.full((1 + 21 * 79, 21, 79), nethack.GLYPH_CMAP_OFF, dtype=torch.int16)
    for square in range(21 * 79):
        maps[square + 1, square // 79, square % 79] = 0
    with torch.no_grad():
        dark, *changed = encoder(maps, table)
    assert sum(not torch.allclose(row, dark) for row in changed) == 21 * 79


def test_the_inventory_is_a_set_of_lettered_stacks() -> None:
    encoder = InventoryEncoder(embedding=4, out_features=16)
    table = torch.randn(nethack.MAX_GLYPH + 1, 4)
    glyphs = torch.full((1, 55), nethack.NO_GLYPH, dtype=torch.int16)
    letters = torch.zeros(1, 55, dtype=torch.uint8)
    empty = encoder(glyphs, letters, table)
    glyphs[0, :3] = torch.tensor([2000, 2100, 2200])
    letters[0, :3] = torch.tensor([ord("a"), ord("b"), ord("Z")])
    carried = encoder(glyphs, letters, table)
    turned = torch.arange(55).roll(-1)
    torch.testing.assert_close(encoder(glyphs[:, turned], letters[:, turned], table), carried)
    assert not torch.allclose(carried, empty)
    exchanged = letters.clone()
    exchanged[0, :2] = letters[0, [1, 0]]
    assert not torch.allclose(encoder(glyphs, exchanged, table), carried)
    garbage = glyphs.clone()
    garbage[0, 3:] = 7  # behind the end
    torch.testing.assert_close(encoder(garbage, letters, table), carried)
