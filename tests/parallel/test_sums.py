"""Gradients summed in buckets: the right sums, the same bits every time, and sent in time."""

import json

import pytest

from tests.parallel.ranks import program, warm


@pytest.fixture(scope="module", params=[2, 3, 4])
def ranks(request):
    """What every rank has found."""
    return json.loads(program("sums.py", request.param, run=warm).splitlines()[-1])


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sums_are_exact_in_any_number_of_buckets(ranks, dtype):
    for found in ranks:
        cases = [found[f"{dtype} {limit}"] for limit in (0, 2000, 1)]
        assert [case["buckets"] for case in cases] == [1, 6 if dtype == "float64" else 4, 7]
        for case in cases:
            assert case["error"] <= 1 and case["shapes"] and case["same"]


@pytest.mark.mpi
@pytest.mark.parametrize("wire", [None, "bf16"])
def test_bits_do_not_depend_on_when_a_gradient_comes(ranks, wire):
    assert [found[f"results {wire}"] for found in ranks] == [1] * len(ranks)


@pytest.mark.mpi
@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_16_bits_round_once_before_and_once_after_the_sum(ranks, wire):
    for found in ranks:
        for limit in (0, 2000):
            case = found[f"{wire} {limit}"]
            assert case["bound"] <= 1 and case["same"] and case["in_order"]
            assert case["agreed"] <= 1, "what ranks agree on is not rounded"
            assert case["relative"] > case["unit"] / 20, "or nothing was rounded"


@pytest.mark.mpi
def test_a_bucket_is_summed_while_later_gradients_are_computed(ranks):
    for found in ranks:
        *early, last = found["times"]["sums"]
        assert max(early) < 0.4 < 0.5 <= found["times"]["ready"] <= last
        assert found["times"]["summed"] >= last
