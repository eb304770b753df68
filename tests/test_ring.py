"""The ring: which node has a key, and what moves when nodes come and go."""

from __future__ import annotations

import subprocess
import sys
import timeit
from collections import Counter

import pytest

from distlock import Cache, Node
from distlock.errors import UsageError
from distlock.ring import Ring
from tests.conftest import ROOT

KEYS = [f"user:{n}" for n in range(40_000)]
NAMES = [f"cache{n}.example:6379/0" for n in range(4)]


def ring(count: int, *weights: float) -> Ring:
    """A ring of the first so many nodes."""
    return Ring(NAMES[:count], weights or [1.0] * count)


def test_a_fourth_node_takes_a_quarter_of_the_keys_and_moves_no_other() -> None:
    three, four = ring(3), ring(4)
    moved = [key for key in KEYS if three.owner(key) != four.owner(key)]
    assert 0.24 <= len(moved) / len(KEYS) <= 0.26
    assert {four.owner(key) for key in moved} == {3}


def test_a_node_that_leaves_moves_no_key_of_the_others() -> None:
    three, two = ring(3), ring(2)
    assert all(two.owner(key) == three.owner(key) for key in KEYS if three.owner(key) != 2)


def test_the_part_of_a_node_that_is_away_is_shared_by_all_others() -> None:
    four = ring(4)
    heirs = Counter(four.order(key)[1] for key in KEYS if four.owner(key) == 0)
    assert set(heirs) == {1, 2, 3}
    assert min(heirs.values()) > 0.3 * sum(heirs.values())


def test_whoever_is_next_in_order_is_the_owner_where_the_first_is_unknown() -> None:
    four, three = ring(4), Ring(NAMES[1:], [1.0] * 3)
    for key in KEYS[:5000]:
        order = four.order(key)
        assert order[0] == four.owner(key)
        assert sorted(order) == [0, 1, 2, 3]
        if order[0] == 0:
            assert order[1] == three.owner(key) + 1


def test_nodes_have_keys_by_their_weights() -> None:
    shares = Counter(map(ring(3, 1.0, 2.0, 5.0).owner, KEYS))
    for node, share in enumerate((1 / 8, 2 / 8, 5 / 8)):
        assert shares[node] / len(KEYS) == pytest.approx(share, rel=0.03)


def test_a_weight_that_grows_takes_keys_and_gives_none_away() -> None:
    light, heavy = ring(3, 1, 1, 1), ring(3, 1, 1, 2)
    moved = [key for key in KEYS if light.owner(key) != heavy.owner(key)]
    assert {heavy.owner(key) for key in moved} == {2}
    assert len(moved) / len(KEYS) == pytest.approx(1 / 2 - 1 / 3, abs=0.01)


def test_nodes_that_are_named_in_another_order_have_the_same_keys() -> None:
    one, other = Ring(NAMES, [1, 2, 3, 4]), Ring(NAMES[::-1], [4, 3, 2, 1])
    assert all(NAMES[one.owner(key)] == NAMES[::-1][other.owner(key)] for key in KEYS)


def test_all_processes_agree_whatever_their_hash_seed_is() -> None:
    code = (
        "from zlib import crc32\n"
        "from tests.test_ring import KEYS, ring\n"
        "nodes = ring(4, 1, 2, 3, 4)\n"
        "print(crc32(bytes(nodes.owner(key) for key in KEYS)), nodes.order('user:7'))"
    )
    said = {
        subprocess.check_output(
            [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": seed}, text=True
        )
        for seed in ("1", "2")
    }
    assert said == {"2537349014 [3, 2, 1, 0]\n"}  # other numbers would lose every cache there is


def test_one_node_has_everything() -> None:
    assert ring(1).owner("k") == 0
    assert ring(1).order("k") == [0]


def test_a_look_up_takes_about_a_microsecond() -> None:
    four = ring(4)
    best = min(timeit.repeat(lambda: four.owner("user:12345"), number=20_000, repeat=5)) / 20_000
    assert best < 5e-6  # 0.3 measured; this machine may be busy


# --- what a user gives ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodes",
    [
        ("redis://a", "redis://a"),
        ("redis://a", "redis://user:pw@a:6379/0"),
        (Node("redis://a", name="x"), Node("redis://b", name="x")),
    ],
)
def test_a_node_that_is_given_twice_is_refused(nodes: tuple[str | Node, ...]) -> None:
    with pytest.raises(UsageError, match="twice"):
        Cache(*nodes)


def test_no_node_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a node"):
        Cache()


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "2", None, True])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(UsageError, match=r"weight .* take 0.01 to 1000$"):
        Node("redis://a", weight=weight)


@pytest.mark.parametrize("name", [5, b"a", None, ["a"]])
def test_a_name_that_is_no_text_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no text"):
        Node("redis://a", name=name)


def test_a_server_is_named_by_where_it_is_and_never_by_its_password() -> None:
    assert Node("redis://user:secret@a:7/3").name == "a:7/3"
    assert Node("redis://a").name == "a:6379/0"
    assert Node("unix:///tmp/x.sock?db=2").name == "/tmp/x.sock/2"
    assert Node("redis://a", name="mine").name == "mine"
