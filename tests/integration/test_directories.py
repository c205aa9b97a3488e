"""A directory gets another name, whatever lies in it, is open, is queued or is being sent."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import letters, ops
from tests.support.place import Place, place, resting, resting_mount, shared_mount
from tests.support.server import RelayServer, serving

__all__ = ["place", "resting", "resting_mount", "shared_mount"]
pytestmark = pytest.mark.mount

NAMES = ("a", "b", "sub/c", "sub/deep/e")
LOOK = "find {0} | sort; cd {0} && for f in $(find . -type f | sort); do echo $f $(cat $f); done"


@pytest.fixture
def quick(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount of its own that hardly waits before it sends."""
    relay_server.put_many({f"/d/{name}": f"{name}\n" for name in NAMES})
    with Mount(tmp_path, relay_server, "--settle", "0.1", "--drain", "0.5") as mounted:
        yield mounted


def tree(place: Place, name: str) -> None:
    """A directory of somebody else."""
    place.server.put_many({f"{place.path}/{name}/{below}": f"{below}\n" for below in NAMES})


def test_a_remote_directory(quick: Mount) -> None:
    before = quick.out("cd $MOUNT/d; find . -type f | sort | xargs cat; stat -c %i a sub sub/c")
    quick.sh("cd $MOUNT; mv d moved; [ ! -e d ]")
    again = "cd $MOUNT/moved; find . -type f | sort | xargs cat; stat -c %i a sub sub/c"
    assert quick.out(again) == before
    assert quick.out("ls $MOUNT") == "moved\n"
    quick.delivered()
    assert quick.server.files() == {f"/moved/{name}": f"{name}\n".encode() for name in NAMES}
    assert quick.out("ls $MOUNT; cd $MOUNT; find moved | sort") == (
        "moved\nmoved\nmoved/a\nmoved/b\nmoved/sub\nmoved/sub/c\nmoved/sub/deep\nmoved/sub/deep/e\n"
    )


def test_one_move_a_file_and_one_group(resting: Place) -> None:
    tree(resting, "d")
    resting.sh("mv d e")
    pending = resting.pending()
    assert sorted(resting.queued()) == [f"move d/{name}" for name in NAMES]
    assert [op["toPath"] for op in pending] == [op["path"].replace("/d/", "/e/", 1) for op in pending]
    (group,) = {op["group"] for op in pending}
    assert group.startswith("grp_")
    resting.sh("mv e d2; mv d2 d")
    assert resting.queued() == []
    assert resting.out(LOOK.format("d")).count("sub/deep/e") == 3


def test_there_and_back_leaves_the_remote_alone(place: Place) -> None:
    tree(place, "d")
    before = place.out("find d | sort")
    place.sh("mv d e; mv e d")
    assert place.out("find d | sort") == before
    place.mount.delivered()
    assert place.requests('"PUT', "/d/") == []
    assert place.out("ls") == "d\nthere.txt\n"


def test_unsent_files_go_along(resting: Place) -> None:
    tree(resting, "d")
    resting.sh("echo new > d/new; echo changed > d/a; rm d/b; echo x > d/litter~; mkdir d/empty; chmod 600 d/sub/c")
    resting.sh("mv d e")
    assert resting.out("cd e; find . | sort; cat new a litter~; stat -c %a sub/c") == (
        ".\n./a\n./empty\n./litter~\n./new\n./sub\n./sub/c\n./sub/deep\n./sub/deep/e\nnew\nchanged\nx\n600\n"
    )
    assert "No such file" in resting.fails("ls d")
    assert sorted(resting.queued()) == ["delete d/b", "move d/a", "move d/sub/c", "move d/sub/deep/e", "put e/new"]


