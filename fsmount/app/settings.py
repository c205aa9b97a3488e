"""The effective configuration as ``.relay/config.json`` shows it.

Invariant: no secret is in it, not even the words of a command that prints one.
"""

from __future__ import annotations

import os

from fsmount.config import Config

HIDDEN = "***"
_NOT_SHOWN = ("credentials", "litter_delete_settle", "delete_settle", "log_file", "litter")
DAY = 86400.0


def settings(config: Config, *, spool_limit: int) -> dict[str, object]:
    """The options by the names that ``config.toml`` has for them, in JSON's types; ``spool_limit`` in bytes."""
    shown: dict[str, object] = {
        name: _plain(getattr(config, name)) for name in config.__struct_fields__ if name not in _NOT_SHOWN
    }
    credentials = config.credentials
    given = credentials.token_file is None and credentials.token_command is None
    return shown | {
        "log": str(config.log_file),
        "token_file": _plain(credentials.token_file),
        "token_command": None if credentials.token_command is None else HIDDEN,
        "token": HIDDEN if given and os.environ.get(credentials.environment) else None,
        "keep_discarded": config.keep_discarded / DAY,
        "spool_limit": spool_limit,
        "umask": f"{config.umask:03o}",
        "litter": list(config.litter),
    }


def _plain(value: object) -> object:
    """Numbers, truth and None as they are; paths and the remote as a person writes them."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
