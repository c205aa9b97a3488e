"""Remote paths as the server sees them: byte-exact keys; `//`, `.` and `..` are not collapsed."""


def normal(path: str) -> str:
    """`path` with a leading slash and without one trailing slash; empty is the root."""
    rooted = path if path.startswith("/") else "/" + path
    return rooted[:-1] if len(rooted) > 1 and rooted.endswith("/") else rooted


def parent(path: str) -> str:
    """The directory that `path` lies in; the root's is the root."""
    return path[: path.rindex("/")] or "/"


def ancestors(path: str) -> list[str]:
    """Every directory above `path`, nearest first, the root last. The root has none."""
    above: list[str] = []
    while path != "/":
        path = parent(path)
        above.append(path)
    return above


def provider(path: str) -> str:
    """The first segment, in lower case, of a path that has more than one, else nothing."""
    first, slash, _ = path[1:].partition("/")
    return first.lower() if slash else ""
