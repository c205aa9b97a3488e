"""`GET /fs/export`: every file at or below a path in one answer."""

import gzip
import io
import tarfile
from collections.abc import Iterator
from datetime import datetime

import msgspec

from fsmount.server import payload
from fsmount.server.messages import JSON_HEADERS, Answer, Rejected
from fsmount.server.records import StoredFile
from fsmount.server.routes import Call, content_of, file_body

LARGEST = 256 * 1024 * 1024
"""Bytes of all files of one export together: it is made in memory."""


def export(call: Call) -> Answer:
    """The files as a JSON array, a gzipped tar, or a patch that adds them (text only)."""
    wanted = call.request.query.get("format") or "json"
    made = _FORMATS.get(wanted)
    if made is None:
        raise Rejected(400, "bad_request", f"format is json, tar or patch, not {wanted!r}")
    return made(call)


def _json(call: Call) -> Answer:
    bodies = [file_body(call, stored) for stored in _files(call)]
    return Answer(status=200, body=msgspec.json.encode(bodies), headers=JSON_HEADERS)


def _tar(call: Call) -> Answer:
    packed = io.BytesIO()
    # The gzip header's own time would make the same files another archive every second.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for stored in _files(call):
            content = payload.decoded(content_of(call, stored), stored.encoding)
            member = tarfile.TarInfo(stored.path[1:])
            member.size = len(content)
            member.mode = 0o644
            member.mtime = int(datetime.fromisoformat(stored.updated_at).timestamp())
            archive.addfile(member, io.BytesIO(content))
    attachment = ("Content-Disposition", 'attachment; filename="workspace-export.tar.gz"')
    return Answer(status=200, body=packed.getvalue(), headers=(("Content-Type", "application/gzip"), attachment))


def _patch(call: Call) -> Answer:
    added = "".join(
        _added(stored.path, content_of(call, stored)) for stored in _files(call) if stored.encoding != "base64"
    )
    return Answer(status=200, body=added.encode(), headers=(("Content-Type", "text/x-diff; charset=utf-8"),))


_FORMATS = {"json": _json, "tar": _tar, "patch": _patch}


def _files(call: Call) -> Iterator[StoredFile]:
    """Each of them. Raises Rejected where they are too much for one answer."""
    rows = list(call.store.listings.files(call.workspace, call.path, sight=call.sight()))
    if sum(row.byte_size or 0 for row in rows) > LARGEST:
        message = f"the files at {call.path} have more than {LARGEST} bytes together: export a narrower path"
        raise Rejected(413, "payload_too_large", message)
    for row in rows:
        stored = call.store.file(call.workspace, row.path)
        if stored is not None:
            yield stored


def _added(path: str, content: str) -> str:
    """The file as a unified diff makes it from nothing."""
    lines = content.split("\n")
    is_open = lines[-1] != ""
    lines = lines if is_open else lines[:-1]
    head = f"--- /dev/null\n+++ b{path}\n"
    if not lines:
        return head
    end = "\\ No newline at end of file\n" if is_open else ""
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines) + end
