"""Make the second half of docs/protocol.md, keys and scripts: `python docs/protocol.py`.

It is made of `distlock/keys.py` and of the headers in `distlock/lua`, so that what stands there is
what runs; a test fails when it was not made anew. What stands above the mark is written by hand.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # as a command, its own folder comes first

from distlock import keys, scripts  # noqa: E402

PAGE = Path(__file__).with_name("protocol.md")
MARK = "<!-- What follows is made by `python docs/protocol.py`. -->\n"
KINDS = {
    "lease": "The lease",
    "job": "The job",
    "pipeline": "The generator",
    "handler": "A handler",
    "errors": "Errors",
    "status": "Looking",
    "verify": "Proving",
    "server": "Before anything",
    "cache": "The cache",
}
"""What the first word of a script's name stands for, in the order of the page."""


def header(name: str) -> dict[str, str]:
    """The header lines of a script by their word (USES, KEYS …); its sentences stand under ""."""
    fields, word = {"": ""}, ""
    for line in scripts.source(name).splitlines():
        if not line.startswith("-- "):
            break
        text = line[3:]
        if found := re.match(r"(USES|KEYS|ARGV|RETURNS): (.*)", text):
            word, text = found[1], found[2]
            fields[word] = ""
        fields[word] += " " + text.strip()
    return fields


def table(head: str, rows: list[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield f"| {head} |"
    yield "|" + "---|" * (head.count("|") + 1)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def sentence(function: Callable[..., object]) -> str:
    """What the docstring of a function says, in one line."""
    return " ".join((inspect.getdoc(function) or "").split())


def pipeline_keys() -> list[tuple[str, ...]]:
    """Each key of a pipeline: its name, its type, and what stands beside it in keys.py."""
    one = keys.Keys("demo")
    said = dict(re.findall(r'self\.prefix \+ "(\w+)"  # (.*)', inspect.getsource(keys.Keys)))
    rows = [(f"`{one.prefix}{name}`", kind, said[name]) for name, kind in keys.TYPES.items()]
    rows.append((f"`{one.temp('<handler>')}`", "hash", sentence(keys.Keys.temp)))
    rows.append(
        (
            f"`{one.prefix}store:<n>`",
            "hash",
            f"{sentence(keys.Keys.store)} n is id // {keys.BUCKET}.",
        )
    )
    rows.append((f"`{one.channel('<copy>')}`", "channel", sentence(keys.Keys.channel)))
    channel = keys.wake_channel("<address>")
    rows.append((f"`{channel}`", "channel", sentence(keys.wake_channel)))
    return rows


def cache_keys() -> list[tuple[str, ...]]:
    """The keys of a cache, each list of them with what its docstring says."""
    one = keys.CacheKeys("shop")
    rows = [
        (one.all("<key>"), keys.CacheKeys.all),
        (one.put("<key>")[3:], keys.CacheKeys.put),
        ([one.counters], None),
        ([one.counted("<process>")], keys.CacheKeys.counted),
        ([one.probe(one.values + "<key>}")], keys.CacheKeys.probe),
    ]
    counters = "A hash: what all processes have counted."
    return [
        ("<br>".join(f"`{name}`" for name in names), sentence(said) if said else counters)
        for names, said in rows
    ]


def script_lines(name: str) -> Iterator[str]:
    """What a script does, is given and answers."""
    said = header(name)
    yield f"### {name}"
    yield ""
    yield said[""].strip()
    yield ""
    for word, field in said.items():
        if word:
            yield f"- {word.lower()}: `{field.strip()}`"
    yield ""


def generated() -> str:
    """All that follows the mark."""
    lines = ["", "## Keys of a pipeline, and of a lease", ""]
    lines += table("key | type | holds", pipeline_keys())
    lines += ["", "A lease that is no pipeline's has `lease`, `token` and `line` alone.", ""]
    lines += ["## Keys of a cache", ""]
    lines += table("keys | in this order", cache_keys())
    kinds = {name.split("_")[0]: name.split("_")[0] for name in scripts.names()}
    for kind, title in (KINDS | kinds | KINDS).items():
        lines += ["", f"## {title}: `{kind}_…`", ""]
        for name in scripts.names():
            if name.split("_")[0] == kind:
                lines += script_lines(name)
        lines.pop()
    lines += ["", "## Parts that scripts share", ""]
    lines += table(
        "part | what it does", [(f"`{name}`", header(name)[""].strip()) for name in scripts.parts()]
    )
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page, with its generated half anew."""
    return text[: text.index(MARK) + len(MARK)] + generated()


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
