"""Reading what the remote has: bytes, sizes, times, whole directories, and what others change meanwhile."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.place import Place, place, shared_mount
from tests.support.server import RelayServer, serving

__all__ = ["place", "shared_mount"]
pytestmark = pytest.mark.mount

BINARY = bytes(range(256)) * 3 + b"\xff\xfe\x00end"
LARGE = os.urandom(700 * 1024)
SOON = 3.0
"""Seconds within which a change made elsewhere has to be seen."""


@pytest.fixture
def quick(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount of its own whose system calls wait for the remote for 2 s at most."""
    relay_server.put_many({"/d/a.txt": "aaa\n", "/d/b.txt": "bbb\n", "/e/c.txt": "ccc\n"})
    with Mount(tmp_path, relay_server, "--timeout", "2", "--drain", "0") as mounted:
        yield mounted


# bytes, sizes, times


def test_the_bytes_are_those_of_the_remote(place: Place) -> None:
    contents = {"text": b"one\ntwo\n", "umlaut": "ä\n".encode(), "binary": BINARY, "empty": b"", "large": LARGE}
    for name, content in contents.items():
        place.put(name, content)
        (place.mount.folder / f"{place.path[1:]}-{name}").write_bytes(content)
    for name, content in contents.items():
        copy = f"{place.mount.folder}{place.path}-{name}"
        assert place.out(f"stat -c %s {name}") == f"{len(content)}\n"
        place.sh(f"cmp {name} {copy} && cat {name} | cmp - {copy} && cp {name} {copy}.2 && cmp {copy} {copy}.2")


def test_programs_that_look_for_something(place: Place) -> None:
    place.put("log/a.txt", "".join(f"line {n}\n" for n in range(1000)))
    place.put("log/b.txt", "needle\n")
    assert place.out("tail -n 2 log/a.txt") == "line 998\nline 999\n"
    assert place.out("grep -r needle .") == "./log/b.txt:needle\n"
    assert place.out("head -c 7 log/a.txt") == "line 0\n"
    assert place.out("find . -type f | sort").split() == ["./log/a.txt", "./log/b.txt", "./there.txt"]
    assert place.out("wc -l < log/a.txt") == "1000\n"


def test_pieces_of_a_large_file(place: Place) -> None:
    place.put("large", LARGE)
    place.sh("cat there.txt")
    said = place.python(
        """
        fd = os.open("large", os.O_RDONLY)
        for offset, size in ((699_990, 100), (4095, 2), (0, 1), (716_800, 10), (900_000, 10)):
            print(os.pread(fd, size, offset).hex())
        seen = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        print(len(seen), seen[350_000:350_016].hex())
        """
    ).split("\n")
    assert said[:5] == [
        LARGE[o : o + n].hex() for o, n in ((699_990, 100), (4095, 2), (0, 1), (716_800, 10), (900_000, 10))
    ]
    assert said[5] == f"{len(LARGE)} {LARGE[350_000:350_016].hex()}"
    assert len(place.requests("GET", "/fs/", "/large ")) == 1


def test_the_time_is_the_remotes(place: Place) -> None:
    place.put("f", "x")
    changed = place.server.file(f"{place.path}/f")
    assert changed is not None
    when = place.out(f"date -u -d '{changed.last_edited_at}' +%s.%3N").strip()
    assert place.out("TZ=UTC stat -c %.3Y f").strip() == when


def test_somebody_elses_file_belongs_to_whoever_mounted(place: Place) -> None:
    assert place.out("stat -c '%u %g %a %F %h' there.txt") == f"{os.getuid()} {os.getgid()} 644 regular file 1\n"
    assert place.out("stat -c '%a %F' .") == "755 directory\n"


def test_sizes_are_exact_where_a_listing_cannot_tell_them(tmp_path: Path) -> None:
    """A listing of the plain API counts the characters of the stored text; what base64 holds is shorter."""
    with serving(tmp_path / "relay", extensions=False) as server:
        server.put("/d/binary", BINARY)
        server.put("/d/text", "äöü\n")
        with Mount(tmp_path, server) as mount:
            listed = mount.out("ls -l $MOUNT/d | awk 'NR>1 {print $5, $9}'")
            assert listed == f"{len(BINARY)} binary\n7 text\n"
            assert mount.out("stat -c %s $MOUNT/d/binary") == f"{len(BINARY)}\n"


# directories


