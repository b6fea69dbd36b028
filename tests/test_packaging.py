"""What an installed package brings along, beside modules and programs, and what a release says of itself.

That a wheel trains where nothing else of the repository is, `make wheel-check` tries.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


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


def test_an_image_is_built_without_what_the_machine_has_made() -> None:
    """What `COPY . .` of the Containerfile leaves out."""
    ignored = REPOSITORY / ".dockerignore"
    assert ignored.is_file()
    assert not ignored.is_symlink()
    assert {".git", ".venv", "build", "runs", "**/*.so"} <= set(ignored.read_text().split())


def test_the_newest_release_of_the_changelog_is_the_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", PROJECT["version"]]


def test_a_citation_names_the_project_and_leaves_the_version_to_pyproject() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["authors"] == [{"name": "The polybeast_moe project"}]
    assert citation["license"] == PROJECT["license"]
    assert not {"version", "date-released"} & citation.keys()


def test_every_licence_text_is_shipped_and_explained() -> None:
    shipped = {path for pattern in PROJECT["license-files"] for path in REPOSITORY.glob(pattern)}
    texts = set((REPOSITORY / "licenses").iterdir())
    assert shipped == texts | {REPOSITORY / "LICENSE", REPOSITORY / "THIRD_PARTY.md"}
    notice = (REPOSITORY / "THIRD_PARTY.md").read_text()
    assert all(f"(licenses/{text.name})" in notice for text in texts)
