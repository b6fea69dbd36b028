"""Our YAML: what a graph is, and that every mistake is named with its line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from polybeast_moe import _C
from polybeast_moe.errors import UserError
from polybeast_moe.graph import EXPERTS, RELATIONS, load_graph

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "configs" / "graphs" / "nethack.yaml"
KNOWN = ("hp_full", "hp_low", "monster_adjacent")
SMALL = """\
version: 1
conditions: [hp_low, monster_adjacent]
operators:
  - name: flee
    expert: survival
    actions: [CompassDirection, MiscDirection.UP]
    satisfies: [hp_low]
    context_of: [monster_adjacent]
    leads_to: [safe]
  - name: strike
    expert: combat
    actions: [Command.FIGHT]
    satisfies: [monster_adjacent]
effects:
  - {name: safe, description: no monster near}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "graph.yaml"
    path.write_text(text)
    return path


def test_a_small_graph_is_read_as_written(tmp_path: Path) -> None:
    graph = load_graph(write(tmp_path, SMALL), KNOWN)
    assert graph.node_names == ("hp_low", "monster_adjacent", "flee", "strike", "safe")
    assert graph.num_nodes == 5
    assert graph.node_types.tolist() == [0, 0, 1, 1, 2]
    assert graph.condition_bits == (1, 2)
    assert graph.operator_experts == (EXPERTS.index("survival"), EXPERTS.index("combat"))
    assert graph.operators[0].actions == ("CompassDirection", "MiscDirection.UP")
    edges = graph.edges
    named = {
        (graph.node_names[s], RELATIONS[r], graph.node_names[t])
        for s, t, r in zip(edges.source, edges.target, edges.relation, strict=True)
    }
    assert named == {
        ("hp_low", "satisfies", "flee"),
        ("monster_adjacent", "context_of", "flee"),
        ("flee", "leads_to", "safe"),
        ("monster_adjacent", "satisfies", "strike"),
    }
    assert graph.num_edges == 4
    assert graph.unbound == ()


def test_a_graph_cannot_be_changed(tmp_path: Path) -> None:
    graph = load_graph(write(tmp_path, SMALL), KNOWN)
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.conditions = ()  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        graph.edges.source[0] = 3


def test_the_hash_follows_the_content_and_not_the_text(tmp_path: Path) -> None:
    graph = load_graph(write(tmp_path, SMALL), KNOWN)
    assert (
        load_graph(write(tmp_path, "# a comment\n" + SMALL.replace("no monster near", "far")), KNOWN).hash == graph.hash
    )
    for old, new in (
        ("expert: combat", "expert: general"),
        ("Command.FIGHT", "Command.KICK"),
        ("context_of: [monster_adjacent]", "context_of: [hp_full]"),
        ("name: strike", "name: hit"),
    ):
        text = SMALL.replace(old, new).replace(
            "[hp_low, monster", "[hp_full, hp_low, monster" if "hp_full" in new else "[hp_low, monster"
        )
        assert load_graph(write(tmp_path, text), KNOWN).hash != graph.hash
    assert len(graph.hash) == 64


def test_gates_are_read_and_are_part_of_the_content(tmp_path: Path) -> None:
    plain = load_graph(write(tmp_path, SMALL), KNOWN)
    text = SMALL.replace("    satisfies: [hp_low]\n", "    requires: [monster_adjacent]\n    satisfies: [hp_low]\n")
    text = text.replace("    expert: combat\n", "    expert: combat\n    excludes: [hp_low]\n")
    gated = load_graph(write(tmp_path, text), KNOWN)
    assert [(node.requires, node.excludes) for node in gated.operators] == [
        (("monster_adjacent",), ()),
        ((), ("hp_low",)),
    ]
    assert gated.num_edges == plain.num_edges
    assert gated.hash != plain.hash


