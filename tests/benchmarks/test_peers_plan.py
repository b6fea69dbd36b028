"""The plan of the comparison: whose turn it is, with which settings, and which rows belong to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import BENCHMARKS, imported

from polybeast_moe.config import RewardConfig, RewardWeights
from polybeast_moe.config_files import load_config
from polybeast_moe.errors import UserError

PLAN = """\
start: 20
measurements:
  search:
    asks: which settings
    seconds: 30
    warm_up: 10
    arms:
      ours: {system: ours, trials: [{a: 1}, {a: 2}]}
      peer: {system: peer, trials: [{b: 1}, {b: 2}]}
  speed:
    asks: how fast
    seconds: 60
    rounds: 3
    arms:
      ours: {system: ours, best_of: search, reference: true}
      other: {system: peer, best_of: search, like: peer, settings: {c: 3}, seconds: 90}
"""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    yield from imported(monkeypatch, "peers.plan", "peers.job", "peers.ours", "peers.inline")


@pytest.fixture
def plan(modules, tmp_path: Path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    return modules.plan.read_plan(tmp_path / "plan.yaml")


def trial(arm: str, index: int, speed: float | None, **settings: int) -> dict:
    status = {"status": "failed"} if speed is None else {"status": "finished", "frames_per_second": speed}
    return {"arm": arm, "index": index, "settings": settings, **status}


SEARCHED = [trial("ours", 1, 50, a=1), trial("peer", 1, 7, b=1), trial("peer", 2, None, b=2), trial("ours", 2, 60, a=2)]


def test_arms_take_turns_and_every_second_round_goes_backwards(plan) -> None:
    names = [task.name for task in plan.tasks() if task.measurement.name == "speed"]
    assert names == ["speed/ours/1", "speed/other/1", "speed/other/2", "speed/ours/2", "speed/ours/3", "speed/other/3"]
    assert [task.index for task in plan.tasks() if task.arm.trials] == [1, 1, 2, 2]


def test_minutes_count_start_and_warm_up(plan) -> None:
    minutes = {task.name: plan.minutes(task) for task in plan.tasks()}
    assert minutes["search/ours/1"] == pytest.approx(1.0)
    assert minutes["speed/other/1"] == pytest.approx(110 / 60)


def test_the_best_trial_that_did_not_fail_is_taken(modules, plan) -> None:
    tasks = {task.name: task for task in plan.tasks()}
    rows = {"search": SEARCHED}
    assert modules.plan.settings_of(plan, tasks["speed/ours/1"], rows) == {"a": 2}
    assert modules.plan.settings_of(plan, tasks["speed/other/1"], rows) == {"b": 1, "c": 3}
    assert modules.plan.settings_of(plan, tasks["search/ours/2"], {}) == {"a": 2}


def test_nothing_rests_on_half_a_search(modules, plan) -> None:
    [task] = [task for task in plan.tasks() if task.name == "speed/ours/1"]
    with pytest.raises(UserError, match="1 of 2 trials of ours"):
        modules.plan.settings_of(plan, task, {"search": SEARCHED[:3]})
    with pytest.raises(UserError, match="every trial of ours failed"):
        modules.plan.settings_of(plan, task, {"search": [trial("ours", i, None) for i in (1, 2)]})


def test_rows_of_another_plan_are_refused(modules, plan) -> None:
    [task] = [task for task in plan.tasks() if task.name == "search/ours/1"]
    row = {"arm": "ours", "index": 1, "plan": modules.plan.fingerprint(task, {"a": 1})}
    modules.plan.refuse_other_plans(plan, {"search": [row]})
    with pytest.raises(UserError, match=r"search\.jsonl, ours 1: made by another plan"):
        modules.plan.refuse_other_plans(plan, {"search": [{**row, "plan": modules.plan.fingerprint(task, {"a": 9})}]})
    with pytest.raises(UserError, match="made by another plan"):
        modules.plan.refuse_other_plans(plan, {"search": [{**row, "arm": "gone"}]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[{b: 1}, {b: 2}]", "[{b: 1}]"), "same number of trials"),
        (("like: peer", "like: pear"), "search has no arm 'pear'; did you mean"),
        (("system: peer, best", "sytem: peer, best"), "no setting of an arm"),
        (("best_of: search, reference", "best_of: serach, reference"), "no measurement 'serach'"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(modules, tmp_path: Path, change, message: str) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN.replace(*change))
    with pytest.raises(UserError, match=message):
        modules.plan.read_plan(tmp_path / "plan.yaml")


def test_only_whole_lines_are_rows(modules, tmp_path: Path) -> None:
    (tmp_path / "search.jsonl").write_text('{"arm": "ours", "index": 1}\n{"arm": "ou')
    assert modules.plan.read_rows(tmp_path) == {"search": [{"arm": "ours", "index": 1}]}


def test_the_committed_plan_names_systems_that_there_are_and_settings_that_we_take(modules) -> None:
    committed = modules.plan.read_plan()
    for task in committed.tasks():
        arm = task.arm
        assert (BENCHMARKS / "peers" / f"{arm.system}.py").exists()
        if arm.system in ("ours", "inline") and (task.index == 1 or arm.trials):
            settings = {**arm.settings, **(arm.trials[task.index - 1] if arm.trials else {})}
            settings |= {**modules.inline.INLINE, **settings} if arm.system == "inline" else {}
            learning = task.measurement.learning
            job = modules.job.Job(Path(), 0, 1, network=arm.network, learning=learning, settings=settings)
            words = [f"{key}={json.dumps(value)}" for key, value in modules.ours.overrides(job).items()]
            config = load_config(str(modules.ours.CONFIG), words)
            assert config.graph.enabled == (arm.network == "own")


def test_where_learning_is_compared_the_reward_is_the_peers(modules) -> None:
    """tanh(task reward / 10): no term, no other transform, whatever the quickstart has."""
    tasks = [task for task in modules.plan.read_plan().tasks() if task.measurement.learning]
    ours = {task.arm.name: task.arm for task in tasks if task.arm.system == "ours"}
    assert {arm.network for arm in ours.values()} == {"own", "shared"}
    for arm in ours.values():
        job = modules.job.Job(Path(), 0, 1, network=arm.network, learning=True, settings=arm.settings)
        words = [f"{key}={json.dumps(value)}" for key, value in modules.ours.overrides(job).items()]
        config = load_config(str(modules.ours.CONFIG), words)
        assert config.learner.reward == RewardConfig(transform="tanh", scale=10.0)
        assert len(config.phases) == 4
        assert all(phase.reward == RewardWeights(task=1.0) for phase in config.phases)


def test_a_job_survives_its_file(modules, tmp_path: Path) -> None:
    job = modules.job.Job(tmp_path, 1.5, 60, kill=3, settings={"a": [1]})
    assert modules.job.read_job(str(job.write())) == job
