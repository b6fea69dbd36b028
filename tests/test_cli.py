"""The command line: what each command does with a run directory, what it refuses, and that mistakes change nothing."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

import polybeast_moe
from polybeast_moe import cli
from polybeast_moe.config_files import load_config
from polybeast_moe.errors import RunFailed, UserError
from polybeast_moe.run_directory import RunDirectory, holds_run

CONFIG = """\
graph: {enabled: false}
phases: [{name: only, until: {frames: 100}, routing: softmax}]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def trainer(monkeypatch):
    """Stands in for the trainer: notes each call, and behaves as `trainer.behave` says."""
    calls = []
    stand_in = types.ModuleType("polybeast_moe.trainer")
    stand_in.calls = calls
    stand_in.origins = []
    stand_in.behave = lambda config, run: None

    def train(config, run, resume, origin=None, ranks=None):
        calls.append((config, run.path, resume))
        stand_in.origins.append(origin)
        stand_in.behave(config, run)
        return 0

    stand_in.train = train
    monkeypatch.setitem(sys.modules, "polybeast_moe.trainer", stand_in)
    monkeypatch.setattr(polybeast_moe, "trainer", stand_in, raising=False)
    return stand_in


def snapshot(run, frames):
    import torch

    from polybeast_moe.snapshots import save

    return save(
        run.snapshots, frames, {"w": torch.zeros(2)}, {}, {"kind": "periodic", "config": run.config().to_plain()}
    )


def files_in(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in Path(folder).rglob("*")}


def test_train_makes_a_run_directory_and_hands_over(here, trainer):
    assert cli.main(["train", "my.yaml", "seed=3", "--run-dir", "runs/x", "runtime.unroll=8"]) == 0
    [(config, path, resume)] = trainer.calls
    assert (config.seed, config.runtime.unroll, resume) == (3, 8, None)
    assert load_config(path / "config.yaml") == config
    assert [entry.name for entry in Path("runs/x").iterdir() if entry.name[0] != "."] == ["config.yaml"]


def test_the_default_run_directory_is_named_after_the_configuration(here, trainer):
    cli.main(["train", "my.yaml"])
    assert trainer.calls[0][1].parent == Path("runs")
    assert trainer.calls[0][1].name.startswith("my-2")


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["train", "my.yaml", "sed=3", "--run-dir", "x"], "sed: unknown key; did you mean 'seed'?"),
        (["train", "nowhere.yaml"], "configuration 'nowhere.yaml' not found"),
        (["train", "my.yaml", "--run-dri", "x"], "unknown argument '--run-dri'"),
        (["train", "my.yaml", "--resume-or-start"], "give --run-dir DIR"),
        (["train"], "CONFIG"),
        (["trian"], "invalid choice: 'trian'"),
        (["resume", "nowhere"], "run directory nowhere: does not exist"),
        (["resume", "."], "holds no run (no config.yaml)"),
        (["report", "nowhere"], "run directory nowhere: does not exist"),
        (["doctor", "seed=1"], "unknown argument 'seed=1'"),
        (["train", "my.yaml", "--run-dir", "my.yaml"], "my.yaml: is a file"),
    ],
)
def test_mistakes_change_nothing_on_disk(here, trainer, refused, argv, wanted):
    before = files_in(here)
    assert wanted in refused(*argv)
    assert files_in(here) == before
    assert trainer.calls == []


