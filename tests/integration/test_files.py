"""Writing through a mount: what programs see at once, what is queued, and what arrives."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.place import Place, place, resting, resting_mount, shared_mount
from tests.support.server import RelayServer, serving

__all__ = ["place", "resting", "resting_mount", "shared_mount"]
pytestmark = pytest.mark.mount

BINARY = bytes(range(256)) * 2


@pytest.fixture
def quick(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount of its own that hardly waits before it sends."""
    relay_server.put_many({"/d/a.txt": "aaa\n", "/d/b.txt": "bbb\n"})
    options = ("--settle", "0.1", "--max-settle", "0.5", "--open-settle", "0.3", "--timeout", "2", "--drain", "0.5")
    with Mount(tmp_path, relay_server, *options) as mounted:
        yield mounted


def arrives(place: Place, name: str, content: str | bytes) -> None:
    """The server holds exactly this, soon."""
    wanted = content.encode() if isinstance(content, str) else content
    until(lambda: place.remote(name) == wanted, f"{name} arrives; the server has {place.remote(name)!r:.200}", 10)


# what arrives


def test_what_is_written_arrives(place: Place) -> None:
    place.sh(
        "printf 'héllo\\n' > text; printf '\\0\\377\\1' > binary; : > empty; "
        "head -c 700K /dev/urandom > large; sha256sum large"
    )
    assert place.out("cat text; stat -c %s text binary empty large") == "héllo\n7\n3\n0\n716800\n"
    arrives(place, "text", "héllo\n")
    arrives(place, "binary", b"\0\xff\1")
    arrives(place, "empty", b"")
    until(lambda: len(place.remote("large") or b"") == 716_800, "large arrives")
    digest = place.out("sha256sum < large").split()[0]
    (place.mount.folder / "large").write_bytes(place.remote("large") or b"")
    assert place.out(f"sha256sum < {place.mount.folder}/large").split()[0] == digest


def test_copies_keep_what_they_should(place: Place) -> None:
    place.put("from", BINARY)
    place.sh("cp from to; cmp from to; cp -p from exact; [ $(stat -c %.6Y from) = $(stat -c %.6Y exact) ]")
    arrives(place, "to", BINARY)
    arrives(place, "exact", BINARY)


def test_an_existing_file_is_changed_at_its_revision(place: Place) -> None:
    place.put("f", "one\ntwo\n")
    place.sh("echo three >> f; sed -i s/two/zwei/ f")
    assert place.out("cat f") == "one\nzwei\nthree\n"
    arrives(place, "f", "one\nzwei\nthree\n")
    place.sh("echo new > f")
    arrives(place, "f", "new\n")
    assert place.out("cat f") == "new\n"
    assert place.mount.ops("dead-letter") == []


def test_the_local_time_stays_after_delivery(place: Place) -> None:
    place.sh("echo x > f; touch -d '2001-02-03 04:05:06 UTC' f")
    arrives(place, "f", "x\n")
    place.mount.delivered()
    assert place.out("date -u -r f +%FT%T") == "2001-02-03T04:05:06\n"
    place.put("f", "foreign")
    until(lambda: place.out("cat f") == "foreign", "the foreign version is seen", 3)
    assert not place.out("date -u -r f +%FT%T").startswith("2001")


def test_a_file_that_stays_open_is_sent_again_and_again(quick: Mount) -> None:
    """Each time from the revision that our own last request made."""
    quick.sh(
        "exec 3<>$MOUNT/d/log; for n in 1 2 3; do echo $n >&3; sync $MOUNT/d/log; "
        'for t in $(seq 100); do [ -z "$(ls $MOUNT/.relay/pending $MOUNT/.relay/dead-letter | grep op_)" ] && '
        "break; sleep 0.05; done; done"
    )
    quick.delivered()
    assert quick.server.get("/d/log") == b"1\n2\n3\n"
    assert len([event for event in quick.server.events() if event.path == "/d/log"]) >= 2
    assert quick.status()["failedAttempts"] == 0


# any offset


