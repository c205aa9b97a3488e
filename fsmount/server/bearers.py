"""The check of every bearer token: its signature, its claims, and what it grants (relayfile-api, sections 1 and 4).

Invariant: only RS256 signatures of the server's own key, or of the one issuer that it was told to trust,
are believed; a token opens only its own workspace.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from fsmount.server.jwks import TrustedKeys
from fsmount.server.messages import Rejected
from fsmount.server.principal import Principal
from fsmount.server.scopes import permits_all, permits_somewhere
from fsmount.server.tokens import AUDIENCE, DAY, Issuer, write_private

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

    def subject(self) -> str:
        """Whose token it is."""
        return self.sub or self.agent_name or ""

    def granted(self) -> tuple[str, ...]:
        """The scopes, from either form."""
        return tuple(self.scopes.split()) if isinstance(self.scopes, str) else self.scopes or ()


class Bearers:
    """Verifies tokens of the server's own `issuer`, and of `trusted` if there is one.

    `now` gives UTC seconds since the epoch.
    """

    def __init__(
        self, issuer: Issuer, trusted: TrustedKeys | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._issuer = issuer
        self._trusted = trusted
        self._now = now

    async def ready(self, token: str) -> None:
        """Fetch the keys that `token` needs, if it is another issuer's and they are not at hand. A checkpoint.

        Raises nothing: a token that cannot be verified is refused by `principal`.
        """
        if self._trusted is not None:
            kid = _kid(_bare(token))
            if kid and kid != self._issuer.kid:
                await self._trusted.refresh(kid)

    def principal(self, token: str, workspace: str) -> Principal:
        """Who bears this token in `workspace`. Raises Rejected (401, 403, or 503 without the issuer's keys).

        Neither `nbf`, `iat` nor `iss` is looked at, and `exp` has no leeway.
        """
        claims = self._claims(token)
        if not claims.workspace():
            raise _unauthorized("token names no workspace")
        if not claims.subject():
            raise _unauthorized("token names no subject")
        if claims.exp is None:
            raise _unauthorized("token has no exp claim")
        self._alive(claims.exp)
        if AUDIENCE not in ((claims.aud,) if isinstance(claims.aud, str) else claims.aud or ()):
            raise _unauthorized("invalid aud claim")
        if not claims.granted():
            raise Rejected(403, "forbidden", "no scopes granted")
        if claims.workspace() != workspace:
            raise Rejected(403, "forbidden", "workspace mismatch")
        return Principal(workspace=workspace, subject=claims.subject(), scopes=claims.granted(), expires_at=claims.exp)

    def again(self, principal: Principal) -> None:
        """Raise Rejected (401) where the token that was believed a while ago has expired since."""
        self._alive(principal.expires_at)

    def _alive(self, expires_at: float) -> None:
        if self._now() >= expires_at:
            raise _unauthorized("token expired")

    def is_fresh(self, token: str, workspace: str) -> bool:
        """Whether a token kept from an earlier start will still serve for a month."""
        try:
            claims = self._claims(token)
        except Rejected:
            return False
        return claims.workspace() == workspace and (claims.exp or 0) - self._now() >= RENEWAL

    def _claims(self, token: str) -> Claims:
        bare = _bare(token)
        key = self._key(bare)
        try:
            payload = jwt.PyJWS().decode(bare, key, algorithms=["RS256"])
        except jwt.InvalidTokenError as error:
            raise _unauthorized("jwt signature mismatch") from error
        try:
            return msgspec.json.decode(payload, type=Claims)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unauthorized("invalid jwt claims") from error

    def _key(self, token: str) -> rsa.RSAPublicKey:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise _unauthorized("token is not a JWS") from error
        if header.get("alg") != "RS256":
            raise _unauthorized("unsupported jwt algorithm")
        kid = header.get("kid")
        if not kid:
            raise _unauthorized("missing jwt kid")
        if kid == self._issuer.kid:
            return self._issuer.public_key()
        key = self._trusted.key(kid) if self._trusted else None
        if key is None:
            raise _unauthorized("unknown jwt kid")
        return key


def token_of(authorization: str) -> str:
    """The token in a header. Raises Rejected (401)."""
    if not authorization.startswith("Bearer "):
        raise _unauthorized("missing or malformed Authorization header: it must be 'Bearer TOKEN'")
    return authorization.removeprefix("Bearer ").strip()


def require(principal: Principal, scope: str, paths: Sequence[str] | None) -> None:
    """Raise Rejected (403) unless `scope` is granted at every one of `paths`.

    No paths at all means the root; None is for a route that names none, where a looser rule holds.
    """
    granted = principal.scopes
    if permits_somewhere(granted, scope) if paths is None else permits_all(granted, scope, paths):
        return
    raise Rejected(403, "forbidden", f"missing required scope: {scope}")


def keep_token(folder: Path, issuer: Issuer, workspace: str) -> Path:
    """`folder/token`, one line with a token for `workspace` that lasts at least another month."""
    path = folder / "token"
    kept = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    if not Bearers(issuer, now=issuer.now).is_fresh(kept, workspace):
        write_private(path, issuer.sign(issuer.default_claims(workspace)).encode() + b"\n")
    return path


def _bare(token: str) -> str:
    for prefix in CLASS_PREFIXES:
        token = token.removeprefix(prefix)
    return token


def _kid(token: str) -> str:
    try:
        return str(jwt.get_unverified_header(token).get("kid") or "")
    except jwt.InvalidTokenError:
        return ""


def _unauthorized(message: str) -> Rejected:
    return Rejected(401, "unauthorized", message)
