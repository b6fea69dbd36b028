"""The one NLE whose library is pinned is found; any other is refused with the way out."""

import importlib.metadata
import importlib.util
from types import SimpleNamespace

import pytest

from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.errors import UserError


def test_the_installed_nle_is_found():
    package = check_nle()
    assert package.version == "1.3.0"
    assert package.library.name == "libnethack.so"
    assert (package.data / "nhdat").is_file()


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2.0")
    with pytest.raises(UserError, match=r"nle 1\.2\.0 is not supported.*pip install nle==1\.3\.0"):
        check_nle()


def test_a_missing_package_is_refused(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match="nle is not installed"):
        check_nle()


def test_a_package_without_its_library_is_refused(monkeypatch, tmp_path):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"has no libnethack\.so"):
        check_nle()
