"""Whether experts specialise, beyond what entropies can tell. Pure functions on arrays, and what gathers these.

The unit is the episode: intervals are percentile bootstraps over episodes. Informations are in nats. An expert is a
random variable with probabilities alpha in each state. The plug-in estimate of I(category; expert) is too high, and the
more so the more categories there are and the fewer independent states; what is left where category and expert come from
different episodes, shifted against each other, has the same excess and no information, and is taken off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polybeast_moe.envs.scenes import SCENES, scenes
from polybeast_moe.evaluation.play import Moment
from polybeast_moe.evaluation.statistics import Floats, Ints, entropy, resampled_counts

RESAMPLES, SHUFFLES = 1000, 10
STEP_BINS = 10


@dataclass(frozen=True)
class States:
    """What was seen and weighed in T states, sorted by episode and step."""

    episode: Ints
    """[T]: numbers 0 to N - 1, every one with at least one state."""
    step: Ints
    """[T]"""
    scene: Ints
    """[T]: indices into `SCENES`."""
    previous_action: Ints
    """[T]"""
    alpha: Floats
    """[T, E]"""
    divergence: Floats
    """[T]: Jensen-Shannon divergence of the experts' action distributions, in nats."""


class StateCollector:
    """Gathers `States` from an evaluation: `play_episodes(..., watch=collector)`.

    The experts' divergence needs every expert in every state: play with `interventions.all_experts(policy)`.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[NDArray[Any], ...]] = []

    def __call__(self, moment: Moment) -> None:
        """Takes the rows of a moment."""
        rows, output = moment.rows, moment.output
        if output is None:
            raise ValueError("random actions have no experts")
        divergence = jensen_shannon(output.expert_logits.double().numpy())
        alpha = output.alpha.float().numpy()
        self._rows.append((rows.episode, rows.step, scenes(rows.raw), rows.previous_action, alpha, divergence))

    def states(self) -> States:
        """Returns all that was gathered."""
        episode, step, scene, previous, alpha, divergence = (
            np.concatenate(column) for column in zip(*self._rows, strict=True)
        )
        order = np.lexsort((step, episode))
        _, number = np.unique(episode[order], return_inverse=True)
        return States(
            number, step[order], scene[order], previous[order], alpha[order].astype(np.float64), divergence[order]
        )


def measure(states: States, experts: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Returns every figure of specialisation, as JSON holds it; docs/evaluation.md lists them."""
    bins = np.minimum(states.step * STEP_BINS // (states.step.max() + 1), STEP_BINS - 1)
    counts = resampled_counts(int(states.episode[-1]) + 1, RESAMPLES, seed)
    joint = joint_sums(states.episode, states.scene, len(SCENES), states.alpha)
    matrix = scene_matrix(joint.sum(axis=0))
    matrices = scene_matrix(np.tensordot(counts, joint, 1))  # [resamples, K, E]
    scene_counts = np.bincount(states.scene, minlength=len(SCENES))
    return {
        "scene_information": information(states, states.scene, len(SCENES), counts, seed),
        "previous_action_information": information(
            states, states.previous_action, int(states.previous_action.max()) + 1, counts, seed
        ),
        "step_information": information(states, bins, STEP_BINS, counts, seed),
        "scene_shares": dict(zip(SCENES, (scene_counts / len(states.scene)).tolist(), strict=True)),
        "scene_expert_matrix": {
            scene: dict(zip(experts, row.tolist(), strict=True)) for scene, row in zip(SCENES, matrix, strict=True)
        },
        "dominant_shares": {
            scene: {
                "expert": experts[int(row.argmax())],
                **_interval(float(row.max()), matrices[:, k, int(row.argmax())]),
            }
            for k, (scene, row) in enumerate(zip(SCENES, matrix, strict=True))
            if joint[:, k].any()
        },
        "jensen_shannon": _mean_by_episode(states.episode, states.divergence, counts),
        "support_sizes": _support(states.alpha),
    }


def information(states: States, category: Ints, categories: int, counts: Ints, seed: int = 0) -> dict[str, float]:
    """I(category; expert), bias taken off.

    Args:
        states: T states of N episodes.
        category: [T], in [0, categories).
        categories: how many there are.
        counts: [R, N], how often each episode is drawn in each resample.
        seed: of the shuffles.

    Returns:
        `value`, its interval `low` and `high`, and of what it was made: `plug_in` less `bias`.
    """
    joint = joint_sums(states.episode, category, categories, states.alpha)
    shuffled = [
        joint_sums(states.episode, other, categories, states.alpha) for other in shuffles(states, category, seed)
    ]
    plug_in = float(mutual_information(joint.sum(axis=0)))
    bias = float(np.mean([mutual_information(null.sum(axis=0)) for null in shuffled]))
    nulls = np.mean([mutual_information(np.tensordot(counts, null, 1)) for null in shuffled], axis=0)
    drawn = mutual_information(np.tensordot(counts, joint, 1)) - nulls
    return {**_interval(plug_in - bias, drawn), "plug_in": plug_in, "bias": bias}


def shuffles(states: States, category: Ints, seed: int = 0) -> Iterator[Ints]:
    """Yields categories [T] that know nothing of the experts: another episode's, begun at another step, in their order.

    What hangs together within an episode still does, which matters: neighbouring states are no independent ones.
    """
    generator = np.random.default_rng(seed)
    starts = np.flatnonzero(np.diff(states.episode, prepend=-1))
    lengths = np.diff(np.append(starts, len(category)))
    for _ in range(SHUFFLES):
        order = generator.permutation(len(starts))
        other = np.empty_like(order)  # a cycle: everybody gets somebody else's, unless there is nobody else
        other[order] = np.roll(order, 1)
        offset = generator.integers(np.iinfo(np.int32).max, size=len(starts))
        position = np.arange(len(category)) - np.repeat(starts, lengths)
        theirs = np.repeat(other, lengths)
        yield category[starts[theirs] + (position + offset[theirs]) % lengths[theirs]]


def joint_sums(episode: Ints, category: Ints, categories: int, alpha: Floats) -> Floats:
    """Sums alpha [T, E] by episode [T] and category [T]: [N, categories, E]."""
    cell = episode * categories + category
    rows = (int(episode[-1]) + 1) * categories
    sums = [np.bincount(cell, weights=column, minlength=rows) for column in alpha.T]
    return np.asarray(np.stack(sums, axis=-1).reshape(-1, categories, alpha.shape[1]), dtype=np.float64)


def mutual_information(joint: Floats) -> Floats:
    """I in nats of joint distributions, or of anything proportional to them, [..., K, E] -> [...]: the plug-in."""
    joint = joint / joint.sum(axis=(-2, -1), keepdims=True)
    both = entropy(joint.reshape(*joint.shape[:-2], -1))
    return np.asarray(entropy(joint.sum(axis=-1)) + entropy(joint.sum(axis=-2)) - both)


def scene_matrix(joint: Floats) -> Floats:
    """Mean alpha in each scene, [..., K, E] of sums -> [..., K, E]; zeros for a scene that was never seen."""
    seen = joint.sum(axis=-1, keepdims=True)
    return np.asarray(joint / np.where(seen > 0, seen, 1.0))


def jensen_shannon(expert_logits: Floats) -> Floats:
    """Divergence of the experts' action distributions, equal weights: logits [N, E, A] -> [N], between 0 and ln E."""
    scaled = np.exp(expert_logits - expert_logits.max(axis=-1, keepdims=True))
    policies = scaled / scaled.sum(axis=-1, keepdims=True)
    return np.asarray(entropy(policies.mean(axis=1)) - entropy(policies).mean(axis=1))


def _mean_by_episode(episode: Ints, values: Floats, counts: Ints) -> dict[str, float]:
    sums, lengths = np.bincount(episode, weights=values), np.bincount(episode)
    return _interval(float(values.mean()), (counts @ sums) / (counts @ lengths))


def _support(alpha: Floats) -> dict[str, Any]:
    sizes = (alpha > 0).sum(axis=1)
    shares = np.bincount(sizes, minlength=alpha.shape[1] + 1)[1:] / len(sizes)
    return {
        "mean": float(sizes.mean()),
        "shares": {str(size): share for size, share in enumerate(shares.tolist(), start=1)},
    }


def _interval(value: float, drawn: Floats) -> dict[str, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}
