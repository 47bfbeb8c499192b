"""Which records of a snapshot are news."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.training_log import fresh_records
from cotrain.status import Record


@given(numbers=st.lists(st.integers(1, 12), max_size=20), last=st.integers(0, 12))
def test_each_number_above_the_last_comes_once_in_order_and_the_first_record_of_it_counts(
    numbers: list[int], last: int
) -> None:
    records = [
        Record(number=number, time=0.0, kind="log", message=str(position)) for position, number in enumerate(numbers)
    ]
    fresh = fresh_records(records, last)
    assert [record.number for record in fresh] == sorted({number for number in numbers if number > last})
    assert [int(record.message) for record in fresh] == [numbers.index(record.number) for record in fresh]
