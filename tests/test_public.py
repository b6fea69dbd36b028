"""The public surface: docs/reference/public.md lists it, the code has it, the documentation imports nothing else."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
ROW = re.compile(r"^\| `(polybeast_moe[\w.]*)` \| (.+?) \| .+ \|$", re.MULTILINE)
LISTED = {
    module: re.findall(r"`(\w+)`", names)
    for module, names in ROW.findall((DOCS / "reference" / "public.md").read_text(encoding="utf-8"))
}
ALL_OF_IT = ("envs", "graph", "models", "ops")  # packages whose face is public as a whole


@pytest.mark.parametrize("module", LISTED)
def test_what_is_listed_is_there_and_says_what_it_is(module: str) -> None:
    found = importlib.import_module(module)
    for name in LISTED[module]:
        value = getattr(found, name)
        if isinstance(value, type):  # not what a base class says
            assert value.__dict__.get("__doc__"), name
        elif callable(value):
            assert value.__doc__, name


@pytest.mark.parametrize("package", ALL_OF_IT)
def test_a_public_package_is_listed_whole(package: str) -> None:
    name = f"polybeast_moe.{package}"
    assert sorted(LISTED[name]) == sorted(importlib.import_module(name).__all__)


def test_every_section_of_a_configuration_is_in_its_reference() -> None:
    page = (DOCS / "reference" / "config.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: polybeast_moe\.config\.(\w+)$", page, re.MULTILINE)) == sorted(
        LISTED["polybeast_moe.config"]
    )


def test_the_documentation_imports_what_is_listed() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md"), *(DOCS / "howto").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    imported = {
        f"{module}.{name.strip()}"
        for module, names in re.findall(r"from (polybeast_moe[\w.]*) import ([\w, ]+)", text)
        for name in names.split(",")
    }
    named = set(re.findall(r"\b(polybeast_moe(?:\.\w+)+)", text)) - imported
    public = {f"{module}.{name}" for module, names in LISTED.items() for name in names}
    assert len(imported) > 5
    assert imported <= public
    assert named <= public | set(LISTED)
