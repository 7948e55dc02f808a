"""Every field of the configuration as a flag, for the commands that take a recipe."""

from typing import Any

import click

from ba_dist.config import Config, Option, options
from ba_dist.recipes import RECIPES, recipe
from ba_dist.rules.schedules import format_regime, parse_regime


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


class RecipeCommand(click.Command):
    """Shows the values of the recipe that is named; lists the flags when one is unknown."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = next((word for word in args if word in RECIPES), None)
        if named:
            _show_defaults(self, recipe(named))
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


class _RegimeType(click.ParamType):
    name = "EPOCH:RATE,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return parse_regime(value) if isinstance(value, str) else value


def config_flags(command: Any) -> Any:
    """One flag for every field of the configuration."""
    for option in reversed(list(options())):
        names = [option.flag, option.name]
        if option.type is bool:
            names[0] = f"{option.flag}/--no-{option.flag[2:]}"
        command = click.option(*names, type=_click_type(option), default=None, help=option.help)(
            command
        )
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


def _show_defaults(command: click.Command, config: Config) -> None:
    by_name = {param.name: param for param in command.params}
    for option in options():
        value = getattr(getattr(config, option.part), option.name)
        param = by_name[option.name]
        if isinstance(param, click.Option):
            shown = format_regime(value) if option.type is tuple else value
            param.help = option.help + (f"  [here: {shown}]" if value is not None else "")
