"""The one HTTP client of a remote: bounded in time, bytes and connections, and told apart by correlation ids.

Invariant: every request ends, with an ``Answer`` of a 2xx status or a RemoteError; every other status was logged once.
A request may take ``timeout`` seconds in which nothing moves; beyond that, in all, one second for every 16 KiB moved.
A body leaves in pieces, each in its time; one on disk is read as it is sent, never whole.
"""

from __future__ import annotations

import email.utils
import ipaddress
import re
import ssl
import time
import uuid
import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

import httpx
import msgspec
import trio
from msgspec import Struct

from fsmount import __version__
from fsmount.errors import InvalidAnswer, Refusal, Unreachable
from fsmount.model import RemotePath
from fsmount.ports import EventLog, Source
from fsmount.remote import decoding
from fsmount.remote.credentials import TokenSource
from fsmount.remote.decoding import UNREADABLE
from fsmount.remote.pieces import SLOWEST, Pieces, size_within
from fsmount.remote.translate import silent, translated
from fsmount.wire.relayfile import ErrorBody

T = TypeVar("T")
LARGEST = 64 * 1024 * 1024
LARGEST_ERROR = 64 * 1024
SHOWN = 1024
"""Bytes of an error body that are kept."""
REDIRECTS = 5
_CONTROL = dict.fromkeys((*range(32), 127, *range(128, 160), 8232, 8233), " ")


class Call(Struct, frozen=True, kw_only=True):
    """One request. ``target`` is path and query below the origin; ``path`` is the remote path that it is about.

    The body is ``content``, which is JSON, or ``source``, which is read anew whenever the request is repeated.
    ``accepts`` are statuses that are answers beside 2xx.
    """

    method: str
    target: str
    path: RemotePath | None = None
    content: bytes | None = None
    source: Source | None = None
    headers: tuple[tuple[str, str], ...] = ()
    accepts: frozenset[int] = frozenset()
    anonymous: bool = False


class Answer(Struct, frozen=True, kw_only=True):
    """One answer, its body whole up to the limit."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    correlation_id: str

    def header(self, name: str) -> str:
        """The header's first value, or an empty string; ``name`` in lower case."""
        return next((value for key, value in self.headers if key == name), "")