def test_a_large_directory_costs_a_few_requests(place: Place) -> None:
    place.server.put_many({f"{place.path}/many/{n:04}.txt": f"{n}\n" for n in range(2500)})
    last = place.put("last", "told after all the others\n")
    until(lambda: last in (place.mount.state / "events").read_text(), "the feed has told of all of them")
    before = len(place.requests("GET"))
    assert place.out("ls many | wc -l") == "2500\n"
    assert (
        place.out("ls -l many | tail -n +2 | awk '{s += $5} END {print s}'")
        == f"{10 * 2 + 90 * 3 + 900 * 4 + 1500 * 5}\n"
    )
    place.sh("stat -c %s many/*.txt > /dev/null; stat many/1234.txt many/2499.txt >/dev/null")
    asked = [line for line in place.requests("GET")[before:] if "/many" in line]
    assert len([line for line in asked if "/fs/file" in line]) == 0
    # Without exact sizes: three pages more to learn that they are small, and one export of them.
    assert len(asked) <= (5 if place.server.extensions else 12), asked


def test_a_missing_name_costs_nothing(place: Place) -> None:
    place.sh("ls")
    before = len(place.requests())
    missing = place.sh("for n in $(seq 200); do stat no-$n && exit 1; done 2>/dev/null; cat there.txt/below; true")
    assert "Not a directory" in missing.stderr
    assert "No such file" in place.fails("cat not/there")
    assert place.requests()[before:] == []


def test_readers_share_one_fetch(place: Place) -> None:
    place.put("f", LARGE)
    place.server.rules(f"GET {place.path}/f delay=300ms\n")
    place.sh("for n in $(seq 8); do cmp f f & done; cat f | wc -c; wait")
    place.server.rules("")
    assert len(place.requests("GET", "/fs/file", "/f ")) <= 1, place.requests()
    before = len(place.requests())
    place.sh("cat f > /dev/null")
    assert place.requests()[before:] == []


# what others change


def test_changes_made_elsewhere_are_seen(place: Place) -> None:
    place.put("f", "old!\n")
    place.put("goes", "goes\n")
    place.put("sub/only", "x\n")
    assert place.out("cat f goes sub/only; ls; ls sub") == "old!\ngoes\nx\nf\ngoes\nsub\nthere.txt\nonly\n"
    assert "No such file" in place.fails("cat new fresh/deep/file")
    place.put("f", "new!\n")
    place.put("new", "new\n")
    place.put("fresh/deep/file", "deep\n")
    place.server.delete(f"{place.path}/goes")
    place.server.delete(f"{place.path}/sub/only")
    until(lambda: place.out("cat f") == "new!\n", "same size, other content", SOON)
    until(lambda: place.out("cat new fresh/deep/file 2>&1; true") == "new\ndeep\n", "new names", SOON)
    until(
        lambda: place.out("ls") == "f\nfresh\nnew\nthere.txt\n",
        "deleted names, and the directory of the last one",
        SOON,
    )
    assert "No such file" in place.fails("cat goes")
    assert "No such file" in place.fails("ls sub")
    place.put("sub/again", "y\n")
    until(lambda: place.out("ls sub 2>&1; true") == "again\n", "the directory is back", SOON)


def test_an_open_file_never_mixes_two_revisions(place: Place) -> None:
    for name in ("read", "unread"):
        place.put(name, "a" * 300_000)
    command = place.program(
        """
        read, unread = os.open("read", os.O_RDONLY), os.open("unread", os.O_RDONLY)
        assert os.pread(read, 10, 0) == b"a" * 10
        print("open", flush=True)
        sys.stdin.readline()
        for fd in (read, unread):
            try:
                seen = os.pread(fd, 400_000, 0)
                print(len(seen), sorted(set(seen.decode())))
            except OSError as error:
                print(errno.errorcode[error.errno])
        for name in ("read", "unread"):
            print(len(set(open(name).read())), os.stat(name).st_size)
        """
    )
    with place.start(command) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        for name in ("read", "unread"):
            place.put(name, "b" * 200_000)
        until(lambda: place.out("stat -c %s read unread") == "200000\n200000\n", "the change is seen", SOON)
        said, _ = reader.communicate("go\n", timeout=15)
    lines = said.splitlines()
    assert lines[0] == "300000 ['a']"
    # Without exact sizes its `open` has brought the content already.
    assert lines[1] == ("ESTALE" if place.server.extensions else "300000 ['a']")
    assert lines[2:] == ["1 200000", "1 200000"]


