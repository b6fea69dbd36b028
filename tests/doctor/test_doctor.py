"""The doctor names what matters, judges it, says what to do, and its self-test fails where a run would."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from polybeast_moe import cli
from polybeast_moe.doctor import machine, self_test


def test_it_names_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for name in ("python", "torch", "nle", "packages", "cores", "memory", "descriptors", "disk", "defaults", "GPU"):
        assert f"{name} " in text, name
    assert "each can be set under runtime" in " ".join(text.split())


def test_the_self_test_plays_computes_and_trains(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--self-test"]) == 0
    text = capsys.readouterr().out
    assert "steps/s on one core" in text
    assert "expert mixture on cpu equals its reference" in text
    assert "4 updates from 1,024 frames" in text
    assert "FAILED" not in text


def test_too_few_descriptors_fail_with_the_way_out() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    script = f"""if True:
        import resource, sys
        from polybeast_moe import cli
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))
        sys.exit(cli.main(["doctor"]))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "FAILED descriptors" in done.stdout
    assert "-> ulimit -n " in done.stdout


def test_what_goes_wrong_in_a_trial_is_told_with_advice() -> None:
    def broken() -> str:
        raise OSError("no such\nlibrary")

    finding = self_test._guarded("engine", broken)()
    assert (finding.state, finding.what) == ("failed", "OSError: no such library")
    assert "make install" in finding.advice


def test_a_machine_without_a_gpu_or_with_one_is_told_so() -> None:
    names = [finding.name for finding in machine.machine_findings()]
    assert any(name.startswith("GPU") for name in names)
    assert names[-1] == "defaults"
