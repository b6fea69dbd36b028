"""Reads configuration files: YAML, overrides `section.key=value`, and errors that name the line and the way out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from polybeast_moe import yaml_text
from polybeast_moe.config import MISFIT, RunConfig
from polybeast_moe.errors import UserError, nearest


def load_config(path: str | Path, overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None) -> RunConfig:
    """Reads and validates a configuration.

    Args:
        path: a YAML file, or the name of one that the package brings (`quickstart`).
        overrides: `section.key=value`, the value as YAML; list items by index or, for phases, by name:
            `phases.0.routing=softmax`, `phases.warmup.until.frames=1000`. Later ones win.
        base: a configuration as `RunConfig.to_plain` gives it, for whatever the file does not say. Phases and
            targets go together: a file with phases of its own takes no targets from it.

    Returns:
        The configuration. A graph file that the package does not bring is named by its absolute path.

    Raises:
        UserError: anything is wrong with the file, an override or a value: one line with file, line, key and remedy.
    """
    file = resolve_config_path(path)
    data, lines = yaml_text.parse(_read(file), str(file))
    if not isinstance(data, dict):
        raise UserError(f"{file}: a configuration is a mapping of sections such as `env:` and `phases:`")
    places = {key: f"{file}:{line}" for key, line in lines.items() if key} | {(): str(file)}
    data = _laid_over(base or {}, data)
    for override in overrides:
        _apply_override(data, override, places)
    config = _validate(data, places)
    return _with_graph_file(config, near=file.parent, place=_place(("graph", "file"), places))


def with_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Returns a configuration with some values changed.

    Raises:
        UserError: as `load_config`.
    """
    data = config.to_plain()
    places: dict[yaml_text.KeyPath, str] = {(): "the run's configuration"}
    for override in overrides:
        _apply_override(data, override, places)
    return _validate(data, places)


def config_of(plain: dict[str, Any], place: str) -> RunConfig:
    """Returns the configuration that `RunConfig.to_plain` gave.

    Raises:
        UserError: it is none of this version; the message begins with `place`.
    """
    return _validate(plain, {(): place})


def flattened(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of nested sections by the keys that an override would name: `phases.warmup.until.frames`."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
            value = {item["name"]: {k: v for k, v in item.items() if k != "name"} for item in value}
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flattened(value).items()}
        else:
            flat[key] = value
    return flat


