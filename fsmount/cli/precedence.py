"""Where the options of a mount come from: flag, environment, configuration file, default, in this order.

Invariant: what stands nearer to the call wins, for each option by itself; for the credential as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import click
from click.core import ParameterSource

from fsmount.cli import configfile, fstab
from fsmount.config import DEFAULT_LITTER, mount_name, parse_remote
from fsmount.errors import UsageError

_VARIABLES = "FSMOUNT_"


class MountCommand(click.Command):
    """A command whose options may also stand in ``-o``, in the environment and in the configuration file.

    ``Context.meta[WORDS]`` keeps the words that it was called with.
    """

    WORDS = "fsmount.words"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click. Raises UsageError for a configuration file or ``-o`` that cannot be."""
        options = {param.name: param for param in self.params if param.name}
        ctx.meta[self.WORDS] = list(args)
        given = self._given(ctx, args)
        if "help" in given:
            return super().parse_args(ctx, args)
        args = [*fstab.expanded(given.get("mount_options", ()), options), *args]
        given = self._given(ctx, args)
        file = configfile.read(options)
        chosen = file.chosen(_headings(given))
        litter = chosen.pop("litter", DEFAULT_LITTER)
        ctx.default_map = chosen
        try:
            rest = super().parse_args(ctx, args)
        except click.BadParameter as error:
            raise _from_where(error, ctx) from error
        ctx.params["litter"] = litter
        _settle_credentials(ctx)
        return rest

    def _given(self, ctx: click.Context, args: Sequence[str]) -> dict[str, Sequence[str]]:
        """What the command line says, by option, unchecked; ``help`` is among it where help is asked for."""
        found, _, _ = self.make_parser(ctx).parse_args(list(args))
        explaining = self.get_help_option(ctx)
        said = {name: _said(value) for name, value in found.items() if isinstance(value, (str, list))}
        return {**said, "help": ()} if explaining is not None and found.get(str(explaining.name)) is True else said


def _said(value: object) -> Sequence[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value] if isinstance(value, list) else []


def here() -> str:
    """The directory that relative paths begin at: where the command was called, also for a daemon that left it."""
    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, str):
        return context.obj
    try:
        return os.getcwd()
    except OSError as error:
        raise UsageError(f"the current directory is gone: {error.strerror}", hint="cd to one that is there") from error


def absolute(path: str) -> str:
    """``path`` from the root, by text alone."""
    return os.path.normpath(path if os.path.isabs(path) else os.path.join(here(), path))


def _headings(given: Mapping[str, Sequence[str]]) -> list[str]:
    """What a table of this mount may be headed with, the most exact one last."""
    remote, mountpoint = ("".join(given.get(name, ())) for name in ("remote", "mountpoint"))
    remote = remote.removeprefix(fstab.PREFIX)
    name = given["name"][-1] if "name" in given else os.environ.get(f"{_VARIABLES}NAME", "")
    headings = [remote]
    try:
        url = parse_remote(remote)
        headings += [str(url), name or mount_name(url)]
    except UsageError:
        headings.append(name)  # the command itself says what is wrong with the remote
    if mountpoint:
        headings.append(absolute(mountpoint))
    return [heading for heading in headings if heading]


def _settle_credentials(ctx: click.Context) -> None:
    """Of --token-file, --token-command and FSMOUNT_TOKEN what stands nearest to the call; two alike stay."""
    ranks = {
        name: _rank(ctx.get_parameter_source(name)) for name in ("token_file", "token_command") if ctx.params[name]
    }
    if os.environ.get("FSMOUNT_TOKEN", "").strip():
        ranks[""] = _rank(ParameterSource.ENVIRONMENT)
    nearest = min(ranks.values(), default=0)
    for name, rank in ranks.items():
        if name and rank > nearest:
            ctx.params[name] = None


def _rank(source: ParameterSource | None) -> int:
    order = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
    return order.index(source) if source in order else len(order)


def _from_where(error: click.BadParameter, ctx: click.Context) -> click.BadParameter:
    """The same error; it names the variable if the value came from there."""
    name = error.param.name if error.param is not None else None
    if name and ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
        message = f"{error.message} (from {_VARIABLES}{name.upper()})"
        return click.BadParameter(message, ctx=error.ctx, param=error.param, param_hint=error.param_hint)
    return error
