"""Reads a knowledge graph from a file: YAML of our own (strict) or the JSON of the reference project (as it is)."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Sequence
from typing import Any

from polybeast_moe import _C
from polybeast_moe.errors import UserError, nearest
from polybeast_moe.graph import actions, foreign
from polybeast_moe.graph.schema import (
    ENDS,
    EXPERTS,
    RELATIONS,
    Condition,
    Effect,
    KnowledgeGraph,
    Operator,
    edges_of,
)
from polybeast_moe.yaml_text import KeyPath, parse

_TOP = {"version", "conditions", "operators", "effects"}
_GATES = ("requires", "excludes")
_OPERATOR = {"name", "expert", "actions", *_GATES, *RELATIONS}
_EFFECT = {"name", "description"}


def load_graph(path: str | pathlib.Path, known_conditions: Sequence[str] | None = None) -> KnowledgeGraph:
    """Reads and checks a knowledge graph.

    Args:
        path: a `.yaml` or `.yml` file of our format, or a `.json` file of the reference format.
        known_conditions: the names of the conditions that the engine evaluates, in bit order; default: the compiled
            engine's.

    Raises:
        UserError: the file cannot be read, or does not hold a valid graph; the message names file and line.
    """
    path = pathlib.Path(path)
    known = tuple(_C.condition_names() if known_conditions is None else known_conditions)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"cannot read the graph {path}: {reason}") from None
    if path.suffix == ".json":
        graph = foreign.read_json(text, str(path), known)
    elif path.suffix in (".yaml", ".yml"):
        graph = _Reader(text, str(path), known).graph()
    else:
        raise UserError(f"{path}: a graph is a .yaml or a .json file")
    for kind, nodes in (("condition", graph.conditions), ("operator", graph.operators)):
        if not nodes:
            raise UserError(f"{path}: the graph has no {kind}: a policy would have nothing to read in it")
    return graph


class _Reader:
    """Turns the text of one YAML file into a graph, with the line of whatever is wrong."""

    def __init__(self, text: str, name: str, known: tuple[str, ...]) -> None:
        self._name = name
        self._known = known
        self._value, self._lines = parse(text, name)

    def graph(self) -> KnowledgeGraph:
        self._expect(self._value, dict, (), "a mapping with conditions, operators and effects")
        self._expect_keys((), self._value, _TOP, required=_TOP)
        if self._value["version"] != 1:
            raise self._error(("version",), f"version must be 1, not {self._value['version']!r}")
        names = self._condition_names()
        conditions = [Condition(name) for name in names]
        operators = [self._operator(index, names) for index in range(len(self._list(("operators",))))]
        effects = [self._effect(index) for index in range(len(self._list(("effects",))))]
        numbers = self._number(conditions, operators, effects)
        edges = self._edges(numbers)
        self._refuse_orphans(numbers, edges)
        bits = {name: bit for bit, name in enumerate(self._known)}
        return KnowledgeGraph(
            conditions=tuple(conditions),
            operators=tuple(operators),
            effects=tuple(effects),
            edges=edges_of(edges),
            condition_bits=tuple(bits[node.name] for node in conditions),
        )

    def _condition_names(self) -> list[str]:
        names = []
        for index, name in enumerate(self._list(("conditions",))):
            place = ("conditions", index)
            self._expect(name, str, place, "the name of a condition")
            if name not in self._known:
                raise self._error(place, f"the engine knows no condition {name!r}{nearest(name, self._known)}")
            names.append(name)
        return names

    def _operator(self, index: int, conditions: Collection[str]) -> Operator:
        place: KeyPath = ("operators", index)
        value = self._at(place)
        self._expect(value, dict, place, "an operator: a mapping with a name")
        self._expect_keys(place, value, _OPERATOR, required={"name", "expert", "actions"})
        self._expect(value["name"], str, (*place, "name"), "a name")
        if value["expert"] not in EXPERTS:
            expert = value["expert"]
            raise self._error((*place, "expert"), f"unknown expert {expert!r}{nearest(str(expert), EXPERTS)}")
        names = self._names((*place, "actions"))
        if not names:
            raise self._error((*place, "actions"), f"the operator {value['name']!r} has no actions")
        for number, name in enumerate(names):
            try:
                actions.keys_of(name)
            except UserError as error:
                raise self._error((*place, "actions", number), str(error)) from None
        gates = {gate: self._gate(place, gate, conditions) for gate in _GATES}
        for name in gates["requires"]:
            if name in gates["excludes"]:
                raise self._error((*place, "excludes"), f"{value['name']!r} both requires and excludes {name!r}")
        return Operator(value["name"], value["expert"], tuple(names), **gates)

    def _gate(self, place: KeyPath, gate: str, conditions: Collection[str]) -> tuple[str, ...]:
        """The conditions that an operator requires or excludes."""
        names = self._names((*place, gate))
        for index, name in enumerate(names):
            if name not in conditions:
                what = f"{gate} names no condition of this file: {name!r}{nearest(name, conditions)}"
                raise self._error((*place, gate, index), what)
            if name in names[:index]:
                raise self._error((*place, gate, index), f"{gate} names {name!r} twice")
        return tuple(names)

    def _effect(self, index: int) -> Effect:
        place: KeyPath = ("effects", index)
        value = self._at(place)
        self._expect(value, dict, place, "an effect: a mapping with a name")
        self._expect_keys(place, value, _EFFECT, required={"name"})
        for key in value:
            self._expect(value[key], str, (*place, key), f"a {key}")
        return Effect(value["name"], value.get("description", ""))

    def _number(
        self, conditions: list[Condition], operators: list[Operator], effects: list[Effect]
    ) -> dict[str, tuple[str, int, KeyPath]]:
        """Node name to (type, number, place); a name may stand for one node only."""
        numbers: dict[str, tuple[str, int, KeyPath]] = {}
        names = {
            "condition": [node.name for node in conditions],
            "operator": [node.name for node in operators],
            "effect": [node.name for node in effects],
        }
        for kind, group in names.items():
            for index, name in enumerate(group):
                place: KeyPath = (f"{kind}s", index) if kind == "condition" else (f"{kind}s", index, "name")
                if name in numbers:
                    first = self._line(numbers[name][2])
                    raise self._error(place, f"the name {name!r} is already taken (line {first})")
                numbers[name] = (kind, len(numbers), place)
        return numbers

    def _edges(self, numbers: dict[str, tuple[str, int, KeyPath]]) -> list[tuple[int, int, int]]:
        edges: dict[tuple[int, int, int], KeyPath] = {}
        for index, value in enumerate(self._list(("operators",))):
            operator = numbers[value["name"]][1]
            for code, relation in enumerate(RELATIONS):
                for number, name in enumerate(self._names(("operators", index, relation))):
                    place: KeyPath = ("operators", index, relation, number)
                    other = self._end(name, relation, numbers, place)
                    edge = (operator, other, code) if relation == "leads_to" else (other, operator, code)
                    if edge in edges:
                        where = self._line(edges[edge])
                        raise self._error(place, f"{value['name']!r} {relation} {name!r} is given twice (line {where})")
                    edges[edge] = place
        return list(edges)

    def _end(self, name: str, relation: str, numbers: dict[str, tuple[str, int, KeyPath]], place: KeyPath) -> int:
        source, target = ENDS[relation]
        wanted = target if source == "operator" else source
        known = [other for other, (kind, _, _) in numbers.items() if kind == wanted]
        if name not in numbers or numbers[name][0] != wanted:
            raise self._error(place, f"{relation} names no {wanted} of this file: {name!r}{nearest(name, known)}")
        return numbers[name][1]

    def _refuse_orphans(self, numbers: dict[str, tuple[str, int, KeyPath]], edges: list[tuple[int, int, int]]) -> None:
        linked = {end for source, target, _ in edges for end in (source, target)}
        for name, (kind, number, place) in numbers.items():
            if number not in linked:
                raise self._error(place, f"the {kind} {name!r} has no edge: connect it or remove it")

    # Places and their checks.

    def _at(self, place: KeyPath) -> Any:
        value = self._value
        for step in place:
            value = value[step]
        return value

    def _list(self, place: KeyPath) -> list[Any]:
        value = self._at(place)
        self._expect(value, list, place, "a list")
        return list(value)

    def _names(self, place: KeyPath) -> list[str]:
        """The list of names at a place; none if the key is not there."""
        if place[-1] not in self._at(place[:-1]):
            return []
        names = self._list(place)
        for index, name in enumerate(names):
            self._expect(name, str, (*place, index), "a name")
        return names

    def _expect(self, value: object, kind: type, place: KeyPath, what: str) -> None:
        if not isinstance(value, kind):
            raise self._error(place, f"expected {what}, not {value!r:.40}")

    def _expect_keys(self, place: KeyPath, value: dict[str, Any], known: Collection[str], required: set[str]) -> None:
        for key in value:
            if key not in known:
                raise self._error((*place, key), f"unknown key {key!r}{nearest(key, known)}")
        missing = sorted(required - set(value))
        if missing:
            raise self._error(place, f"the key {missing[0]!r} is missing")

    def _line(self, place: KeyPath) -> int:
        return self._lines.get(place, 1)

    def _error(self, place: KeyPath, what: str) -> UserError:
        return UserError(f"{self._name}:{self._line(place)}: {what}")
