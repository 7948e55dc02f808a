"""What a command trains: a recipe, what is derived of it, a file, flags."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from ba_dist.config import (
    BASELINES,
    PARTS,
    Config,
    Option,
    check,
    from_dict,
    options,
    override,
    to_dict,
)
from ba_dist.data.catalog.names import DATASETS, PAIRS, TEXTS
from ba_dist.errors import ConfigError
from ba_dist.recipes import RECIPES, baseline_of, own, recipe, smoke_of
from ba_dist.rules.schedules import Scale, parse_regime, parse_scale

# Settings of a dataset that only some datasets have: what these are called, and their names.
_ONLY = {
    **dict.fromkeys(("bptt", "context", "least_count"), ("a text", TEXTS)),
    **dict.fromkeys(("languages", "row_tokens", "subwords"), ("sentence pairs", PAIRS)),
}
# Where a run is, and that it goes on, is not what the run is.
OF_ONE_RUN = ("run_dir", "resume")
# What a baseline is derived from; all other values that are given say what the run itself does.
_COMPARED = ("batch_size", "multiplicity")


@dataclass(frozen=True)
class Settings:
    """Where the settings of a command come from; `config()` reads them.

    Args:
        name: of the recipe; None where the file says it.
        file: given by --config.
        flags: flat name → value, of the flags that were given; `baseline` and `smoke` may be among
            them.
    """

    name: str | None
    file: Path | None
    flags: dict[str, Any]

    def __post_init__(self) -> None:
        if self.name is None and self.file is None:
            raise click.UsageError("RECIPE is missing; `ba-dist recipes` lists them")

    def config(self) -> Config:
        """Recipe, B and M, `--smoke`, `--baseline`, then all else that a file says, then flags.

        Of B and M, too, a flag wins over the file. So a baseline is that of the B and M that were
        given, and every other value that was given is what the run has.

        Raises:
            ConfigError: naming the file and the key, or the line of a recipe of somebody's own.
        """
        said = read(self.file) if self.file else Said(None, {})
        name = self.name or said.recipe
        if name is None:
            raise ConfigError(f"{self.file} names no `recipe:`; give RECIPE before the flags")
        # A run of somebody's own recipe knows the name and all values, but not the file.
        known = name in RECIPES or own.is_own(name) or not said.of_run
        config = recipe(name) if known else Config(name)
        given = {**said.values, **self.flags}
        baseline, small = given.pop("baseline", "none"), given.pop("smoke", False)
        if said.of_run:
            self._check_of_run(said)
            config = replace(override(config, given), baseline=baseline, smoke=small)
        else:
            sizes = {name: given.pop(name) for name in _COMPARED if name in given}
            config = smoke_of(config, sizes) if small else override(config, sizes)
            config = baseline_of(config, baseline, given)
        _check_applies(config, self.flags)
        return config

    def _check_of_run(self, said: "Said") -> None:
        """A run's file has every value: nothing can be derived from it once more."""
        for name in ("baseline", "smoke"):
            if self.flags.get(name, said.values[name]) != said.values[name]:
                raise ConfigError(
                    f"--config {self.file} is that of a run, with all values as they were;"
                    f" --{name} derives them from a recipe: give RECIPE without --config"
                )

    def words(self) -> list[str]:
        """The words of `ba-dist train` that say the same from any folder, without the flags but
        for those of what is derived."""
        name = self.name and (own.absolute(self.name) if own.is_own(self.name) else self.name)
        file = [f"--config={self.file.absolute()}"] if self.file else []
        derived = [f"--baseline={self.flags['baseline']}"] if "baseline" in self.flags else []
        if "smoke" in self.flags:
            derived += ["--smoke" if self.flags["smoke"] else "--no-smoke"]
        return [*([name] if name else []), *file, *derived]


def _check_applies(config: Config, flags: dict[str, Any]) -> None:
    """Refuses flags that a dataset makes nothing of, as far as the dataset is known here.

    A file or recipe may hold them: they are for any dataset.
    """
    name = config.data.dataset
    if name not in DATASETS:
        return
    for setting, (kind, names) in _ONLY.items():
        if setting in flags and name not in names:
            raise ConfigError(
                f"--{setting.replace('_', '-')} is of {kind}, and --dataset is {name}; leave it"
                f" out, or take one of {', '.join(names)}"
            )
    if name in ("synthetic", "synthetic-colour"):
        return
    if "image_channels" in flags:
        raise ConfigError(
            f"--image-channels is for --dataset synthetic; {name} has channels of its own"
        )
    if "image_size" in flags and config.augment.crop == "none":
        raise ConfigError(
            f"--image-size changes nothing of {name} without a --crop, which makes squares of that"
            " size; leave it out, or give --crop random-resized"
        )


