"""What is built can be cleaned away, and what a wheel needs is found."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_make_clean_leaves_nothing_that_git_ignores_but_runs(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("csrc", "benchmarks", "polybeast_moe", "tests", "tools"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "kept.py").touch()
    for pattern in (ROOT / ".gitignore").read_text().split():
        ignored = pattern.replace("*", "polybeast_moe")
        inside = (
            tmp_path / "polybeast_moe" if pattern in ("*.so", "__pycache__/", "pbm-actor", "pbm-games") else tmp_path
        )
        (inside / ignored).mkdir() if pattern.endswith("/") else (inside / ignored).touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.name != "kept.py")
    assert left == ["Makefile", "benchmarks", "csrc", "polybeast_moe", "runs", "tests", "tools"]
