"""Whatever programs do in whatever order: a mount answers as a local directory does, and the remote ends up alike."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import against_local
from tests.support.mount import Mount
from tests.support.server import serving

pytestmark = pytest.mark.mount

SEEDS = (3, 8, 23, 113)
STEPS = 200
THEIRS = {"x/a": "remote a", "x/b": "remote b", "y/a": "remote ya"}


@pytest.fixture(scope="module")
def busy_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount that sends almost at once, so that operations meet every state of a delivery."""
    folder = tmp_path_factory.mktemp("busy")
    eager = ("--settle", "0.05", "--max-settle", "0.2", "--open-settle", "0.1", "--timeout", "5")
    # Of so many files that are known, nobody deletes half within a minute.
    known = {f"/known/{number}": "x" for number in range(400)}
    with serving(folder / "relay") as server:
        server.put_many({f"/{seed}/{path}": content for seed in SEEDS for path, content in THEIRS.items()})
        server.put_many(known)
        with Mount(folder, server, "--max-deletes", "400", *eager) as mount:
            mount.sh("ls $MOUNT/known")
            yield mount


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a local folder that would be sent."""
    regular = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    files = (path for path in regular if not path.name.endswith(("~", ".swp")))
    return {f"/{path.relative_to(folder.parent)}": path.read_bytes() for path in files}


@pytest.mark.parametrize("seed", SEEDS)
def test_random_operations(busy_mount: Mount, seed: int) -> None:
    local = busy_mount.folder / "local" / str(seed)
    for path, content in THEIRS.items():
        (local / path).parent.mkdir(parents=True, exist_ok=True)
        (local / path).write_text(content)
    done = busy_mount.sh(
        f"{sys.executable} -I -S {against_local.__file__} $MOUNT/{seed} {local} {seed} {STEPS}", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    look = "find . -type f | sort | xargs -r md5sum; find . -printf '%y %m %p %l\\n' | sort"
    assert busy_mount.out(f"cd $MOUNT/{seed}; {look}") == busy_mount.out(f"cd {local}; {look}")
    busy_mount.delivered()
    theirs = {path: content for path, content in busy_mount.server.files().items() if path.startswith(f"/{seed}/")}
    assert theirs == contents(local)
    assert busy_mount.out(f"cd $MOUNT/{seed}; {look}") == busy_mount.out(f"cd {local}; {look}")