class Client:
    """Requests to one origin with one credential. Proxies of the environment are used, except to this machine."""

    def __init__(
        self,
        origin: str,
        tokens: TokenSource,
        *,
        timeout: float,
        log: EventLog,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.origin = origin
        self.requests = 0
        """Sent since the start."""
        self._tokens = tokens
        self._timeout = timeout
        self._piece = size_within(timeout)
        self._log = log
        self.trust = ssl.create_default_context() if origin.startswith("https:") else None
        """Whom to believe under TLS; None without it."""
        direct = _is_loopback(httpx.URL(origin).host)
        self.proxied = not direct and _is_proxied(httpx.URL(origin))
        """Whether requests go by way of a proxy of the environment."""
        self._http = httpx.AsyncClient(
            # Reading the authorities takes long; plain HTTP never leaves its origin, so an empty context serves it.
            verify=self.trust or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            timeout=httpx.Timeout(timeout, connect=min(5.0, timeout)),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=16),
            headers={"User-Agent": f"fsmount/{__version__}", "Accept": "application/json", "Accept-Encoding": "gzip"},
            follow_redirects=False,
            trust_env=not direct,
            transport=transport,
        )

    async def aclose(self) -> None:
        """Closes every connection."""
        await self._http.aclose()

    async def request(self, call: Call) -> Answer:
        """The 2xx answer. Raises Refusal, Unreachable or InvalidAnswer. A checkpoint.

        After a 401 the credential is read again and, where it differs, the request is made once more.
        """
        if call.anonymous:
            return self._judged(call, await self._followed(call, None))
        token = await self._tokens.token()
        answer = await self._followed(call, token)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            refusal = self._refused(call, answer)
            fresh = await self._tokens.renewed(token)
            if fresh is None:
                raise refusal
            answer = await self._followed(call, fresh)
        return self._judged(call, answer)

    def decoded(self, call: Call, answer: Answer, kind: type[T]) -> T:
        """The answer's JSON as ``kind``. Raises InvalidAnswer, logged, where it is anything else."""
        return self._decoded(call, answer, decoding.decoded, kind)

    def decoded_names(self, call: Call, answer: Answer, kind: type[T]) -> T:
        """The same for a list of names, of which one that is no Unicode text gets a zero byte."""
        return self._decoded(call, answer, decoding.decoded_names, kind)

    def invalid(self, call: Call, answer: Answer, what: str) -> InvalidAnswer:
        """The error for a 2xx that cannot be used: ``what`` is wrong with it. Logged."""
        shown = self._shown(answer.body)
        sort = answer.header("content-type") or "no content type"
        self._note("request.invalid", call, answer, shown)
        return InvalidAnswer(
            f"the answer of {self.origin} {what} (HTTP {answer.status}, {sort})",
            status=answer.status,
            body=shown,
            correlation_id=answer.correlation_id,
        )

    def note_refusal(self, call: Call, path: RemotePath, refusal: Refusal) -> None:
        """Logs one failed entry of a batch as if it had been an answer."""
        text = f"{call.method} {call.target} {refusal.status} {refusal.body.translate(_CONTROL)}"
        self._log.note(
            "request.refused", f"{text} correlation={refusal.correlation_id or '-'}", path=path, level="warning"
        )

    def hidden(self, text: str) -> str:
        """``text`` without the credential, cut at 1 KiB."""
        return cut(self._tokens.hides(text))

    def _decoded(self, call: Call, answer: Answer, decode: Callable[[bytes, type[T]], T], kind: type[T]) -> T:
        try:
            return decode(answer.body, kind)
        except UNREADABLE as error:
            raise self.invalid(call, answer, "is not relayfile's") from error

    def _judged(self, call: Call, answer: Answer) -> Answer:
        if 200 <= answer.status < 300 or answer.status in call.accepts:
            return answer
        raise self._refused(call, answer)

    def _refused(self, call: Call, answer: Answer) -> Refusal:
        shown = self._shown(answer.body)
        self._note("request.refused", call, answer, shown)
        return _refusal(answer, shown, self._tokens)

    def _shown(self, body: bytes) -> str:
        return self.hidden(body[:LARGEST_ERROR].decode(errors="replace"))

    def _note(self, event: str, call: Call, answer: Answer, shown: str) -> None:
        text = f"{call.method} {call.target} {answer.status} {shown.translate(_CONTROL)}"
        self._log.note(event, f"{text} correlation={answer.correlation_id}", path=call.path, level="warning")

    async def _followed(self, call: Call, token: str | None) -> Answer:
        """The answer behind redirects within the origin; a redirect elsewhere is an answer itself."""
        answer = await self._exchange(call, token)
        for _ in range(REDIRECTS):
            target = self._redirected(call, answer)
            if target is None:
                break
            call = msgspec.structs.replace(call, target=target)
            answer = await self._exchange(call, token)
        return answer

    def _redirected(self, call: Call, answer: Answer) -> str | None:
        keeps_method = answer.status in (307, 308) or (answer.status in (301, 302, 303) and call.method == "GET")
        location = answer.header("location")
        if not keeps_method or not location:
            return None
        try:
            target = httpx.URL(urljoin(self.origin + call.target, location))
            same = _origin(target) == _origin(httpx.URL(self.origin))
        except (httpx.InvalidURL, ValueError):
            return None
        return target.raw_path.decode("ascii") if same else None

    async def _exchange(self, call: Call, token: str | None) -> Answer:
        correlation_id = f"fsmount-{uuid.uuid4().hex}"
        headers = {"X-Correlation-Id": correlation_id, **dict(call.headers)}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if call.content is not None:
            headers["Content-Type"] = "application/json"
            headers["Content-Length"] = str(len(call.content))
        if call.source is not None:
            headers["Content-Length"] = str(call.source.size)
        self.requests += 1
        request = self._http.build_request(
            call.method,
            self.origin + call.target,
            headers=[(name.encode(), value.encode()) for name, value in headers.items()],
        )
        arriving = _Arriving(self.origin, correlation_id)
        with trio.move_on_after(self._timeout) as scope:
            body = call.content if call.source is None else call.source
            if body is not None:
                request.stream = Pieces(body, self._piece, scope)
            try:
                with translated(self.origin, correlation_id):
                    await arriving.receive(self._http, request, scope)
            except Unreachable:
                if not arriving.failed:
                    raise
        return arriving.answer(whole=not scope.cancelled_caught)


