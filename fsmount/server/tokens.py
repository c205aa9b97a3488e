"""The server's own issuer: one RSA key, the token made with it, and the check of every bearer token.

Invariant: only RS256 signatures of this key are believed, and a token opens only its own workspace.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fsmount.errors import StateError
from fsmount.server.messages import Rejected

SUBJECT = "local"
AUDIENCE = "relayfile"
SCOPES = ("fs:read", "fs:write", "sync:read", "sync:trigger", "ops:read", "ops:replay")
DAY = 86_400
LIFETIME = 365 * DAY
RENEWAL = 30 * DAY
CLASS_PREFIXES = ("relay_pa_", "relay_ws_", "relay_id_", "relay_ag_")


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims that are looked at; everything else in a token is ignored."""

    wks: str | None = None
    workspace_id: str | None = None
    sub: str | None = None
    agent_name: str | None = None
    exp: int | float | None = None
    aud: str | tuple[str, ...] | None = None
    scopes: str | tuple[str, ...] | None = None

    def workspace(self) -> str:
        """The only workspace that the token opens."""
        return self.wks or self.workspace_id or ""

    def granted(self) -> tuple[str, ...]:
        """The scopes, from either form."""
        return tuple(self.scopes.split()) if isinstance(self.scopes, str) else self.scopes or ()


class Issuer:
    """The key of one server. `now` gives UTC seconds since the epoch."""

    def __init__(self, key: rsa.RSAPrivateKey, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._now = now
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
        now = int(self._now())
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

    def check(self, authorization: str, workspace: str, scope: str) -> None:
        """Raise Rejected (401, 403) unless this header's token grants `scope` in `workspace`.

        Neither `nbf`, `iat` nor `iss` is looked at, and `exp` has no leeway: relayfile-api, section 1.
        """
        if not authorization.startswith("Bearer "):
            raise _unauthorized("missing or malformed Authorization header: it must be 'Bearer TOKEN'")
        claims = self._claims(authorization.removeprefix("Bearer ").strip())
        if not claims.workspace():
            raise _unauthorized("token names no workspace")
        if not (claims.sub or claims.agent_name):
            raise _unauthorized("token names no subject")
        if claims.exp is None:
            raise _unauthorized("token has no exp claim")
        if self._now() >= claims.exp:
            raise _unauthorized("token expired")
        if AUDIENCE not in ((claims.aud,) if isinstance(claims.aud, str) else claims.aud or ()):
            raise _unauthorized("invalid aud claim")
        granted = claims.granted()
        if not granted:
            raise Rejected(403, "forbidden", "no scopes granted")
        if claims.workspace() != workspace:
            raise Rejected(403, "forbidden", "workspace mismatch")
        if scope not in granted:
            raise Rejected(403, "forbidden", f"missing required scope: {scope}")

    def is_fresh(self, token: str, workspace: str) -> bool:
        """Whether a token kept from an earlier start will still serve for a month."""
        try:
            claims = self._claims(token)
        except Rejected:
            return False
        return claims.workspace() == workspace and (claims.exp or 0) - self._now() >= RENEWAL

    def _claims(self, token: str) -> Claims:
        for prefix in CLASS_PREFIXES:
            token = token.removeprefix(prefix)
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise _unauthorized("token is not a JWS") from error
        if header.get("alg") != "RS256":
            raise _unauthorized("unsupported jwt algorithm")
        if not header.get("kid"):
            raise _unauthorized("missing jwt kid")
        if header["kid"] != self.kid:
            raise _unauthorized("unknown jwt kid")
        try:
            payload = jwt.PyJWS().decode(token, self._key.public_key(), algorithms=["RS256"])
        except jwt.InvalidTokenError as error:
            raise _unauthorized("jwt signature mismatch") from error
        try:
            return msgspec.json.decode(payload, type=Claims)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unauthorized("invalid jwt claims") from error


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


def keep_token(folder: Path, issuer: Issuer, workspace: str) -> Path:
    """`folder/token`, one line with a token for `workspace` that lasts at least another month."""
    path = folder / "token"
    kept = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    if not issuer.is_fresh(kept, workspace):
        write_private(path, issuer.sign(issuer.default_claims(workspace)).encode() + b"\n")
    return path


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


def _unauthorized(message: str) -> Rejected:
    return Rejected(401, "unauthorized", message)