def bundled_configs() -> Path:
    """Returns the folder of configurations that the package brings (in a source tree: the repository's `configs/`)."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def resolve_config_path(name: str | Path) -> Path:
    """Returns the file that `name` stands for: a path, or a bundled configuration, `.yaml` and `configs/` optional.

    Raises:
        UserError: there is no such file; the message offers the nearest bundled name.
    """
    if _is_file(Path(name)):
        return Path(name)
    folder = bundled_configs()
    inside = str(name).removeprefix("configs/")
    for candidate in (inside, f"{inside}.yaml"):
        if _is_file(folder / candidate):
            return folder / candidate
    known = [file.stem for file in folder.glob("*.yaml")]
    raise UserError(f"configuration {str(name)!r} not found{nearest(Path(name).stem, known)}")


def resolve_data_file(name: str | Path, near: Path | None = None) -> Path:
    """Returns the file that a configuration names, a knowledge graph for example.

    Looked for in this order: as given (from the working directory), in `near` (the configuration's folder), among the
    bundled configurations.

    Raises:
        UserError: it is in none of these places.
    """
    folders = [Path(), *([near] if near is not None else []), bundled_configs()]
    for folder in folders:
        if _is_file(folder / name):
            return folder / name
    raise UserError(f"file {str(name)!r} not found in {', '.join(str(folder) for folder in folders)}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, a null byte
        return False


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file}: not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def _with_graph_file(config: RunConfig, near: Path, place: str) -> RunConfig:
    """Pins the graph file, so that a resume from another working directory finds the same one."""
    if not config.reads_graph:
        return config
    try:
        found = resolve_data_file(config.graph.file, near)
    except UserError as error:
        raise UserError(f"{place}: graph.file: {error}") from None
    bundled = bundled_configs() / config.graph.file
    if _is_file(bundled) and found.samefile(bundled):
        return config
    graph = config.graph.model_copy(update={"file": str(found.resolve())})
    return config.model_copy(update={"graph": graph})


def _laid_over(base: Mapping[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Returns `data` with what it lacks from `base`, sections taken apart, lists whole."""
    rest = {key: value for key, value in base.items() if not (key == "targets" and "phases" in data)}
    merged = {**rest, **data}
    for key, value in data.items():
        below = rest.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and key != "targets":
            merged[key] = _laid_over(below, value)
        elif value is None and isinstance(below, dict):  # a section that the file leaves empty
            merged[key] = below
    return merged


# Overrides.


def _apply_override(data: dict[str, Any], override: str, places: dict[yaml_text.KeyPath, str]) -> None:
    key, equals, text = override.partition("=")
    place = f"override {override!r}"
    if not equals or not all(key.split(".")):
        raise UserError(f"{place}: not of the form section.key=value")
    value, _ = yaml_text.parse(text, place)
    parent: Any = data
    path: yaml_text.KeyPath = ()
    *sections, last = key.split(".")
    for name in sections:
        step = _step_into(parent, name, path, place)
        path = (*path, step)
        child = parent.get(step) if isinstance(parent, dict) else parent[step]
        if child is None:  # a section that the file leaves out, or leaves empty
            child = parent[step] = {}
            places[path] = place
        parent = child
    step = _step_into(parent, last, path, place)
    path = (*path, step)
    parent[step] = value
    for below in [known for known in places if known[: len(path)] == path]:
        del places[below]
    places[path] = place


def _step_into(parent: Any, name: str, path: yaml_text.KeyPath, place: str) -> str | int:
    """Returns the key or list index that `name` means inside `parent`."""
    if isinstance(parent, dict):
        return name
    if not isinstance(parent, list):
        raise UserError(f"{place}: {_dotted(path, {})} is {_shown(parent)}, it has no {name!r}; give it whole")
    names = [item["name"] for item in parent if isinstance(item, dict) and isinstance(item.get("name"), str)]
    if name in names and len(names) == len(parent):
        return names.index(name)
    if name.isascii() and name.isdigit() and len(name) < 6 and int(name) < len(parent):
        return int(name)
    choices = names or [str(index) for index in range(len(parent))]
    raise UserError(f"{place}: {_dotted(path, {})} has no item {name!r}{nearest(name, choices)}")


# Validation, and the translation of its errors.


def _validate(data: dict[str, Any], places: Mapping[yaml_text.KeyPath, str]) -> RunConfig:
    try:
        # JSON, because pydantic's strict mode takes lists for tuples there: numbers are numbers, true is no number.
        return RunConfig.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        problems: dict[yaml_text.KeyPath, list[str]] = {}  # a value that may take several forms has an error for each
        for detail in _in_order(error):
            path = _path_in(detail, data)
            problems.setdefault(path, []).append(_explain(detail, path))
        path, explanations = next(iter(problems.items()))
        key = _dotted(path, data)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        line = f"{_place(path, places)}: {key + ': ' if key else ''}{', or '.join(explanations)}{more}"
        raise UserError(line) from None
    except (ValueError, RecursionError) as error:  # what JSON cannot hold: an integer of thousands of digits
        raise UserError(f"{places[()]}: {' '.join(str(error).split())}") from None


def _in_order(error: ValidationError) -> list[ErrorDetails]:
    """Puts unknown keys first, as a misspelt key is often reported missing too, and a list's lost items last."""
    rank = {"extra_forbidden": 0, "too_short": 2}
    return sorted(error.errors(include_url=False), key=lambda detail: rank.get(detail["type"], 1))


def _explain(detail: ErrorDetails, path: yaml_text.KeyPath) -> str:
    message = " ".join(detail["msg"].split())
    match detail["type"]:
        case "extra_forbidden":
            return "unknown key" + nearest(str(path[-1]), _keys_at(path[:-1]))
        case "missing":
            return "is missing"
        case _ if detail["type"] == MISFIT:
            return message
        case "value_error":
            return message.removeprefix("Value error, ")
        case "json_invalid":
            return message.removeprefix("Invalid JSON: ")
        case "too_short":
            return "needs more items"
        case "literal_error":
            choices = [word.strip("'") for word in detail["ctx"]["expected"].replace(" or ", ", ").split(", ")]
            return f"{_shown(detail['input'])} is not one of its values{nearest(str(detail['input']), choices)}"
        case "model_type" | "dict_type":
            return f"should be a section (got {_shown(detail['input'])})"
    return f"{message.replace('Input should', 'should')} (got {_shown(detail['input'])})"


def _path_in(detail: ErrorDetails, data: Any) -> yaml_text.KeyPath:
    """Returns an error's location without pydantic's names for the members of unions, which are not in the file."""
    path: yaml_text.KeyPath = ()
    value = data
    for index, step in enumerate(detail["loc"]):
        child = _child(value, step)
        absent = detail["type"] == "missing" and index == len(detail["loc"]) - 1
        if child is not _ABSENT or absent:
            path, value = (*path, step), child
    return (*path, *detail["ctx"]["at"]) if detail["type"] == MISFIT else path


_ABSENT = object()


def _child(value: Any, step: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(step, _ABSENT)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return _ABSENT


def _place(path: yaml_text.KeyPath, places: Mapping[yaml_text.KeyPath, str]) -> str:
    """Returns where the value at `path`, or the nearest section around it, was given."""
    while path not in places:
        path = path[:-1]
    return places[path]


def _dotted(path: yaml_text.KeyPath, data: Any) -> str:
    """Returns `phases.warmup.until` for a path, naming list items by their `name` where they have one."""
    words = []
    value = data
    for step in path:
        value = _child(value, step)
        name = value.get("name") if isinstance(step, int) and isinstance(value, dict) else None
        word = name if isinstance(name, str) and name.isidentifier() else str(step)
        words.append(word if word.isprintable() else repr(word))
    return ".".join(words)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(path: yaml_text.KeyPath) -> set[str]:
    """Returns the keys that the section at `path` may hold, of all its forms."""
    types: list[Any] = [RunConfig]
    for step in path:
        types = [member for kind in types for inner in _inside(kind, step) for member in _members(inner)]
    models = [kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _inside(kind: Any, step: str | int) -> Iterator[Any]:
    """Yields the type of the item `step` of a section, tuple or mapping."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if step in (name, field.alias):
                yield field.annotation
    elif get_origin(kind) is tuple:
        yield get_args(kind)[0]
    elif get_origin(kind) is dict:
        yield get_args(kind)[1]


def _members(kind: Any) -> Iterator[Any]:
    """Yields the alternatives of a type, unions and annotations taken apart."""
    if get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from _members(member)
    elif hasattr(kind, "__metadata__"):  # Annotated
        yield from _members(kind.__origin__)
    else:
        yield kind
