"""Translation goes all the way on one, two and four ranks, whose weights and BLEU are the same.

Float64, so that only the order of sums may differ.
"""

import json
from functools import cache

import numpy as np
import pytest

from ba_dist.run import checkpoint
from tests.parallel.ranks import WIDE, mpirun, program

pytestmark = WIDE

STEPS = 6
WHOLE = ["whole", {"steps": STEPS}]
PLANS = {
    1: [
        WHOLE,
        ["cut", {"steps": STEPS, "microbatch": 4}],
        ["plain", {"steps": STEPS, "multiplicity": 1, "model": "tiny-plain"}],
        ["plain-copies", {"steps": STEPS, "model": "tiny-plain"}],
        ["begun", {"steps": 3}],
    ],
    2: [WHOLE, ["../1/begun", {"steps": STEPS}]],
    4: [WHOLE],
}
LEARNED = ["learned", {"epochs": 25, "precision": "fp32", "model": "tiny-plain"}]
ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
GERMAN = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn"]


def write_texts(folder, seed, lines):
    """Numbers in both languages; a comma shows that texts are not only words."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for split, count in (("train", lines), ("valid", 50)):
        numbers = [generator.integers(0, 10, generator.integers(1, 7)) for _ in range(count)]
        for ending, words in (("en", ENGLISH), ("de", GERMAN)):
            text = "".join(", ".join(words[n] for n in row) + "\n" for row in numbers)
            (folder / f"{split}.{ending}").write_text(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the runs on so many ranks."""
    out = tmp_path_factory.mktemp("translation")
    write_texts(out / "texts", 0, 400)
    write_texts(out / "others", 1, 390)

    @cache
    def run(ranks):
        if ranks == 2:
            run(1)  # goes on there
        folder = out / str(ranks)
        program("translation.py", ranks, folder, json.dumps(PLANS[ranks]))
        return folder

    return run


def arrays(run):
    return checkpoint.newest_good(checkpoint.folder_of(run)).arrays


def found(run):
    return json.loads((run / "found.json").read_text())


def assert_same_run(mine, expected):
    mine, expected = arrays(mine), arrays(expected)
    assert mine.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(mine[name], array, rtol=1e-10, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("ranks", "name"), [(1, "cut"), (2, "whole"), (4, "whole")])
def test_every_layout_learns_the_same(made, ranks, name):
    assert_same_run(made(ranks) / name, made(1) / "whole")


def test_a_run_goes_on_on_other_ranks(made):
    """Begun on one, ended on two."""
    assert made(2).is_dir()
    assert_same_run(made(1) / "begun", made(1) / "whole")


def test_copies_differ_by_their_dropout_alone(made):
    """Without dropout two copies are one: M = 2 learns what M = 1 does. With it they do not."""
    assert_same_run(made(1) / "plain-copies", made(1) / "plain")
    whole, plain = arrays(made(1) / "whole"), arrays(made(1) / "plain")
    name = "model/transformer/embedding/embeddings"
    assert np.abs(whole[name] - plain[name]).max() > 1e-3


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_audit_and_answers(made, ranks):
    mine, first = found(made(ranks) / "whole"), found(made(1) / "whole")
    assert mine["audit"] == [STEPS, []]
    evaluated = mine["evaluated"]
    assert evaluated["bleu_pairs"] == 50
    assert 0 < evaluated["bleu_of_copying"] < 30 and "version:" in evaluated["bleu_signature"]
    for name in ("bleu", "bleu_of_copying", "bleu_signature"):
        assert evaluated[name] == first["evaluated"][name], name
    for name in ("val_loss", "val_token_accuracy"):
        assert evaluated[name] == pytest.approx(first["evaluated"][name], rel=1e-10)
    assert "other words here" in mine["refused"]


@pytest.mark.smoke
def test_it_learns_to_translate(tmp_path):
    """A network of a few thousand weights, in seconds; then the command needs the run alone."""
    write_texts(tmp_path / "texts", 0, 400)
    write_texts(tmp_path / "others", 1, 390)
    program("translation.py", 1, tmp_path / "out", json.dumps([LEARNED]))
    run = tmp_path / "out" / "learned"
    evaluated = found(run)["evaluated"]
    assert evaluated["bleu"] > 30 > 2 * evaluated["bleu_of_copying"]
    assert (run / "subwords.model").is_file()


def test_texts_that_are_not_aligned_start_nothing(made, tmp_path):
    write_texts(tmp_path / "texts", 0, 20)
    path = tmp_path / "texts" / "train.de"
    path.write_text(path.read_text() + "elf\n")
    words = ["train", "transformer-gettext", "--dataset", "pairs", "--data-dir", path.parent]
    done = mpirun(2, *words, "--run-dir", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("has 20 lines, train.de has 21") == 1
    assert "Traceback" not in done.stderr
