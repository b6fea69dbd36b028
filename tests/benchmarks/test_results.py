"""Results are judged by goals.yaml alone, and what is written says what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from scripts import GOALS, imported


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for modules in imported(monkeypatch, "results"):
        yield modules.results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "goals.yaml").write_text(
        "fast: {goal: 'steps', at_least: 3}\n"
        "small: {goal: 'memory', at_most: 40}\n"
        "between: {goal: 'entropy', within: [0.3, 0.5]}\n"
    )
    return tmp_path


def test_every_committed_goal_has_one_bound(results: ModuleType) -> None:
    goals = results.read_goals()
    assert goals.keys() == yaml.safe_load(GOALS.read_text()).keys()
    for name, goal in goals.items():
        assert [goal.at_least, goal.at_most, goal.within].count(None) == 2, name


def test_a_goal_with_two_bounds_or_none_is_refused(results: ModuleType) -> None:
    with pytest.raises(ValueError, match="needs one of"):
        results.Goal("speed")
    with pytest.raises(ValueError, match="needs one of"):
        results.Goal("speed", at_least=1, at_most=2)


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [
        ("fast", 3.0, True),
        ("fast", 2.99, False),
        ("small", 40.0, True),
        ("small", 40.1, False),
        ("between", 0.3, True),
        ("between", 0.51, False),
        ("between", float("nan"), False),
        ("fast", float("nan"), False),
    ],
)
def test_bounds_include_their_limits(results: ModuleType, folder: Path, name: str, value: float, met: bool) -> None:
    [judged] = results.judge({name: results.Measured(value, value, value)}, results.read_goals(folder / "goals.yaml"))
    assert judged["met"] is met


def test_the_median_is_judged_and_the_spread_is_kept(results: ModuleType, folder: Path) -> None:
    measured = {"fast": results.spread([2.0, 3.5, 5.0]), "small": results.spread([50, 41, 45])}
    judged = results.write(
        "engine",
        title="Engine",
        measured=measured,
        sections=["## More"],
        raw={"x": [1]},
        commands=["run"],
        folder=folder,
    )
    assert [(goal["measured"], goal["low"], goal["high"], goal["met"]) for goal in judged] == [
        (3.5, 2.0, 5.0, True),
        (45, 41, 50, False),
    ]
    kept = json.loads((folder / "engine.json").read_text())
    assert kept["goals"] == judged
    assert kept["raw"] == {"x": [1]}
    assert kept["commands"] == ["run"]
    assert {"cpu", "cores", "versions", "commit"} <= kept["machine"].keys()
    page = (folder / "engine.md").read_text()
    assert "| steps ≥ 3 | 3.5 | 2 | 5 | yes |" in page
    assert "| memory ≤ 40 | 45 | 41 | 50 | no |" in page


def test_a_figure_without_a_goal_is_refused_and_nothing_is_written(results: ModuleType, folder: Path) -> None:
    measured = {"unheard_of": results.spread([1.0])}
    with pytest.raises(KeyError, match="unheard_of"):
        results.write("x", title="X", measured=measured, sections=[], raw={}, commands=[], folder=folder)
    assert not (folder / "x.md").exists()


def test_the_readme_shows_the_results_as_they_are(results: ModuleType) -> None:
    readme = results.README.read_text()
    assert readme.count(results.summary(results.RESULTS)) == 1, "run: python benchmarks/results.py"


def test_the_table_holds_what_was_measured_and_names_what_was_not(results: ModuleType, tmp_path: Path) -> None:
    goals = [
        {"name": "reset_ms", "goal": "a reset ≤ 1", "measured": 0.25, "low": 0.25, "high": 0.25, "met": True},
        {"name": "not_shown", "goal": "more", "measured": 2, "low": 1, "high": 3, "met": True},
        {"name": "engine_sync_32", "goal": "games ≥ 3.5", "measured": 3, "low": 2, "high": 4, "met": False},
    ]
    (tmp_path / "engine.json").write_text(json.dumps({"goals": goals}))
    table, missing = results.summary(tmp_path).strip().split("\n\n")
    assert table.splitlines()[2:] == [
        "| [games ≥ 3.5](docs/results/engine.md) | 3 | 2 to 4 | no |",
        "| [a reset ≤ 1](docs/results/engine.md) | 0.25 | 0.25 | yes |",
    ]
    assert "make soak" in missing
    assert "the engine" not in missing


def test_refreshing_leaves_the_rest_of_the_page_alone(results: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results: here -->\nold\n<!-- end of results -->\nafter\n")
    results.refresh(page, tmp_path)
    first = page.read_text()
    results.refresh(page, tmp_path)
    assert page.read_text() == first
    assert first.startswith("before\n<!-- results: here -->\n\n| goal |")
    assert first.endswith("\n\n<!-- end of results -->\nafter\n")
    assert "old" not in first


def test_every_goal_that_the_readme_would_show_exists(results: ModuleType) -> None:
    shown = {name for _, names in results.SHOWN.values() for name in names}
    assert shown <= results.read_goals().keys()
