"""Which node has a key: rendezvous hashing over slots, weighted.

- A key has a slot (CRC-32, 65,536 of them); each node has a score for each slot, and the slot is
  the one's with the greatest. So a node that joins or leaves moves its own part of the keys, and
  no other, and a look-up is one CRC and one index.
- The order of the others by their scores says who has the part of a node that is away.
- Everything follows from the nodes' names: all processes that know the same names agree.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); the
weights after Schindelhauer and Schomaker, "Weighted distributed hash tables" (2005): the score of
a node with weight w at a uniform random u is w / -ln(u).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from hashlib import shake_128
from math import log
from operator import itemgetter
from zlib import crc32

SLOTS = 1 << 16


def _scores(name: str, weight: float) -> array[float]:
    """The scores of a node for all slots."""
    numbers = struct.unpack(f"<{SLOTS}I", shake_128(name.encode()).digest(4 * SLOTS))
    return array("d", [weight / -log((number + 0.5) / 2**32) for number in numbers])


class Ring:
    """An assignment of keys to nodes.

    Args:
        names: of the nodes, each once.
        weights: the share of each node, relative to the others'.
    """

    def __init__(self, names: Sequence[str], weights: Sequence[float]) -> None:
        nodes = list(zip(names, weights, strict=True))
        self._scores = [_scores(*node) for node in nodes] if len(names) > 1 else [[1.0] * SLOTS]
        self._owners = bytearray(SLOTS) if len(names) < 256 else array("I", bytes(4 * SLOTS))
        if len(names) > 1:
            for slot, scores in enumerate(zip(*self._scores, strict=True)):
                self._owners[slot] = scores.index(max(scores))

    def owner(self, key: str) -> int:
        """The index of the node that has a key."""
        return self._owners[crc32(key.encode()) & 0xFFFF]

    def order(self, key: str) -> list[int]:
        """The indices of all nodes: the owner, who has its part when that is away, and so on."""
        slot = crc32(key.encode()) & 0xFFFF
        scores = [(node[slot], index) for index, node in enumerate(self._scores)]
        return [index for _, index in sorted(scores, key=itemgetter(0), reverse=True)]
