"""Who asks: what is known of a caller once the token is believed."""

import msgspec


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The bearer of a token: the one workspace that it opens, its name, and what was granted.

    `expires_at` is in UTC seconds since the epoch.
    """

    workspace: str
    subject: str
    scopes: tuple[str, ...]
    expires_at: float = float("inf")
