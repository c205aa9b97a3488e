"""The README's examples and tables, taken from its text and tried on a real mount."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.server import RelayServer

pytestmark = pytest.mark.mount
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    """The text below a heading, down to the next one."""
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def commands(title: str) -> list[str]:
    """The indented lines of a section."""
    return [line.strip() for line in section(title).splitlines() if line.startswith("    ")]


def test_the_commands_of_mounting_do_what_they_say(tmp_path: Path, relay_server: RelayServer) -> None:
    relay_server.put("/github/issues/7.json", b'{"title": "seven"}\n')
    own = Mount(tmp_path, relay_server)
    (tmp_path / "records").mkdir()
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config/token").write_text(relay_server.token)
    lines = [
        line.replace("relayfile+https://files.example.org/my-workspace", relay_server.remote).replace(
            "vim ", "vim -es -u NONE -c 's/seven/eight/' -c 'wq' "
        )
        for line in commands("Mounting")
    ]
    assert [line.split()[0] for line in lines] == ["fsmount", "vim", "fsmount", "fsmount"]
    script = f'export HOME={tmp_path} PATH="{ROOT}/.venv/bin:$PATH"; set -e; ' + "; ".join(lines)
    done = own.sh(script)
    assert "everything is on the server\n" in done.stdout
    assert "everything was delivered" in done.stdout
    assert relay_server.get("/github/issues/7.json") == b'{"title": "eight"}\n'


def test_the_table_of_relay_is_the_tree(mount: Mount) -> None:
    rows = [line.split("|")[1] for line in section("`.relay/`").splitlines() if line.startswith("| `")]
    told = {path.split("/")[0] for row in rows for path in re.findall(r"`([^`]+)`", row)}
    assert told == set(mount.out("ls -A $MOUNT/.relay").split())


def test_every_promise_names_tests_that_there_are() -> None:
    table = section("What is promised").strip().split("\n\n")[0].splitlines()[2:]
    named = [re.findall(r"`((?:integration|faults)/\w+\.py)`", row.split("|")[3]) for row in table]
    assert all(named)
    assert all((ROOT / "tests" / file).is_file() for row in named for file in row)


def test_every_reason_and_errno_of_the_readme_is_one() -> None:
    import errno

    from fsmount.model import Reason

    told = section("What is promised")
    reasons = {
        name
        for row in told.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])
    }
    assert {name for name in reasons if not name.endswith("()")} == {reason.value for reason in Reason}
    assert all(hasattr(errno, name) for name in re.findall(r"`(E[A-Z]+)`", told))


def test_the_layout_names_what_is_there() -> None:
    block = section("The code").split("    fsmount/\n")[1].split("\n    tests/")[0]
    told = set(
        re.findall(
            r"(?<![\w/.])([a-z]+(?:\.py|/))", "\n".join(re.sub(r"\s{2,}", "\n", line) for line in block.splitlines())
        )
    )
    there = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "fsmount").iterdir()
        if not path.name.startswith("_")
    }
    assert there - {"py.typed"} <= told
