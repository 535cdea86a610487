"""The chaos run at one seed, with fewer slots and images than its command has, so that it takes a minute."""

from __future__ import annotations

import pytest
from chaos import run
from private_servers import MissingError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "slots", "ray"),
    [("postgresql", 12, False), ("mysql", 12, False), ("sqlite", 12, False), ("postgresql", 8, True)],
)
def test_a_search_on_which_everything_is_ended_at_random_loses_nothing_and_doubles_nothing(
    database: str, slots: int, ray: bool
) -> None:
    try:
        outcome = run(database, slots, seed=1, ray=ray, train_size=300)
    except MissingError as error:
        pytest.skip(str(error))
    outcome.table(f"{database}, seed 1").show()
    assert outcome.problems() == {}
    assert all(outcome.faults.values()), outcome.faults
    assert outcome.compared > slots / 2
