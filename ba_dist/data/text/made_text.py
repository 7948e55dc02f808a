"""Sentences of a small grammar, for first trials and smoke runs: nothing has to be there.

    the small cat sleeps under a green tree .

Every word is drawn from its key, the earlier ones of a list more often, but for the verb, which
follows from the noun before it. So a network learns in a few steps which words are common, and
later which one may follow which.
"""

import numpy as np

from ba_dist.rules.keys import combine, uniforms

_ARTICLES = ("the", "a", "every", "no")
_ADJECTIVES = ("small", "old", "green", "quiet", "heavy", "bright", "round", "early")
_NOUNS = ("cat", "river", "tree", "baker", "stone", "window", "horse", "garden", "letter", "lamp")
_VERBS = ("sleeps", "flows", "grows", "sings", "falls", "opens", "runs", "waits", "comes", "shines")
_PLACES = ("under", "near", "behind", "above")
_ORDER = (_ARTICLES, _ADJECTIVES, _NOUNS, _VERBS, _PLACES, _ARTICLES, _ADJECTIVES, _NOUNS, (".",))
_NOUN, _VERB = 2, 3
_KEY = 0x73656E74  # any number that stays: it is part of what these datasets are


def sentences(count: int, seed: int) -> list[str]:
    """The first sentences of a seed, one a line; words and signs are apart."""
    drawn = uniforms(combine(_KEY, seed, np.arange(count)), len(_ORDER))
    chosen = (np.array([len(words) for words in _ORDER]) * drawn**2).astype(int)
    chosen[:, _VERB] = chosen[:, _NOUN]
    return [" ".join(_ORDER[i][word] for i, word in enumerate(row)) for row in chosen.tolist()]


def pairs(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Sentences and their translations: the words from last to first, each spelt backwards."""
    source = sentences(count, seed)
    return source, [line[::-1] for line in source]
