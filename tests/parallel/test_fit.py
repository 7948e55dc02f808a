"""Keras' own `fit` on several ranks: what it computes, what ranks tell each other, how it ends.

What is compared between numbers of ranks is float64, so that only the order of sums may differ.
"""

import json
from functools import cache

import numpy as np
import pytest

from tests.parallel.ranks import PROGRAMS, ROOT, WIDE, mpirun, program, warm


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, what each rank has seen, what was printed) of `programs/fitting.py`."""

    @cache
    def run(ranks):
        out = tmp_path_factory.mktemp(f"fit-{ranks}")
        printed = program("fitting.py", ranks, out, run=warm)
        seen = [json.loads((out / f"rank-{r}.json").read_text()) for r in range(ranks)]
        return out, seen, printed

    return run


def weights(folder, name):
    return list(np.load(folder / f"{name}.npz", allow_pickle=False).values())


def assert_close(found, expected):
    assert len(found) == len(expected) > 0
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("ranks", "name"),
    [
        *(pytest.param(4, name, marks=WIDE) for name in ("sgd", "clipnorm")),
        *((2, name) for name in ("sgd", "clipnorm", "global_clipnorm", "embedding", "frozen")),
    ],
)
def test_ranks_train_as_one_process_with_the_whole_batch(made, ranks, name):
    """Weights, moving statistics and the optimizer's variables; clipped after the mean."""
    assert_close(weights(made(ranks)[0], name), weights(made(1)[0], name))


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=WIDE)])
def test_replicas_are_bit_identical_and_metrics_those_of_all_samples(made, ranks):
    """Shards of 50 samples for the evaluation: 13 and 12. AUC is no mean of the ranks' AUC."""
    (_, (single,), _), (_, seen, _) = made(1), made(ranks)
    for found in seen:
        trained = [case for case in found.values() if isinstance(case, dict) and "alike" in case]
        assert trained and all(case["alike"] for case in trained)
        assert found["sgd"] == seen[0]["sgd"]
        assert {"val_auc", "auc", "loss", "val_binary_accuracy"} <= found["sgd"].keys()
        for name, values in single["sgd"].items():
            np.testing.assert_allclose(found["sgd"][name], values, rtol=1e-12, err_msg=name)
        assert found["evaluated"] == pytest.approx(single["evaluated"], rel=1e-12)


@pytest.mark.mpi
def test_frozen_layers_keep_every_bit(made):
    assert made(2)[1][0]["frozen"]["kept"]


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("case", "steps"),
    [("at a step", 2), ("at the last step", 3), ("at the end", 3), ("early", 6)],
)
def test_what_stops_one_rank_stops_all_after_the_same_step(made, case, steps):
    assert [found[case]["steps"] for found in made(2)[1]] == [steps, steps]


@pytest.mark.mpi
def test_rates_grow_step_by_step_and_are_then_left_alone(made):
    for found in made(2)[1]:
        grown = [0.1 + 0.3 * step / 6 for step in range(6)]
        np.testing.assert_allclose(found["rates"], [*grown, *[0.4] * 3, *[0.125] * 3])


@pytest.mark.mpi
def test_rank_0_alone_writes_and_what_it_reads_all_go_on_with(made):
    folder, seen, _ = made(2)
    assert [found["written"] for found in seen] == [[True, True], [False, False]]
    whole = weights(folder, "whole")
    assert_close(weights(folder, "resumed"), whole)
    assert_close(weights(folder, "loaded"), whole)


@pytest.mark.mpi
def test_a_saved_model_needs_no_ba_dist(made):
    import keras

    folder, seen, _ = made(2)
    assert seen[0]["names us"] is False
    loaded = keras.models.load_model(folder / "saved.keras")
    assert type(loaded.optimizer) is keras.optimizers.SGD
    assert_close([np.asarray(v) for v in loaded.variables[:4]], weights(folder, "saved")[:4])


@pytest.mark.mpi
def test_an_overflow_on_one_rank_is_left_out_on_all(made):
    for found in made(2)[1]:
        assert (found["half"]["steps"], found["half"]["scale"]) == (2, 2.0**14)
        assert found["half"]["alike"]


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("unknown", "length of the dataset is not known"),
        ("unequal", "to epoch 2, 3 steps in each"),
        ("epochs", "rank 1 trains to epoch 2"),
        ("first", "rank 0 ends epoch 1, but rank 1 ends epoch 2"),
        ("validated", "rank 0 begins an evaluation, but rank 1 ends epoch 1"),
        ("own rate", "after epoch 1 rank 1 holds other weights than rank 0"),
        ("schedule", "the optimizer has a schedule"),
        ("unbuilt", "keras.Input(shape)"),
        ("plain", "ba_dist.distributed(optimizer, comm)"),
        ("no optimizer", "keras.optimizers.SGD(0.1)"),
    ],
)
def test_mistakes_are_told_on_all_ranks_and_nobody_hangs(made, mistake, told):
    for found in made(2)[1]:
        assert told in found[mistake]


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("raises", "ValueError: spoilt by rank 1"),
        ("dry", "the data of rank 1 ended after 2 of 6 steps"),
    ],
)
def test_what_ends_one_rank_inside_fit_ends_all(kind, told):
    """The other one is in the message of a step."""
    words = ("python", PROGRAMS / "fit_fails.py", kind)
    done = mpirun(2, *words, check=False, timeout=120)
    assert done.returncode != 0
    assert "rank 1 on " in done.stderr and told in done.stderr
    assert "nobody should come here" not in done.stdout


@pytest.mark.mpi
@pytest.mark.smoke
def test_the_example_of_the_documentation_learns_and_rank_0_alone_speaks():
    done = mpirun(2, "python", ROOT / "docs" / "examples" / "fit.py")
    assert done.stdout.count("Epoch 10/10") == 1
    assert float(done.stdout.split("val_accuracy: ")[-1].split()[0]) > 0.85
    assert done.stderr == ""
