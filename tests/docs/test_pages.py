"""Pages as text: links lead somewhere, blocks are of a language that is run, lines fit, commands exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, LANGUAGES, ROOT, anchors, blocks, links

WIDTH_MAX = 120
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    if name and (ROOT / name).is_file()
)
WALKED = {
    "README.md",
    "docs/quickstart.md",
    "docs/language.md",
    "docs/operations.md",
    "docs/history.md",
    "docs/sessions.md",
    "docs/on_demand.md",
    "docs/versions.md",
}


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in links(page):
            path, _, anchor = target.partition("#")
            if "://" in path:
                continue
            found = page.parent / path if path else page
            if not found.exists() or (anchor and anchor not in anchors(found)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_every_page_is_linked_from_another() -> None:
    """But for the decisions, which are a folder."""
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in links(page)}
    orphans = [p for p in PAGES if p.name != "README.md" and p not in linked and p.parent not in linked]
    assert not orphans


def test_every_line_fits() -> None:
    """Tables and blocks are as wide as they are."""
    long, inside = [], False
    for page in PAGES:
        for number, line in enumerate(page.read_text().splitlines(), start=1):
            if line.startswith(FENCE):
                inside = not inside
            elif not inside and not line.startswith(("|", "    ")) and len(line) > WIDTH_MAX:
                long.append(f"{page.relative_to(ROOT)}:{number}: {len(line)}")
    assert not long


def test_every_block_is_run_or_is_a_picture() -> None:
    """On a page that no test walks through, only pictures and indented text may stand."""
    for page in PAGES:
        allowed = LANGUAGES if str(page.relative_to(ROOT)) in WALKED else {"text", "sh"}
        assert not [block.place for block in blocks(page) if block.language not in allowed]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    text = page.read_text()
    said = set(re.findall(r"`make ([a-z]+)", text)) | set(re.findall(r"^(?:    )?make ([a-z]+)", text, re.M))
    assert said <= targets
