"""Ranks beside the first, without processes; whole runs of several are in test_ranks.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import open_files

from polybeast_moe.follower import Follower
from polybeast_moe.learning.distributed import Ranks
from polybeast_moe.learning.learner import Learner
from polybeast_moe.learning.rank_rounds import RunState
from polybeast_moe.runtime.device import on_this_machine


def test_what_was_built_is_closed_when_a_snapshot_cannot_be_gone_on_with(
    make_config, make_policy, nle_package, tmp_path: Path, monkeypatch
) -> None:
    config = make_config("runtime.mode=asynchronous")
    config = config.model_copy(update={"runtime": on_this_machine(config.runtime, 2)})
    policy = make_policy(config)
    optimizer = Learner(policy, config.learner).optimizer_state()
    kept = [{"runtime": {}}]  # and no random states
    told = RunState(policy.state_dict(), optimizer, version=0, starts=0, ranks=kept)
    monkeypatch.setattr(Ranks, "from_lead", lambda self, value: told)
    log = tmp_path / "run.log"
    with pytest.raises(KeyError, match="random") as error:
        Follower(config, Ranks(rank=1), nle_package, tmp_path, log)
    assert log.exists()  # so the runtime was made
    still_open = open_files()
    assert error.traceback  # it holds the half-built follower, which nobody can close any more
    assert str(log) not in still_open