def test_many_readers_writers_and_changes_at_once(place: Place) -> None:
    """Nothing hangs: the kernel's locks, its invalidations and the daemon's loop do not wait for each other."""
    place.server.put_many({f"{place.path}/{n}": "0" * 5000 for n in range(20)})
    load = (
        "for w in 1 2 3; do (end=$((SECONDS+4)); while [ $SECONDS -lt $end ]; do "
        "cat * >/dev/null 2>&1; ls -l >/dev/null; done)& done;"
        "for w in 1 2; do (end=$((SECONDS+4)); while [ $SECONDS -lt $end ]; do for n in 1 2 3; do "
        "head -c 9000 /dev/zero > own-$w-$n && cat own-$w-$n >/dev/null && "
        "mv own-$w-$n own-$w-$n.2 && rm own-$w-$n.2 || exit 1;"
        " done; done; echo fine)& done; wait"
    )
    with place.start(load) as programs:
        for turn in range(1, 60):
            place.server.put_many({f"{place.path}/{n}": str(turn % 10) * (5000 + turn) for n in range(20)})
            if programs.poll() is not None:
                break
            time.sleep(0.03)
        said, _ = programs.communicate(timeout=20)
    assert programs.returncode == 0, said
    assert said == "fine\nfine\n"
    until(lambda: place.out("cat 1 | wc -c") == f"{5000 + turn}\n", "the last content", SOON)
    assert place.mount.status()["health"] in {"ok", "busy"}


# a remote that does not answer


def failing(mount: Mount, command: str) -> tuple[str, float]:
    """The complaint of a command that has to fail, and how many seconds it took."""
    began = time.monotonic()
    done = mount.sh(command, check=False)
    assert done.returncode not in (0, 137), (command, done)
    return done.stderr, time.monotonic() - began


def test_without_the_remote_what_was_read_is_read(quick: Mount) -> None:
    assert quick.out("ls -R $MOUNT/d; cat $MOUNT/d/a.txt").endswith("aaa\n")
    quick.server.stop()
    if quick.server.extensions:  # without them `ls` has brought the content
        said, seconds = failing(quick, "cat $MOUNT/d/b.txt")
        assert "No route to host" in said
        assert seconds < 2.5
    until(lambda: quick.status()["connection"]["state"] == "offline", "the mount knows")
    said, seconds = failing(quick, "ls $MOUNT/e")
    assert "No route to host" in said
    assert seconds < 0.5
    began = time.monotonic()
    assert quick.out("cat $MOUNT/d/a.txt; stat -c %s $MOUNT/d/b.txt; ls $MOUNT/d") == "aaa\n4\na.txt\nb.txt\n"
    assert "offline" in quick.out("cat $MOUNT/.relay/status")
    assert time.monotonic() - began < 2
    quick.server.start()
    until(lambda: quick.sh("cat $MOUNT/d/b.txt", check=False).stdout == "bbb\n", "it is back", 10)


@pytest.mark.exact_sizes
def test_a_silent_remote_costs_one_deadline_and_nobody_else(quick: Mount) -> None:
    quick.sh("ls $MOUNT/d $MOUNT/e; cat $MOUNT/e/c.txt")
    quick.server.rules("GET /d/a.txt hang\n")
    began = time.monotonic()
    done = quick.sh(
        "(cat $MOUNT/d/a.txt; echo $? $EPOCHREALTIME) & "
        "cat $MOUNT/d/b.txt $MOUNT/e/c.txt && ls $MOUNT/d && cat $MOUNT/.relay/status >/dev/null && "
        "echo others $EPOCHREALTIME; wait"
    )
    assert time.monotonic() - began < 3.5
    assert "Connection timed out" in done.stderr
    assert "bbb\nccc\na.txt\nb.txt\nothers" in done.stdout
    ended = {
        line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines() if "." in line and " " in line
    }
    assert ended["1"] - ended["others"] > 1, ended


def test_a_listing_that_hangs_ends(quick: Mount) -> None:
    quick.sh("ls $MOUNT")
    quick.server.rules("LIST /e/** hang\n")
    said, seconds = failing(quick, "ls $MOUNT/e")
    assert "timed out" in said
    assert seconds < 3.5
    assert quick.out("cat $MOUNT/d/a.txt") == "aaa\n"


def test_what_may_not_be_read_is_permission_denied(quick: Mount) -> None:
    quick.server.rules("GET /d/a.txt 403\nLIST /e 403\n")
    assert "Permission denied" in failing(quick, "cat $MOUNT/d/a.txt")[0]
    assert "Permission denied" in failing(quick, "ls $MOUNT/e")[0]
    assert quick.out("cat $MOUNT/d/b.txt") == "bbb\n"
