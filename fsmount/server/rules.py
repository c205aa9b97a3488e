"""Rules that make the server fail on purpose: for tours, demonstrations and tests.

One rule a line, `METHOD GLOB ACTION... [times=N]`; `#` starts a comment; the first that matches wins.
Invariant: the file is looked at again at every request, and whenever it has changed every `times`
starts again. A line that does not parse is reported with its number and skipped.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path

import msgspec

from fsmount.wire.relayfile import ErrorBody

METHODS = ("GET", "PUT", "DELETE", "LIST", "EVENTS", "*")
ACTIONS = "STATUS [JSON], retry-after=S, delay=2s, hang, refuse, drop, truncate, slow=BYTES/s, times=N"
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "revision_conflict",
    412: "precondition_failed",
    413: "payload_too_large",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}


class Ending(Enum):
    """What becomes of the request in the end."""

    ANSWER = "answer"
    HANG = "hang"  # not done, never answered
    REFUSE = "refuse"  # not done, closed without a byte
    DROP = "drop"  # done, closed without a byte


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How a request is treated. `delay` is in seconds, `rate` in bytes of the body a second.

    `status` and `body` (JSON) take the place of doing it.
    """

    status: int | None = None
    body: bytes | None = None
    delay: float = 0.0
    ending: Ending = Ending.ANSWER
    truncate: bool = False
    rate: int | None = None
    retry_after: int | None = None

    def refuses_file(self) -> bool:
        """Whether a bulk goes on, with this as one file's error."""
        return self.status is not None and 400 <= self.status < 500

    def replaces_request(self) -> bool:
        """Whether nothing of a bulk is done."""
        return (self.status is not None and not self.refuses_file()) or self.ending in {Ending.HANG, Ending.REFUSE}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One line; `times` None is for ever."""

    line: int
    method: str
    pattern: re.Pattern[str]
    manner: Manner
    times: int | None = None

    def covers(self, method: str, path: str) -> bool:
        """Whether the rule speaks of this request, used up or not."""
        return self.method in {"*", method} and self.pattern.fullmatch(path) is not None


class BulkManner(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules say about a bulk: `whole` for the request, `refused` by position of the file."""

    whole: Manner
    refused: dict[int, Manner]


class BadRule(ValueError):
    """A line that is no rule; says why."""


