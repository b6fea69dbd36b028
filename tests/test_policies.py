"""Every kind of policy trains: the optional encoders, many experts, one expert, a policy of the user's own, the
reference project's graph.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from run_files import newest, rows
from whole_runs import train

from polybeast_moe.config import RunConfig

pytestmark = pytest.mark.usefixtures("no_report")

SHORT = ("phases.warmup.until.frames=96", "phases.transition.until.frames=192", "graph.enabled=true")
MANY = f"policy.experts=[{', '.join(f'expert_{i}' for i in range(64))}]"


ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT.parent / "shared" / "data" / "hypergraph_gat_structure.json"


@pytest.mark.parametrize(
    "overrides",
    [
        ("env.store_glyphs=true", "policy.full_map=true", "env.store_inventory=true", "policy.inventory=true"),
        ("policy.lstm=8", "env.store_inventory=true", "policy.inventory=true", "env.max_episode_steps=9"),
        ("env.store_glyphs=true", "policy.landmarks=true", "policy.action_mask=true"),
        (MANY, "policy.expert_execution=sparse"),
        ("policy.single_expert=equal_parameters",),
    ],
    ids=["map and inventory", "recurrent, truncated", "landmarks, masked", "64 experts", "one expert"],
)
def test_it_trains(make_config, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    train_and_look(make_config(*SHORT, *overrides), tmp_path / "run")


def test_with_one_expert_a_phase_with_a_target_stays_as_configured_and_nothing_is_steered(
    make_config, tmp_path: Path
) -> None:
    target = "phases.transition.temperature={target_alpha_entropy: 0.4}"
    train_and_look(make_config(*SHORT, target, "policy.single_expert=equal_parameters"), tmp_path / "run")
    last = rows(tmp_path / "run")[-1]
    assert (last["router_temperature"], last["matching_temperature"]) == ("1.0", "")
    assert newest(tmp_path / "run").state["controller"]["settings"]["temperature"] == 1.0


def test_the_documented_policy_of_ones_own_trains(make_config, tmp_path: Path, monkeypatch) -> None:
    """The class as docs/policy.md prints it, with the imports that the page gives it."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "policy.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "class DeepValue" in block]
    (tmp_path / "deep_value.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    train_and_look(make_config(*SHORT, "policy.class=deep_value.DeepValue"), tmp_path / "run")
    assert newest(tmp_path / "run").weights["value.0.weight"].shape[0] == 128


def test_the_documented_loss_and_reward_of_ones_own_train(make_config, tmp_path: Path, monkeypatch) -> None:
    for page, name in (("own-loss", "my_losses"), ("own-reward", "my_rewards")):
        (example,) = re.findall(r"```python\n(.*?)```", (ROOT / f"docs/howto/{page}.md").read_text(), re.DOTALL)
        (tmp_path / f"{name}.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    own = ("learner.extra_loss=my_losses.small_logits", "learner.reward.function=my_rewards.likes_depth")
    train_and_look(make_config(*SHORT, *own, "phases.transition.losses.extra=0.5"), tmp_path / "run")
    warmup, transition = rows(tmp_path / "run")
    assert float(warmup["loss_extra"]) == 0
    assert float(transition["loss_extra"]) > 0


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference graph is not here")
def test_the_reference_graph_trains(make_config, tmp_path: Path) -> None:
    train_and_look(make_config(*SHORT, f"graph.file={REFERENCE}"), tmp_path / "run")
    assert newest(tmp_path / "run").weights["graph.attention.identity"].shape[0] == 527


def train_and_look(config: RunConfig, path: Path) -> None:
    assert train(config, path) == 0
    last = rows(path)[-1]
    assert int(last["frames"]) == 192
    shares = [float(last[f"expert_{name}_share"]) for name in config.policy.expert_names]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert math.isfinite(float(last["loss_total"]))
    assert float(last["grad_norm"]) > 0
