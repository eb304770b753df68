"""The benchmarks' table and plot say what the raw texts say, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.__main__ import NAMES
from bench.drawing import PLOTTED, bars, draw, markdown, read
from bench.table import Row, lines
from tests.conftest import ROOT

RESULTS = ROOT / "bench" / "results"
ROWS = [
    Row("drain, hands of 1: messages/s", "1,000", "800", "0.80", ">= 0.7 x", True),
    Row("  messages a CPU second of both sides", "1,100", "900", "0.82"),
    Row("acquire: us, beside a peer", "300", "200", "0.67", "<= 1.05 x", True),
    Row("  commands sent", "", "2.00", "", "<= 2.00", False),
    Row("  beside another", "1000", "200", "0.20"),
    Row("  beside bare sockets", "100", "200", "2.00"),
    Row("calls of the getter, a peer", "57-64"),
    Row("ms, p50, Cache beside bare pub/sub", "1.00", "2.00", "2.00", "<= 1.3 x", False),
    Row("ms, p50, AsyncCache beside bare pub/sub", "1.00", "4.00", "4.00", "<= 1.5 x", False),
    Row("  Cache beside a peer", "100", "2.00", "0.020"),
]


def text_of(rows: list[Row]) -> str:
    """The raw text of a run on one server."""
    return "\n".join(["$ python -m bench.x --quick", "today", "", "valkey 9", "", *lines(rows)])


def written_in(picture: Path) -> list[str]:
    """The texts in a picture."""
    return re.findall(r">([^<>]+)</text>", picture.read_text())


def test_what_is_read_from_a_raw_text_is_what_was_measured() -> None:
    (run,) = read(text_of(ROWS))
    assert run.command == "$ python -m bench.x --quick\ntoday"
    assert run.server == "valkey 9"
    assert run.rows == ROWS
    table = markdown({"x": [run]})
    assert "| drain, hands of 1: messages/s | 1,000 | 800 | 0.80 | >= 0.7 x | ok |" in table
    assert "| &nbsp;&nbsp;commands sent |  | 2.00 |  | <= 2.00 | MISSED |" in table


@pytest.mark.parametrize(
    ("beginning", "shares"),
    [
        ("drain, hands of 1", {"distlock": 0.8}),
        ("acquire", {"distlock": 0.5, "a peer": 1 / 3, "another": 0.1}),
        ("ms, p50", {"Cache": 0.5, "AsyncCache": 0.25, "a peer": 0.01}),
        ("calls", {}),
    ],
)
def test_a_bar_is_the_speed_as_a_share_of_the_bare_limits(
    beginning: str, shares: dict[str, float]
) -> None:
    (run,) = read(text_of(ROWS))
    assert {bar.side: bar.share for bar in bars(run, beginning)} == pytest.approx(shares)


def test_the_table_and_the_plot_that_are_shown_are_those_of_the_raw_texts(tmp_path: Path) -> None:
    runs = {name: read((RESULTS / f"{name}.txt").read_text()) for name in NAMES}
    assert (RESULTS / "table.md").read_text() == markdown(runs)
    for name, labels in PLOTTED.items():
        assert [one for one in labels if not bars(runs[name][0], one)] == []
    draw(runs, tmp_path / "bars.svg")
    assert written_in(RESULTS / "bars.svg") == written_in(tmp_path / "bars.svg")
