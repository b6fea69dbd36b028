"""The quick benchmark: ratios beside the stored ones, and an exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from scripts import imported


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    for modules in imported(monkeypatch, "quick"):
        yield modules.quick


def test_only_a_median_below_the_margin_is_a_regression(quick) -> None:
    measured = {name: quick.Measured(value, value, value) for name, value in (("a", 3.1), ("b", 2.9), ("new", 1.0))}
    verdicts = {one.name: one for one in quick.compare(measured, {"a": 4.0, "b": 4.0, "gone": 1.0}, 0.25)}
    assert (verdicts["a"].regression, verdicts["b"].regression) == (False, True)
    assert verdicts["new"] == ("new", 1.0, None, None, False)


def test_figures_are_read_from_the_benchmarks_own_files(quick) -> None:
    engine = {"ours": [30.0], "sync": [10.0], "ours, 2 processes": [60.0], "async": [4.0], "2 processes, pipes": [15.0]}
    found = quick.of_engine({"rates": {"32": engine}})
    assert {name: figure.value for name, figure in found.items()} == {
        "engine_sync_32": 3.0,
        "engine_async_32": 15.0,
        "engine_pipe_32": 4.0,
    }
    windows = {"configured": 66.0, **dict.fromkeys(quick.pipeline_results.INLINE, 50.0)}
    windows["inline, one thread"] = 60.0
    variants = {name: {"raw_windows": [{"round": 1, "frames_per_second": speed}]} for name, speed in windows.items()}
    assert quick.of_modes({"variants": variants})["async_over_inline"].value == pytest.approx(1.1)
    graph = {"raw": {"random": {"factors": {form: [9, 8, 10] for form in quick.GRAPH.values()}}}}
    assert quick.of_graph(graph)["graph_in_all"] == (9, 8, 10)


def test_the_stored_graph_figures_are_those_of_random_play(quick) -> None:
    known = quick.stored()
    kept = json.loads((quick.results.RESULTS / "graph.json").read_text())
    factor = kept["raw"]["random"]["factors"]["PyG, every row"][0]
    assert known["graph_in_all"] == factor
    assert "policy_inference_us" not in known  # an absolute time says nothing on another machine


@pytest.mark.parametrize(("now", "code"), [(120.0, 0), (20.0, 1)])
def test_a_regression_is_the_exit_code(quick, monkeypatch, capsys, now: float, code: int) -> None:
    monkeypatch.setattr(quick, "run_step", lambda _: {"graph_in_all": quick.Measured(now, now, now)})
    monkeypatch.setattr(sys, "argv", ["quick.py", "--steps", "graph"])
    assert quick.main() == code
    assert ("slower by more than 25%" in capsys.readouterr().out) == bool(code)


def test_what_cannot_be_measured_is_no_regression(quick, monkeypatch, capsys) -> None:
    monkeypatch.setitem(quick.STEPS, "graph", ["no_such_script.py"])
    monkeypatch.setattr(sys, "argv", ["quick.py", "--steps", "graph"])
    assert quick.main() == 2
    assert "graph could not be measured (exit code 2)" in capsys.readouterr().err


def test_every_step_names_a_script_that_there_is(quick) -> None:
    folder = Path(quick.__file__).parent
    assert all((folder / script).exists() for script, *_ in quick.STEPS.values())
    assert quick.STEPS.keys() == quick.READERS.keys()