def test_open_files_go_on(place: Place) -> None:
    tree(place, "d")
    said = place.python(
        """
        theirs, writing, new = os.open("d/a", os.O_RDONLY), os.open("d/sub/c", os.O_RDWR), os.open("d/n", 0o102, 0o644)
        litter = os.open("d/l~", os.O_CREAT | os.O_RDWR)
        os.write(new, b"before "); os.write(litter, b"litter "); os.pwrite(writing, b"SUB", 0)
        os.rename("d", "e")
        os.write(new, b"after"); os.write(litter, b"too"); os.pwrite(writing, b"!", 5)
        print(os.read(theirs, 10), os.path.exists("d"))
        for descriptor in (theirs, writing, new, litter):
            os.close(descriptor)
        print([open("e/" + name).read() for name in ("a", "sub/c", "n", "l~")])
        """
    )
    assert said == "b'a\\n' False\n['a\\n', 'SUB/c!', 'before after', 'litter too']\n"
    place.mount.delivered()
    assert place.remote("e/n") == b"before after"
    assert place.remote("e/sub/c") == b"SUB/c!"
    assert place.remote("d/sub/c") is None


def test_a_file_that_is_being_sent(quick: Mount) -> None:
    quick.server.rules("PUT /d/new delay=1s times=1\n")
    quick.sh("echo 1 > $MOUNT/d/new")
    until(lambda: ops(quick, "pending")[0]["state"] == "sending", "it is being sent")
    quick.sh("cd $MOUNT; mv d e; cat e/new; echo 2 > e/new")
    quick.delivered()
    assert quick.server.files() == {"/e/new": b"2\n"} | {f"/e/{name}": f"{name}\n".encode() for name in NAMES}


def test_a_file_whose_draft_is_being_filled(place: Place) -> None:
    tree(place, "d")
    place.sh("ls -R d")
    place.server.rules(f"GET {place.path}/d/sub/c delay=1s\n")
    writer = place.start('python3 -I -c \'f = open("d/sub/c", "r+b", 0); print(1, flush=True); f.write(b"SUB")\'')
    assert writer.stdout is not None
    assert writer.stdout.readline() == "1\n"
    until(lambda: place.requests("GET", "/d/sub/c") != [], "the base is being fetched")
    place.sh("mv d e")
    assert writer.wait(10) == 0
    writer.communicate()
    place.server.rules("")
    assert place.out("cat e/sub/c") == "SUB/c\n"
    place.mount.delivered()
    assert place.remote("e/sub/c") == b"SUB/c\n"
    assert place.remote("d/sub/c") is None


def test_a_dead_letter_below_gets_its_new_name(quick: Mount) -> None:
    quick.server.rules("PUT /d/a 422\n")
    quick.sh("echo changed > $MOUNT/d/a")
    letters(quick, 1)
    quick.server.rules("")
    quick.sh("cd $MOUNT; mv d e")
    quick.delivered()
    assert quick.server.get("/e/a") == b"changed\n"
    assert quick.server.get("/d/a") is None


def test_one_failure_concerns_one_file(quick: Mount) -> None:
    quick.server.rules("PUT /e/b 422\n")
    quick.sh("cd $MOUNT; mv d e; echo saved > e/sub/c")
    (letter,) = letters(quick, 1)
    assert (letter["kind"], letter["path"], letter["toPath"]) == ("move", "/d/b", "/e/b")
    until(lambda: quick.server.get("/e/sub/c") == b"saved\n", "a save below arrives")
    assert quick.out("ls -A $MOUNT $MOUNT/e; cat $MOUNT/e/b").split() == [
        f"{quick.point}:", ".relay", "e", f"{quick.point}/e:", "a", "b", "sub", "b",
    ]  # fmt: skip
    quick.server.rules("")
    quick.sh("cd $MOUNT/.relay && mv dead-letter/*.json retry/")
    quick.delivered()
    assert quick.server.get("/e/b") == b"b\n"


def test_what_appears_under_the_old_name_stays_there(quick: Mount) -> None:
    quick.server.rules("PUT /e/** delay=1s\n")
    quick.sh("cd $MOUNT; mv d e")
    quick.server.put("/d/late", "late")
    quick.server.rules("")
    quick.delivered()
    until(lambda: "d" in quick.out("ls $MOUNT").split(), "the directory is seen again")
    assert quick.out("ls $MOUNT/d; cat $MOUNT/d/late; ls $MOUNT/e") == "late\nlatea\nb\nsub\n"
    assert quick.server.get("/d/late") == b"late"


