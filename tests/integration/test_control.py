"""`.relay` on a real mount: every name of it, every verb and every errno, with the tools that people have."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import Letter, letter_of, logged, ls, ops, paths, refuse, settled
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount

DIRECTORIES = {"conflict", "content", "dead-letter", "discarded", "force", "held", "pending", "retry"}
FILES = [
    ".gitignore", "CACHEDIR.TAG", "README", "config.json", "ctl", "events", "log", "metrics", "problems", "state.json",
    "status", "status.json",
]  # fmt: skip
RENAMES = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for line in sys.stdin.read().splitlines():
    source, target, flags = line.split()
    failed = libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), int(flags))
    print(errno.errorcode[ctypes.get_errno()] if failed else "0")
"""
EXCHANGE, NOREPLACE = 2, 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("relay")) as running:
        running.put_many(
            {f"/{where}/f.txt": "old\n" for where in ("first", "second", "busy", "kept", "merged", "gone")}
        )
        running.put_many({f"/many/{number}": f"{number}\n" for number in range(12)})
        yield running


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, server: RelayServer) -> Iterator[Mount]:
    options = ("--settle", "0.05", "--max-attempts", "2", "--max-deletes", "3", "--drain", "1")
    with Mount(tmp_path_factory.mktemp("control"), server, *options) as one:
        yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    """The module's mount; what a test leaves dead is given up after it."""
    yield mounted
    mounted.sh("echo resume > $MOUNT/.relay/ctl")
    settled(mounted)


