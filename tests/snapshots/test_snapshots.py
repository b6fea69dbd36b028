"""A snapshot is whole or is not there: verified, never unpickled, and never the only good one to go."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch

from polybeast_moe.snapshots import SnapshotError, load, newest_good, prune, save, sweep, verify
from polybeast_moe.snapshots.directory import all_snapshots, is_phase_end


def write(root, frames, kind="periodic"):
    generator = torch.Generator().manual_seed(frames)
    weights = {"a.weight": torch.randn(7, 3, generator=generator), "scale": torch.tensor(float(frames))}
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(7, 3)}}, "param_groups": [{"lr": 0.1}]}
    return save(root, frames, weights, optimizer, {"frames": frames, "kind": kind, "rates": [0.1, 1e-300]})


def complaint(path):
    with pytest.raises(SnapshotError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_was_saved_comes_back(tmp_path):
    layer = torch.nn.Linear(4, 2)
    tied = torch.nn.ModuleDict({"one": layer, "two": layer})  # weights that share memory
    optimizer = torch.optim.Adam(tied.parameters())
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    state = {"phase": {"temperature": 0.1 + 0.2}, "kind": "final"}
    path = save(tmp_path / "snapshots", 12_345_678, tied.state_dict(), optimizer.state_dict(), state)
    assert path == tmp_path / "snapshots" / "step-000012345678"
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json",
        "optimizer.pt",
        "state.json",
        "weights.safetensors",
    ]
    snapshot = load(path)
    assert snapshot.state == state
    assert snapshot.weights.keys() == tied.state_dict().keys()
    assert all(torch.equal(value, tied.state_dict()[name]) for name, value in snapshot.weights.items())
    again = torch.optim.Adam(tied.parameters())
    again.load_state_dict(snapshot.optimizer)
    assert torch.equal(again.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_the_manifest_holds_every_files_checksum(tmp_path):
    path = write(tmp_path, 5)
    manifest = json.loads((path / "manifest.json").read_text())
    for name in ("weights.safetensors", "optimizer.pt", "state.json"):
        content = (path / name).read_bytes()
        assert manifest["files"][name] == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert (manifest["format"], manifest["frames"], manifest["kind"]) == (2, 5, "periodic")
    assert {"python", "torch", "numpy", "nle", "polybeast-moe"} <= manifest["versions"].keys()


def truncate(path):
    (path / "weights.safetensors").write_bytes((path / "weights.safetensors").read_bytes()[:-1])


def flip_a_bit(path):
    content = bytearray((path / "optimizer.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "optimizer.pt").write_bytes(content)


def edit_state(path):
    (path / "state.json").write_text((path / "state.json").read_text().replace("periodic", "phaseend"))


def change_manifest(**changes):
    def change(path):
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))

    return change


DAMAGE = {
    "truncated": (truncate, "weights.safetensors has"),
    "bit flipped": (flip_a_bit, "optimizer.pt was changed"),
    "edited": (edit_state, "state.json was changed"),
    "file missing": (lambda path: (path / "state.json").unlink(), "state.json is missing"),
    "extra file": (lambda path: (path / "extra.bin").touch(), "extra.bin does not belong to it"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "not a snapshot, it has no manifest.json"),
    "manifest cut": (lambda path: (path / "manifest.json").write_text('{"form'), "manifest.json is damaged"),
    "manifest foreign": (lambda path: (path / "manifest.json").write_text("[1]"), "manifest.json is damaged"),
    "older format": (change_manifest(format=1), "format 1 is unknown (this version reads 2)"),
    "newer format": (change_manifest(format=3), "format 3 is unknown"),
    "renamed": (change_manifest(frames=4), "is of another snapshot (4 frames)"),
    "escaping": (change_manifest(files={"../x": {"sha256": "", "bytes": 0}}), "lists other files"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_and_the_snapshot_before_is_used(tmp_path, damage, reason):
    old, new = write(tmp_path, 10), write(tmp_path, 20)
    damage(new)
    assert reason in complaint(new)
    best, [(broken, why)] = newest_good(tmp_path)
    assert (best, broken) == (old, new)
    assert reason in why
    assert write(tmp_path, 20) == new  # a later run comes by here again: the damaged one is replaced
    verify(new)


def test_folders_that_are_no_snapshots(tmp_path):
    assert "does not exist" in complaint(tmp_path / "nowhere")
    assert "not a snapshot" in complaint(tmp_path)
    (tmp_path / "file").touch()
    assert "is not a directory" in complaint(tmp_path / "file")
    assert newest_good(tmp_path / "nowhere") == (None, [])


class Hostile:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (os.mkdir, (str(self.file),))


@pytest.mark.parametrize("dump", [torch.save, pickle.dump], ids=["torch", "pickle"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, dump):
    path = write(tmp_path, 1)
    with (path / "optimizer.pt").open("wb") as file:
        dump({"state": Hostile(tmp_path / "executed")}, file)
    content = (path / "optimizer.pt").read_bytes()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["optimizer.pt"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (path / "manifest.json").write_text(json.dumps(manifest))
    verify(path)  # the checksums are right, whoever wrote them
    assert "optimizer.pt cannot be read" in complaint(path)
    assert not (tmp_path / "executed").exists()


def test_the_same_frames_twice_keep_the_later_state_and_a_phases_end_stays_one(tmp_path):
    """An operator may change the state between two updates."""
    write(tmp_path, 7, kind="phase_end")
    optimizer, weights = {"state": {}}, {"w": torch.zeros(2)}
    again = save(tmp_path, 7, weights, optimizer, {"kind": "operator", "holds": {"temperature": 0.3}})
    assert load(again).state == {"kind": "phase_end", "holds": {"temperature": 0.3}}
    assert is_phase_end(again)
    assert list(tmp_path.iterdir()) == [again]


def test_prune_keeps_the_last_ones_and_phase_ends(tmp_path):
    for frames in range(1, 8):
        write(tmp_path, frames, kind="phase_end" if frames in (1, 4) else "periodic")
    removed = prune(tmp_path, keep_last=2)
    assert [int(path.name[5:]) for path in all_snapshots(tmp_path)] == [1, 4, 6, 7]
    assert [int(path.name[5:]) for path in removed] == [5, 3, 2]


def test_prune_never_removes_the_only_good_one(tmp_path):
    paths = [write(tmp_path, frames) for frames in (1, 2, 3)]
    truncate(paths[1])
    truncate(paths[2])
    assert prune(tmp_path, keep_last=1, keep=lambda path: False) == []
    assert newest_good(tmp_path)[0] == paths[0]


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    old = write(tmp_path, 1)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write(tmp_path, 2)
    assert list(tmp_path.iterdir()) == [old]
    assert newest_good(write(tmp_path, 2).parent)[0].name == "step-000000000002"


KILLED_AT_EVERY_STEP = textwrap.dedent(
    """
    # Saves in child processes, each of which kills itself before its n-th call that touches the disk.
    import os, shutil, signal, sys
    from pathlib import Path
    import torch
    from polybeast_moe.snapshots import prune, save

    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    survived = False
    n = 0
    while not survived:
        calls = 0

        def counted(function):
            def call(*arguments, **options):
                global calls
                if calls == n:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls += 1
                return function(*arguments, **options)
            return call

        child = os.fork()
        if child == 0:
            here = root / str(n)
            def write(frames):
                save(here, frames, {"w": torch.full((9,), frames)}, {"state": {}}, {"kind": "periodic"})
            write(1)
            for module, name in ((os, "fsync"), (os, "mkdir"), (os, "rename"), (os, "unlink"), (os, "rmdir")):
                setattr(module, name, counted(getattr(module, name)))
            write(2)
            prune(here, keep_last=1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        survived = os.waitstatus_to_exitcode(status) == 0
        n += 1
    print(n)
    """
)


def test_killed_at_any_step_of_saving_and_pruning_nothing_is_half_there(tmp_path):
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    runs = int(done.stdout)
    assert runs > 10  # mkdir, five syncs and a rename to save; a rename and five removals to prune
    newest = set()
    for n in range(runs):
        root = tmp_path / str(n)
        for path in all_snapshots(root):
            verify(path)
        best, passed_over = newest_good(root)
        assert passed_over == []
        newest.add(int(load(best).weights["w"][0]))
        sweep(root)
        assert sorted(root.iterdir()) == all_snapshots(root)
    assert newest == {1, 2}