def test_targets(resting: Place) -> None:
    tree(resting, "d")
    tree(resting, "full")
    resting.sh("mkdir empty empty2; echo x > f")
    said = resting.python(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def rename(old, new, flags=0):
            done = libc.renameat2(-100, old.encode(), -100, new.encode(), flags)
            print(errno.errorcode[ctypes.get_errno()] if done else "done")
        rename("d", "full"); rename("d", "d/sub/x"); rename("d", "f"); rename("f", "d"); rename("d/sub", "d")
        rename("d", "empty", 1); rename("d", "missing/d"); rename("d", "empty"); rename("empty2", "empty/sub/deep")
        rename("empty2", "other", 1)
        """
    )
    assert said.split() == [
        "ENOTEMPTY", "EINVAL", "ENOTDIR", "EISDIR", "ENOTEMPTY", "EEXIST", "ENOENT", "done", "ENOTEMPTY", "done",
    ]  # fmt: skip
    assert resting.out("ls; ls empty/sub") == "empty\nf\nfull\nother\nthere.txt\nc\ndeep\n"


def test_the_old_name_can_be_used_at_once(place: Place) -> None:
    tree(place, "d")
    place.sh("mv d e; mkdir d; ls d; echo new > d/a; mkdir d/sub; echo x > d/sub/y")
    assert place.out("find d | sort; cat d/a e/a") == "d\nd/a\nd/sub\nd/sub/y\nnew\na\n"
    place.mount.delivered()
    assert place.remote("d/a") == b"new\n"
    assert place.remote("e/a") == b"a\n"
    assert place.out("find d | sort") == "d\nd/a\nd/sub\nd/sub/y\n"
    place.sh("mv e d2; rm -r d; echo now a file > d; cat d")
    place.mount.delivered()
    assert place.remote("d") == b"now a file\n"


def test_from_one_directory_to_another(place: Place) -> None:
    tree(place, "d")
    place.sh("mkdir -p x/y; mv d/sub x/y/; ls -R x; ls d; mv x/y/sub d/again; rmdir x/y x")
    place.mount.delivered()
    assert place.out("find d | sort") == "d\nd/a\nd/again\nd/again/c\nd/again/deep\nd/again/deep/e\nd/b\n"
    assert place.remote("d/again/deep/e") == b"sub/deep/e\n"
    assert place.remote("d/sub/deep/e") is None


def test_it_survives_a_crash(quick: Mount) -> None:
    quick.server.rules("PUT ** delay=3s\n")
    quick.sh("cd $MOUNT; mkdir d/empty; echo x > d/l~; ln -s a d/link; setfattr -n user.k -v v d/b; mv d e")
    quick.kill()
    quick.server.rules("")
    quick.start()
    assert quick.out("cd $MOUNT; ls; find e | sort; cat e/link; getfattr --only-values -n user.k e/b") == (
        "e\ne\ne/a\ne/b\ne/empty\ne/link\ne/l~\ne/sub\ne/sub/c\ne/sub/deep\ne/sub/deep/e\na\nv"
    )
    quick.delivered()
    assert quick.server.files() == {f"/e/{name}": f"{name}\n".encode() for name in NAMES}
    assert quick.umount().returncode == 0
    quick.start()
    assert quick.out("ls $MOUNT; ls -A $MOUNT/e; cat $MOUNT/e/l~") == "e\na\nb\nempty\nlink\nl~\nsub\nx\n"


def test_while_offline(tmp_path: Path) -> None:
    with serving(tmp_path / "relay") as server:
        server.put_many({f"/{top}/{name}": f"{name}\n" for top in ("d", "unseen") for name in NAMES})
        with Mount(tmp_path, server, "--timeout", "3", "--settle", "0.1") as mount:
            mount.sh("find $MOUNT/d; ls $MOUNT")
            server.stop()
            until(lambda: mount.status()["connection"]["state"] == "offline", "it is offline")
            mount.sh("cd $MOUNT; mv d e; ls e/sub/deep")
            done = mount.sh("cd $MOUNT; mv unseen seen", check=False)
            assert "No route to host" in done.stderr
            assert mount.out("ls $MOUNT") == "e\nunseen\n"
            server.start()
            mount.delivered()
            assert server.get("/e/sub/c") == b"sub/c\n"
            assert server.get("/d/sub/c") is None


def test_a_thousand_files(resting: Place) -> None:
    resting.server.put_many({f"{resting.path}/big/{n % 10}/{n}": "x" for n in range(1000)})
    resting.sh("ls -R big > /dev/null")
    timed = 'S=$EPOCHREALTIME; mv {} {}; E=$EPOCHREALTIME; awk "BEGIN {{print $E - $S}}"'
    assert float(resting.out(timed.format("big", "bigger"))) < 3
    assert resting.out("ls bigger/3 | wc -l; ls") == "100\nbigger\nthere.txt\n"
    assert resting.mount.out("ls $MOUNT/.relay/pending | wc -l") >= "1000"
    assert float(resting.out(timed.format("bigger", "big"))) < 3
    assert resting.out("ls big/3 | wc -l; ls") == "100\nbig\nthere.txt\n"


def test_a_renamed_directory_is_removed_with_all_in_it(resting: Place) -> None:
    resting.put("d/x/sub/e", "e\n")
    resting.put("d/x/sub/f", "f\n")
    until(lambda: resting.out("ls") == "d\nthere.txt\n", "the files are known")
    resting.sh("find d; mv d/x y; find y; rm -r y")
    assert resting.out("find . -mindepth 1 | sort") == "./d\n./there.txt\n"


def test_directories_above_the_last_file_stay_after_delivery(quick: Mount) -> None:
    quick.server.put("/top/sub/deep/e", "e\n")
    until(lambda: "top" in quick.out("ls $MOUNT"), "the file is known")
    quick.sh("rm $MOUNT/top/sub/deep/e")
    quick.delivered()
    quick.kill()
    quick.start()
    assert quick.out("cd $MOUNT; find top") == "top\ntop/sub\ntop/sub/deep\n"
    quick.sh("rm -r $MOUNT/top")
    assert quick.out("ls $MOUNT") == "d\n"


@pytest.mark.parametrize("set_here", [False, True])
def test_times_go_along_and_stay_after_delivery(quick: Mount, set_here: bool) -> None:
    quick.server.rules("PUT /** delay=0.2s\nDELETE /** delay=0.2s\n")
    times = "cd $MOUNT; find {0} -type f -printf '%P %T@\\n' | sort"
    if set_here:
        quick.sh("touch -d @1000000000 $MOUNT/d/a $MOUNT/d/sub/c")
    quick.sh("sleep 0.01; cat $MOUNT/d/b")
    before = quick.out(times.format("d"))
    quick.sh("cd $MOUNT; mv d e")
    assert quick.out(times.format("e")) == before
    until(lambda: any("PUT" in line for line in quick.server.requests()[1:]), "the moves have begun")
    quick.sh("cd $MOUNT; mv e f; mv f g")
    assert quick.out(times.format("g")) == before
    quick.delivered()
    assert quick.out(times.format("g")) == before
    quick.kill()
    quick.start()
    assert quick.out(times.format("g")) == before


def test_what_was_made_here_keeps_the_directories_above_it(quick: Mount) -> None:
    quick.sh("cd $MOUNT/d/sub/deep; mkdir here; ln -s there link")
    for name in NAMES:
        quick.server.delete(f"/d/{name}")
    until(lambda: "sub/deep/e" not in quick.out("find $MOUNT/d"), "the mount knows what is gone")
    assert quick.out("cd $MOUNT; find d | sort") == "d\nd/sub\nd/sub/deep\nd/sub/deep/here\nd/sub/deep/link\n"


def test_a_remote_file_has_no_mode_of_the_link_whose_name_it_takes(place: Place) -> None:
    place.sh("ln -s there.txt link")
    place.put("link", "somebody's\n")
    until(lambda: place.out("stat -c %F link") == "regular file\n", "the remote's file is shown")
    assert place.out("stat -c %a link there.txt") == "644\n644\n"
