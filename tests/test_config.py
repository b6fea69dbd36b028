"""A configuration is read whole or refused in one line that names file, line, key and way out."""

import json
import math
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polybeast_moe import _C, yaml_text
from polybeast_moe.config import TARGET_FIGURES, EntropyTarget, RewardWeights, RunConfig
from polybeast_moe.config_files import (
    bundled_configs,
    flattened,
    load_config,
    resolve_config_path,
    resolve_data_file,
    with_overrides,
)
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.tables import PhaseRow

MINIMAL = """\
graph: {enabled: false}
runtime:
  groups: 2
  unroll: 16
phases:
  - name: warmup
    until: {frames: 1000}
    routing: softmax
  - name: transition
    until: {frames: 2000}
    routing: sparsemax
    temperature: {from: 1.0, to: 0.5}
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="run.yaml"):
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def complaint(file, *overrides):
    with pytest.raises(UserError) as caught:
        load_config(file, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{file.parent}/", "") if isinstance(file, Path) else message


@pytest.mark.parametrize(
    ("line", "replacement", "wanted"),
    [
        ("  groups: 2", "  grups: 2", "run.yaml:3: runtime.grups: unknown key; did you mean 'groups'?"),
        ("  groups: 2", "  groups: two", "run.yaml:3: runtime.groups: should be a valid integer (got 'two')"),
        ("  groups: 2", "  groups: true", "run.yaml:3: runtime.groups: should be a valid integer (got true)"),
        ("  groups: 2", "  groups: 0", "run.yaml:3: runtime.groups: should be greater than 0 (got 0)"),
        ("  groups: 2", "  unroll: 2", "run.yaml:4: the key runtime.unroll is given twice (line 3)"),
        ("runtime:", "runtimes:", "run.yaml:2: runtimes: unknown key; did you mean 'runtime'?"),
        (
            "    routing: softmax",
            "    routing: sofmax",
            "run.yaml:8: phases.warmup.routing: 'sofmax' is not one of its values; did you mean 'softmax'?",
        ),
        ("    routing: softmax", "", "run.yaml:6: phases.warmup.routing: is missing"),
        (
            "{from: 1.0, to: 0.5}",
            "{from: 1.0, too: 0.5}",
            "run.yaml:12: phases.transition.temperature.too: unknown key; did you mean 'to'? (and 1 more)",
        ),
        ("{from: 1.0, to: 0.5}", "-1", "run.yaml:12: phases.transition.temperature: must stay above 0 (got -1)"),
        (
            "{from: 1.0, to: 0.5}",
            "{target_alpha_entropy: 2}",
            "run.yaml:12: phases.transition.temperature.target_alpha_entropy: must lie between 0 and "
            "ln(number of experts) = 1.386 nats",
        ),
        (
            "{frames: 2000}",
            "{frames: 500}",
            "run.yaml:10: phases.transition.until.frames: counts from the start of the run: 500 must be above the "
            "earlier phase's 1000",
        ),
        ("{enabled: false}", "{enabled: [}", "run.yaml:1: not valid YAML: expected the node content, but found '}'"),
        ("{enabled: false}", "{file: nowhere.yaml}", "run.yaml:1: graph.file: file 'nowhere.yaml' not found in"),
    ],
)
def test_a_mistake_is_one_line_with_file_line_key_and_remedy(write, line, replacement, wanted):
    assert line in MINIMAL
    assert complaint(write(MINIMAL.replace(line, replacement))).startswith(wanted)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("runtime.grups=3", "runtime.grups: unknown key; did you mean 'groups'?"),
        ("phases.warmap.until.frames=3", "phases has no item 'warmap'; did you mean 'warmup'?"),
        ("phases.2.until.frames=3", "phases has no item '2'"),
        ("seed.x=3", "seed: should be a valid integer (got a section)"),
        ("phases.warmup.routing.x=3", "phases.0.routing is 'softmax', it has no 'x'; give it whole"),
        ("seed", "not of the form section.key=value"),
        ("seed.=3", "not of the form section.key=value"),
        ("seed=[", "not valid YAML: expected the node content, but found '<stream end>'"),
        ("env.penalty_step=.inf", "env.penalty_step: should be a finite number (got Infinity)"),
        ("env.character=mon-hum-hum", "env.character: 'mon-hum-hum' is no character"),
        ("learner.optimizer.betas=[1, 2]", "learner.optimizer.betas.0: should be less than 1 (got 1)"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(write, override, wanted):
    message = complaint(write(MINIMAL), override)
    assert message.startswith(f"override '{override}':")
    assert wanted in message


def test_inline_batches_are_whole_rounds(write):
    message = complaint(write(MINIMAL), "runtime.mode=inline", "learner.slots_per_batch=3")
    assert "learner.slots_per_batch: 3 must be a multiple of runtime.groups (2) in inline mode" in message
    assert load_config(write(MINIMAL), ["learner.slots_per_batch=3"]).learner.slots_per_batch == 3


def test_overrides_reach_sections_list_items_and_whole_values(write):
    config = load_config(
        write(MINIMAL),
        [
            "seed=7",
            "learner.optimizer.eps=1e-4",
            "phases.0.until.frames=1e3",
            "phases.transition.temperature={target_alpha_entropy: 0.4}",
            "policy.experts=[a, b]",
            "runtime.threads=null",
            "seed=8",
        ],
    )
    assert config.seed == 8  # the later one wins
    assert config.learner.optimizer.eps == 1e-4
    assert config.phases[0].until.frames == 1000
    assert config.phases[1].temperature == EntropyTarget(target_alpha_entropy=0.4)
    assert config.policy.experts == ("a", "b")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "a configuration is a mapping"),
        (b"[1, 2]", "a configuration is a mapping"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"seed: !!python/object/apply:os.system [id]", "is not supported"),
        (b"seed: &a [*a]", "nested too deeply"),
        (b"[" * 5000, "nested too deeply"),
        (
            b"a: &a [1,1,1,1,1,1,1,1]\n"
            + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 8)) for c in range(98, 110)),
            "too many values",
        ),
        (b"seed: " + b"9" * 5000, "cannot read"),
    ],
    ids=["empty", "list", "binary", "code", "recursive", "deep", "bomb", "huge"],
)
def test_files_that_are_no_configuration(write, content, wanted):
    assert wanted in complaint(write(content))


def test_flattened_keys_are_those_of_overrides() -> None:
    config = load_config("quickstart")
    flat = flattened(config.to_plain())
    assert flat["env.task"] == config.env.task
    assert flat["learner.optimizer.betas"] == list(config.learner.optimizer.betas)
    assert {key for key in flat if not key.startswith("phases.")}.isdisjoint({"phases", "env"})
    assert flat[f"phases.{config.phases[1].name}.routing"] == config.phases[1].routing
    words = [f"{key}={json.dumps(value)}" for key, value in flat.items()]
    assert with_overrides(config, words) == config


def test_missing_files(tmp_path):
    assert complaint("quickstrat") == "configuration 'quickstrat' not found; did you mean 'quickstart'?"
    assert "not found" in complaint(tmp_path)  # a directory
    assert "not found" in complaint("x" * 5000)
    assert "not found" in complaint("a\0b")


FORMS = st.sampled_from(
    [
        "phases",
        "env",
        "seed",
        "name",
        "until",
        "frames",
        "routing",
        "temperature",
        "from",
        "targets",
        "warmup",
        "graph",
        "<ramp>",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8) | FORMS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FORMS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def never_anything_but_a_user_error(file, overrides=()):
    message = ""
    try:
        load_config(file, overrides)
    except UserError as error:
        message = str(error)
    assert "\n" not in message


@settings(max_examples=150)
@given(garbage=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_garbage_gives_a_user_error(tmp_path_factory, garbage):
    file = tmp_path_factory.getbasetemp() / "garbage.yaml"
    file.write_bytes(garbage)
    never_anything_but_a_user_error(file)


@settings(max_examples=150)
@given(value=st.dictionaries(FORMS, VALUES, max_size=5))
def test_any_structure_gives_a_user_error(tmp_path_factory, value):
    file = tmp_path_factory.getbasetemp() / "structure.yaml"
    file.write_text(yaml_text.dump(value), encoding="utf-8")
    never_anything_but_a_user_error(file)


KEYS = st.lists(FORMS | st.sampled_from("01²") | st.text(max_size=3), min_size=1, max_size=4).map(".".join)


@settings(max_examples=200)
@given(key=KEYS, value=VALUES.map(yaml_text.dump) | st.text(max_size=20))
def test_any_override_gives_a_user_error_or_a_configuration(tmp_path_factory, key, value):
    file = tmp_path_factory.getbasetemp() / "minimal.yaml"
    file.write_text(MINIMAL)
    never_anything_but_a_user_error(file, [f"{key}={value}"])


@given(VALUES)
def test_yaml_reads_back_what_it_wrote(value):
    def plain(value):  # nan is not equal to itself
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return "nan" if isinstance(value, float) and math.isnan(value) else value

    assert plain(yaml_text.parse(yaml_text.dump(value), "text")[0]) == plain(value)


WALK_FOUR_PHASES = ("quickstart", "debug", "reference_v3", "score")


@pytest.mark.parametrize("name", sorted(path.stem for path in bundled_configs().glob("*.yaml")))
def test_bundled_configurations(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing of the repository is in the working directory
    config = load_config(name)
    assert load_config(f"configs/{name}.yaml") == config
    if name in WALK_FOUR_PHASES:
        assert [phase.routing for phase in config.phases] == ["softmax", "sparsemax", "sparsemax", "sparsemax"]
        assert config.snapshots.every_seconds <= 30
        assert config.snapshots.keep_last >= 3
    again = tmp_path / "again.yaml"
    again.write_text(yaml_text.dump(config.to_plain()))
    assert load_config(again) == config
    assert RunConfig.model_validate(config.to_plain()) == config


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "graph.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve_config_path("debug") == bundled_configs() / "debug.yaml"
    assert resolve_data_file("graph.yaml", near=tmp_path / "near") == tmp_path / "near" / "graph.yaml"
    (tmp_path / "graph.yaml").touch()
    assert resolve_data_file("graph.yaml", near=tmp_path / "near").resolve() == tmp_path / "graph.yaml"
    (tmp_path / "debug").write_text("seed: 1")
    assert resolve_config_path("debug") == Path("debug")  # a file of the user's own comes first


def test_a_graph_of_the_users_own_is_pinned(write, tmp_path, monkeypatch):
    graph = write("conditions: []", "mine.yaml")
    file = write(MINIMAL.replace("{enabled: false}", "{file: mine.yaml}"))
    config = load_config(file)
    assert config.graph.file == str(graph)
    monkeypatch.chdir("/")
    assert resolve_data_file(config.graph.file) == graph


def test_the_documentation_names_every_key():
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()

    def keys(model, prefix=""):
        for name, field in model.model_fields.items():
            key = prefix + (field.alias or name)
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                yield from keys(field.annotation, key + ".")
            else:
                yield key

    missing = [key for key in keys(RunConfig) if f"`{key}`" not in page]
    assert missing == []


def test_rewards_are_weighed_by_the_names_of_the_engine(write):
    assert tuple(RewardWeights.model_fields) == ("task", *_C.REWARD_TERMS)
    file = write(MINIMAL)
    config = load_config(file, ["phases.warmup.reward={task: 0, new_squares: 0.05, death: {from: 0, to: -1}}"])
    assert config.phases[0].reward.uses_terms()
    assert not config.phases[1].reward.uses_terms()
    assert "phases.warmup.reward.new_square: unknown key; did you mean 'new_squares'?" in complaint(
        file, "phases.warmup.reward.new_square=1"
    )


def test_the_weight_of_a_loss_of_ones_own_needs_one(write):
    file = write(MINIMAL)
    assert "phases.warmup.losses.extra: needs learner.extra_loss" in complaint(file, "phases.warmup.losses.extra=0.1")
    load_config(file, ["phases.warmup.losses.extra=0.1", "learner.extra_loss=my_losses.small_logits"])


def test_alignment_needs_a_graph_whose_prior_is_used(write):
    file, align = write(MINIMAL), "phases.transition.losses.graph_alignment=0.1"
    message = (
        "phases.transition.losses.graph_alignment: needs graph.enabled: true and policy.router.operator_prior: true"
    )
    assert message in complaint(file, align)
    assert message in complaint(file, align, "graph.enabled=true", "policy.router.operator_prior=false")
    load_config(file, [align, "graph.enabled=true"])
    alone = "policy.single_expert=equal_parameters"
    assert "needs policy.single_expert: none" in complaint(file, align, "graph.enabled=true", alone)
    assert "graph_smoothing: needs graph.enabled: true" in complaint(file, "phases.warmup.losses.graph_smoothing=1")


def test_a_guard_moves_a_setting_of_the_phases(write):
    file = write(MINIMAL)
    guard = "guards.hot={metric: grad_norm, above: 9, setting: learning_rat, multiply: 0.5}"
    assert "guards.hot.setting: 'learning_rat' is no setting of a phase; did you mean 'learning_rate'?" in complaint(
        file, guard
    )
    hot = "guards.hot={metric: grad_norm, above: 9, setting: temperature, multiply: 2}"
    load_config(file, [hot])
    steered = "phases.transition.temperature={target_alpha_entropy: 0.4}"
    assert "fight each other" in complaint(file, hot, steered)
    sharp = "guards.sharp={metric: grad_norm, above: 9, setting: losses.alpha_entropy, add: 0.1}"
    assert "fight each other" in complaint(file, sharp, steered)


def test_only_a_figure_of_an_update_ends_a_phase_or_raises_a_guard(write):
    """A misspelt one would never come: the phase would have no end, the guard no effect."""
    file = write(MINIMAL)
    until = "phases.transition.until={metric: mean_episode_scor, above: 9}"
    assert "until.metric: 'mean_episode_scor' is no figure of an update; did you mean 'mean_episode_score'?" in (
        complaint(file, until, "phases.transition.temperature=1")
    )
    guard = "guards.hot={metric: gradnorm, above: 9, setting: learning_rate, multiply: 0.5}"
    assert "guards.hot.metric: 'gradnorm' is no figure of an update; did you mean 'grad_norm'?" in complaint(
        file, guard
    )


def test_targets_are_figures_of_the_report_within_bounds_that_hold_something(write):
    """Before the run, not when its report is made."""
    file = write(MINIMAL)
    assert "targets.warmup.mean_scor: is no figure that a target can have; did you mean 'mean_score'?" in complaint(
        file, "targets.warmup={mean_scor: {at_least: 20}}"
    )
    assert "the first must not be above the second" in complaint(
        file, "targets.warmup.alpha_entropy={within: [0.5, 0.3]}"
    )
    assert set(TARGET_FIGURES) <= PhaseRow.__dataclass_fields__.keys()


def test_a_guard_can_only_add_what_the_run_has(write):
    """What it adds to is weighed by no phase: it must be computable all the same."""
    file, limit = write(MINIMAL), "metric: grad_norm, above: 9"
    smooth = f"guards.smooth={{{limit}, setting: losses.graph_smoothing, add: 0.1}}"
    assert "guards.smooth.setting: losses.graph_smoothing needs graph.enabled: true" in complaint(file, smooth)
    load_config(file, [smooth, "graph.enabled=true"])
    assert not load_config(file).stores_reward_terms()
    assert load_config(file, [f"guards.gold={{{limit}, setting: reward.gold, add: 0.1}}"]).stores_reward_terms()
    assert not load_config(file, [f"guards.task={{{limit}, setting: reward.task, add: 0.1}}"]).stores_reward_terms()


def test_a_target_is_refused_where_only_the_best_scores_count(write):
    file = write(MINIMAL)
    target = "phases.transition.temperature={target_alpha_entropy: 0.4}"
    assert load_config(file, ["policy.router.keep=2"]).policy.router.keep == 2
    assert "phases.transition.temperature.target_alpha_entropy: is found from all scores" in complaint(
        file, target, "policy.router.keep=2"
    )


@pytest.mark.parametrize(("override", "needed"), [
    ("runtime.mode=inline", "runtime.mode: asynchronous"),
    ("policy.expert_execution=sparse", "policy.expert_execution: auto or dense"),
    ("graph.implementation=pyg", "graph.implementation: batched"),
])  # fmt: skip
def test_recorded_inference_needs_fixed_shapes(write, override, needed):
    overrides = ("runtime.policy_graphs=cuda_graphs", "runtime.mode=asynchronous", "graph.enabled=true", override)
    said = complaint(write(MINIMAL), *overrides)
    assert f"runtime.policy_graphs: cuda_graphs needs {needed}" in said


def test_a_device_is_named_as_torch_does(write):
    assert load_config(write(MINIMAL), ["runtime.device=cuda:3"]).runtime.device == "cuda:3"
    assert "runtime.device" in complaint(write(MINIMAL), "runtime.device=gpu")
