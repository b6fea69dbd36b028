"""Reads what a report is made from: a run's own files, whole or still being written (docs/run_directory.md)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polybeast_moe import yaml_text
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.statistics import Floats


@dataclass(frozen=True)
class DataTable:
    """Columns of text, all of one length, as a CSV file holds them."""

    columns: Mapping[str, Sequence[str]]
    length: int
    _parsed: dict[str, Floats] = field(default_factory=dict, compare=False, repr=False)

    def floats(self, name: str) -> Floats:
        """Returns a column as numbers, NaN for an empty field or a column that the file has not: [length]."""
        if name not in self._parsed:
            texts = self.columns.get(name, [""] * self.length)
            self._parsed[name] = np.array([_number(text) for text in texts], dtype=np.float64)
        return self._parsed[name].copy()

    def strings(self, name: str) -> NDArray[np.str_]:
        """Returns a column as text, empty for a column that the file has not: [length]."""
        return np.array(self.columns.get(name, [""] * self.length), dtype=np.str_)

    def where(self, rows: NDArray[np.bool_]) -> DataTable:
        """Returns the rows that are marked: [length] of bool."""
        picked = np.flatnonzero(rows).tolist()
        return DataTable({name: [texts[i] for i in picked] for name, texts in self.columns.items()}, len(picked))


EMPTY = DataTable({}, 0)


@dataclass(frozen=True)
class RunData:
    """A run's files in memory. `random_episodes` is None where no random policy was measured."""

    name: str
    config: Mapping[str, Any]
    metrics: DataTable
    episodes: DataTable
    events: Sequence[Mapping[str, Any]]
    random_episodes: DataTable | None
    config_text: str = ""
    specialisation: Mapping[str, Any] | None = None
    """What `evaluate` found out about the experts, if it was asked to (`specialisation.json`)."""

    @property
    def phases(self) -> list[str]:
        """The phases of the configuration in order, then others that the files name, in order of appearance."""
        configured = [str(phase["name"]) for phase in self.config.get("phases", ())]
        seen = [str(name) for table in (self.metrics, self.episodes) for name in table.strings("phase") if name]
        return list(dict.fromkeys([*configured, *seen]))

    @property
    def experts(self) -> list[str]:
        """The experts that `metrics.csv` has shares of, in its order."""
        names = [name for name in self.metrics.columns if name.startswith("expert_") and name.endswith("_share")]
        return [name.removeprefix("expert_").removesuffix("_share") for name in names]


def read_run(run_dir: Path) -> RunData:
    """Reads a run directory. Raises UserError if it holds no run; files that are missing or cut short are no error."""
    if not (run_dir / "config.yaml").is_file() and not (run_dir / "metrics.csv").is_file():
        raise UserError(f"{run_dir} is not a run directory: it has neither config.yaml nor metrics.csv")
    return RunData(
        name=run_dir.resolve().name,
        config=_read_config(run_dir / "config.yaml"),
        metrics=read_csv(run_dir / "metrics.csv"),
        episodes=read_csv(run_dir / "episodes.csv"),
        events=_read_json_lines(run_dir / "phases.jsonl"),
        random_episodes=_read_random_policy(run_dir / "random_policy.json"),
        config_text="\n".join(_whole_lines(run_dir / "config.yaml")),
        specialisation=read_object(run_dir / "specialisation.json"),
    )


def read_csv(path: Path) -> DataTable:
    """Reads a CSV file, without lines that are not whole: a run in progress may be in the middle of one."""
    lines = csv.reader(_whole_lines(path))
    header = next(lines, None)
    if header is None:
        return EMPTY
    rows = [row for row in lines if len(row) == len(header)]
    return DataTable({name: [row[index] for row in rows] for index, name in enumerate(header)}, len(rows))


def read_object(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None where the file is missing or holds none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _whole_lines(path: Path) -> list[str]:
    """The lines that end in a newline; none for a file that does not exist."""
    try:
        text = path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.split("\n")[:-1]


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    events = []
    for line in _whole_lines(path):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    config, _ = yaml_text.parse(path.read_text(encoding="utf-8"), str(path))
    return config if isinstance(config, dict) else {}


def _read_random_policy(path: Path) -> DataTable | None:
    rows = (read_object(path) or {}).get("episodes")
    return _from_rows(row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else None


def _from_rows(rows: Iterable[Mapping[str, Any]]) -> DataTable:
    kept = list(rows)
    names = dict.fromkeys(name for row in kept for name in row)
    texts = {name: ["" if row.get(name) is None else str(row[name]) for row in kept] for name in names}
    return DataTable(texts, len(kept))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
