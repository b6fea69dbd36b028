"""What an installed package brings along, beside modules and programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def test_an_installed_package_brings_every_configuration(tmp_path: Path) -> None:
    build = ["setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run([sys.executable, "-W", "ignore", *build], cwd=REPOSITORY, check=True, capture_output=True)
    brought, package = tmp_path / "polybeast_moe" / "configs", tmp_path / "polybeast_moe"
    names = {path.relative_to(REPOSITORY / "configs") for path in (REPOSITORY / "configs").rglob("*.yaml")}
    assert {path.relative_to(brought) for path in brought.rglob("*.yaml")} == names
    assert (package / "_C.pyi").is_file()
    code = "from polybeast_moe.config_files import bundled_configs, load_config; load_config('quickstart'); "
    code += "print(bundled_configs())"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == str(brought)
