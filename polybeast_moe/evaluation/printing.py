"""Evaluations as a terminal shows them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.table import Table

from polybeast_moe.evaluation.evaluate import Figures

_DEATHS = 8  # shown by name; the JSON has all of them


def score_table(found: Sequence[Figures]) -> Table:
    """A row for each evaluation, within 80 columns."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", overflow="fold")
    for title in ("games", "mean ± se", "95 %", "median", "IQM", "sd/mean", "max", "length"):
        table.add_column(title, justify="right")
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
    """A few lines on one evaluation."""

    def listed(values: dict[str, float], form: str) -> str:
        return ", ".join(f"{name} {value:{form}}" for name, value in values.items())

    lines = [
        "",
        f"{figures['name']} (seed {figures['seed']}, {figures['env']['character']}, at most "
        f"{figures['env']['max_episode_steps']} steps)",
        f"  score     {listed(figures['score_parts'], '.1f')}; quartiles "
        + "{:.0f} and {:.0f}".format(*figures["score_quartiles"]),
        f"  depth     {figures['mean_depth']:.2f} on average, {figures['max_depth']} at most",
        f"  ends      {listed(figures['ends'], 'd')}",
        *_deaths(figures["deaths"]),
    ]
    if "expert_shares" in figures:
        lines += [
            f"  routing   {figures['routing']} at temperature {figures['temperature']:.3g}: alpha entropy "
            f"{figures['alpha_entropy']:.3f}, usage entropy {figures['usage_entropy']:.3f}",
            f"  experts   {listed(figures['expert_shares'], '.3f')}",
        ]
    lines += _specialisation(figures["specialisation"]) if "specialisation" in figures else []
    lines += _ablations(figures["ablations"]) if "ablations" in figures else []
    lines += [f"  speed     {figures['frames_per_second']:,.0f} frames/s over {figures['frames']:,} frames"]
    return "\n".join(lines)


def _deaths(found: dict[str, int]) -> list[str]:
    """What heroes died of most often, within 80 columns."""
    shown = [f"{death} {count}" for death, count in list(found.items())[:_DEATHS]]
    others = sum(list(found.values())[_DEATHS:])
    text = ", ".join(shown + ([f"anything else {others}"] if others else []))
    return textwrap.wrap(text, 80, initial_indent="  deaths    ", subsequent_indent=" " * 12)


def _specialisation(found: Figures) -> list[str]:
    rivals = {"scene": "scene", "previous_action": "previous action", "step": "step"}
    told = [f"{words} {_between(found[key + '_information'], 3)}" for key, words in rivals.items()]
    dominant = [f"{scene} {one['expert']} {one['value']:.2f}" for scene, one in found["dominant_shares"].items()]
    return [
        "  informs   I(expert; ...), nats, bias taken off: " + ", ".join(told),
        "  scenes    largest share in each: " + ", ".join(dominant),
        f"  differ    Jensen-Shannon {_between(found['jensen_shannon'], 3)} nats; "
        f"{found['support_sizes']['mean']:.2f} experts a state",
    ]


def _ablations(found: Figures) -> list[str]:
    lines = ["  ablation                       KL   score lost           as much noise        beyond noise"]
    for name, one in found.items():
        losses = (one["score_lost"], one["perturbation"]["score_lost"], one["beyond_perturbation"])
        lines.append(f"    {name:<29}{one['divergence']:5.2f}  " + " ".join(f"{_between(x, 1):<20}" for x in losses))
    return lines


def _between(figure: Figures, digits: int) -> str:
    return "{value:.{d}f} ({low:.{d}f} to {high:.{d}f})".format(**figure, d=digits)
