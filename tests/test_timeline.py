"""The picture of the demo: as characters, as a file, and refused before the demo begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from distlock.demo.timeline import WIDTH, Plot, Timeline, timeline_lines
from distlock.errors import DistlockError, UsageError
from tests.conftest import ROOT, Done

Run = Callable[..., Done]
KILLS = {"generator killed": 2.0, "next generator": 4.0, "server killed": 7.0, "server back": 7.1}


def steady(seconds: int, rate: int, every: float = 0.5) -> list[tuple[float, int]]:
    """Looks at something that stores so many messages a second."""
    count = int(seconds / every)
    return [(number * every, round(number * every * rate)) for number in range(1, count + 1)]


def test_the_rates_are_those_of_the_looks_and_their_sum_is_what_was_stored() -> None:
    timeline = Timeline(steady(10, 100), {})
    rates = timeline.rates()
    assert rates[:-1] == pytest.approx([100] * (len(rates) - 1))
    assert sum(rate * timeline.step for rate in rates) == pytest.approx(1000)


def test_what_was_stored_while_nobody_looked_is_spread_over_the_gap() -> None:
    looks = [(1.0, 100), (5.0, 100), (6.0, 500)]
    timeline = Timeline(looks, {})
    at = [number * timeline.step for number in range(len(timeline.rates()))]
    quiet = [rate for when, rate in zip(at, timeline.rates(), strict=True) if 1 <= when < 4.7]
    assert set(quiet) == {0}
    assert sum(rate * timeline.step for rate in timeline.rates()) == pytest.approx(500)


@pytest.mark.parametrize("seconds", [1, 10, 100, 1000])
def test_the_characters_fit_into_a_line_and_mark_what_was_killed_when(seconds: int) -> None:
    scale = seconds / 10
    timeline = Timeline(steady(seconds, 5000), {what: at * scale for what, at in KILLS.items()})
    lines = list(timeline_lines(timeline, True))
    assert max(map(len, lines)) <= 80
    columns = len(timeline.rates())
    assert columns <= WIDTH + 1
    [marks] = [line[10:] for line in lines if set("".join(line.split())) == set("GgSs")]
    assert marks.index("G") == int(2 * scale / timeline.step)
    assert marks.index("s") > marks.index("S")
    assert lines[-2].split() == ["0", "s", str(seconds), "s"]


def test_a_terminal_that_knows_only_ascii_gets_ascii() -> None:
    assert all(line.isascii() for line in timeline_lines(Timeline(steady(9, 9), KILLS), False))


def test_a_demo_that_saw_nothing_draws_nothing() -> None:
    assert list(timeline_lines(Timeline([], {}), True)) == []


@pytest.mark.parametrize("suffix", ["png", "svg", "SVG"])
def test_the_file_is_a_picture_of_its_kind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"demo.{suffix}"
    Plot(str(path)).write(Timeline(steady(10, 100), KILLS))
    if suffix == "png":
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        return
    text = path.read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    for said in ("generator killed", "server back", "messages stored a second"):
        assert said in text
    assert len(text) < 60_000


@pytest.mark.parametrize("name", ["demo.gif", "demo", "nowhere/demo.png", ".svg/x.png"])
def test_a_file_that_cannot_be_is_refused_before_the_demo_begins(
    program: Run, tmp_path: Path, name: str
) -> None:
    done = program("demo", "--plot", str(tmp_path / name))
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert "--plot" in done.err


def test_without_matplotlib_one_line_says_what_to_install_before_the_demo_begins(
    program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = program("demo", "--plot", str(tmp_path / "demo.png"))
    assert (done.code, done.out) == (2, "")
    [line] = done.err.splitlines()
    assert "pip install 'distlock[plot]'" in line


def test_a_file_that_cannot_be_written_in_the_end_is_one_line(tmp_path: Path) -> None:
    plot = Plot(str(tmp_path / "demo.png"))
    (tmp_path / "demo.png").mkdir()
    with pytest.raises(DistlockError, match="Is a directory: mend that"):
        plot.write(Timeline(steady(10, 100), {}))
    with pytest.raises(UsageError, match="cannot be written there"):
        Plot(str(tmp_path / "demo.png"))


def test_the_pictures_of_the_readme_are_small_and_fetch_nothing() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in ("docs/demo.svg", "docs/top.svg"):
        assert f"]({name})" in readme
        text = (ROOT / name).read_text()
        assert len(text) < 60_000
        assert "url(http" not in text
        assert "<image" not in text
