"""The server's own issuer: one RSA key, and the tokens made with it.

Invariant: what holds a secret is readable by its owner alone, and is there whole or not at all.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fsmount.errors import StateError

SUBJECT = "local"
AUDIENCE = "relayfile"
SCOPES = ("fs:read", "fs:write", "sync:read", "sync:trigger", "ops:read", "ops:replay")
DAY = 86_400
LIFETIME = 365 * DAY


class Issuer:
    """The key of one server. `now` gives UTC seconds since the epoch."""

    def __init__(self, key: rsa.RSAPrivateKey, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self.now = now
        numbers = key.public_key().public_numbers()
        public = {"e": _base64url(numbers.e), "kty": "RSA", "n": _base64url(numbers.n)}
        # The key's thumbprint (RFC 7638): members in this order, without white space.
        digest = hashlib.sha256(json.dumps(public, separators=(",", ":"), sort_keys=True).encode()).digest()
        self.kid = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self.jwks = json.dumps({"keys": [{**public, "kid": self.kid, "use": "sig", "alg": "RS256"}]}).encode()

    def sign(self, claims: dict[str, object]) -> str:
        """A token with exactly these claims, whatever they are."""
        return jwt.PyJWS().encode(json.dumps(claims).encode(), self._key, algorithm="RS256", headers={"kid": self.kid})

    def default_claims(self, workspace: str) -> dict[str, object]:
        """The claims of the token that the server hands out."""
        now = int(self.now())
        return {
            "wks": workspace,
            "workspace_id": workspace,
            "sub": SUBJECT,
            "agent_name": SUBJECT,
            "aud": [AUDIENCE],
            "scopes": list(SCOPES),
            "iat": now,
            "exp": now + LIFETIME,
        }

    def public_key(self) -> rsa.RSAPublicKey:
        """The key that the server's own tokens are verified with."""
        return self._key.public_key()


def issuer(folder: Path) -> Issuer:
    """The issuer whose key lies in `folder/key.pem`, made there the first time. Raises StateError."""
    path = folder / "key.pem"
    if not path.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write_private(path, _pem(key))
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise StateError(f"{path} is not a private key", hint="remove it; the next start makes another") from error
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise StateError(f"{path} is not an RSA key", hint="remove it; the next start makes another")
    return Issuer(loaded)


def write_private(path: Path, content: bytes) -> None:
    """Put `content` at `path` (0600), whole or not at all."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    unfinished.replace(path)


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _base64url(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
