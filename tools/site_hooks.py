"""Hooks of mkdocs: pages that live outside docs/, the command line's help, decisions and results in the navigation.

A link of a Markdown file names a file of the repository, as whoever reads it there expects. On the site, a link to
another page leads to that page, and a link to a file that is no page becomes its plain name.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from polybeast_moe import cli

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "THIRD_PARTY.md": "licences.md",
    "benchmarks/README.md": "benchmarks.md",
}
COMMAND_LINE = "reference/command-line.md"
_LINK = re.compile(r"(?<!`)\[([^\]\n]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
_log = logging.getLogger("mkdocs.hooks.site")


def on_config(config: Any) -> Any:
    """Adds decisions, results, and pages that mkdocs.yml does not place (under Concepts), by their titles."""
    placed = set(re.findall(r"[\w/-]+\.md", str(config["nav"])))
    concepts = next(section["Concepts"] for section in config["nav"] if "Concepts" in section)
    for page in sorted((ROOT / "docs").glob("*.md")):
        if page.name not in placed:
            concepts.append({_title(page): page.name})
    for title, folder in (("Decisions", "decisions"), ("Results", "results")):
        pages = sorted((ROOT / "docs" / folder).glob("*.md"))
        if pages:
            config["nav"].insert(-1, {title: [{_title(page): f"{folder}/{page.name}"} for page in pages]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made here."""
    for source, target in OUTSIDE.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    files.append(File.generated(config, COMMAND_LINE, content=command_line()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turns links between files of the repository into links between pages."""
    del config, files
    here = page.file.src_uri
    source = next((path for path, target in OUTSIDE.items() if target == here), f"docs/{here}")
    return _LINK.sub(lambda link: _site_link(link, source, here), markdown)


def command_line() -> str:
    """Returns the help of every command, as it is printed at 80 columns."""
    overview = _help()
    commands = re.findall(r"^    ([a-z-]+) ", overview, re.MULTILINE)
    parts = ["# Command line\n", f"```\n{overview}```\n"]
    parts += [f"## {command}\n\n```\n{_help(command)}```\n" for command in commands]
    return "\n".join(parts)


def _help(*words: str) -> str:
    os.environ["COLUMNS"] = "80"
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return text.getvalue()


def _site_link(link: re.Match[str], source: str, here: str) -> str:
    text, target, anchor = link[1], link[2], link[3] or ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in OUTSIDE:
        uri = OUTSIDE[path]
    elif path.startswith("docs/"):
        uri = path.removeprefix("docs/")
    else:
        if not (ROOT / path).exists():
            _log.warning("%s links to %s, which does not exist", source, target)
        return text
    if uri.endswith("/"):
        uri += "index.md"
    if uri in ("decisions", "results"):
        return text
    if uri.startswith("results/") and not (ROOT / "docs" / uri).exists():
        return text  # a script will write it
    return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{anchor})"


def _title(page: Path) -> str:
    first = page.read_text().splitlines()[0]
    return first.removeprefix("# ")