def test_writes_at_any_offset(resting: Place) -> None:
    resting.put("f", "0123456789")
    resting.sh("printf AB | dd of=f bs=1 seek=4 conv=notrunc status=none")
    assert resting.out("cat f") == "0123AB6789"
    resting.sh("printf END | dd of=f bs=1 seek=15 conv=notrunc status=none")
    assert resting.out("od -An -c f | tr -d ' \\n'") == "0123AB6789\\0\\0\\0\\0\\0END"
    resting.sh("printf x >> f; printf short | dd of=f bs=1 seek=2 status=none")
    assert resting.out("cat f; stat -c ' %s' f") == "01short 7\n"
    assert resting.queued() == ["put f"]


def test_truncation_up_and_down(resting: Place) -> None:
    resting.put("f", "0123456789")
    said = resting.python(
        """
        os.truncate("f", 4)
        print(open("f").read(), os.stat("f").st_size)
        os.truncate("f", 8)
        print(open("f", "rb").read())
        fd = os.open("f", os.O_RDWR)
        os.ftruncate(fd, 2)
        print(os.fstat(fd).st_size, os.pread(fd, 10, 0), open("f").read())
        os.pwrite(fd, b"z", 5)
        os.close(fd)
        print(open("f", "rb").read())
        os.truncate("f", 0)
        print(os.stat("f").st_size)
        """
    ).splitlines()
    assert said == ["0123 4", "b'0123\\x00\\x00\\x00\\x00'", "2 b'01' 01", "b'01\\x00\\x00\\x00z'", "0"]
    assert resting.queued() == ["put f"]


def test_a_file_with_holes(resting: Place) -> None:
    resting.sh("truncate -s 3M f; printf x | dd of=f bs=1 seek=2000000 conv=notrunc status=none")
    assert resting.out("stat -c %s f; tr -d '\\0' < f") == "3145728\nx"


def test_appenders_do_not_overwrite_each_other(resting: Place) -> None:
    resting.put("f", "begin\n")
    resting.sh("for w in 1 2 3 4; do (for n in $(seq 25); do echo $w-$n >> f; done)& done; wait")
    assert resting.out("sort -u f | wc -l; wc -l < f") == "101\n101\n"


def test_mapped_memory(resting: Place) -> None:
    resting.put("f", "a" * 10_000)
    said = resting.python(
        """
        fd = os.open("f", os.O_RDWR)
        memory = mmap.mmap(fd, 0)
        memory[5000:5003] = b"XYZ"
        memory.flush()
        other = os.open("f", os.O_RDONLY)
        print(os.pread(other, 5, 4999))
        memory[9999:] = b"!"
        memory.close()
        os.close(fd)
        print(open("f").read()[-2:], len(open("f").read()))
        """
    )
    assert said == "b'aXYZa'\na! 10000\n"
    assert resting.queued() == ["put f"]
    (op,) = resting.pending()
    body = resting.mount.out(f"cat $MOUNT/.relay/content/{op['opId']}")
    assert (body[5000:5003], body[-1], len(body)) == ("XYZ", "!", 10_000)


# several at once


def test_all_see_what_one_has_written(resting: Place) -> None:
    resting.put("f", "old content")
    said = resting.python(
        """
        one, two = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
        os.pread(two, 100, 0)
        os.pwrite(one, b"new", 0)
        print(os.pread(two, 100, 0), os.fstat(two).st_size)
        os.pwrite(two, b"NEWER CONTENT AT THE END", 4)
        print(os.pread(one, 100, 0), os.fstat(one).st_size)
        sys.stdout.flush()
        os.system("cat f; stat -c ' %s' f")
        """
    )
    assert said.splitlines() == [
        "b'new content' 11", "b'new NEWER CONTENT AT THE END' 28", "new NEWER CONTENT AT THE END 28",
    ]  # fmt: skip


def test_a_group_of_commands_into_one_file(quick: Mount) -> None:
    """Every command flushes at its end; what is half written is not sent."""
    quick.sh("{ echo a; /bin/echo b; cat $MOUNT/d/b.txt; echo c; } > $MOUNT/d/f")
    assert quick.out("cat $MOUNT/d/f") == "a\nb\nbbb\nc\n"
    quick.delivered()
    assert quick.server.get("/d/f") == b"a\nb\nbbb\nc\n"
    assert [event.type for event in quick.server.events() if event.path == "/d/f"] == ["file.created"]


def test_saves_in_a_row_are_one_op(resting: Place) -> None:
    resting.put("f", "0")
    resting.sh("for n in 1 2 3 4 5; do echo $n > f; done; echo x > g; rm g; echo y > h; mv h i")
    assert resting.queued() == ["put f", "put i"]
    assert resting.out("cat f i") == "5\ny\n"