def agreed_config(settings: Settings) -> Config:
    """The configuration on all ranks, collective over those that were started.

    Every rank reads the files, since somebody's own recipe may enter networks in tables.

    Raises:
        ConfigError: on all ranks, when it fails on one of them, or the ranks' files differ.
    """
    if not settings.file and not own.is_own(settings.name or ""):
        return settings.config()
    from ba_dist import comm

    if comm.ranks() is None:
        return settings.config()
    world = comm.start()
    config = world.together(settings.config)
    first = world.world.share_object(to_dict(config))

    def compare() -> None:
        if to_dict(config) != first:
            raise ConfigError(
                f"{' '.join(settings.words())} gives other settings here than on rank 0"
            )

    world.together(compare)
    return config


# --- the file -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What a file says.

    Args:
        recipe: its name, where the file has one.
        values: flat name → value.
        of_run: whether it is the config.json of a run, which has every value.
    """

    recipe: str | None
    values: dict[str, Any]
    of_run: bool = False


def read(path: Path) -> Said:
    """Reads YAML, or the config.json of a run.

    Raises:
        ConfigError: naming the file and the key that is wrong.
    """
    tree = _load(path)
    if isinstance(tree.get("config"), dict) and "layouts" in tree:
        return _of_run(path, tree["config"])
    values, named = _derived(path, tree), tree.pop("recipe", None)
    if not isinstance(named, str | None):
        raise ConfigError(f"{path}: recipe is {named!r}; expected a name")
    # Beside the file, from wherever it is called.
    if named and own.is_own(named) and not Path(named).is_absolute():
        named = f"{path.absolute().parent / named}"
    for key, value in _pairs(path, tree):
        values[key] = value
    return Said(named, values)


def _derived(path: Path, tree: dict[str, Any]) -> dict[str, Any]:
    """Takes `baseline` and `smoke` out of what a file says."""
    names = ("baseline", "smoke")
    found: dict[str, Any] = {name: tree.pop(name) for name in names if name in tree}
    if (name := found.get("baseline", "none")) not in BASELINES:
        raise ConfigError(f"{path}: baseline is {name!r}; choose from {', '.join(BASELINES)}")
    if not isinstance(found.get("smoke", False), bool):
        raise ConfigError(f"{path}: smoke is {found['smoke']!r}; expected true or false")
    return found


def _of_run(path: Path, tree: dict[str, Any]) -> Said:
    try:
        config = from_dict(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    flat = {option.name: option.of(config) for option in options()}
    # The regime of a run is for its batch, whatever the flags beside the file say.
    flat["lr_batch_size"] = flat["lr_batch_size"] or flat["batch_size"]
    flat |= {"baseline": config.baseline, "smoke": config.smoke}
    return Said(config.recipe, {k: v for k, v in flat.items() if k not in OF_ONE_RUN}, True)


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        tree = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ConfigError(f"--config {path} cannot be read: {reason}") from None
    except ValueError as error:
        raise ConfigError(f"--config {path} cannot be read: {_one_line(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"--config {path} holds no settings; expected lines such as `epochs: 5`")
    return {str(key): value for key, value in tree.items()}


def _yaml(text: str) -> Any:
    """YAML without code, whose numbers are those of JSON: 1e-4 is one, and 5:0.1 is not."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            first: [(tag, form) for tag, form in pairs if not tag.endswith((":int", ":float"))]
            for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise ValueError(f"{twice[0]} is there twice")
            return super().construct_mapping(node, deep)

    start = list("-+.0123456789")
    forms = {"int": r"[-+]?(0|[1-9]\d*)", "float": r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"}
    for kind, form in forms.items():
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"{form}$"), start)
    try:
        return yaml.load(text, Loader)  # no more than safe_load
    except yaml.YAMLError as error:
        raise ValueError(error) from None


def _pairs(path: Path, tree: dict[str, Any], part: str = "") -> Iterator[tuple[str, Any]]:
    """Flat name → checked value, of a flat file, of one in parts, or of a part."""
    known = {option.name: option for option in options() if part in ("", option.part)}
    for key, value in tree.items():
        if not part and key in PARTS and (isinstance(value, dict) or key not in known):
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {key} is {value!r}; expected settings of this part")
            yield from _pairs(path, {str(name): v for name, v in value.items()}, key)
            continue
        name = key.replace("-", "_")
        if name not in known:
            where = f" in {part}" if part else ""
            near = did_you_mean(name, known)
            raise ConfigError(f"{path}: there is no setting {key!r}{where}{near}")
        try:
            yield name, _typed(known[name], value)
        except ConfigError as error:
            raise ConfigError(f"{path}: {key}: {error}") from None


def _typed(option: Option, value: Any) -> Any:
    """The value as the configuration has it, checked; rates are written as for --lr."""
    if option.type is tuple and isinstance(value, (str, int, float)):
        value = parse_regime(f"{value}")
    elif option.type == Scale and isinstance(value, str):
        value = parse_scale(value)
    check(option, value)
    return value


def did_you_mean(word: str, known: Any) -> str:
    """`; did you mean …?` where one is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), 1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""


def _one_line(error: BaseException) -> str:
    return " ".join(f"{error}".split())
