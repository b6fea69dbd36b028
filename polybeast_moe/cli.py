"""The command line `polybeast-moe`. Reads arguments and nothing else; heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from polybeast_moe.errors import RunFailed, UserError

if TYPE_CHECKING:
    from polybeast_moe.config import RunConfig
    from polybeast_moe.learning.distributed import Ranks
    from polybeast_moe.snapshots import Origin

_EXAMPLES = {
    None: """examples:
  polybeast-moe train configs/quickstart.yaml
  polybeast-moe resume runs/quickstart-20300101-120000
  polybeast-moe COMMAND --help                     says more about each command
  source <(polybeast-moe --print-completion bash)  the Tab key completes""",
    "train": """examples:
  polybeast-moe train quickstart
  polybeast-moe train debug --run-dir runs/try seed=2 policy.lstm=128
  polybeast-moe train my.yaml --run-dir runs/x --resume-or-start
  polybeast-moe train phases/deep_finetune --from runs/x""",
    "resume": """examples:
  polybeast-moe resume runs/try
  polybeast-moe resume runs/try phases.deep_finetune.until.frames=2_000_000""",
    "control": """examples:
  polybeast-moe control runs/try status --json
  polybeast-moe control runs/try set router_temperature 0.3
  polybeast-moe control runs/try release router_temperature""",
    "evaluate": """examples:
  polybeast-moe evaluate runs/try --episodes 1000 --seed 1 --json try.json
  polybeast-moe evaluate runs/a runs/b --policy random""",
    "watch": """examples:
  polybeast-moe watch runs/try
  polybeast-moe watch runs/try --seed 1 --episode 7   that game of an evaluation
  polybeast-moe watch --best runs/try