# how a file is made and kept


def test_modes_owners_and_exclusive_creation(resting: Place) -> None:
    said = resting.python(
        """
        os.umask(0o027)
        os.close(os.open("private", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.close(os.open("program", os.O_CREAT | os.O_WRONLY, 0o755))
        os.mkdir("folder", 0o700)
        for name in ("private", "program", "folder"):
            seen = os.stat(name)
            print(oct(seen.st_mode & 0o7777), seen.st_uid == os.getuid(), seen.st_gid == os.getgid())
        for name in ("private", "there.txt"):
            try:
                os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                print("exists")
        os.close(os.open("readonly", os.O_CREAT | os.O_WRONLY, 0o400))
        fd = os.open("zero", os.O_CREAT | os.O_WRONLY, 0)
        os.write(fd, b"x")
        os.close(fd)
        print(oct(os.stat("zero").st_mode & 0o7777), os.stat("zero").st_size)
        """
    )
    assert said.splitlines() == ["0o640 True True", "0o750 True True", "0o700 True True", "exists", "exists", "0o0 1"]


def test_a_new_file_belongs_to_its_maker(tmp_path: Path, relay_server: RelayServer) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    with Mount(tmp_path, relay_server, "--allow-other", "--umask", "0") as mount:
        tmp_path.chmod(0o755)
        for folder in tmp_path.parents[:3]:
            if folder != Path("/tmp"):
                folder.chmod(0o755)
        mount.sh(
            "setpriv --reuid 1234 --regid 5678 --clear-groups "
            "sh -c 'cd / && echo x > $MOUNT/theirs && mkdir $MOUNT/folder'"
        )
        assert mount.out("stat -c %u:%g $MOUNT/theirs $MOUNT/folder") == "1234:5678\n1234:5678\n"


def test_attributes_outlive_the_mount(quick: Mount) -> None:
    quick.sh(
        "cd $MOUNT/d; chmod 600 a.txt; chown 12:34 b.txt; touch -d '2002-02-02 UTC' a.txt; mkdir -m 710 e; "
        "echo x > new; chmod 755 new"
    )
    wanted = "600 0:0 1012608000\n644 12:34\n710\n755\n"
    look = "cd $MOUNT/d; stat -c '%a %u:%g %Y' a.txt; stat -c '%a %u:%g' b.txt; stat -c %a e new"
    assert quick.out(look) == wanted
    assert quick.umount().returncode == 0
    quick.start()
    assert quick.out(look) == wanted
    assert quick.ops("pending") == []
    assert quick.server.get("/d/new") == b"x\n"


