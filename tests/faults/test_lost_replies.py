"""Operations whose answers are lost, one to three of each, are done exactly once and raise nothing.

`python -m tests.faults.lost_replies` does 1,000 of each and prints a table; see there.
"""

from __future__ import annotations

import pytest

from tests.faults.lost_replies import CLIENTS, OPERATIONS, broken, lose

NUMBER = 25
"""Of each operation here: two in each lane."""


@pytest.mark.parametrize("client", list(CLIENTS))
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_5_each_is_done_exactly_once_although_its_answers_are_lost(
    url: str, operation: str, client: str
) -> None:
    with broken(url):
        result = lose(url, operation, client, NUMBER)
    print(result.line())
    assert not result.wrong, "\n".join(result.wrong)
    assert result.effects == NUMBER
    assert result.lost >= NUMBER