def renames(mount: Mount, *asked: str) -> list[str]:
    """What each `SOURCE TARGET FLAGS`, relative to the mount, ends with: 0 or an errno's name."""
    done = subprocess.run(
        ["timeout", "-s", "KILL", "20", sys.executable, "-c", RENAMES],
        input="\n".join(asked), cwd=mount.point, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


# what is there


def test_every_name_is_listed_private_and_the_users_own(mount: Mount) -> None:
    assert set(ls(mount)) == {*DIRECTORIES, *FILES}
    shown = mount.out("cd $MOUNT/.relay && stat -c '%n %A %u %g %h' .gitignore *").splitlines()
    for line in shown:
        name, mode, uid, gid, links = line.split()
        directory = name in DIRECTORIES
        assert mode == ("drwx------" if directory else "-rw-------" if name == "ctl" else "-r--------"), name
        assert (int(uid), int(gid)) == (os.getuid(), os.getgid())
        assert int(links) == (2 if directory else 1) or name == "conflict"
    assert mount.out("ls -A $MOUNT").split()[0] == ".relay"


@pytest.mark.parametrize("name", FILES)
def test_the_size_is_what_is_read(mount: Mount, name: str) -> None:
    size, read = mount.out(f"cd $MOUNT/.relay && exec 3<{name} && stat -L -c %s /dev/fd/3 && wc -c <&3").split()
    assert int(size) == int(read) or name in ("log", "events")
    assert int(size) > 0 or name == "problems"


def test_json_is_json_and_metrics_are_metrics(mount: Mount) -> None:
    for name in ("status.json", "state.json", "config.json"):
        mount.sh(f"jq -e . $MOUNT/.relay/{name}")
    assert json.loads(mount.out("cat $MOUNT/.relay/config.json"))["max_deletes"] == 3
    sample = re.compile(r'(# (HELP|TYPE) [a-z_]+ .+)|([a-z_]+\{mount="[^"]+"(,[a-z_]+="[^"]*")*\} [-+0-9.e]+)')
    lines = mount.out("cat $MOUNT/.relay/metrics").splitlines()
    assert len(lines) > 20
    assert [line for line in lines if not sample.fullmatch(line)] == []


def test_git_and_backups_are_told_to_stay_out(mount: Mount) -> None:
    assert mount.out("cat $MOUNT/.relay/.gitignore") == "*\n"
    assert mount.out("head -c 43 $MOUNT/.relay/CACHEDIR.TAG") == "Signature: 8a477f597d28d172789f06886806bc55"


def test_problems_tell_what_is_not_shown_as_it_is(mount: Mount) -> None:
    name = "n" * 300
    mount.server.put(f"/odd/{name}", "x\n")
    mount.sh("echo refresh / > $MOUNT/.relay/ctl; ls $MOUNT/odd")
    until(lambda: name in mount.out("cat $MOUNT/.relay/problems"), "the name is listed")
    (problem,) = [json.loads(line) for line in mount.out("cat $MOUNT/.relay/problems").splitlines()]
    assert problem["path"] == f"/odd/{name}"
    assert set(problem) == {"path", "shownAs", "why"}


def test_an_op_is_a_file_with_its_bytes(mount: Mount) -> None:
    (letter,) = refuse(mount, "bytes")
    op = letter["opId"]
    assert (letter["state"], letter["reason"], letter["lastStatus"]) == ("dead-letter", "rejected", 422)
    assert mount.out(f"cat $MOUNT/.relay/content/{op}") == "mine\n"
    assert mount.out(f"stat -c %s $MOUNT/.relay/content/{op}") == "5\n"
    assert ls(mount, "retry") == ls(mount, "force") == []


# held


def test_a_mass_delete_is_held_and_can_be_undone_or_let_go(mount: Mount) -> None:
    assert len(mount.out("ls $MOUNT/many").split()) == 12
    mount.sh("cd $MOUNT/many && rm 0 1 2 3 4")
    until(lambda: len(ls(mount, "held")) == 5, "all of them are held")
    assert paths(mount, "held") == {f"/many/{number}" for number in range(5)}
    assert {op["state"] for op in ops(mount, "held")} == {"held"}
    done = mount.sh("mv $MOUNT/.relay/held/*.json $MOUNT/.relay/discarded/")
    assert (done.stderr, ls(mount, "held")) == ("", [])
    assert len(mount.out("ls $MOUNT/many").split()) == 12

    mount.sh("cd $MOUNT/many && rm 5 6 7 8")
    until(lambda: len(ls(mount, "held")) == 4, "these are held")
    done = mount.sh("mv $MOUNT/.relay/held/*.json $MOUNT/.relay/retry/")
    assert done.stderr == ""
    mount.delivered()
    assert mount.server.get("/many/5") is None
    assert mount.server.get("/many/0") == b"0\n"


def test_ctl_decides_about_what_is_held(mount: Mount) -> None:
    mount.server.put_many({f"/storm/{number}": "x\n" for number in range(12)})
    until(lambda: len(mount.out("ls $MOUNT/storm 2>/dev/null; true").split()) == 12, "they are seen")
    mount.sh("cd $MOUNT/storm && rm 0 1 2 3 4")
    until(lambda: len(ls(mount, "held")) == 5, "they are held")
    mount.sh("echo discard held > $MOUNT/.relay/ctl")
    assert (ls(mount, "held"), len(mount.out("ls $MOUNT/storm").split())) == ([], 12)
    mount.sh("cd $MOUNT/storm && rm 5 6 7 8")
    until(lambda: len(ls(mount, "held")) == 4, "they are held again")
    mount.sh("echo release held > $MOUNT/.relay/ctl")
    mount.delivered()
    assert mount.server.get("/storm/5") is None
    assert logged(mount, r" ctl - - release held: 4 ops released")


# verbs


@pytest.mark.parametrize("verb", ["retry", "discarded"])
def test_mv_of_many_with_a_pattern_ends_with_0(mount: Mount, verb: str) -> None:
    refuse(mount, "1", "2", "3", "4", below=f"many-{verb}")
    mount.server.rules("")
    done = mount.sh(f"mv $MOUNT/.relay/dead-letter/*.json $MOUNT/.relay/{verb}/")
    assert (done.stderr, ls(mount, "dead-letter")) == ("", [])
    mount.delivered()
    sent = verb == "retry"
    assert mount.server.get(f"/many-{verb}/4") == (b"mine\n" if sent else None)
    if not sent:
        mount.sh("mv $MOUNT/.relay/discarded/*.json $MOUNT/.relay/retry/ 2>/dev/null; true")
        mount.delivered()
        assert mount.server.get(f"/many-{verb}/4") == b"mine\n"


def test_what_succeeds_disappears_and_what_fails_again_comes_back(mount: Mount) -> None:
    first = refuse(mount, "again", below="returns")[0]
    op = first["opId"]
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/retry/")
    until(lambda: f"{op}.json" in ls(mount, "dead-letter"), "it failed again")
    assert letter_of(mount, "/returns/again")["attempts"] == first["attempts"] + 1
    mount.server.rules("")
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/retry/")
    mount.delivered()
    assert mount.out(f"find $MOUNT/.relay -name '*{op}*'") == ""


def test_every_other_rename_is_refused_with_its_errno(mount: Mount) -> None:
    (letter,) = refuse(mount, "f", below="errno")
    name = f"{letter['opId']}.json"
    dead, relay = f".relay/dead-letter/{name}", ".relay"
    asked = {
        f"{dead} {relay}/retry/other.json 0": "EPERM",
        f"{dead} {relay}/pending/{name} 0": "EPERM",
        f"{dead} {relay}/held/{name} 0": "EPERM",
        f"{dead} {relay}/content/{name} 0": "EPERM",
        f"{dead} {relay}/{name} 0": "EPERM",
        f"{dead} {relay}/status 0": "EPERM",
        f"{dead} {relay}/force/{name} 0": "EPERM",
        f"{dead} errno/{name} 0": "EPERM",
        f"{dead} {name} {NOREPLACE}": "EPERM",
        f"errno/f {relay}/retry/f 0": "EPERM",
        f"errno/f {relay}/retry/{name} {NOREPLACE}": "EPERM",
        f"errno {relay}/errno 0": "EPERM",
        f"{relay} moved 0": "EPERM",
        f"{relay}/pending {relay}/retry/pending 0": "EPERM",
        f"{relay}/status {relay}/retry/status 0": "EPERM",
        f"{relay}/content/{letter['opId']} {relay}/discarded/{letter['opId']} 0": "EPERM",
        f"{relay}/dead-letter/op_none.json {relay}/retry/op_none.json 0": "ENOENT",
        f"{dead} {relay}/retry/{name} {EXCHANGE}": "ENOENT",  # the kernel: there is nothing to exchange with
        f"{dead} {relay}/status {EXCHANGE}": "EINVAL",
        f"errno/f {relay}/status {EXCHANGE}": "EPERM",
    }
    assert dict(zip(asked, renames(mount, *asked), strict=True)) == asked
    assert paths(mount, "dead-letter") == {"/errno/f"}
    assert logged(mount, rf"warning verb.refused {letter['opId']} /errno/f dead-letter/ to pending/")
    mount.server.rules("")
    again = [f"{dead} {relay}/retry/{name} {flags}" for flags in (NOREPLACE, 0)]
    assert renames(mount, *again) == ["0", "ENOENT"]


def test_an_op_that_is_being_sent_or_overtaken_is_busy(mount: Mount) -> None:
    mount.server.rules("PUT /busy/** delay=1.5s\n")
    mount.sh("echo slow > $MOUNT/busy/f.txt")
    until(lambda: [op["state"] for op in ops(mount, "pending")] == ["sending"], "it is being sent")
    (sending,) = ls(mount, "pending")
    assert renames(mount, f".relay/pending/{sending} .relay/discarded/{sending} 0") == ["EBUSY"]
    assert logged(mount, f"verb.refused {sending.removesuffix('.json')} /busy/f.txt .* is being sent")
    mount.delivered()

    (letter,) = refuse(mount, "f.txt", below="busy")
    name = f"{letter['opId']}.json"
    mount.sh("echo pause > $MOUNT/.relay/ctl; echo newer > $MOUNT/busy/f.txt")
    assert renames(mount, f".relay/dead-letter/{name} .relay/retry/{name} 0") == ["EBUSY"]
    assert logged(mount, f"verb.refused {letter['opId']} /busy/f.txt")
    done = mount.sh(f"mv $MOUNT/.relay/dead-letter/{name} $MOUNT/.relay/retry/", check=False)
    assert (done.returncode, "Device or resource busy" in done.stderr) == (1, True)


# conflict and force


def conflict(mount: Mount, where: str) -> Letter:
    """Both sides changed a file that was read before."""
    assert mount.out(f"cat $MOUNT/{where}/f.txt") == "old\n"
    mount.sh(f"echo pause > $MOUNT/.relay/ctl; echo mine > $MOUNT/{where}/f.txt")
    mount.server.put(f"/{where}/f.txt", "theirs\n")
    mount.sh("echo resume > $MOUNT/.relay/ctl")
    return letter_of(mount, f"/{where}/f.txt")


def test_a_conflict_shows_its_three_versions_and_mine_can_win(mount: Mount) -> None:
    letter = conflict(mount, "first")
    op = letter["opId"]
    assert (ls(mount, "conflict"), letter["reason"]) == ([op], "conflict")
    assert mount.out(f"cd $MOUNT/.relay/conflict/{op} && cat base mine theirs && stat -c %s *").split() == [
        "old", "mine", "theirs", "4", "5", "7",
    ]  # fmt: skip
    assert mount.out("stat -c %h $MOUNT/.relay/conflict") == "3\n"
    assert mount.out(f"stat -c '%A %h' $MOUNT/.relay/conflict/{op}") == "drwx------ 2\n"
    assert mount.sh(f"cat $MOUNT/.relay/conflict/{op}/other", check=False).returncode == 1
    done = mount.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/force/")
    mount.delivered()
    assert (done.stderr, mount.server.get("/first/f.txt")) == ("", b"mine\n")
    kept = {mount.out(f"cat $MOUNT/.relay/content/{name}") for name in ls(mount, "content")}
    assert "theirs\n" in kept, "what it replaced is kept"


def test_mv_of_many_to_force_ends_with_0(mount: Mount) -> None:
    mount.server.put_many({f"/both/{number}": "old\n" for number in range(3)})
    until(lambda: mount.sh("cat $MOUNT/both/[012]", check=False).stdout == "old\n" * 3, "they are seen")
    mount.sh("echo pause > $MOUNT/.relay/ctl; for n in 0 1 2; do echo mine > $MOUNT/both/$n; done")
    mount.server.put_many({f"/both/{number}": "theirs\n" for number in range(3)})
    mount.sh("echo resume > $MOUNT/.relay/ctl")
    until(lambda: len(ls(mount, "conflict")) == 3, "all are conflicts")
    assert mount.sh("mv $MOUNT/.relay/dead-letter/*.json $MOUNT/.relay/force/").stderr == ""
    mount.delivered()
    assert [mount.server.get(f"/both/{number}") for number in range(3)] == [b"mine\n"] * 3


def test_theirs_stays_when_mine_is_discarded(mount: Mount) -> None:
    op = conflict(mount, "second")["opId"]
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/discarded/")
    assert mount.out("cat $MOUNT/second/f.txt; ls $MOUNT/.relay/conflict") == "theirs\n"
    assert mount.server.get("/second/f.txt") == b"theirs\n"


def test_a_merged_file_is_saved_and_forced(mount: Mount) -> None:
    older = conflict(mount, "merged")["opId"]
    mount.sh(f"cd $MOUNT && cat .relay/conflict/{older}/mine .relay/conflict/{older}/theirs > merged/f.txt")
    until(lambda: ls(mount, "conflict") not in ([], [older]), "the newer conflict takes the older one's place")
    (newer,) = ls(mount, "conflict")
    assert older in {op["opId"] for op in ops(mount, "discarded")}
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{newer}.json $MOUNT/.relay/force/")
    mount.delivered()
    assert mount.server.get("/merged/f.txt") == b"mine\ntheirs\n"


def test_what_was_deleted_there_can_be_forced_back(mount: Mount) -> None:
    assert mount.out("cat $MOUNT/gone/f.txt") == "old\n"
    mount.sh("echo pause > $MOUNT/.relay/ctl; echo mine > $MOUNT/gone/f.txt")
    mount.server.delete("/gone/f.txt")
    mount.sh("echo resume > $MOUNT/.relay/ctl")
    letter = letter_of(mount, "/gone/f.txt")
    op = letter["opId"]
    assert (letter["reason"], ls(mount, f"conflict/{op}")) == ("remote-deleted", ["base", "mine"])
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/force/")
    mount.delivered()
    assert mount.server.get("/gone/f.txt") == b"mine\n"


# nothing else changes anything


def test_nothing_can_be_made_changed_or_removed(mount: Mount) -> None:
    (letter,) = refuse(mount, "f", below="fixed")
    op = f".relay/dead-letter/{letter['opId']}.json"
    for command in (
        f"rm -f {op}", "rmdir .relay/retry", "rmdir .relay", "mkdir .relay/new", "touch .relay/pending/new",
        "touch .relay/ctl",
        f"chmod u+w {op}", f"echo x > {op}", "echo x >> .relay/status", "truncate -s 1 .relay/ctl", "ln -s a .relay/b",
        f"ln {op} .relay/hard", "mkfifo .relay/fifo", f"cp {op} .relay/held/", "mkdir .relay/dead-letter/sub",
        "chown 1:1 .relay/status", "echo x > .relay/discarded/new.json",
    ):  # fmt: skip
        done = mount.sh(f"cd $MOUNT && {command}", check=False)
        assert done.returncode != 0, command
        assert "not permitted" in done.stderr, command
    assert paths(mount, "dead-letter") == {"/fixed/f"}


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf $MOUNT/.relay",
        "find $MOUNT/.relay -delete",
        "mkdir -p empty && rsync -a --delete empty/ $MOUNT/.relay/",
        "git init -q --separate-git-dir=$PWD/git work; git --git-dir=$PWD/git --work-tree=$MOUNT/.relay clean -fdxq",
    ],
    ids=["rm", "find", "rsync", "git-clean"],
)
def test_what_sweeps_gives_nothing_up(mount: Mount, command: str) -> None:
    (letter,) = refuse(mount, "f", below="swept")
    before = set(ls(mount))
    mount.sh(command, check=False)
    assert set(ls(mount)) == before
    assert [found["opId"] for found in ops(mount, "dead-letter")] == [letter["opId"]]
    assert mount.out(f"cat $MOUNT/.relay/content/{letter['opId']}") == "mine\n"


def test_inode_numbers_are_the_same_on_every_look(mount: Mount) -> None:
    refuse(mount, "f", below="numbers")
    look = "find $MOUNT/.relay ! -name log ! -name events -printf '%P %i\\n' | sort"
    first = mount.out(look)
    assert mount.out(look) == first
    numbers = [line.rpartition(" ")[2] for line in first.splitlines()]
    assert len(set(numbers)) == len(numbers)