class _Arriving:
    """An answer as far as it has come."""

    def __init__(self, origin: str, correlation_id: str) -> None:
        self._origin = origin
        self._correlation_id = correlation_id
        self._response: httpx.Response | None = None
        self._pieces: list[bytes] = []
        self._length = 0

    @property
    def failed(self) -> bool:
        """Whether a status other than 2xx has come: that is enough, even where the body never ends."""
        return self._response is not None and not self._response.is_success

    @property
    def _overflows(self) -> bool:
        return self._length > (LARGEST_ERROR if self.failed else LARGEST)

    async def receive(self, http: httpx.AsyncClient, request: httpx.Request, scope: trio.CancelScope) -> None:
        """Reads to the end or to the limit; ``scope`` is given more time with every byte."""
        self._response = await http.send(request, stream=True)
        try:
            async for chunk in self._response.aiter_raw():
                scope.deadline += len(chunk) / SLOWEST
                if not self._overflows:
                    self._pieces.append(chunk)
                    self._length += len(chunk)
                if self._overflows:
                    # Leaving the loop would leave httpcore's generators open; a cancellation ends them all.
                    scope.cancel()
        finally:
            await self._response.aclose()

    def answer(self, *, whole: bool) -> Answer:
        """What has come. Raises Unreachable where too little did, InvalidAnswer where it cannot be unpacked."""
        if self._response is None or not (whole or self.failed or self._overflows):
            raise silent(self._origin, self._correlation_id)
        return Answer(
            status=self._response.status_code,
            headers=tuple(self._response.headers.items()),
            body=self._unpacked(self._response.headers.get("content-encoding", "")),
            correlation_id=self._correlation_id,
        )

    @property
    def _body(self) -> bytes:
        # Put together once: to grow with each piece costs the daemon as much as all else that it does for a block.
        return b"".join(self._pieces)

    def _unpacked(self, encoding: str) -> bytes:
        """The body without its content encoding; of an error at least nothing."""
        if self._overflows and not self.failed:
            raise self._invalid(f"longer than {LARGEST} bytes")
        if encoding.lower() in ("", "identity"):
            return self._body
        try:
            unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
            body = unpacking.decompress(self._body, LARGEST_ERROR if self.failed else LARGEST)
        except zlib.error:
            body, unpacking = b"", None
        if self.failed or (unpacking is not None and unpacking.eof):
            return body
        raise self._invalid("no gzip, or too long")

    def _invalid(self, what: str) -> InvalidAnswer:
        return InvalidAnswer(f"the answer of {self._origin} is {what}", correlation_id=self._correlation_id)


def cut(text: str, size: int = SHOWN) -> str:
    """``text`` as far as ``size`` bytes of UTF-8 hold it, ending with a whole character."""
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= size else encoded[:size].decode(errors="ignore")


def retry_after(value: str, date: str) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3); a date counts from the answer's own Date. None: unusable."""
    if re.fullmatch(r"\d{1,9}", value.strip()):
        return float(value)
    until, now = _http_date(value), _http_date(date)
    if until is None:
        return None
    return max(0.0, until - (now if now is not None else time.time()))


def _http_date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _refusal(answer: Answer, shown: str, tokens: TokenSource) -> Refusal:
    try:
        told = decoding.decoded(answer.body, ErrorBody)
    except UNREADABLE:
        told = ErrorBody()
    message = tokens.hides(told.message) or _phrase(answer)
    return Refusal(
        answer.status,
        code=cut(told.code or told.error or ("redirect" if 300 <= answer.status < 400 else ""), 100),
        message=cut(message),
        body=shown,
        retry_after=retry_after(answer.header("retry-after"), answer.header("date")),
        current_revision=told.current_revision or None,
        correlation_id=answer.correlation_id,
    )


def _phrase(answer: Answer) -> str:
    if 300 <= answer.status < 400:
        try:
            return f"redirects to {_origin(httpx.URL(answer.header('location')))}"
        except (httpx.InvalidURL, ValueError):
            return "redirects"
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return ""


def _origin(url: httpx.URL) -> str:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return f"{url.scheme}://{url.host}:{port}"


def _is_proxied(url: httpx.URL) -> bool:
    proxies = getproxies()
    return bool(proxies.get(url.scheme) or proxies.get("all")) and not proxy_bypass(url.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
