"""The curriculum's result: its plan, runs that survive being killed, rows that are judged by their own plan."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import BENCHMARKS, GOALS, carried_out, ends_well, imported
from waiting import wait_until

from polybeast_moe.errors import UserError

pytestmark = pytest.mark.timeout(900)

MODULES = (
    "curriculum_plan",
    "curriculum_rows",
    "curriculum_plot",
    "curriculum_statistics",
    "curriculum_results",
    "curriculum",
)
PLAN = """\
config: tiny.yaml
seeds: [1, 2]
always: {monitoring.every_seconds: 1.0e-9, policy.class: held_policy.HeldPolicy}
evaluation: {episodes: 6, seed: 5}
band: [0.3, 0.5]
compare_with: frozen
frozen: frozen
expected: {training: 100, evaluation: 100}
remarks: [Frozen runs had company.]
arms:
  headline: {asks: all of it, length: 1, ablate: true}
  frozen:
    asks: does the router learn
    length: 0.5
    settings: {policy.router.kind: frozen, policy.router.operator_prior: false}
  broken: {asks: what if it fails, length: 0.5, settings: {policy.class: nowhere.Policy}}
"""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    yield from imported(monkeypatch, *MODULES, "results")


@pytest.fixture
def plan_file(tmp_path: Path, tiny_file: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(tiny_file.read_text().replace("frames: 480", "frames: 4_800"))
    shutil.copy(GOALS, tmp_path / "goals.yaml")
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path / "plan.yaml"


def words(plan_file: Path, *options: str) -> list[object]:
    folder = plan_file.parent
    return [BENCHMARKS / "curriculum.py", "--plan", plan_file, "--work", folder / "work", "--out", folder, *options]


def environment(plan_file: Path) -> dict[str, str]:
    """Where runs find their policy, and what it looks for."""
    return {"PYTHONPATH": f"{BENCHMARKS}:{Path(__file__).parent}", "HELD_BY": str(plan_file.parent / "held")}


def run(plan_file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return carried_out(plan_file.parent, *words(plan_file, *options), **environment(plan_file))


def test_the_committed_plan_compares_every_arm_with_the_headline_at_its_length(modules) -> None:
    plan = modules.curriculum_plan.read_plan(BENCHMARKS / "curriculum.yaml")
    arms = {arm.name: arm for arm in plan.arms}
    assert arms["headline"].ablate
    assert not arms["headline"].settings
    reference = arms[plan.compare_with]
    assert not reference.settings
    assert {arm.length for arm in plan.arms if arm.name != "headline"} == {reference.length}
    assert len(plan.seeds) >= 5
    assert plan.episodes >= 1000

    def configuration(name: str):
        return plan.configuration(modules.curriculum_plan.Run(arms[name], 3))

    whole, half = configuration("headline"), configuration("closed_loop")
    assert [phase.until.episodes for phase in whole.phases] == [1000, 3000, 5000, 7000]
    assert [phase.until.episodes for phase in half.phases] == [500, 1500, 2500, 3500]
    assert whole.learner == half.learner
    assert (whole.seed, half.seed) == (3, 3)
    assert configuration("frozen_router").policy.router.kind == "frozen"
    assert configuration("scene_router").env.store_glyphs
    assert {phase.routing for phase in configuration("softmax").phases} == {"softmax"}
    assert {phase.routing for phase in configuration("sparsemax_at_once").phases} == {"sparsemax"}
    assert configuration("reference_routing").policy.router.keep == 2
    assert configuration("open_loop").phases[-1].losses.alpha_entropy.weight == 0.1
    assert not configuration("no_graph").graph.enabled
    assert configuration("single_expert").policy.expert_names == ("single",)


def test_every_figure_of_the_result_has_a_goal_that_judges_its_interval(modules) -> None:
    goals = modules.results.read_goals()
    names = ["curriculum_minutes", "mean_score", "median_score", "score_cv", "alpha_entropy_in_band", "usage_entropy"]
    names += ["smallest_share", "scene_information", "between_scene_shuffle_cost"]
    assert all(goals[name].interval for name in names)
    measured = modules.results.Measured
    assert goals["mean_score"].met(measured(130, 120, 140))
    assert not goals["mean_score"].met(measured(130, 119, 141))
    assert not goals["mean_score"].met(measured(130, math.nan, math.nan))  # one seed proves nothing


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("compare_with: frozen", "compare_with: frozn", "no arm 'frozn'; did you mean 'frozen'"),
        ("policy.class: nowhere.Policy", "policy.hiden: 3", "arm broken: .*policy.hiden: unknown key"),
        ("length: 0.5, settings: {policy.class: nowhere.Policy}", "length: 1, length: 2", "given twice"),
        ("length: 0.5, settings: {policy.class: nowhere.Policy}", "length: 1", "headline and broken are the same"),
        ("band: [0.3, 0.5]\n", "", "'band' is missing"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(modules, plan_file: Path, before: str, after: str, message: str) -> None:
    assert before in PLAN
    plan_file.write_text(PLAN.replace(before, after))
    with pytest.raises(UserError, match=message):
        modules.curriculum_plan.read_plan(plan_file)


def test_only_runs_of_the_plan_are_chosen(modules, plan_file: Path) -> None:
    plan = modules.curriculum_plan.read_plan(plan_file)
    assert [one.name for one in modules.curriculum_plan.chosen(plan, None, [2])] == [
        "headline-2",
        "frozen-2",
        "broken-2",
    ]
    with pytest.raises(UserError, match="no such arm; did you mean 'frozen'"):
        modules.curriculum_plan.chosen(plan, ["frosen"], None)
    with pytest.raises(UserError, match="--seeds 3: the plan has 1, 2"):
        modules.curriculum_plan.chosen(plan, None, [3])


def test_intervals_are_students_and_comparisons_are_corrected(modules) -> None:
    results = modules.curriculum_statistics
    mean, low, high = results.over_seeds([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, low, high) == pytest.approx((3.0, 3 - 2.776445 * math.sqrt(0.5), 3 + 2.776445 * math.sqrt(0.5)))
    assert math.isnan(results.over_seeds([1.0]).low)
    assert results.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": math.nan}, nan_ok=True
    )
    found = results.compared({"base": [10, 11, 12], "good": [20, 21, 22], "like": [9, 11, 13], "new": [50]}, "base")
    assert found["good"].verdict == "better"
    assert found["good"].difference.low > 0
    assert found["like"].verdict == "no difference shown"
    assert found["new"].verdict == "too few seeds to tell"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (108.0, 8.0),  # what came after the final snapshot, a report, does not count
        (1008.0, 18.0),  # nor does the time between two sittings
        (105.0, 5.0),  # nor a sitting that only found the run at its end
    ],
)
def test_the_minutes_of_a_run_are_those_until_its_final_snapshot(modules, written, seconds):
    assert modules.curriculum_rows.seconds_until(written, [(100.0, 110.0), (1000.0, 1020.0)]) == seconds


def test_runs_survive_a_kill_and_are_judged(modules, plan_file: Path) -> None:
    folder, chosen = plan_file.parent, ("--seeds", "1", "--only", "headline", "frozen")
    (folder / "held").touch()
    own = {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", **environment(plan_file)}
    command = [sys.executable, *map(str, words(plan_file, *chosen))]
    process = subprocess.Popen(command, env={**os.environ, **own}, text=True)
    run_dir = folder / "work" / "headline-1" / "run"
    wait_until(lambda: list(run_dir.glob("snapshots/step-*")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(folder.glob("curriculum/*.json"))  # what was interrupted has no row

    (folder / "held").unlink()
    ends_well(run(plan_file, *chosen))
    row = json.loads((folder / "curriculum" / "headline-1.json").read_text())
    assert (row["status"], row["sittings"]) == ("finished", 2)
    assert row["frames"] == 4800
    assert row["updates"] == 100
    assert row["last_phase_updates"] == 95  # every one, also those before the kill
    assert 0 <= row["alpha_entropy_in_band"] <= 1
    assert 0 < row["minutes"] < 10
    assert len(row["episodes_played"]["score"]) == row["evaluation"]["episodes"] == 6
    assert "snapshot" not in row["evaluation"]  # a path, of a machine
    assert "scene_information" in row["evaluation"]["specialisation"]
    assert "gates shuffled between scenes" in row["evaluation"]["ablations"]
    assert json.loads((folder / "curriculum" / "frozen-1.json").read_text())["frames"] == 2400

    failed = run(plan_file, "--seeds", "1")
    assert failed.returncode == 0
    assert "2 runs are done, 1 are left" in failed.stdout
    assert "cannot import 'nowhere'" in json.loads((folder / "curriculum" / "broken-1.json").read_text())["reason"]

    plan = modules.curriculum_plan.read_plan(plan_file)
    another_seed(modules, plan, folder / "curriculum", "headline")
    another_seed(modules, plan, folder / "curriculum", "frozen")
    assert modules.curriculum_results.publish(plan, folder, "python benchmarks/curriculum.py --results") == 0
    page = (folder / "curriculum.md").read_text()
    assert "| headline | 2 of 2 |" in page
    assert "| broken | 0 of 2 | - |" in page
    assert "failed: exit code 2" in page
    assert "Not yet run: broken-2." in page
    assert re.search(r"\| gates shuffled between scenes \| \S+ \[.*\] \| \S+ \[.*\] \| \S+ \[.*\] \|", page)
    assert "| exploration | " in page
    assert "of the last phase. Frozen runs had company." in page
    kept = json.loads((folder / "curriculum.json").read_text())
    assert {goal["name"] for goal in kept["goals"]} >= {"mean_score", "curriculum_minutes", "scene_information"}
    assert (folder / "curriculum.png").stat().st_size < 150_000

    plan_file.write_text(PLAN.replace("episodes: 6", "episodes: 7"))
    refused = run(plan_file, "--results")
    assert refused.returncode == 2
    assert "made by another plan" in refused.stderr


def another_seed(modules, plan, rows: Path, arm: str) -> None:
    """A row of seed 2, made of seed 1's."""
    row = json.loads((rows / f"{arm}-1.json").read_text())
    [run_of_it] = modules.curriculum_plan.chosen(plan, [arm], [2])
    row |= {"seed": 2, "plan": plan.fingerprint(run_of_it), "minutes": row["minutes"] + 1}
    (rows / f"{arm}-2.json").write_text(json.dumps(row))


