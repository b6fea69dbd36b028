"""The command line `polybeast-moe`. Reads arguments and nothing else; heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from polybeast_moe.errors import RunFailed, UserError

if TYPE_CHECKING:
    from polybeast_moe.config import RunConfig

_EXAMPLES = {
    None: """examples:
  polybeast-moe train configs/quickstart.yaml
  polybeast-moe resume runs/quickstart-20300101-120000
  polybeast-moe COMMAND --help      says more about each command""",
    "train": """examples:
  polybeast-moe train quickstart
  polybeast-moe train configs/debug.yaml --run-dir runs/try seed=2 phases.warmup.until.frames=5000
  polybeast-moe train my.yaml --run-dir runs/x --resume-or-start      the same line starts and goes on""",
    "resume": """examples:
  polybeast-moe resume runs/try
  polybeast-moe resume runs/try phases.deep_finetune.until.frames=2_000_000""",
    "report": """example:
  polybeast-moe report runs/try      writes runs/try/report/index.html""",
    "evaluate": """examples:
  polybeast-moe evaluate runs/try --episodes 1000 --seed 1 --json try.json
  polybeast-moe evaluate runs/a runs/b --policy random""",
    "doctor": """example:
  polybeast-moe doctor""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 done, 1 the run failed, 2 a mistake in what was given."""
    try:
        return _run(_parse(argv))
    except UserError as error:
        line = str(error).replace("\n", " ")  # a file's name may hold a line break
        print(f"polybeast-moe: {line}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"polybeast-moe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="polybeast-moe",
        description="Trains graph-attention mixture-of-experts agents on NetHack.",
        epilog=_EXAMPLES[None],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=_EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_overrides(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "overrides", nargs="*", metavar="section.key=value", default=[], help="changes a value of the configuration"
        )

    train = add("train", "train an agent as a configuration says")
    train.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a bundled one")
    add_overrides(train)
    train.add_argument("--run-dir", metavar="DIR", help="where the run is kept (default: runs/<name>-<date and time>)")
    train.add_argument("--resume-or-start", action="store_true", help="go on if DIR holds a run, else start one")
    resume = add("resume", "go on from a run's newest good snapshot")
    resume.add_argument("run_dir", metavar="RUN_DIR")
    add_overrides(resume)
    report = add("report", "write a run's tables, figures and HTML page")
    report.add_argument("run_dir", metavar="RUN_DIR")
    _add_evaluate(add("evaluate", "play whole episodes with trained policies and say how they score"))
    add("doctor", "show what this machine has")

    # Overrides may stand on either side of options; argparse alone gathers only the first stretch of them.
    arguments, rest = parser.parse_known_args(argv)
    if rest and ("overrides" not in arguments or any(word.startswith("-") for word in rest)):
        parser.error(f"unknown argument {rest[0]!r}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.usage = "polybeast-moe evaluate RUN_DIR|SNAPSHOT ... [options]"
    add = command.add_argument
    add("snapshots", nargs="*", metavar="RUN_DIR|SNAPSHOT", help="a run's newest snapshot, or a certain one")
    add("--episodes", type=int, default=100, metavar="N", help="whole episodes of each (default: 100)")
    add("--seed", type=int, metavar="S", help="of games and actions (default: a fresh one)")
    add("--json", type=Path, metavar="FILE", help="write all figures and every episode there")
    add(
        "--policy", choices=("trained", "random"), default="trained", metavar="P", help="random: that in the same games"
    )
    add("--character", metavar="C", help="another than in training: val, @ (any), all (in turn)")
    add("--max-steps", type=int, metavar="N", help="another step limit than in training")
    add("--greedy", action="store_true", help="take the likeliest action instead of drawing one")
    add("--games", type=int, default=64, metavar="N", help="side by side (default: 64)")
    add("--specialisation", action="store_true", help="also what the experts know of scenes")
    add("--ablate", action="store_true", help="also what is lost without each; plays 15 times")


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "train":
            return _train(arguments)
        case "resume":
            return _resume(arguments.run_dir, arguments.overrides)
        case "report":
            return _report(Path(arguments.run_dir))
        case "evaluate":
            return _evaluate(arguments)
    return _doctor()


def _train(arguments: argparse.Namespace) -> int:
    from polybeast_moe.config_files import load_config
    from polybeast_moe.envs.nle_package import check_nle
    from polybeast_moe.run_directory import RunDirectory, holds_run

    check_nle()
    config = load_config(arguments.config, arguments.overrides)
    if arguments.run_dir == "":
        raise UserError("--run-dir is empty: name a folder, or leave it out")
    path = arguments.run_dir or config.run_dir
    if arguments.resume_or_start:
        if path is None:
            raise UserError("--resume-or-start needs to know which run: give --run-dir DIR")
        if holds_run(path):
            return _go_on(path, config, start_without_snapshot=True)
    path = path or f"runs/{Path(arguments.config).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    from polybeast_moe.trainer import train  # before anything is created

    with RunDirectory.create(path, config) as run:
        try:
            return train(config, run, None)
        except Exception:  # a foreign graph, for example: without a snapshot it is as if it had never been tried
            run.withdraw()
            raise


def _resume(path: str, overrides: Sequence[str]) -> int:
    from polybeast_moe.envs.nle_package import check_nle
    from polybeast_moe.run_directory import RunDirectory

    check_nle()
    config = RunDirectory.open(path, lock=False).config(overrides)
    return _go_on(path, config, start_without_snapshot=False)


def _go_on(path: str, config: RunConfig, start_without_snapshot: bool) -> int:
    """Continues the run in `path` with `config`, from its newest good snapshot."""
    from polybeast_moe.run_directory import RunDirectory
    from polybeast_moe.snapshots import newest_good

    with RunDirectory.open(path) as run:
        run.refuse_other_network(config)
        snapshot, passed_over = newest_good(run.snapshots)
        for broken, reason in passed_over:
            print(f"polybeast-moe: snapshot {broken} passed over: {reason}", file=sys.stderr)
        if snapshot is None and (passed_over or not start_without_snapshot):
            raise UserError(f"run directory {path}: no good snapshot to go on from; start anew in another directory")
        if snapshot is None:
            run.write_config(config)
            run.clear_records()
        from polybeast_moe.trainer import train

        return train(config, run, snapshot)


def _report(path: Path) -> int:
    from polybeast_moe.run_directory import RunDirectory

    RunDirectory.open(path, lock=False)
    from polybeast_moe.evaluation.report import write_report

    print(write_report(path))
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from polybeast_moe.envs.nle_package import check_nle

    check_nle()
    from polybeast_moe.evaluation.command import Request, run_evaluate

    given = {key: value for key, value in vars(arguments).items() if key != "command"}
    return run_evaluate(Request(**given))


def _doctor() -> int:
    from polybeast_moe.doctor import findings

    for name, finding in findings():
        print(f"{name:<10}{finding}")
    return 0
