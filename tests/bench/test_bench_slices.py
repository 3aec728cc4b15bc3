# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of comparisons: turns, lengths of slices, percentiles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diolkos.bench.slices import (
    ITERATIONS_MAX,
    ITERATIONS_MIN,
    Histogram,
    Latency,
    Pair,
    megabytes_per_second,
    next_iterations,
    percentile,
    spread,
    turns,
    warm_up_of,
)


def test_turns_alternate_who_is_first_and_keep_pairs_adjacent() -> None:
    assert list(turns(["a", "b"], 2)) == [
        Pair("a", reference_first=True),
        Pair("b", reference_first=True),
        Pair("a", reference_first=False),
        Pair("b", reference_first=False),
    ]


def test_every_rival_gets_the_same_number_of_turns_in_each_order() -> None:
    pairs = list(turns(["a", "b", "c"], 10))
    for rival in "abc":
        orders = [pair.reference_first for pair in pairs if pair.rival == rival]
        assert orders.count(True) == orders.count(False) == 5


def test_slices_approach_their_target() -> None:
    iterations, per_iteration_s = ITERATIONS_MIN, 1e-6
    for _ in range(8):
        iterations = next_iterations(iterations, iterations * per_iteration_s, target_s=0.02)
    assert iterations == pytest.approx(20_000, rel=0.01)


def test_a_slice_that_was_far_too_long_is_cut_at_once() -> None:
    assert next_iterations(1000, elapsed_s=1.0, target_s=0.02) == 20


def test_slices_grow_gradually_and_have_a_floor_and_a_ceiling() -> None:
    assert next_iterations(4, elapsed_s=1e-9) == 32
    assert next_iterations(ITERATIONS_MAX, elapsed_s=1e-9) == ITERATIONS_MAX
    assert next_iterations(4, elapsed_s=100.0) == ITERATIONS_MIN
    assert next_iterations(4, elapsed_s=100.0, floor=1) == 1


def test_warm_up_never_eats_a_short_slice() -> None:
    assert warm_up_of(4) == 1
    assert warm_up_of(10_000) == 16


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(1, 11)]
    assert percentile(values, 0.5) == 5
    assert percentile(values, 0.9) == 9
    assert percentile(values, 0.7) == 7  # not 8, although 0.7 * 10 is above 7 in binary
    assert percentile(values, 0.0) == 1
    assert percentile(values, 1.0) == 10
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1), st.lists(st.floats(0, 1), max_size=6))
def test_histogram_agrees_with_sorting(times: list[int], fractions: list[float]) -> None:
    fractions.sort()
    ordered = sorted(times)
    expected = [percentile(ordered, fraction) for fraction in fractions]
    assert Histogram(times).percentiles(fractions) == expected


@given(st.lists(st.lists(st.integers(1, 1000), min_size=1), min_size=1))
def test_merged_histograms_are_the_histogram_of_all(slices: list[list[int]]) -> None:
    merged = Histogram()
    for times in slices:
        merged.add(Histogram(times))
    every = [time for times in slices for time in times]
    assert len(merged) == len(every)
    assert merged.percentiles([0.5, 0.99]) == Histogram(every).percentiles([0.5, 0.99])
    assert math.isclose(merged.mean(), sum(every) / len(every))


def test_latency_is_half_a_round_trip_in_microseconds() -> None:
    latency = Latency.of(Histogram([200, 400, 400, 6000]))
    assert latency.as_json() == {"min": 0.1, "p50": 0.2, "p99": 3.0, "p999": 3.0, "max": 3.0}
    assert latency.iterations == 4
    assert latency.mean == pytest.approx(0.875)


def test_spread_and_bandwidth() -> None:
    assert spread([3.0, 1.0, 2.0]).as_json() == {"p10": 1.0, "p50": 2.0, "p90": 3.0}
    assert megabytes_per_second(1_000_000, 1e-3) == pytest.approx(1000)
    assert megabytes_per_second(0, 1e-6) == 0
