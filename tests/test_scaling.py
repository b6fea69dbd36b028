"""The calculator behind `polybeast-moe doctor --plan`."""

from __future__ import annotations

import pytest

from polybeast_moe import cli
from polybeast_moe.scaling import Costs, GpuCosts, describe, plan_cpu, plan_gpu

COSTS = Costs(engine=40.0, inference=50.0, update=110.0, exchange_us=10_240.0)


def test_two_cores_share_what_a_frame_costs() -> None:
    plan = plan_cpu(2, Costs(engine=40.0, inference=60.0, update=80.0))
    assert plan.frames_per_second == pytest.approx(2e6 / 180)
    assert plan.bottleneck == "cores"


def test_two_ranks_pay_for_their_exchange() -> None:
    plan = plan_cpu(2, COSTS, ranks=2)
    assert plan.frames_per_second == pytest.approx(2 * 1e6 / (200 + 10))


def test_a_part_that_has_too_few_cores_binds() -> None:
    plan = plan_cpu(8, Costs(engine=400.0, inference=1.0, update=1.0))
    assert plan.runtime.actors == 2
    assert plan.bottleneck == "engine"
    assert plan.frames_per_second == pytest.approx(2e6 / 400)


def test_a_gpu_is_fed_by_its_cores_until_it_is_busy() -> None:
    gpu = GpuCosts(inference=2.0, update=3.0)
    fed = plan_gpu(1, 4, COSTS, gpu)
    assert fed.bottleneck == "engine"
    assert fed.frames_per_second == pytest.approx(2e6 / 40)
    busy = plan_gpu(2, 64, COSTS, gpu)
    assert busy.bottleneck == "GPU"
    assert busy.frames_per_second == pytest.approx(2 * 1e6 / (5 + 10))


def test_a_gpu_of_unknown_cost_is_said_to_be_unmeasured() -> None:
    said = dict(describe(plan_gpu(8, 96, COSTS), gpu_known=False))
    assert "unmeasured" in said["GPU"]
    assert "bound by engine" in said["predicted"]


def test_doctor_predicts_and_refuses_nonsense(capsys) -> None:
    assert cli.main(["doctor", "--plan", "0", "2"]) == 0
    assert "frames/s, bound by cores (a model)" in capsys.readouterr().out
    assert cli.main(["doctor", "--plan", "2", "64", "--gpu-us", "2", "3"]) == 0
    assert "bound by GPU" in capsys.readouterr().out
    for arguments in (["4", "2"], ["-1", "2"], ["0", "0"], ["0", "2", "--gpu-us", "2", "3"]):
        assert cli.main(["doctor", "--plan", *arguments]) == 2
    capsys.readouterr()
    assert cli.main(["doctor", "--gpu-us", "2", "3"]) == 2
    assert "give --plan GPUS CORES with it" in capsys.readouterr().err
    assert cli.main(["doctor", "--self-test", "--plan", "0", "2"]) == 2
