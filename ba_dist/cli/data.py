"""`ba-dist data …`: bring data to this machine, list it, look at it."""

import sys

import click

from ba_dist.data.catalog.names import DATASETS


@click.group()
def data() -> None:
    """Bring data to this machine before training needs it."""


_DATA_DIR = click.option("--data-dir", help="where the data is, or is to be prepared")


@data.command("prepare")
@click.argument("name")
@_DATA_DIR
def data_prepare(name: str, data_dir: str | None) -> None:
    """Prepare the dataset NAME once (on the login node, where there is a network).

    Small datasets become arrays, TFRecord shards get their index, datasets of TensorFlow Datasets
    are downloaded; images that are there are looked at. For fashion_mnist, bible-kjv and
    fortunes a Debian package is installed where there is no other way; training itself installs
    nothing.
    """
    from ba_dist.config import Data
    from ba_dist.data.catalog import text_datasets
    from ba_dist.data.catalog.find import find
    from ba_dist.data.catalog.prepare import INFOS, prepare

    if name in INFOS or name.startswith("synthetic"):
        prepared = prepare(name, data_dir, install=True)
        click.echo(f"{name}: ready in {prepared.folder}, from {prepared.origin}")
        return
    if name in text_datasets.TEXTS:
        text_datasets.install(name)
    found = find(Data(dataset=name, data_dir=data_dir))
    counts = [found.splits[split].count for split in ("train", "validation")]
    click.echo(
        f"{name}: ready, {found.origin}; {counts[0]} samples to train on, {counts[1]} to evaluate"
    )


@data.command("index")
@click.argument("name")
@_DATA_DIR
def data_index(name: str, data_dir: str | None) -> None:
    """Make the index of NAME's TFRecord shards, which reading at random needs, anew.

    Every shard is read once and every checksum is checked. Training makes the index itself where
    there is none, but then all ranks wait for it.
    """
    from ba_dist.config import Data
    from ba_dist.data.catalog.find import index, shards_of
    from ba_dist.data.sources import shard_index

    found = shards_of(Data(dataset=name, data_dir=data_dir))
    for split, shards in found.files.items():
        made, corrupt = index(found, split)
        for line in corrupt:
            click.echo(line)
        place = shard_index.save(made, shards)
        click.echo(f"{place}: {len(made.columns['label'])} records in {len(shards)} shards")


@data.command("verify")
@click.argument("name")
@_DATA_DIR
def data_verify(name: str, data_dir: str | None) -> None:
    """Read and decode every sample of NAME; list the corrupt ones; exit with 1 if there are any."""
    from ba_dist import runtime
    from ba_dist.config import Data
    from ba_dist.data.catalog.find import find
    from ba_dist.data.catalog.found import open_split
    from ba_dist.data.catalog.verify import verify

    found = find(Data(dataset=name, data_dir=data_dir))
    corrupt, total = 0, 0
    for name_of_split, split in found.splits.items():
        source = open_split(found.info, split)
        corrupt += verify(source, runtime.cores(), name_of_split, click.echo)
        total += len(source)
    click.echo(f"{total} samples of {name}, {corrupt or 'none'} corrupt; from {found.origin}")
    sys.exit(1 if corrupt else 0)


@data.command("list")
def data_list() -> None:
    """List the datasets."""
    for name, text in DATASETS.items():
        click.echo(f"{name:14} {text}")
    click.echo("NAME           any classification of images in TensorFlow Datasets")
