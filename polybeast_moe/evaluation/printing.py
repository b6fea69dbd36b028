"""Evaluations as a terminal shows them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.table import Table

from polybeast_moe.evaluation.evaluate import Figures

_DEATHS = 8  # shown by name; the JSON has all of them


def score_table(found: Sequence[Figures]) -> Table:
    """A row for each evaluation, within 80 columns."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", overflow="fold")
    for title in ("games", "mean ± se", "95 %", "median", "IQM", "sd/mean", "max", "length"):
        table.add_column(title, justify="right", no_wrap=True)
    for figures in found:
        error, cv = figures["standard_error"], figures["score_cv"]
        table.add_row(
            figures["name"],
            str(figures["episodes"]),
            f"{figures['mean_score']:.1f}" + ("" if error is None else f" ± {error:.1f}"),
            "{:.1f}-{:.1f}".format(*figures["mean_score_interval"]),
            f"{figures['median_score']:.0f}",
            f"{figures['interquartile_mean']:.1f}",
            "-" if cv is None else f"{cv:.2f}",
            f"{figures['max_score']:.0f}",
            f"{figures['mean_length']:.0f}",
        )
    return table


def details(figures: Figures) -> str:
    """A few lines on one evaluation, within 80 columns."""
    env = figures["env"]
    told = {
        "score": f"{_listed(figures['score_parts'], '.1f')}; quartiles "
        + "{:.0f} and {:.0f}".format(*figures["score_quartiles"]),
        "depth": f"{figures['mean_depth']:.2f} on average, {figures['max_depth']} at most",
        "ends": _listed(figures["ends"], "d"),
    }
    if figures["deaths"]:
        told["deaths"] = _deaths(figures["deaths"])
    if "expert_shares" in figures:
        told["routing"] = (
            f"{figures['routing']} at temperature {figures['temperature']:.3g}: alpha entropy "
            f"{figures['alpha_entropy']:.3f}, usage entropy {figures['usage_entropy']:.3f}"
        )
        told["experts"] = _listed(figures["expert_shares"], ".3f")
    if "specialisation" in figures:
        told |= _specialisation(figures["specialisation"])
    told["speed"] = f"{figures['frames_per_second']:,.0f} frames/s over {figures['frames']:,} frames"
    title = f"{figures['name']} (seed {figures['seed']}, {env['character']}, at most {env['max_episode_steps']} steps)"
    lines = ["", *textwrap.wrap(title, 80), *(line for item in told.items() for line in _wrapped(*item))]
    return "\n".join(lines + (_ablations(figures["ablations"]) if "ablations" in figures else []))


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, 80, initial_indent=f"  {label:<10}", subsequent_indent=" " * 12)


def _listed(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def _deaths(found: dict[str, int]) -> str:
    """What heroes died of most often."""
    shown = dict(list(found.items())[:_DEATHS])
    others = sum(found.values()) - sum(shown.values())
    return _listed(shown | ({"anything else": others} if others else {}), "d")


def _specialisation(found: Figures) -> dict[str, str]:
    rivals = {"scene": "scene", "previous_action": "previous action", "step": "step"}
    told = [f"{words} {_between(found[key + '_information'], 3)}" for key, words in rivals.items()]
    dominant = [f"{scene} {one['expert']} {one['value']:.2f}" for scene, one in found["dominant_shares"].items()]
    return {
        "informs": "I(expert; ...), nats, bias taken off: " + ", ".join(told),
        "scenes": "largest share in each: " + ", ".join(dominant),
        "differ": f"Jensen-Shannon {_between(found['jensen_shannon'], 3)} nats; "
        f"{found['support_sizes']['mean']:.2f} experts a state",
    }


def _ablations(found: Figures) -> list[str]:
    lines = [f"  {'ablation':<29}{'KL':>6}  {'score lost':<21}beyond as much noise"]
    for name, one in found.items():
        lost, beyond = _points(one["score_lost"]), _points(one["beyond_perturbation"])
        lines.append(f"  {name:<29}{one['divergence']:6.2f}  {lost:<21}{beyond}")
    return lines


def _points(figure: Figures) -> str:
    large = max(abs(figure["low"]), abs(figure["high"])) >= 100
    return _between(figure, 0 if large else 1)


def _between(figure: Figures, digits: int) -> str:
    return "{value:.{d}f} ({low:.{d}f} to {high:.{d}f})".format(**figure, d=digits)
