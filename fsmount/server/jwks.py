"""The public keys of an issuer that is not this server, fetched from its JWKS (RFC 7517).

Invariant: keys are believed for at most `LIFETIME + GRACE` seconds after they were fetched, and the loop
never waits for the network: a thread does.
"""

import time
from collections.abc import Callable
from http.client import HTTPException

import jwt
import trio
from cryptography.hazmat.primitives.asymmetric import rsa

from fsmount.server.messages import Rejected

LIFETIME = 300.0
GRACE = 60.0
PATIENCE = 5
PAUSE = 1.0  # between two attempts, whoever asks: strangers' tokens must not become a flood on the issuer


class TrustedKeys:
    """The RSA keys at `url`, which is HTTP or HTTPS. `now` gives monotonic seconds."""

    def __init__(self, url: str, now: Callable[[], float] = time.monotonic) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=PATIENCE)
        self._now = now
        self._keys: dict[str, rsa.RSAPublicKey] = {}
        self._fetched = self._tried = -float("inf")
        self._fetching = trio.Lock()

    async def refresh(self, kid: str) -> None:
        """Fetch the keys again if they are old, or `kid` is none of them. A checkpoint; raises nothing."""
        async with self._fetching:
            if self._lacks(kid) and self._age(self._tried) >= PAUSE:
                self._tried = self._now()
                keys = await trio.to_thread.run_sync(self._fetch, abandon_on_cancel=True)
                if keys is not None:
                    self._keys, self._fetched = keys, self._now()

    def key(self, kid: str) -> rsa.RSAPublicKey | None:
        """The key of that name. Raises Rejected (503) when no keys are at hand that may still be believed."""
        if self._age(self._fetched) > LIFETIME + GRACE:
            raise Rejected(503, "unavailable", "the issuer's keys cannot be fetched")
        return self._keys.get(kid)

    def _lacks(self, kid: str) -> bool:
        return self._age(self._fetched) > LIFETIME or kid not in self._keys

    def _age(self, since: float) -> float:
        return self._now() - since

    def _fetch(self) -> dict[str, rsa.RSAPublicKey] | None:
        try:
            found = self._client.fetch_data()
            keys = jwt.PyJWKSet.from_dict(found).keys if isinstance(found, dict) else []
        except (jwt.PyJWTError, OSError, HTTPException, ValueError):
            return None
        return {key.key_id: key.key for key in keys if key.key_id and isinstance(key.key, rsa.RSAPublicKey)}
