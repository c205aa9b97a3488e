"""Names: made, renamed, removed; which the remote can hold, and what only this mount keeps."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.place import Place, place, resting, resting_mount, shared_mount
from tests.support.server import RelayServer

__all__ = ["place", "resting", "resting_mount", "shared_mount"]
pytestmark = pytest.mark.mount

ODD = [
    "a b",
    " lead",
    "new\nline",
    "tab\there",
    "ünïcödé",
    "日本",
    "e\u0301",
    "q'uote\"s",
    "$HOME;`x`",
    "-rf",
    "%41%2f",
    "a?b&c=d#e",
    "*",
    "\\",
    "\x01",
]


@pytest.fixture
def quick(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount of its own that hardly waits before it sends."""
    relay_server.put_many({f"/d/{name}": f"{name}\n" for name in ("a", "b", "sub/c", "sub/deep/e")})
    with Mount(tmp_path, relay_server, "--settle", "0.1", "--drain", "0.5") as mounted:
        yield mounted


# renaming


def test_a_new_name_for_a_file(place: Place) -> None:
    place.put("f", "content\n")
    inode = place.out("stat -c %i f")
    place.sh("mv f g")
    assert place.out("ls; cat g") == "g\nthere.txt\ncontent\n"
    assert place.out("stat -c %i g") == inode
    assert "No such file" in place.fails("cat f")
    until(lambda: place.remote("g") == b"content\n" and place.remote("f") is None, "the rename arrives")
    place.mount.delivered()
    assert place.out("ls; cat g") == "g\nthere.txt\ncontent\n"


def test_renames_in_the_queue(resting: Place) -> None:
    resting.sh("echo x > new; mv new newer; mv newer newest; mv there.txt here.txt")
    assert resting.out("ls; cat newest here.txt") == "here.txt\nnewest\nx\nthere\n"
    assert resting.queued() == ["put newest", "move there.txt"]
    resting.sh("mv here.txt there.txt")
    assert resting.queued() == ["put newest"]


def test_a_rename_replaces(place: Place) -> None:
    place.put("f", "old")
    place.put("g", "target")
    place.sh("mv f g; echo new > h; mv h g2; echo newer > i; mv i g2")
    assert place.out("ls; cat g g2") == "g\ng2\nthere.txt\noldnewer\n"
    until(lambda: place.remote("g") == b"old" and place.remote("f") is None, "g arrives")
    until(lambda: place.remote("g2") == b"newer\n", "g2 arrives")
    place.mount.delivered()


