"""What a person is told when a remote answers a probe, but not as it should.

Invariant: status, code and body stay those of the answer; only the words and the hint are new.
"""

from __future__ import annotations

from fsmount.config import RemoteUrl
from fsmount.errors import InvalidAnswer, Refusal, RemoteError


def refused(refusal: Refusal, url: RemoteUrl) -> RemoteError:
    """The error to show for a refused probe of ``url``."""
    match refusal.status:
        case 401 if refusal.code == "no_credential":
            refusal.message = refusal.detail  # no server has answered 401
            return refusal
        case 401:
            return _again(refusal, f"the credential was refused: {refusal.detail}", "give a fresh token")
        case 403:
            hint = "the token must be for this workspace and grant fs:read"
            return _again(refusal, f"the credential may not read {url}: {refusal.detail}", hint)
        case 301 | 302 | 303 | 307 | 308 | 404 | 405:
            return foreign(url, refusal.status, refusal.body, refusal.correlation_id)
    return _again(refusal, f"{url.origin} cannot serve now: {refusal.detail}", "the server's log says why")


def foreign(url: RemoteUrl, status: int, body: str, correlation_id: str | None) -> InvalidAnswer:
    """The error for answers of something else than a relayfile server."""
    message = f"{url.origin} answers but is no relayfile server"
    error = InvalidAnswer(message, status=status, body=body, correlation_id=correlation_id)
    error.hint = "check host and port; a login page or a proxy may stand before the server"
    return error


def _again(refusal: Refusal, message: str, hint: str) -> Refusal:
    explained = Refusal(
        refusal.status,
        code=refusal.code,
        message=message,
        body=refusal.body,
        retry_after=refusal.retry_after,
        correlation_id=refusal.correlation_id,
    )
    explained.hint = hint
    return explained
