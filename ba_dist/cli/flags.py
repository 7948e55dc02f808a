"""Every field of the configuration as a flag, for the commands that take a recipe."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ba_dist import models
from ba_dist.cli.settings import OF_ONE_RUN, did_you_mean
from ba_dist.config import BASELINES, PARTS, Config, Option, options
from ba_dist.data.catalog.names import DATASETS
from ba_dist.recipes import RECIPES, recipe
from ba_dist.recipes.own import is_own
from ba_dist.rules.schedules import Regime, Scale, parse_regime, parse_scale


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


class RecipeCommand(click.Command):
    """Shows its flags by part, with the recipe's values; names a near one when one is unknown."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # --help is answered before RECIPE is read, wherever it stands.
        named = [word for word in args if word in RECIPES] or [w for w in args[:1] if is_own(w)]
        ctx.meta[__name__] = next(iter(named), None)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = [p for p in self.params if isinstance(p, click.Option) and not p.hidden]
            flags = [flag for param in known for flag in (*param.opts, *param.secondary_opts)]
            near = did_you_mean(error.option_name, flags)
            raise click.UsageError(f"there is no flag {error.option_name}{near}", ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own flags, then a section for each part of the configuration."""
        named = ctx.meta[__name__]
        config = recipe(named) if named else Config("")
        # For --help alone: a flag has no default of its own, which tells the given ones apart.
        ctx.default_map = {option.name: _shown(option, config) for option in options()}
        titles = {option.name: _title(option.part) for option in options()}
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and isinstance(param, click.Option):
                sections.setdefault(titles.get(param.name or "", "Options"), []).append(record)
        for title in sorted(sections, key=["Options", *titles.values()].index):
            with formatter.section(title):
                formatter.write_dl(sections[title])


_SLURM = (
    click.option(
        "--ranks-per-node", type=click.IntRange(1), help="default as the site's script says"
    ),
    click.option("--cpus-per-task", type=click.IntRange(1), help="processors of a rank"),
    click.option("--time", help="limit of one start, as HH:MM:SS or D-HH; the job goes on after"),
    click.option("--account", help="who pays"),
    click.option("--partition", help="nodes to choose from; several are separated by commas"),
    click.option("--qos", help="quality of service"),
    click.option("--constraint", help="features that the nodes must have"),
    click.option("--job-name", help="default RECIPE"),
)


def slurm_flags(command: Any) -> Any:
    """What a Slurm job is asked for."""
    for option in reversed(_SLURM):
        command = option(command)
    return command


class _RegimeType(click.ParamType[Regime]):
    name = "RATE or EPOCH:RATE,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> Regime:
        return parse_regime(value) if isinstance(value, str) else value


class _ScaleType(click.ParamType[Scale]):
    name = "FACTOR or NAME"

    def convert(self, value: Any, param: Any, ctx: Any) -> Scale:
        return parse_scale(value) if isinstance(value, str) else value


def settings_flags(command: Any, lists: bool = False) -> Any:
    """RECIPE, --config, and one flag for every field of the configuration.

    Args:
        command: the function.
        lists: whether a flag takes several values; then the function gets tuples of tuples, and
            there are no flags that say where a run is.
    """
    for option in reversed(options()):
        if lists and option.name in OF_ONE_RUN:
            continue
        names = [option.flag, option.name]
        if option.type is bool:
            names[0] = f"{option.flag}/--no-{option.flag[2:]}"
        elif lists and option.name == "seed":
            names.insert(1, "--seeds")
        kind = _click_type(option)
        made = click.option(
            *names,
            type=_listed(option, kind) if lists else kind,
            multiple=lists,
            default=None,
            show_default=True,
            help=option.help + _names_of(option),
            shell_complete=_completes(option),
        )
        command = made(command)
    command = click.option(
        "--smoke/--no-smoke",
        default=None,
        help="a few steps on a few synthetic samples: does the recipe run, does its loss fall?"
        " Other flags win over what it sets",
    )(command)
    command = click.option(
        "--baseline",
        type=ListOf(click.Choice(BASELINES)) if lists else click.Choice(BASELINES),
        multiple=lists,
        help="in place of the recipe, what it is compared with: fixed-steps (one copy, as many"
        " steps), fixed-samples (one copy, batches and epochs M times as large), fixed-compute (B/M"
        " samples a step, M copies of each). B and M are those of --batch-size and --multiplicity;"
        " all other flags win over what is derived",
    )(command)
    command = click.option(
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="settings in YAML, or the config.json of a run; flags come before them",
    )(command)
    return click.argument(
        "name", metavar="RECIPE", required=False, shell_complete=recipes_that_begin
    )(command)


# Values that may hold a comma themselves: their flags are given several times.
_WHOLE = ("lr", "data_dir", "init_from")


class ListOf(click.ParamType[Any]):
    """Values of a type, with commas between them."""

    def __init__(self, one: Any):
        self._one = click.types.convert_type(one)
        self.name = f"{self._one.name},…"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        shown: str | None = self._one.get_metavar(param, ctx)
        return shown

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(self._one.convert(word.strip(), param, ctx) for word in value.split(","))


class _Whole(click.ParamType[Any]):
    """One value, as a list of one."""

    def __init__(self, one: Any):
        self._one = click.types.convert_type(one)
        self.name = self._one.name

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return (self._one.convert(value, param, ctx),) if isinstance(value, str) else value


def _listed(option: Option, kind: Any) -> Any:
    if option.type is bool:
        return bool
    return (_Whole if option.name in _WHOLE else ListOf)(kind)


# The names that a field may have, for --help and the shell. More may be entered in the tables.
_NAMES: dict[str, Iterable[str]] = {"model": models.NETWORKS, "dataset": DATASETS}


def _names_of(option: Option) -> str:
    known = {"model": models.names(), "dataset": ", ".join(DATASETS)}
    return f": {known[option.name]}" if option.name in known else ""


def _completes(option: Option) -> Any:
    if option.name not in _NAMES:
        return None
    names = _NAMES[option.name]
    return lambda ctx, param, start: [name for name in names if name.startswith(start)]


def recipes_that_begin(ctx: click.Context, param: click.Parameter, start: str) -> Any:
    """Recipes, and where none begins like this the shell's own files: FILE.py:FUNCTION."""
    return [name for name in RECIPES if name.startswith(start)] or [
        CompletionItem(start, type="file")
    ]


def _click_type(option: Option) -> Any:
    if option.choices:
        return click.Choice(option.choices)
    if option.type is tuple:
        return _RegimeType()
    if option.type == Scale:
        return _ScaleType()
    if option.type in (int, float) and option.low is not None:
        range_of: Any = click.IntRange if option.type is int else click.FloatRange
        return range_of(option.type(option.low), option.high)
    return option.type


def _shown(option: Option, config: Config) -> Any:
    value = option.of(config)
    # click asks for the truth of a flag's default; any other one it shows as text.
    return value if value is None or option.type is bool else option.text(value)


def _title(part: str) -> str:
    """`Batch (what one step trains on)`."""
    says = PARTS[part].__doc__.rstrip(".")
    return f"{part.title()} ({says[0].lower()}{says[1:]})"