def test_an_unsupported_nle_is_refused_before_anything_is_made(here, trainer, refused, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0.0")
    before = files_in(here)
    assert "nle 1.0.0 is not supported" in refused("train", "my.yaml")
    assert files_in(here) == before


def test_what_the_trainer_refuses_leaves_nothing(here, trainer, refused):
    def refuse(config, run):
        run.log.write_text("looking at the graph")
        raise UserError("graph: foreign")

    trainer.behave = refuse
    before = files_in(here)
    assert "graph: foreign" in refused("train", "my.yaml", "--run-dir", "runs/deep/x")
    assert files_in(here) == before


def test_a_run_that_fails_before_its_first_snapshot_keeps_what_it_said_and_may_start_anew(here, trainer, refused):
    """From the weights that it was to begin with, the reason left in the log."""
    RunDirectory.create("weights", load_config("my.yaml")).close()
    snapshot(RunDirectory(Path("weights")), 10)

    def fail(config, run):
        run.log.write_text("pbm-actor-0.0: no room\n")
        run.metrics.touch()
        raise RunFailed("pbm-actor-0.0 died 8 times in a row")

    trainer.behave = fail
    line = ["train", "my.yaml", "--run-dir", "x", "--resume-or-start", "--from-weights", "weights"]
    assert cli.main(line) == 1
    said = Path("x/run.log").read_text()
    assert said.startswith("pbm-actor-0.0: no room\n")
    assert said.endswith("RunFailed: pbm-actor-0.0 died 8 times in a row\n")
    assert "start anew with train CONFIG --run-dir DIR --resume-or-start" in refused("resume", "x")
    trainer.behave = lambda config, run: None
    assert cli.main([*line, "seed=2"]) == 0
    assert not Path("x/metrics.csv").exists()
    assert Path("x/run.log").read_text() == said
    assert RunDirectory.open("x", lock=False).config().seed == 2
    assert [origin.describe() for origin in trainer.origins] == 2 * [trainer.origins[0].describe()]


def test_a_run_without_a_snapshot_may_start_anew_with_another_network(here, trainer):
    cli.main(["train", "my.yaml", "--run-dir", "x"])
    assert cli.main(["train", "my.yaml", "--run-dir", "x", "--resume-or-start", "policy.hidden=128"]) == 0
    assert trainer.calls[-1][0].policy.hidden == 128


def test_a_directory_that_holds_a_run_is_refused(here, trainer, refused):
    cli.main(["train", "my.yaml", "--run-dir", "x"])
    before = files_in(here)
    assert "x: already holds a run" in refused("train", "my.yaml", "--run-dir", "x", "seed=9")
    assert files_in(here) == before
    kept = Path("y/replays/score-0000123-core-42.replay")  # of a run whose other files are gone
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert "y: already holds a run" in refused("train", "my.yaml", "--run-dir", "y")
    assert kept.exists()


def test_resume_takes_the_newest_good_snapshot(here, trainer, capsys):
    trainer.behave = lambda config, run: [snapshot(run, frames) for frames in (10, 20)]
    cli.main(["train", "my.yaml", "--run-dir", "x"])
    trainer.behave = lambda config, run: None
    (Path("x/snapshots/step-000000000020") / "state.json").write_text("{}")
    assert cli.main(["resume", "x", "phases.only.until.frames=200"]) == 0
    config, _, resume = trainer.calls[-1]
    assert resume == Path("x/snapshots/step-000000000010")
    assert config.phases[0].until.frames == 200
    assert "step-000000000020 passed over: state.json has 2 bytes" in capsys.readouterr().err


def test_resume_refuses_another_network(here, trainer, refused):
    trainer.behave = lambda config, run: snapshot(run, 10)
    cli.main(["train", "my.yaml", "--run-dir", "x"])
    before = files_in(here)
    line = refused("resume", "x", "policy.hidden=128")
    assert "policy.hidden cannot change in a run that has begun (it is 256, asked for 128)" in line
    assert files_in(here) == before


def test_resume_or_start_is_the_same_line_every_time(here, trainer, capsys):
    line = ["train", "my.yaml", "--run-dir", "x", "--resume-or-start"]
    trainer.behave = lambda config, run: run.metrics.write_text("frames\n")
    cli.main(line)  # dies before its first snapshot
    trainer.behave = lambda config, run: snapshot(run, 10)
    cli.main(line)
    assert not Path("x/metrics.csv").exists()  # begun again, from nothing
    cli.main(line)
    assert [resume for _, _, resume in trainer.calls] == [None, None, Path("x/snapshots/step-000000000010")]
    Path("x/snapshots/step-000000000010/state.json").unlink()
    assert cli.main(line) == 2  # snapshots that are all damaged are not silently trained over
    assert "no good snapshot" in capsys.readouterr().err


def test_resume_without_any_snapshot_is_refused(here, trainer, refused):
    cli.main(["train", "my.yaml", "--run-dir", "x"])
    assert "no good snapshot to go on from" in refused("resume", "x")


def test_a_run_directory_is_locked_while_in_use(here):
    config = load_config("my.yaml")
    script = textwrap.dedent(
        """
        import signal
        from polybeast_moe.config_files import load_config
        from polybeast_moe.run_directory import RunDirectory
        run = RunDirectory.create("x", load_config("my.yaml"))
        print("locked", flush=True)
        signal.pause()
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match=f"in use by process {holder.pid}"):
            RunDirectory.open("x")
        RunDirectory.open("x", lock=False)  # reading is free
        os.kill(holder.pid, signal.SIGKILL)
    with RunDirectory.open("x") as run:  # the lock died with its holder
        assert run.config() == config
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
            RunDirectory.open("x")
    RunDirectory.open("x").close()
    assert holds_run("x")
    assert not holds_run("y")


def test_a_directory_may_hold_other_things_before(here):
    Path("x").mkdir()
    Path("x/job.out").touch()
    run = RunDirectory.create("x", load_config("my.yaml"))
    run.withdraw()
    run.close()
    assert [entry.name for entry in Path("x").iterdir()] == ["job.out"]


def test_report_prints_where_it_is(here, trainer, capsys, monkeypatch):
    cli.main(["train", "my.yaml", "--run-dir", "x"])
    stand_in = types.ModuleType("polybeast_moe.evaluation.report")
    stand_in.write_report = lambda path: path / "report" / "index.html"
    stand_in.write_comparison = None
    monkeypatch.setitem(sys.modules, "polybeast_moe.evaluation.report", stand_in)
    assert cli.main(["report", "x"]) == 0
    assert capsys.readouterr().out == "x/report/index.html\n"


COMMANDS = ("train", "resume", "control", "report", "evaluate", "watch", "doctor")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_fits_a_screen_and_shows_an_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as exit_:
        cli.main([*command, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 80
    assert "example" in text
    assert "polybeast-moe " in text.split("example")[1]


def test_the_command_line_starts_without_heavy_imports():
    code = textwrap.dedent(
        """
        import json, sys
        from polybeast_moe import cli
        try:
            cli.main(["--help"])
        except SystemExit:
            pass
        cli.main(["train", "debug", "sed=1"])
        print(json.dumps([name for name in ("torch", "numba", "nle") if name in sys.modules]))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_shell_completes_commands_options_and_folders(here):
    """Bash itself is asked what it would offer."""
    (here / "runs" / "first").mkdir(parents=True)
    script = f"""
        source <({sys.executable} -m polybeast_moe --print-completion bash)
        offer() {{
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _shtab_polybeast_moe polybeast-moe "${{!#}}" ""
            echo "${{COMPREPLY[@]}}"
        }}
        offer polybeast-moe ev
        offer polybeast-moe train --res
        offer polybeast-moe resume run
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["evaluate", "--resume-or-start", "runs"], done


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"polybeast-moe {importlib.metadata.version('polybeast-moe')}\n"


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "polybeast_moe", "trian"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("polybeast-moe: ")
    assert "Traceback" not in done.stderr