class Rules:
    """The rules of one file, which may be missing (no rules). `report` gets one line a problem."""

    def __init__(self, path: Path | None, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self.given = path is not None
        """Whether there can be rules at all."""
        self._seen: object = None
        self._rules: list[Rule] = []
        self._used: list[int] = []
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it is not what it was."""
        if self._path is None:
            return
        text, seen = self._read(self._path)
        if seen != self._seen:
            self._seen = seen
            self._rules = list(self._parse(text))
            self._used = [0] * len(self._rules)

    def manner(self, method: str, path: str) -> Manner:
        """How to treat a request of one path; counts as one of the rule's times."""
        found = self._first(method, path, self._used)
        if found is None:
            return Manner()
        self._used[found] += 1
        return self._rules[found].manner

    def standing(self, method: str, path: str) -> Manner:
        """How requests of one path are treated until the file changes; nothing is used up, and `times` does not count.

        For what goes on after it was answered, such as an open feed.
        """
        self.refresh()
        found = (rule.manner for rule in self._rules if rule.times is None and rule.covers(method, path))
        return next(found, Manner())

    def bulk_manner(self, paths: Sequence[str]) -> BulkManner:
        """How to treat a bulk: each path counts as a PUT.

        A 4xx is that file's and uses the rule up once a file. Any other rule is in force for the
        whole request and is used up once; where it leaves nothing to do, no other rule is.
        """
        used = list(self._used)
        in_force: list[int] = []
        refused: dict[int, Manner] = {}
        for position, path in enumerate(paths):
            found = self._first("PUT", path, used, in_force)
            if found is None:
                continue
            manner = self._rules[found].manner
            if manner.replaces_request():
                self._used[found] += 1
                return BulkManner(whole=manner, refused={})
            if manner.refuses_file():
                refused[position] = manner
                used[found] += 1
            elif found not in in_force:
                used[found] += 1
            if found not in in_force:
                in_force.append(found)
        self._used = used
        whole = _together([self._rules[found].manner for found in in_force])
        return BulkManner(whole=whole, refused=refused)

    def _first(self, method: str, path: str, used: list[int], in_force: Sequence[int] = ()) -> int | None:
        for index, rule in enumerate(self._rules):
            if not rule.covers(method, path):
                continue
            spent = rule.times is not None and used[index] >= rule.times
            if not spent or (index in in_force and not rule.manner.refuses_file()):
                return index
        return None

    def _read(self, path: Path) -> tuple[str, object]:
        try:
            content, stat = path.read_bytes(), path.stat()
        except FileNotFoundError:
            return "", "missing"
        except OSError as error:
            if self._seen != str(error):
                self._report(f"cannot read the rules: {error}; none apply")
            return "", str(error)
        return content.decode(errors="replace"), (content, stat.st_mtime_ns, stat.st_ino)

    def _parse(self, text: str) -> Iterator[Rule]:
        for number, line in enumerate(text.split("\n"), 1):
            try:
                rule = parse(line, number)
            except BadRule as error:
                self._report(f"rule in {self._path}, line {number}, skipped: {error}")
                continue
            if rule is not None:
                yield rule


def parse(line: str, number: int) -> Rule | None:
    """The rule on one line, or None where there is only a comment. Raises BadRule."""
    words = _words(line)
    if not words:
        return None
    if len(words) < 3:
        raise BadRule("a rule is METHOD GLOB ACTION... [times=N]")
    method, glob, *actions = words
    if method not in METHODS:
        raise BadRule(f"{method!r} is none of {', '.join(METHODS)}")
    if not glob.startswith(("/", "**")):
        raise BadRule(f"a glob starts with / or **, not as in {glob!r}")
    said: dict[str, object] = {}
    for word in actions:
        name, value = _action(word, said)
        if name in said:
            raise BadRule(f"{word!r} says {name} twice")
        said[name] = value
    times = said.pop("times", None)
    if not said:
        raise BadRule("there is no action")
    if "ending" in said and "status" in said:
        raise BadRule("a status cannot stand beside hang, refuse or drop")
    return Rule(line=number, method=method, pattern=pattern(glob), times=times, manner=Manner(**said))  # type: ignore[arg-type]


def _words(line: str) -> list[str]:
    """Split at white space; a word that begins like JSON runs to its end, and may hold `#` and blanks."""
    words: list[str] = []
    rest = line.strip()
    while rest and not rest.startswith("#"):
        if rest[0] in '{["':
            try:
                _, end = json.JSONDecoder().raw_decode(rest)
            except json.JSONDecodeError as error:
                raise BadRule(f"the body is not JSON: {error}") from error
        else:
            end = len(rest.split(maxsplit=1)[0])
        words.append(rest[:end])
        rest = rest[end:].lstrip()
    return words


def _action(word: str, said: dict[str, object]) -> tuple[str, object]:
    name, equals, value = word.partition("=")
    if word[0] in '{["':
        if "status" not in said:
            raise BadRule("a body follows its status")
        return "body", word.encode()
    if not equals and word.isascii() and word.isdigit():
        return "status", _status(word)
    if word in {"hang", "refuse", "drop"}:
        return "ending", Ending(word)
    if word == "truncate":
        return "truncate", True
    match name if equals else "":
        case "delay":
            return "delay", _seconds(value)
        case "retry-after":
            return "retry_after", _whole(word, value, 0)
        case "slow":
            return "rate", _whole(word, value.removesuffix("/s"), 1)
        case "times":
            return "times", _whole(word, value, 1)
    raise BadRule(f"unknown action {word!r}; there are: {ACTIONS}")


def _status(word: str) -> int:
    status = int(word)
    if not 200 <= status <= 599:
        raise BadRule(f"{word} is not a status from 200 to 599")
    return status


def _whole(word: str, value: str, least: int) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) < least:
        raise BadRule(f"{word!r} needs a whole number, {least} or more")
    return int(value)


def _seconds(value: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", value, re.ASCII)
    if match is None:
        raise BadRule(f"delay={value} is no time; write 2s or 250ms")
    return float(match[1]) * _UNITS[match[2]]


def body_of(manner: Manner, correlation_id: str) -> bytes:
    """The JSON that goes with a rule's status: the rule's own, or one made for it."""
    status = manner.status or 200
    if manner.body is not None:
        return manner.body
    if status < 300:
        return b"{}"
    body = ErrorBody(
        code=_CODES.get(status, "refused"),
        message=f"a rule of this server answers {status}",
        correlation_id=correlation_id,
    )
    return msgspec.json.encode(body)


def _together(manners: Sequence[Manner]) -> Manner:
    """What the rules in force say of the request itself; of two that say the same, the first."""
    return Manner(
        delay=next((m.delay for m in manners if m.delay), 0.0),
        ending=next((m.ending for m in manners if m.ending is not Ending.ANSWER), Ending.ANSWER),
        truncate=any(m.truncate for m in manners),
        rate=next((m.rate for m in manners if m.rate), None),
        retry_after=next((m.retry_after for m in manners if m.retry_after is not None), None),
    )


_WILD = {"**": ".*", "*": "[^/]*", "?": "[^/]", "/**/": "/(?:.*/)?", "/**": "(?:/.*)?"}


def pattern(glob: str) -> re.Pattern[str]:
    """`glob` as a pattern: `**` crosses `/`, `*` and `?` do not; `/dir/**` is `/dir` too, and `/**/` also `/`."""
    return re.compile("".join(_pieces(glob)), re.DOTALL)


def _pieces(glob: str) -> Iterator[str]:
    for piece in re.split(r"(/\*\*/|/\*\*$|\*\*|\*|\?)", glob):
        yield _WILD.get(piece, re.escape(piece))