def test_fsync_means_the_journal_has_it(resting: Place) -> None:
    with resting.start(
        resting.program(
            """
            fd = os.open("f", os.O_CREAT | os.O_WRONLY)
            os.write(fd, b"first")
            os.fsync(fd)
            os.write(fd, b" second")
            os.fdatasync(fd)
            os.fsync(os.open(".", os.O_RDONLY))
            print("synced", flush=True)
            sys.stdin.readline()
            """
        )
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "synced\n"
        assert resting.queued() == ["put f"]
        (op,) = resting.pending()
        assert op["size"] == 12
        assert resting.mount.out(f"cat $MOUNT/.relay/content/{op['opId']}") == "first second"
        writer.communicate("end\n", timeout=15)


# removed or replaced while open


def test_a_removed_file_goes_on_for_its_handles(resting: Place) -> None:
    resting.put("theirs", "their bytes")
    said = resting.python(
        """
        theirs, mine = os.open("theirs", os.O_RDWR), os.open("mine", os.O_CREAT | os.O_RDWR)
        os.write(mine, b"my bytes")
        os.fsync(mine)
        os.unlink("theirs")
        os.unlink("mine")
        print(os.listdir("."), os.fstat(mine).st_nlink)
        print(os.pread(theirs, 100, 0), os.pread(mine, 100, 0))
        os.pwrite(theirs, b"THEIR", 0)
        os.pwrite(mine, b"MY", 0)
        os.ftruncate(mine, 5)
        os.fsync(theirs)
        os.fsync(mine)
        print(os.pread(theirs, 100, 0), os.pread(mine, 100, 0), os.fstat(mine).st_size)
        os.close(theirs)
        os.close(mine)
        """
    ).splitlines()
    assert said == ["['there.txt'] 0", "b'their bytes' b'my bytes'", "b'THEIR bytes' b'MY by' 5"]
    assert resting.queued() == ["delete theirs"]


def test_a_replaced_file_goes_on_for_its_handles(resting: Place) -> None:
    resting.put("f", "old")
    said = resting.python(
        """
        old = os.open("f", os.O_RDWR)
        with open("new", "w") as new:
            new.write("new content")
        os.rename("new", "f")
        print(os.pread(old, 100, 0), open("f").read(), os.fstat(old).st_ino != os.stat("f").st_ino)
        os.pwrite(old, b"lost", 0)
        os.close(old)
        print(open("f").read())
        """
    ).splitlines()
    assert said == ["b'old' new content True", "new content"]
    assert resting.queued() == ["put f"]


def test_a_name_made_again_is_another_file(resting: Place) -> None:
    said = resting.python(
        """
        first = os.open("f", os.O_CREAT | os.O_RDWR)
        os.write(first, b"first")
        os.unlink("f")
        second = os.open("f", os.O_CREAT | os.O_EXCL | os.O_RDWR)
        os.write(second, b"second one")
        print(os.pread(first, 100, 0), os.pread(second, 100, 0), os.stat("f").st_size)
        os.close(second)
        os.close(first)
        print(open("f").read())
        """
    ).splitlines()
    assert said == ["b'first' b'second one' 10", "second one"]
    assert resting.queued() == ["put f"]


def test_a_file_made_elsewhere_meanwhile_is_cut(place: Place) -> None:
    """The kernel still believes that there is nothing, so that it creates where it should open."""
    assert "No such file" in place.fails("cat f")
    place.put("f", "much longer than what we write")
    place.sh("echo ours > f")
    assert place.out("cat f") == "ours\n"


# errors


def test_a_write_that_needs_the_remote_fails_before_it_is_accepted(quick: Mount) -> None:
    quick.server.rules("GET /d/a.txt hang\n")
    done = quick.sh("echo more >> $MOUNT/d/a.txt", check=False)
    assert "timed out" in done.stderr
    quick.server.rules("")
    quick.sh("echo more >> $MOUNT/d/a.txt; echo whole > $MOUNT/d/b.txt")
    quick.delivered()
    assert quick.server.get("/d/a.txt") == b"aaa\nmore\n"


def test_without_the_remote_files_are_still_made(quick: Mount) -> None:
    quick.sh("ls $MOUNT/d; cat $MOUNT/d/a.txt")
    quick.server.stop()
    quick.sh(
        "cd $MOUNT/d; echo more >> a.txt; echo whole > b.txt; echo new > new; mkdir e; "
        "echo x > e/f; mv new newer; ls -l"
    )
    assert (
        quick.out("cd $MOUNT/d; cat a.txt b.txt newer e/f; ls") == "aaa\nmore\nwhole\nnew\nx\na.txt\nb.txt\ne\nnewer\n"
    )
    assert quick.status()["queue"]["pending"] == 4
    quick.server.start()
    quick.delivered(30)
    assert quick.server.get("/d/e/f") == b"x\n"
    assert quick.server.get("/d/newer") == b"new\n"


def test_more_than_the_remote_takes_is_refused_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "plain", extensions=False) as server, Mount(tmp_path, server) as mount:
        for command in ("truncate -s 100M large", "dd if=/dev/zero of=large seek=100M bs=1M count=1 oflag=seek_bytes"):
            assert "File too large" in mount.sh(f"cd $MOUNT; {command}", check=False).stderr
        assert mount.out("stat -c %s $MOUNT/large") == "0\n"
        mount.sh("cd $MOUNT; truncate -s 100M .large.swp; rm large .large.swp")


def test_a_read_only_mount_takes_nothing(tmp_path: Path, relay_server: RelayServer) -> None:
    relay_server.put("/f", "x")
    with Mount(tmp_path, relay_server, "--read-only") as mount:
        for command in ("echo y > $MOUNT/f", "touch $MOUNT/g", "rm $MOUNT/f", "mkdir $MOUNT/d", "mv $MOUNT/f $MOUNT/g"):
            assert "Read-only file system" in mount.sh(command, check=False).stderr, command
        assert mount.out("cat $MOUNT/f") == "x"
