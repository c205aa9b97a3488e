"""``fsmount mount``: options to one Config, checks, then the daemon.

Invariant: everything that can be known to be wrong is said before anything is forked, mounted or written.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import click
from msgspec.structs import replace

from fsmount.cli.checks import check_apart, check_machine, check_mountpoint
from fsmount.cli.daemon import Ready, launch, offer, warn
from fsmount.cli.fstab import PREFIX
from fsmount.cli.options import Options, mount_options
from fsmount.cli.precedence import MountCommand, absolute, here
from fsmount.config import Config, Credentials, RemoteUrl, cache_home, mount_name, parse_remote, parse_size, state_home
from fsmount.errors import StateError, UsageError
from fsmount.render.escape import escape
from fsmount.statedir import StateDirectory

_GRACE = 10.0
"""Seconds beyond ``--timeout`` that a mount may take to come up: recovery, and taking over a dead mount."""
_FIXED = (
    "remote", "mountpoint", "name", "state_dir", "cache_dir", "log_file",
    "foreground", "read_only", "noexec", "nonempty", "allow_other", "uid", "gid", "umask", "break_lock",
)  # fmt: skip
"""What the kernel, the lock or open files were told at the start."""


@click.command(
    cls=MountCommand,
    context_settings={"auto_envvar_prefix": "FSMOUNT"},
    epilog="The token comes from --token-file, --token-command or the variable FSMOUNT_TOKEN, never from the command "
    "line. Every option can be given as a variable too: --attr-ttl is FSMOUNT_ATTR_TTL; and in the file "
    '$XDG_CONFIG_HOME/fsmount/config.toml: attr_ttl = 5, for every mount, or below a line [mount."X"] for the mount of '
    'that name, mount point or remote. There, litter = ["*.tmp"] says which names stay on this mount. What is given '
    "on the command line wins, then the variable, then the file. SIGHUP reads the file again.",
)
@click.argument("remote", metavar="REMOTE")
@click.argument("mountpoint", metavar="MOUNTPOINT")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, until Ctrl-C.")
@click.option("--debug", is_flag=True, help="Log every attempt and every change elsewhere too, and tracebacks.")
@click.option(
    "-o",
    "mount_options",
    multiple=True,
    expose_value=False,
    allow_from_autoenv=False,
    metavar="NAME[=VALUE],…",
    help="Options as mount(8) and /etc/fstab give them: -o ro,attr_ttl=5.",
)
@mount_options
def mount(**options: Unpack[Options]) -> int:
    """Mount REMOTE at MOUNTPOINT, an existing empty directory.

    REMOTE is relayfile+http://HOST[:PORT]/WORKSPACE[/SUBTREE], or relayfile+https://… The command returns when the
    mount answers, and the mount goes on in the background. 'fsmount umount MOUNTPOINT' ends it.
    """
    config = configure(options)
    _check_free(config)
    _warn_of(config.credentials.token_file)
    again = _reading_again(config)
    return _in_foreground(config, again) if config.foreground else _in_background(config, again)


def _check_free(config: Config) -> None:
    """Says who has the mount before anything is begun; the lock itself decides later."""
    holder = StateDirectory(config.state_dir).holder()
    if holder is None or not holder.serving or (config.break_lock and not holder.lives):
        return
    hint = "fsmount umount ends it; another --name mounts it a second time" if holder.lives else holder.advice
    raise StateError(f"{config.name} is mounted already by {holder}", hint=hint)


def _warn_of(token_file: Path | None) -> None:
    """Says that others may read the token, where they may; the mount is made all the same."""
    try:
        found = token_file.stat() if token_file is not None else None
    except OSError:
        return  # what is wrong with it is said by who reads it
    if found is not None and stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        command = f"chmod 600 {shlex.quote(str(token_file))}"
        click.echo(f"fsmount: warning: {escape(f'others can read the token file {token_file}: {command}')}", err=True)


def configure(options: Options) -> Config:
    """The one Config of this mount; raises UsageError, MachineLacks, StateError or TimedOut for what cannot be."""
    remote = parse_remote(options["remote"].removeprefix(PREFIX))
    check_machine(allow_other=options["allow_other"])
    mountpoint = check_mountpoint(options["mountpoint"], nonempty=options["nonempty"])
    name = options["name"] or mount_name(remote)
    state_dir = _absolute(options["state_dir"] or state_home() / name)
    cache_dir = _absolute(options["cache_dir"] or cache_home() / name)
    log_file = _absolute(options["log"] or state_dir / "log")
    places = {"--state-dir": state_dir, "--cache-dir": cache_dir, "--log": log_file}
    token_file = options["token_file"]
    check_apart(mountpoint, places | ({"--token-file": _absolute(token_file)} if token_file else {}))
    return _config(options, (remote, mountpoint, name), (state_dir, cache_dir, log_file))


def _config(options: Options, mount: tuple[RemoteUrl, Path, str], places: tuple[Path, Path, Path]) -> Config:
    """``places``: of the state, the cache and the log."""
    (remote, mountpoint, name), (state_dir, cache_dir, log_file) = mount, places
    if options["settle"] > options["max_settle"]:
        raise UsageError("--settle is longer than --max-settle", hint="a file would be due before it has rested")
    return Config(
        remote=remote,
        mountpoint=mountpoint,
        name=name,
        state_dir=state_dir,
        cache_dir=cache_dir,
        log_file=log_file,
        credentials=_credentials(options),
        foreground=options["foreground"],
        debug=options["debug"],
        timeout=options["timeout"],
        attr_ttl=options["attr_ttl"],
        settle=options["settle"],
        max_settle=options["max_settle"],
        open_settle=options["open_settle"],
        max_attempts=options["max_attempts"],
        max_deletes=options["max_deletes"],
        keep_discarded=options["keep_discarded"],
        drain=options["drain"],
        cache_limit=parse_size(options["cache_limit"], cache_dir),
        spool_limit=parse_size(options["spool_limit"], state_dir),
        discard_limit=parse_size(options["discard_limit"], state_dir),
        read_only=options["read_only"],
        write_through=options["write_through"],
        hide_relay=options["hide_relay"],
        noexec=options["noexec"],
        nonempty=options["nonempty"],
        allow_other=options["allow_other"],
        break_lock=options["break_lock"],
        uid=os.getuid() if options["uid"] is None else options["uid"],
        gid=os.getgid() if options["gid"] is None else options["gid"],
        umask=options["umask"],
        litter=options["litter"],
    )


def _credentials(options: Options) -> Credentials:
    if options["token_file"] and options["token_command"]:
        raise UsageError("--token-file and --token-command were both given", hint="give the one that holds the token")
    token_file = options["token_file"]
    return Credentials(token_file=_absolute(token_file) if token_file else None, token_command=options["token_command"])


def _absolute(path: Path) -> Path:
    """Without links as far as they can be known by text: the daemon works in ``/``."""
    return Path(absolute(str(path)))


def _reading_again(config: Config) -> Callable[[], Config]:
    """What SIGHUP calls: the configuration as flags and environment of the start and the file of now give it.

    It raises FsmountError where the file cannot be; what was fixed at the start stays.
    """
    context = click.get_current_context()
    words = context.meta[MountCommand.WORDS]
    try:
        directory = here()
    except UsageError:
        directory = "/"  # nothing that was said is relative, or this would not have been reached

    def again() -> Config:
        try:
            with mount.make_context("mount", list(words), obj=directory) as fresh:
                options: Options = fresh.params  # type: ignore[assignment]
                found = _config(
                    options,
                    (config.remote, config.mountpoint, config.name),
                    (config.state_dir, config.cache_dir, config.log_file),
                )
        except click.ClickException as error:
            raise UsageError(error.format_message()) from error
        return replace(found, **{name: getattr(config, name) for name in _FIXED})

    return again


def _in_foreground(config: Config, again: Callable[[], Config]) -> int:
    from fsmount.app.daemon import run

    def ready(warning: str) -> None:
        warn(warning)
        offer(1, _made(config, os.getpid()))

    return run(config, ready, again)


def _in_background(config: Config, again: Callable[[], Config]) -> int:
    def serve(ready: Ready) -> int:
        from fsmount.app.daemon import run

        return run(config, ready, again)

    pid = launch(serve, patience=config.timeout + _GRACE, log=str(config.log_file))
    click.echo(_made(config, pid), nl=False)
    return 0


def _made(config: Config, pid: int) -> str:
    """What the command says of the mount that it made."""
    lines = [
        f"mounted {config.remote} at {config.mountpoint}",
        f"state {config.state_dir}",
        f"log {config.log_file}",
        f"pid {pid}",
    ]
    return "".join(f"{escape(line)}\n" for line in lines)