def test_two_at_once_do_not_disturb_each_other(modules, plan_file: Path) -> None:
    with modules.curriculum.alone(plan_file.parent / "work"):
        second = run(plan_file, "--only", "broken")
    assert second.returncode == 2
    assert "another curriculum.py is at work" in second.stderr
    assert not list(plan_file.parent.glob("curriculum/*.json"))


def test_a_plan_in_the_repository_is_committed_before_it_runs(modules, plan_file: Path, monkeypatch) -> None:
    plan = modules.curriculum_plan.read_plan(plan_file)
    modules.curriculum.refuse_uncommitted(plan)  # elsewhere: nobody's affair
    folder = plan_file.parent
    monkeypatch.setattr(modules.curriculum, "ROOT", folder)
    monkeypatch.setattr(modules.curriculum, "RESULTS", folder)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    with pytest.raises(UserError, match="commit it"):
        modules.curriculum.refuse_uncommitted(plan)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "plan"], check=True)
    modules.curriculum.refuse_uncommitted(dataclasses.replace(plan))


def test_single_updates_of_the_last_phase_are_counted(modules) -> None:
    metrics = {
        "phase": ["finetune", "deep", "deep", "deep", "deep"],
        "alpha_entropy": ["0.4", "0.3", "0.5", "0.51", ""],  # the last one was skipped
    }
    found = modules.curriculum_rows._in_band(metrics, "deep", (0.3, 0.5))
    assert found == {"last_phase_updates": 4, "alpha_entropy_in_band": 0.5}
