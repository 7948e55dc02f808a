"""Every field of the configuration as a flag, for the commands that take a recipe."""

from typing import Any

import click

from ba_dist.config import PARTS, Config, Option, options
from ba_dist.recipes import RECIPES, recipe
from ba_dist.rules.schedules import Regime, parse_regime


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


class RecipeCommand(click.Command):
    """Shows its flags by part, with the recipe's values; lists them when one is unknown."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # --help is answered before RECIPE is read, wherever it stands.
        ctx.meta[__name__] = next((word for word in args if word in RECIPES), None)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = [p for p in self.params if isinstance(p, click.Option) and not p.hidden]
            flags = [flag for param in known for flag in (*param.opts, *param.secondary_opts)]
            close = (
                f" Did you mean {', '.join(error.possibilities)}?" if error.possibilities else ""
            )
            raise click.UsageError(
                f"there is no flag {error.option_name}.{close}\nThe flags: {' '.join(flags)}", ctx
            ) from None

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


class _RegimeType(click.ParamType[Regime]):
    name = "RATE or EPOCH:RATE,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> Regime:
        return parse_regime(value) if isinstance(value, str) else value


def config_flags(command: Any) -> Any:
    """One flag for every field of the configuration."""
    for option in reversed(options()):
        names = [option.flag, option.name]
        if option.type is bool:
            names[0] = f"{option.flag}/--no-{option.flag[2:]}"
        kind = _click_type(option)
        made = click.option(*names, type=kind, default=None, show_default=True, help=option.help)
        command = made(command)
    return command


def _click_type(option: Option) -> Any:
    if option.choices:
        return click.Choice(option.choices)
    if option.type is tuple:
        return _RegimeType()
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
