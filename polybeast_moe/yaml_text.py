"""YAML as configurations need it: plain values only, duplicate keys refused, and the line of every value remembered.

Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema) and not PyYAML's 1.1: `1e-4`
is a number, `on` and `2001-01-01` are strings; digits may be grouped by underscores. No tag builds an object.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from polybeast_moe.errors import UserError

KeyPath = tuple[str | int, ...]
"""Where a value stands in a document: keys and list indices, from the outside in."""

_MOST_NODES = 100_000  # far above any real file: bounds what aliases of aliases can grow to
_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _kind, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _starts = ["" if letter == "\0" else letter for letter in _first]
        _class.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), _starts)


def parse(text: str, name: str) -> tuple[Any, dict[KeyPath, int]]:
    """Reads one YAML document.

    Args:
        text: the document; an empty one is None.
        name: what errors call it, a file's path for example.

    Returns:
        The value (dictionaries with string keys, lists, str, int, float, bool, None) and the line, from 1, of every
        value in it by its path of keys and list indices.

    Raises:
        UserError: the text is not YAML, repeats a key, or holds something else than plain values.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
        lines: dict[KeyPath, int] = {}
        value = None if root is None else _Walk(name, lines).value(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        raise UserError(f"{place}: not valid YAML: {_one_line(error.problem or error.context or '')}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not valid YAML: {_one_line(str(error))}") from None
    except RecursionError:
        raise UserError(f"{name}: nested too deeply") from None
    return value, lines


def dump(value: Any) -> str:
    """Returns YAML text that `parse` reads back to the same value."""
    # Without allow_unicode, which would write U+0085 as a line break that reads back as a space.
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120)


class _Walk:
    """Turns a tree of YAML nodes into plain values and notes their lines."""

    def __init__(self, name: str, lines: dict[KeyPath, int]) -> None:
        self._name = name
        self._lines = lines

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        if len(self._lines) >= _MOST_NODES:
            raise self._error(node, "too many values")
        self._lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise self._error(node, f"the tag {node.tag} is not supported")

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(key_node, "a key must be a word")
            key = key_node.value
            if key in result:
                first = self._lines[(*path, key)]
                raise self._error(key_node, f"the key {'.'.join(map(str, (*path, key)))} is given twice (line {first})")
            result[key] = self.value(value_node, (*path, key))
            self._lines[(*path, key)] = key_node.start_mark.line + 1
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, kind = node.value, node.tag.removeprefix(_TAG)
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    return int(text)
                case "float":
                    return _number(text)
                case "str":
                    return text
        except (ValueError, KeyError):
            raise self._error(node, f"cannot read {text[:40]!r} as {kind}") from None
        raise self._error(node, f"the tag {node.tag} is not supported")

    def _error(self, node: yaml.Node, what: str) -> UserError:
        return UserError(f"{self._name}:{node.start_mark.line + 1}: {_one_line(what)}")


def _number(text: str) -> int | float:
    """Reads `.inf`, `1.5`, `1e-4`; `1e6` is the whole number that it says."""
    number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return int(number) if "." not in text and number.is_integer() else number


def _one_line(text: str) -> str:
    return " ".join(text.split())