keys: space pauses, right steps, + and - change the speed, n next game, q quits""",
    "report": """examples:
  polybeast-moe report runs/try          writes runs/try/report/index.html
  polybeast-moe report runs/a runs/b     runs/a/report/comparison/index.html""",
    "doctor": """examples:
  polybeast-moe doctor
  polybeast-moe doctor --self-test   plays, computes, trains; exit code 1 if not
  polybeast-moe doctor --plan 8 96   frames/s of 8 GPUs and 96 cores, by a model""",
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


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class _PrintCompletion(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, _: object, values: object, option_string: str | None = None
    ) -> None:
        import shtab

        del option_string

        files = ("config", "json", "replay")
        folders = ("run_dir", "run_dirs", "snapshots", "snapshot", "best", "output", "origin", "from_weights")
        commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        for action in (action for command in commands.choices.values() for action in command._actions):
            if action.nargs != 0 and action.dest in (*files, *folders):
                action.complete = shtab.FILE if action.dest in files else shtab.DIRECTORY
        print(shtab.complete(parser, str(values)))
        parser.exit()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    # Overrides may stand on either side of options; argparse alone gathers only the first stretch of them.
    arguments, rest = parser.parse_known_args(argv)
    if rest and ("overrides" not in arguments or any(word.startswith("-") for word in rest)):
        parser.error(f"unknown argument {rest[0]!r}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="polybeast-moe",
        description="Trains graph-attention mixture-of-experts agents on NetHack.",
        epilog=_EXAMPLES[None],
        formatter_class=_Help,
    )
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        default=argparse.SUPPRESS,
        choices=("bash", "zsh", "tcsh"),
        metavar="SHELL",
        help="for the Tab key: bash, zsh, tcsh",
    )
    parser.add_argument("--version", action="version", version=f"polybeast-moe {version('polybeast-moe')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary, add_arguments in (
        ("train", "train an agent as a configuration says", _add_train),
        ("resume", "go on from a run's newest good snapshot", _add_resume),
        ("control", "ask a running trainer for something, or change it", _add_control),
        ("report", "write a run's tables, plots and HTML page", _add_report),
        ("evaluate", "play whole episodes and say how they score", _add_evaluate),
        ("watch", "show a game, and what the policy makes of it", _add_watch),
        ("doctor", "show what this machine has, and what to mend", _add_doctor),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=_EXAMPLES[name],
            formatter_class=_Help,
            allow_abbrev=False,
        )
        add_arguments(command)
    return parser


def _add_train(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("config", metavar="CONFIG", help="a YAML file, or the name of a bundled one")
    _add_overrides(command)
    add("--run-dir", metavar="DIR", help="where the run is kept (default: runs/<name>-<date and time>)")
    add("--resume-or-start", action="store_true", help="go on if DIR holds a run, else start one")
    begin = command.add_mutually_exclusive_group()
    begin.add_argument("--from", dest="origin", metavar="SNAPSHOT", help="go on from another run's snapshot")
    begin.add_argument("--from-weights", metavar="SNAPSHOT", help="begin with the weights of a snapshot")


def _add_resume(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN_DIR", help="of a run that was stopped, or is over")
    _add_overrides(command)


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "overrides", nargs="*", metavar="section.key=value", default=[], help="changes a value of the configuration"
    )


def _add_control(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("run_dir", metavar="RUN_DIR", help="of a run that is going on")
    add(
        "words",
        nargs="+",
        metavar="COMMAND",
        help="status, pause, resume, snapshot, stop, set KEY VALUE, release KEY, next-phase",
    )
    add("--json", action="store_true", help="print the answer as JSON")
    add("--inbox", action="store_true", help="go through files in RUN_DIR, from another machine")


def _add_report(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("run_dirs", metavar="RUN_DIR", nargs="+", help="one run; several: a page that compares them with the first")
    add("--output", metavar="DIR", help="where the page of several runs goes")


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.usage = "%(prog)s [RUN_DIR|SNAPSHOT ...] [options]"
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


def _add_watch(command: argparse.ArgumentParser) -> None:
    command.usage = "%(prog)s [RUN_DIR|SNAPSHOT] [options]"
    add = command.add_argument
    add("snapshot", nargs="?", metavar="RUN_DIR|SNAPSHOT", help="whose policy plays, or comments on a replay")
    add("--seed", type=int, metavar="S", help="games of this evaluation (default: fresh ones)")
    add("--episode", type=int, default=0, metavar="I", help="which of its episodes comes first (default: 0)")
    add("--replay", metavar="FILE", help="a stored episode instead")
    add("--best", metavar="RUN_DIR", help="the stored episodes of a run, the best one first")
    add("--speed", type=float, default=8.0, metavar="N", help="steps a second at first (default: 8)")
    add("--greedy", action="store_true", help="take the likeliest action instead of drawing one")


def _add_doctor(command: argparse.ArgumentParser) -> None:
    what = command.add_mutually_exclusive_group()
    what.add_argument("--self-test", action="store_true", help="also try engine, kernels and processes")
    what.add_argument(
        "--plan", nargs=2, type=int, metavar=("GPUS", "CORES"), help="predict frames/s and name what binds"
    )
    command.add_argument(
        "--gpu-us", nargs=2, type=float, metavar=("INFERENCE", "UPDATE"), help="microseconds of a GPU a frame"
    )


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "train":
            return _train(arguments)
        case "resume":
            return _resume(arguments.run_dir, arguments.overrides)
        case "report":
            return _report([Path(path) for path in arguments.run_dirs], arguments.output)
        case "evaluate":
            return _evaluate(arguments)
        case "watch":
            return _watch(arguments)
        case "control":
            from polybeast_moe.control.command import control

            return control(Path(arguments.run_dir), arguments.words, as_json=arguments.json, use_inbox=arguments.inbox)
        case _:
            from polybeast_moe.doctor.command import run_doctor

            return run_doctor(arguments.self_test, arguments.plan, arguments.gpu_us)


def _train(arguments: argparse.Namespace) -> int:
    from polybeast_moe.config_files import load_config
    from polybeast_moe.envs.nle_package import check_nle

    check_nle()
    origin = _origin(arguments)
    config = load_config(arguments.config, arguments.overrides, origin.config if origin is not None else None)
    if origin is not None:
        _refuse_other_network(origin, config)
    if arguments.run_dir == "":
        raise UserError("--run-dir is empty: name a folder, or leave it out")
    return _with_ranks(lambda ranks: _begin(arguments, config, origin, ranks))


def _with_ranks(lead: Callable[[Ranks], int]) -> int:
    """Trains with the ranks that torchrun has started, if it has; `lead` is what rank 0 does."""
    from polybeast_moe.learning.distributed import joined, leave

    with joined() as ranks:
        if ranks.lead:
            code = lead(ranks)
        else:
            from polybeast_moe.follower import follow

            code = follow(ranks)
    if ranks.size > 1:
        leave(code)
    return code


def _begin(arguments: argparse.Namespace, config: RunConfig, origin: Origin | None, ranks: Ranks) -> int:
    """Starts a run, or goes on with it where the arguments allow that."""
    from polybeast_moe.run_directory import RunDirectory, holds_run

    path = arguments.run_dir or config.run_dir
    if arguments.resume_or_start:
        if path is None:
            raise UserError("--resume-or-start needs to know which run: give --run-dir DIR")
        if holds_run(path):
            return _go_on(path, config, ranks, may_start=True, origin=origin)
    path = path or f"runs/{Path(arguments.config).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    from polybeast_moe.trainer import train  # before anything is created

    with RunDirectory.create(path, config) as run:
        try:
            return train(config, run, None, origin, ranks)
        except UserError:  # a foreign graph, for example: without a snapshot it is as if it had never been tried
            run.withdraw()
            raise


def _origin(arguments: argparse.Namespace) -> Origin | None:
    path = arguments.origin if arguments.origin is not None else arguments.from_weights
    if path is None:
        return None
    from polybeast_moe.snapshots import Origin

    return Origin.open(Path(path), weights_only=arguments.origin is None)


def _refuse_other_network(origin: Origin, config: RunConfig) -> None:
    from polybeast_moe.config_files import config_of
    from polybeast_moe.run_directory import refuse_other_network

    place = f"snapshot {origin.snapshot.path}"
    before = config_of(origin.config, place)
    refuse_other_network(before, config, place, "in a run that begins with it", "leave it out, or train anew")


def _resume(path: str, overrides: Sequence[str]) -> int:
    from polybeast_moe.envs.nle_package import check_nle
    from polybeast_moe.run_directory import RunDirectory

    check_nle()
    config = RunDirectory.open(path, lock=False).config(overrides)
    return _with_ranks(lambda ranks: _go_on(path, config, ranks, may_start=False))


def _go_on(path: str, config: RunConfig, ranks: Ranks, *, may_start: bool, origin: Origin | None = None) -> int:
    """Continues the run in `path` with `config`, from its newest good snapshot.

    One that ended before its first snapshot begins anew there, with `origin`, if it `may_start`.
    """
    from polybeast_moe.run_directory import RunDirectory
    from polybeast_moe.snapshots import newest_good

    with RunDirectory.open(path) as run:
        from polybeast_moe.trainer import train

        snapshot, passed_over = newest_good(run.snapshots)
        if snapshot is None and not passed_over and may_start:
            run.write_config(config)
            run.clear_records()
            return train(config, run, None, origin, ranks)
        run.refuse_other_network(config)
        for broken, reason in passed_over:
            print(f"polybeast-moe: snapshot {broken} passed over: {reason}", file=sys.stderr)
        if snapshot is None:
            way_out = "in another directory" if passed_over else "with train CONFIG --run-dir DIR --resume-or-start"
            raise UserError(f"run directory {path}: no good snapshot to go on from; start anew {way_out}")
        return train(config, run, snapshot, ranks=ranks)


def _report(paths: Sequence[Path], output: str | None) -> int:
    from polybeast_moe.run_directory import RunDirectory

    for path in paths:
        RunDirectory.open(path, lock=False)
    if output is not None and len(paths) == 1:
        raise UserError("--output is for several runs: the report of one goes into its run directory")
    from polybeast_moe.evaluation.report import write_comparison, write_report

    print(write_report(paths[0]) if len(paths) == 1 else write_comparison(paths, Path(output) if output else None))
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    from polybeast_moe.envs.nle_package import check_nle

    check_nle()
    from polybeast_moe.evaluation.watch import WatchRequest, run_watch

    return run_watch(WatchRequest(**{key: value for key, value in vars(arguments).items() if key != "command"}))


def _evaluate(arguments: argparse.Namespace) -> int:
    from polybeast_moe.envs.nle_package import check_nle

    check_nle()
    from polybeast_moe.evaluation.command import EvaluateRequest, run_evaluate

    given = {key: value for key, value in vars(arguments).items() if key != "command"}
    return run_evaluate(EvaluateRequest(**given))
