"""Pages of documentation as what they are made of: code blocks, tables, headings, links.

Lives here: reading Markdown, as far as our own pages use it. Running and judging what is found is the tests'.

The rules for code blocks
    python    run as a program, in order; one whose first line is `# name.py` is a file of that name instead.
              A `text` block right after it is what it prints
    console   commands after `$ ` (with `\\` and here-documents going on below), and what each prints, if it is shown
    pycon     doctests
    sh        what sets a machine up (`make …`, `git …`): not run, but every `make` target must exist
    text      pictures and outputs

In outputs `…` stands for any text, a line `…` for any lines; the width of columns doesn't count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = {"python", "console", "pycon", "sh", "text"}
FENCE = "```"
_FILE = re.compile(r"# ([\w.]+\.py)$")
_HERE = re.compile(r"<<\s*'?(\w+)'?")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line of its page on which the text begins."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, as editors understand it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that a `python` block is, if it is one."""
        match = _FILE.match(self.text.partition("\n")[0])
        return match[1] if match and self.language == "python" else None


@dataclass(frozen=True)
class Command:
    """A command of a `console` block and what the page shows of its output."""

    text: str
    shown: Sequence[str]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found, language, start, lines = [], None, 0, page.read_text().splitlines()
    for number, line in enumerate(lines):
        if not line.startswith(FENCE):
            continue
        if language is None:
            language, start = line.removeprefix(FENCE).strip(), number + 1
        else:
            found.append(Block(page, start + 1, language, "\n".join(lines[start:number]) + "\n"))
            language = None
    assert language is None, f"{page}:{start}: the block has no end"
    return found


def printed_by(block: Block, following: Block | None) -> list[str]:
    """What a page says that a program prints: the `text` block right behind it."""
    if following is None or following.language != "text":
        return []
    end = block.line + block.text.count("\n")
    between = block.page.read_text().splitlines()[end : following.line - 2]
    return following.text.splitlines() if not any(line.strip() for line in between) else []


def commands(block: Block) -> Iterator[Command]:
    """The commands of a `console` block."""
    lines = block.text.splitlines()
    while lines:
        first = lines.pop(0)
        assert first.startswith("$ "), f"{block.place}: expected a command after '$ ', found {first!r}"
        text = first.removeprefix("$ ")
        while text.endswith("\\"):
            text += "\n" + lines.pop(0)
        here = _HERE.search(text)
        while here and text.rpartition("\n")[2] != here[1]:
            text += "\n" + lines.pop(0)
        shown = []
        while lines and not lines[0].startswith("$ "):
            shown.append(lines.pop(0))
        yield Command(text, shown)


def matches(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether an output is as it is shown.

    >>> matches(["a …", "…", "z"], ["a   b", "", "c", "z  "])
    True
    """
    patterns = [_pattern(line) for line in shown if line.strip()]
    text = "".join(f"{' '.join(line.split())}\n" for line in printed if line.strip())
    return re.fullmatch("".join(patterns), text) is not None


def _pattern(line: str) -> str:
    words = " ".join(line.split())
    if words == "…":
        return r"(?:.*\n)*?"
    return ".*".join(re.escape(part) for part in words.split("…")) + r"\n"


def tables(page: Path) -> list[tuple[str, list[list[str]]]]:
    """The tables of a page, header first, each under the heading it stands below."""
    found: list[tuple[str, list[list[str]]]] = []
    heading, inside = "", False
    for line in _prose(page):
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
        row = line.startswith("|")
        if row and not inside:
            found.append((heading, []))
        if row and not set(line) <= set("|-: "):
            found[-1][1].append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        inside = row
    return found


def table(page: Path, heading: str, first: str) -> list[list[str]]:
    """The rows, without header, of the table below a heading whose first column is called `first`."""
    (rows,) = [rows for found, rows in tables(page) if found == heading and rows[0][0] == first]
    return rows[1:]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = [line.lstrip("#").strip().lower() for line in _prose(page) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links."""
    return (target for line in _prose(page) for target in re.findall(r"\]\(([^)\s]+)\)", line))


def _prose(page: Path) -> Iterator[str]:
    """The lines outside of blocks."""
    inside = False
    for line in page.read_text().splitlines():
        if line.startswith(FENCE):
            inside = not inside
        elif not inside:
            yield line