def test_renames_that_do_not_replace(resting: Place) -> None:
    resting.put("f", "f")
    resting.put("g", "g")
    said = resting.python(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def rename(old, new, flags):
            done = libc.renameat2(-100, old.encode(), -100, new.encode(), flags)
            print(errno.errorcode[ctypes.get_errno()] if done else "done")
        rename("f", "g", 1)
        rename("f", "h", 1)
        rename("h", "g", 2)
        os.rename("g", "g")
        os.link("g", "g2") if False else None
        print(sorted(os.listdir(".")), open("g").read(), open("h").read())
        """
    )
    assert said.splitlines() == ["EEXIST", "done", "EINVAL", "['g', 'h', 'there.txt'] g f"]
    assert resting.out("mv -n h g; cat g h") == "gf"
    assert resting.queued() == ["move f"]


def test_an_open_file_is_written_under_its_new_name(resting: Place) -> None:
    resting.put("theirs", "their bytes")
    said = resting.python(
        """
        new, theirs = os.open("new", os.O_CREAT | os.O_RDWR), os.open("theirs", os.O_RDWR)
        os.write(new, b"before ")
        os.rename("new", "renamed")
        os.write(new, b"after")
        os.rename("theirs", "ours")
        os.pwrite(theirs, b"OUR", 0)
        os.close(new)
        os.close(theirs)
        print(sorted(os.listdir(".")), open("renamed").read(), open("ours").read())
        """
    )
    assert said == "['ours', 'renamed', 'there.txt'] before after OURir bytes\n"
    assert sorted(resting.queued()) == ["move theirs", "put renamed"]


def test_what_cannot_be_renamed(resting: Place) -> None:
    resting.sh("mkdir -p empty other full/below; echo x > full/below/f; echo x > f")
    for command, complaint in {
        "mv -T f empty": "directory",
        "mv -T empty f": "non-directory",
        "mv missing f": "No such file",
        "mv full full/below": "subdirectory of itself",
        'python3 -c \'import os; os.rename("empty", "full")\'': "not empty",
        'python3 -c \'import os; os.rename("f", "empty")\'': "Is a directory",
        'python3 -c \'import os; os.rename("empty", "f")\'': "Not a directory",
        'python3 -c \'import os; os.rename("f", "missing/f")\'': "No such file",
    }.items():
        assert complaint in resting.fails(command), command
    resting.sh("mv -T empty other; mv other third; rmdir third")
    assert resting.out("ls") == "f\nfull\nthere.txt\n"


def test_nothing_crosses_the_border_of_relay(resting: Place) -> None:
    resting.sh("echo x > f; mkdir e")
    for command in (
        "mv f $MOUNT/.relay/", "mv f $MOUNT/.relay/retry/f", "mv e $MOUNT/.relay/e", "mv $MOUNT/.relay/status .",
        "mv $MOUNT/.relay r",
        "mv -T e $MOUNT/.relay", "rmdir $MOUNT/.relay", "rm $MOUNT/.relay/status", "mkdir $MOUNT/.relay/x",
        "touch $MOUNT/.relay/x",
        "echo > $MOUNT/.relay/status", "ln -s x $MOUNT/.relay/x", "mkfifo $MOUNT/.relay/x", "ln f $MOUNT/.relay/x",
        "chmod 777 $MOUNT/.relay/status", "touch $MOUNT/.relay/status",
    ):  # fmt: skip
        assert "not permitted" in resting.fails(command), command
    assert resting.out("cat f; ls; ls -d e") == "x\ne\nf\nthere.txt\ne\n"


# directories


def test_directories_come_and_go(place: Place) -> None:
    place.sh("mkdir one; mkdir -p one/two/three; rmdir one/two/three")
    assert "File exists" in place.fails("mkdir one")
    assert "File exists" in place.fails("mkdir there.txt")
    assert "not empty" in place.fails("rmdir one")
    assert "Not a directory" in place.fails("rmdir there.txt")
    assert "Is a directory" in place.fails("rm one")
    assert "No such file" in place.fails("mkdir no/where")
    place.sh("rmdir one/two one; mkdir one; echo x > one/f; cat one/f; rm one/f; rmdir one; mkdir one; rmdir one")
    assert place.out("ls") == "there.txt\n"
    place.sh("mkdir full; echo x > full/f")
    until(lambda: place.remote("full/f") == b"x\n", "the file in a new directory arrives")
    place.mount.delivered()
    assert place.server.tree(f"{place.path}/one") == []


def test_a_directory_outlives_its_last_file(place: Place) -> None:
    place.put("d/only", "x")
    place.sh("rm d/only; ls -d d")
    until(lambda: place.remote("d/only") is None, "the delete arrives")
    place.mount.delivered()
    assert place.out("ls -d d; ls d") == "d\n"
    place.sh("echo y > d/again; rm d/again; rmdir d")
    assert place.out("ls") == "there.txt\n"


def test_a_whole_remote_tree_is_removed(quick: Mount) -> None:
    quick.sh("cd $MOUNT; rm -r d; ls -a; mkdir d; ls d; rmdir d; mkdir d; echo new > d/a; cat d/a; ls d")
    quick.delivered()
    assert quick.server.files() == {"/d/a": b"new\n"}
    assert quick.out("cd $MOUNT; find d") == "d\nd/a\n"


def test_a_listing_while_names_come_and_go(resting: Place) -> None:
    """What was listed first is not what a later part of the listing says of a name that has changed since."""
    resting.server.put_many({f"{resting.path}/many/{n:04}": "x" for n in range(1000)})
    said = resting.python(
        """
        seen = os.scandir("many")
        first = [next(seen).name]
        os.unlink("many/0998")
        with open("many/0999", "w") as file:
            file.write("longer than it was")
        os.rename("many/0997", "many/0997-renamed")
        rest = [entry.name for entry in seen]
        for name in ("0997", "0998", "0999", "0997-renamed"):
            try:
                print(name, os.stat("many/" + name).st_size, len(open("many/" + name).read()))
            except FileNotFoundError:
                print(name, "gone")
        print(len(set(first + rest)) == len(first + rest), len(os.listdir("many")))
        """
    )
    assert said.splitlines() == ["0997 gone", "0998 gone", "0999 18 18", "0997-renamed 1 1", "True 999"]


def test_removing_while_listing(place: Place) -> None:
    place.server.put_many({f"{place.path}/many/{n:03}": "x" for n in range(500)})
    place.sh('find many -type f -delete; [ -z "$(ls many)" ]; rmdir many')
    assert place.out("ls") == "there.txt\n"


# which names


def test_odd_names_arrive_as_they_are(place: Place) -> None:
    place.python(
        f"""
        for name in {[name.encode() for name in ODD]}:
            with open(name, "wb") as file:
                file.write(name)
        """
    )
    place.mount.delivered()
    for name in ODD:
        assert place.remote(name) == name.encode(), name
    assert place.out("find . -type f -print0 | sort -z").split("\0")[:-1] == sorted(
        f"./{n}" for n in [*ODD, "there.txt"]
    )


def test_odd_names_of_others_are_shown(place: Place) -> None:
    for name in ODD:
        place.put(f"odd/{name}", name)
    said = place.python(
        """
        names = os.listdir(b"odd")
        print(len(names), all(open(b"odd/" + name, "rb").read() == name for name in names))
        """
    )
    assert said == f"{len(ODD)} True\n"


def test_what_cannot_be_shown_is_told(place: Place) -> None:
    place.server.put_many({f"{place.path}/d/{name}": name for name in ("x" * 256, "ok")})
    assert place.out("ls d; cat d/ok") == "ok\nok"
    until(lambda: place.path in place.mount.out("cat $MOUNT/.relay/problems"), "the long name is told of")
    told = [json.loads(line) for line in place.mount.out("cat $MOUNT/.relay/problems").splitlines()]
    here = [problem for problem in told if place.path in problem["path"]]
    assert [(problem["path"], problem["shownAs"]) for problem in here] == [(f"{place.path}/d/{'x' * 256}", None)]
    assert all(problem["why"] for problem in here)
    place.sh("touch d/l~ && ls d")
    place.put("d/l~", "theirs")
    until(lambda: f"{place.path}/d/l~" in place.out("ls d; cat $MOUNT/.relay/problems"), "what is hidden is told")


def test_the_length_of_a_name(resting: Place) -> None:
    longest = "n" * 253 + "ä"
    resting.sh(f"echo x > {longest}; mv {longest} {longest[1:]}m; mkdir {longest}; rmdir {longest}")
    for command in ("echo x >", "mkdir", "mv there.txt", "cat", "ls", "rm", "ln -s x", "mkfifo"):
        assert "File name too long" in resting.fails(f"{command} {longest}m"), command
    assert resting.out("ls") == f"{longest[1:]}m\nthere.txt\n"


def test_names_that_the_remote_cannot_store(resting: Place) -> None:
    """A relayfile server trims the path that it is asked for: ``f `` would be written over ``f``."""
    for command in ("echo x > 'there.txt '", "mkdir 'd '", "mv there.txt 'moved '", "echo x > $'line\\n'"):
        assert "Invalid or incomplete multibyte" in resting.fails(command), command
    assert resting.out("ls; cat there.txt") == "there.txt\nthere\n"
    assert "No such file" in resting.fails("cat 'there.txt '")
    assert resting.queued() == []


def test_a_name_that_is_no_text_cannot_be_stored(resting: Place) -> None:
    said = resting.python(
        """
        def attempt(what, *names):
            try:
                what(*names)
                print("done")
            except OSError as error:
                print(errno.errorcode[error.errno])
        bad = b"latin-\\xe4"
        attempt(os.stat, bad)
        attempt(os.unlink, bad)
        attempt(os.open, bad, os.O_CREAT | os.O_WRONLY)
        attempt(os.mkdir, bad)
        attempt(os.rename, "there.txt", bad)
        attempt(os.open, bad + b"~", os.O_CREAT | os.O_WRONLY)
        print(os.listdir("."), os.listdir(b"."))
        """
    )
    assert said.splitlines() == ["ENOENT", "ENOENT", *["EILSEQ"] * 4, "['there.txt'] [b'there.txt']"]
    assert resting.queued() == []


# what the remote cannot hold


def test_other_kinds_of_files_are_refused(resting: Place) -> None:
    for command in ("ln there.txt hard", "mkfifo pipe", "mknod device c 1 3"):
        assert "not permitted" in resting.fails(command), command
    assert resting.out("ls") == "there.txt\n"
    assert resting.queued() == []


def test_mknod_makes_a_regular_file(resting: Place) -> None:
    resting.python("os.mknod('made', 0o640); os.close(os.open('made', os.O_RDWR))")
    assert "File exists" in resting.fails("python3 -c 'import os; os.mknod(\"made\")'")
    assert resting.out("stat -c '%s %a' made") == "0 640\n"
    assert resting.queued() == ["put made"]


def test_the_filesystem_tells_its_room(resting: Place) -> None:
    blocks, free, names = resting.out("stat -f -c '%b %a %l' $MOUNT; df $MOUNT >/dev/null").split()
    assert int(blocks) > int(free) > 0
    assert names == "255"


def test_an_editors_temporaries_stay_here(quick: Mount) -> None:
    quick.sh("cd $MOUNT/d; echo backup > a~; mv b b~; echo x > .f.swp; ls -A")
    assert quick.out("cd $MOUNT/d; cat a~ b~ .f.swp; ls -A") == "backup\nb\nx\n.f.swp\na\na~\nb~\nsub\n"
    quick.sh("cd $MOUNT/d; echo saved > b; mv .f.swp f")
    quick.delivered()
    assert quick.server.get("/d/b") == b"saved\n"
    assert quick.server.get("/d/f") == b"x\n"
    assert [path for path in quick.server.files() if path.endswith("~")] == []
    assert quick.umount().returncode == 0
    quick.start()
    assert quick.out("cd $MOUNT/d; cat a~ b~ f; ls -A") == "backup\nb\nx\na\na~\nb\nb~\nf\nsub\n"
