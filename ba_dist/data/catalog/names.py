"""The names of datasets, with a line for a person. Loads nothing, so that --help is quick."""

DATASETS = {
    "fashion_mnist": "28x28x1  10 classes",
    "cifar10": "32x32x3  10 classes",
    "cifar100": "32x32x3  100 classes",
    "digits": "8x8x1  10 classes",
    "imagenet": "images in --data-dir: a folder per class, TFRecord shards, or TFDS",
    "pictures": "any others: a folder per class, or TFRecord shards, in --data-dir",
    "ptb": "words of the Penn Treebank: ptb.train.txt and ptb.valid.txt in --data-dir",
    "text": "words of any text: train.txt and valid.txt, or other .txt files, in --data-dir",
    "bible-kjv": "words of the King James Bible, from a Debian package",
    "fortunes": "words of fortunes, from a Debian package",
    "gettext-en-de": "sentence pairs: the messages of the programs on this machine",
    "wmt16-en-de": "sentence pairs, 4.5 million, through TFDS",
    "pairs": "sentence pairs of your own: train.en, train.de, valid.en, valid.de in --data-dir",
    "synthetic": "any size (--image-size), made as it is read",
    "synthetic-colour": "the same around a colour for each class, which is learned in a few steps",
    "synthetic-jpeg": "JPEGs of 500x375, made in memory",
    "synthetic-text": "words of a small grammar, made in memory",
    "synthetic-pairs": "sentences of that grammar and the same backwards, made in memory",
}

# Those that are no images.
TEXTS = ("ptb", "text", "bible-kjv", "fortunes", "synthetic-text")
PAIRS = ("gettext-en-de", "wmt16-en-de", "pairs", "synthetic-pairs")
