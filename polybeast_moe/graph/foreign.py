"""Reads the reference project's graph format.

JSON with `nodes` (objects with id, label, type) and `edges` ([source, target, relation]).

The file is taken as it is, repeated edges included. What our engine and our four experts can make of its names is
bound here; everything else is reported in `KnowledgeGraph.unbound`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from polybeast_moe.errors import UserError, nearest
from polybeast_moe.graph.schema import (
    ENDS,
    RELATIONS,
    Condition,
    Effect,
    KnowledgeGraph,
    Operator,
    edges_of,
)

# Their condition to ours, where both say the same or ours is the nearest that an observation shows.
CONDITIONS = {
    "has_gold": "gold_some",
    "no_gold": "gold_none",
    "hunger_satiated": "satiated",
    "hunger_normal": "not_hungry",
    "hunger_hungry": "hungry",
    "hunger_weak": "weak",
    "not_full": "not_hungry",
    "power_full": "energy_for_spell",
    "power_empty": "energy_spent",
    "dlvl_1": "depth_1",
    "dlvl_2_5": "depth_2_to_4",
    "dlvl_5": "depth_5_to_9",
    "dlvl_7": "depth_5_to_9",
    "dlvl_9": "depth_5_to_9",
    "dlvl_10": "depth_10_down",
    "dlvl_15": "depth_10_down",
    "dlvl_26": "depth_10_down",
    "dlvl_36": "depth_10_down",
    "exp_1": "experience_level_1",
    "exp_2_5": "experience_level_2_to_4",
    "ac_poor": "armor_class_poor",
    "ac_good": "armor_class_good",
    "in_shop": "shopkeeper_shown",
    "near_altar": "altar_adjacent",
    "monsters_present": "monster_shown",
    "monster_alive": "monster_shown",
    "see_monster": "monster_shown",
    "combat_situation": "monster_adjacent",
    "adjacent_to_monster": "monster_adjacent",
    "target_adjacent": "monster_adjacent",
    "adjacent_to_target": "monster_adjacent",
    "target_in_range": "monster_in_line",
    "has_throwable": "has_thrown_weapon",
    "has_ammo": "has_bow_and_arrows",
    "has_ranged_weapon": "has_bow_and_arrows",
    "on_downstairs": "stairs_down_underfoot",
    "on_upstairs": "stairs_up_underfoot",
    "is_open": "open_door_adjacent",
    "is_locked": "said_door_locked",
    "adjacent_to_door": "closed_door_adjacent",
    "is_not_open": "closed_door_adjacent",
    "adjacent_to_trap": "trap_adjacent",
    "trap_known": "trap_known",
    "adjacent_to_container": "box_adjacent",
    "adjacent_to_item": "item_adjacent",
    "item_collectible": "item_underfoot",
    "has_liquid": "has_potion",
    "has_container": "has_bag",
    "has_accessory": "has_jewellery",
    "has_readable": "has_scroll",
    "has_key_OR_lockpick": "has_unlocking_tool",
    "nearby_undead": "undead_shown",
    "wearing_ring": "has_jewellery",
    "monster_floating_eye": "passive_monster_shown",
    "monster_blue_jelly": "passive_monster_shown",
    "monster_brown_mold": "passive_monster_shown",
    "monster_acid_blob": "passive_monster_shown",
    "monster_lichen": "fungus_shown",
    "monster_shrieker": "fungus_shown",
    "monster_newt": "reptile_shown",
    "monster_grid_bug": "insect_shown",
}

# Their operators by the beginning of their names, the longest match wins: expert and actions.
_COMPASS = ("CompassDirection",)
_WALK = ("CompassDirection", "CompassDirectionLonger")
OPERATORS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("attack_ranged", "combat", ("Command.THROW", "Command.FIRE")),
    ("attack", "combat", _COMPASS),
    ("ranged_attack", "combat", ("Command.THROW", "Command.FIRE")),
    ("melee_attack", "combat", _COMPASS),
    ("throw", "combat", ("Command.THROW",)),
    ("fire", "combat", ("Command.FIRE",)),
    ("kick", "combat", ("Command.KICK",)),
    ("wield", "combat", ("Command.WIELD",)),
    ("swap_weapon", "combat", ("Command.SWAP",)),
    ("zap", "combat", ("Command.ZAP",)),
    ("turn_undead", "combat", ("Command.TURN",)),
    ("eat", "survival", ("Command.EAT",)),
    ("flee", "survival", _WALK),
    ("pray", "survival", ("Command.PRAY",)),
    ("quaff", "survival", ("Command.QUAFF",)),
    ("drink", "survival", ("Command.QUAFF",)),
    ("elbereth", "survival", ("Command.ENGRAVE",)),
    ("engrave", "survival", ("Command.ENGRAVE",)),
    ("wait", "survival", ("MiscDirection.WAIT",)),
    ("wear", "survival", ("Command.WEAR",)),
    ("wipe", "survival", ("Command.WIPE",)),
    ("sit", "survival", ("Command.SIT",)),
    ("move", "exploration", _WALK),
    ("search", "exploration", ("Command.SEARCH",)),
    ("open", "exploration", ("Command.OPEN",)),
    ("close", "exploration", ("Command.CLOSE",)),
    ("unlock", "exploration", ("Command.APPLY",)),
    ("force_lock", "exploration", ("Command.FORCE",)),
    ("go_down", "exploration", ("MiscDirection.DOWN",)),
    ("go_up", "exploration", ("MiscDirection.UP",)),
    ("climb", "exploration", ("MiscDirection.UP", "MiscDirection.DOWN")),
    ("jump", "exploration", ("Command.JUMP",)),
    ("teleport", "exploration", ("Command.TELEPORT",)),
    ("identify_trap", "exploration", ("Command.SEETRAP",)),
    ("untrap", "exploration", ("Command.UNTRAP",)),
    ("sokoban", "exploration", _WALK),
    ("minetown", "exploration", _WALK),
    ("oracle", "exploration", _WALK),
    ("medusa", "exploration", _WALK),
    ("vlad", "exploration", _WALK),
    ("look", "general", ("Command.LOOK",)),
    ("pickup", "general", ("Command.PICKUP",)),
    ("drop_multi", "general", ("Command.DROPTYPE",)),
    ("drop", "general", ("Command.DROP",)),
    ("apply", "general", ("Command.APPLY",)),
    ("loot", "general", ("Command.LOOT",)),
    ("pay", "general", ("Command.PAY",)),
    ("read", "general", ("Command.READ",)),
    ("dip", "general", ("Command.DIP",)),
    ("rub", "general", ("Command.RUB",)),
    ("invoke", "general", ("Command.INVOKE",)),
    ("offer", "general", ("Command.OFFER",)),
    ("sacrifice", "general", ("Command.OFFER",)),
    ("altar", "general", ("Command.OFFER", "Command.DROP")),
    ("put_on", "general", ("Command.PUTON",)),
    ("put_in", "general", ("Command.LOOT",)),
    ("takeoff", "general", ("Command.TAKEOFF",)),
    ("remove", "general", ("Command.REMOVE",)),
    ("enhance", "general", ("Command.ENHANCE",)),
    ("inventory", "general", ("Command.INVENTORY",)),
    ("known", "general", ("Command.KNOWN",)),
    ("whatis", "general", ("Command.WHATIS",)),
    ("name", "general", ("Command.CALL",)),
    ("call_name", "general", ("Command.CALL",)),
    ("count_gold", "general", ("Command.SEEGOLD",)),
    ("toggle_autopickup", "general", ("Command.AUTOPICKUP",)),
    ("identify", "general", ("Command.READ",)),
    ("extended_command", "general", ("Command.EXTCMD",)),
)


def bind_operator(label: str) -> Operator:
    """Returns the operator of a label: expert and actions by its longest matching prefix, None and () without one."""
    found = [entry for entry in OPERATORS if re.match(rf"{re.escape(entry[0])}(_|$)", label)]
    if not found:
        return Operator(label, None, ())
    _, expert, names = max(found, key=lambda entry: len(entry[0]))
    return Operator(label, expert, names)


def read_json(text: str, name: str, known: tuple[str, ...]) -> KnowledgeGraph:
    """Returns the graph of a JSON text.

    Args:
        text: the file's text.
        name: what errors call it.
        known: the engine's conditions in bit order.

    Raises:
        UserError: the text is not JSON of this format, or an edge joins what its relation cannot join.
    """
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{name}{line}: not valid JSON") from None
    lists = [document.get(key) for key in ("nodes", "edges")] if isinstance(document, dict) else [None]
    if not all(isinstance(value, list) for value in lists):
        raise UserError(f"{name}: expected a JSON object with the lists 'nodes' and 'edges'")
    labels = _labels(document["nodes"], name)
    numbers = {id_: number for number, id_ in enumerate(id_ for kind in labels.values() for id_ in kind)}
    kinds = {id_: kind for kind, ids in labels.items() for id_ in ids}
    triples = [_edge(edge, index, numbers, kinds, name) for index, edge in enumerate(document["edges"])]
    bits = {condition: bit for bit, condition in enumerate(known)}
    conditions = tuple(Condition(label) for label in labels["condition"].values())
    operators = tuple(bind_operator(label) for label in labels["operator"].values())
    condition_bits = tuple(bits.get(CONDITIONS.get(node.name, node.name)) for node in conditions)
    lost = [node.name for node, bit in zip(conditions, condition_bits, strict=True) if bit is None]
    return KnowledgeGraph(
        conditions=conditions,
        operators=operators,
        effects=tuple(Effect(label) for label in labels["effect"].values()),
        edges=edges_of(triples),
        condition_bits=condition_bits,
        unbound=(*lost, *(node.name for node in operators if node.expert is None)),
    )


def _labels(nodes: list[Any], name: str) -> dict[str, dict[Any, str]]:
    """The labels by type and id, in the file's order."""
    labels: dict[str, dict[Any, str]] = {"condition": {}, "operator": {}, "effect": {}}
    seen: set[Any] = set()
    for index, node in enumerate(nodes):
        if not isinstance(node, dict) or not isinstance(node.get("id"), int | str):
            raise UserError(f"{name}: nodes[{index}]: expected an object with id, label and type")
        if not isinstance(node.get("label"), str) or not isinstance(node.get("type"), str):
            raise UserError(f"{name}: nodes[{index}]: label and type must be text")
        if node["type"] not in labels:
            raise UserError(f"{name}: nodes[{index}]: unknown type {node['type']!r}{nearest(node['type'], labels)}")
        if node["id"] in seen:
            raise UserError(f"{name}: nodes[{index}]: the id {node['id']!r} is already taken")
        seen.add(node["id"])
        labels[node["type"]][node["id"]] = node["label"]
    return labels


def _edge(edge: Any, index: int, numbers: dict[Any, int], kinds: dict[Any, str], name: str) -> tuple[int, int, int]:
    """One edge as node numbers and relation code."""
    place = f"{name}: edges[{index}]"
    if not isinstance(edge, list) or len(edge) != 3:
        raise UserError(f"{place}: expected [source, target, relation]")
    source, target, relation = edge
    if relation not in RELATIONS:
        raise UserError(f"{place}: unknown relation {relation!r}{nearest(str(relation), RELATIONS)}")
    for end in (source, target):
        if not isinstance(end, int | str) or end not in numbers:
            raise UserError(f"{place}: there is no node {end!r}")
    if (kinds[source], kinds[target]) != ENDS[relation]:
        raise UserError(f"{place}: {relation} leads from {ENDS[relation][0]} to {ENDS[relation][1]}")
    return numbers[source], numbers[target], RELATIONS.index(relation)