MISTAKES = {
    "unknown key": (("expert: combat", "experts: combat"), 11, "unknown key 'experts'; did you mean 'expert'?"),
    "unknown relation": (("context_of:", "context:"), 8, "unknown key 'context'; did you mean 'context_of'?"),
    "missing key": (("    expert: combat\n", ""), 10, "the key 'expert' is missing"),
    "unknown condition": (("[hp_low, monster", "[hp_lo, monster"), 2, "'hp_lo'; did you mean 'hp_low'?"),
    "unknown expert": (("expert: combat", "expert: fighting"), 11, "unknown expert 'fighting'"),
    "unknown action": (("Command.FIGHT", "Command.FIGTH"), 12, "did you mean 'Command.FIGHT'?"),
    "no action": (("[Command.FIGHT]", "[]"), 12, "'strike' has no actions"),
    "dangling effect": (("[safe]", "[save]"), 9, "leads_to names no effect of this file: 'save'; did you mean 'safe'?"),
    "dangling condition": (("satisfies: [hp_low]", "satisfies: [hp_full]"), 7, "names no condition of this file"),
    "wrong end": (("[safe]", "[hp_low]"), 9, "leads_to names no effect of this file: 'hp_low'"),
    "duplicate edge": (("satisfies: [hp_low]", "satisfies: [hp_low, hp_low]"), 7, "given twice (line 7)"),
    "duplicate condition": (("[hp_low, mon", "[hp_low, hp_low, mon"), 2, "'hp_low' is already taken (line 2)"),
    "duplicate name": (("name: safe", "name: flee"), 15, "the name 'flee' is already taken (line 4)"),
    "orphan condition": (("[hp_low, mon", "[hp_low, hp_full, mon"), 2, "the condition 'hp_full' has no edge"),
    "orphan effect": (("    leads_to: [safe]\n", ""), 14, "the effect 'safe' has no edge"),
    "orphan operator": (("    satisfies: [monster_adjacent]\n", ""), 10, "the operator 'strike' has no edge"),
    "not a list": (("conditions: [hp_low, monster_adjacent]", "conditions: hp_low"), 2, "expected a list"),
    "not a name": (("[safe]", "[3]"), 9, "expected a name"),
    "other version": (("version: 1", "version: 2"), 1, "version must be 1"),
    "duplicate key": (("    expert: combat\n", "    expert: combat\n    expert: combat\n"), 12, "is given twice"),
    "no YAML": (("conditions: [", "conditions: [["), None, "not valid YAML"),
    "no mapping": ((SMALL, "- 1\n"), 1, "expected a mapping"),
    "nothing": ((SMALL, ""), 1, "expected a mapping"),
    "no nodes": ((SMALL, "version: 1\nconditions: []\noperators: []\neffects: []\n"), None, "has no condition"),
    "dangling requirement": (
        ("    satisfies: [hp_low]\n", "    requires: [hp_full]\n    satisfies: [hp_low]\n"),
        7,
        "requires names no condition of this file: 'hp_full'",
    ),
    "duplicate requirement": (
        ("    satisfies: [hp_low]\n", "    excludes: [hp_low, hp_low]\n    satisfies: [hp_low]\n"),
        7,
        "excludes names 'hp_low' twice",
    ),
    "impossible": (
        ("    satisfies: [hp_low]\n", "    requires: [hp_low]\n    excludes: [hp_low]\n    satisfies: [hp_low]\n"),
        8,
        "'flee' both requires and excludes 'hp_low'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_file_and_line(mistake: str, tmp_path: Path) -> None:
    (old, new), line, what = MISTAKES[mistake]
    assert old in SMALL
    path = write(tmp_path, SMALL.replace(old, new))
    with pytest.raises(UserError) as error:
        load_graph(path, KNOWN)
    message = str(error.value)
    assert what in message
    assert message.startswith(f"{path}:{line}:" if line else f"{path}:")
    assert "\n" not in message


@pytest.mark.parametrize(("name", "what"), [("absent.yaml", "cannot read"), ("graph.txt", "a .yaml or a .json file")])
def test_a_file_that_is_no_graph_is_refused(name: str, what: str, tmp_path: Path) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_text(SMALL)
    with pytest.raises(UserError, match=what):
        load_graph(tmp_path / name, KNOWN)


class TestDefaultGraph:
    def test_it_has_the_promised_size(self) -> None:
        graph = load_graph(DEFAULT)
        assert len(graph.conditions) >= 150
        assert len(graph.operators) >= 60
        assert len(graph.effects) >= 50
        assert set(graph.edges.relation.tolist()) == {0, 1, 2}

    def test_it_uses_every_condition_of_the_engine(self) -> None:
        graph = load_graph(DEFAULT)
        assert sorted(bit for bit in graph.condition_bits if bit is not None) == list(range(len(_C.condition_names())))

    def test_every_expert_has_a_fair_share_of_operators(self) -> None:
        experts = load_graph(DEFAULT).operator_experts
        assert min(experts.count(index) for index in range(len(EXPERTS))) >= 20

    def test_every_operator_needs_something_and_leads_somewhere(self) -> None:
        graph = load_graph(DEFAULT)
        edges, first = graph.edges, len(graph.conditions)
        operators = set(range(first, first + len(graph.operators)))
        assert set(edges.target[edges.relation == 0].tolist()) == operators
        assert set(edges.source[edges.relation == 2].tolist()) == operators

    def test_no_edge_is_given_twice(self) -> None:
        edges = load_graph(DEFAULT).edges
        ends = np.stack([edges.source, edges.target])
        assert len(np.unique(ends, axis=1).T) == len(ends.T)

    def test_its_names_read_as_words(self) -> None:
        assert all(name.replace("_", "").isalnum() and name == name.lower() for name in load_graph(DEFAULT).node_names)


def test_the_package_needs_neither_nle_nor_torch() -> None:
    code = (
        f"import sys; from polybeast_moe.graph import load_graph; load_graph({str(DEFAULT)!r});"
        "assert not {'nle', 'torch', 'gymnasium'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
