"""Everyday programs on a real mount; what they did is looked for on the server afterwards."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.bench import Bench
from tests.support.mount import Mount, until

pytestmark = pytest.mark.mount


def archive(folder: Path, count: int) -> dict[str, bytes]:
    """Writes `in.tar` of small files of mixed sizes and kinds in nested directories; path to content."""
    chance = random.Random(7)
    files: dict[str, bytes] = {}
    with tarfile.open(folder / "in.tar", "w") as tar:
        for number in range(count):
            size = chance.choice((0, 1, 200, chance.randint(0, 4096), chance.randint(0, 4096)))
            text = f"line {number}\n".encode() * (size // 7 + 1)
            content = chance.randbytes(size) if number % 4 == 0 else text[:size]
            name = f"top/d{number % 20:02}/s{number % 3}/f{number:04}.txt"
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = size, 0o644, 1_700_000_000
            tar.addfile(entry, io.BytesIO(content))
            files[name] = content
    return files


def digests(files: dict[str, bytes]) -> dict[str, str]:
    """The SHA-256 of each file's bytes."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


# the gestures


def test_the_status_is_a_file(bench: Bench) -> None:
    bench.run("echo hello > f")
    bench.served()
    told = bench.out("cd $MOUNT && cat .relay/status")
    assert bench.server.remote in told
    assert str(bench.point) in told


def test_three_dead_letters_are_retried_with_one_mv(bench: Bench) -> None:
    bench.server.rules('PUT /**/*.json 422 {"code":"schema_validation_failed","message":"title is required"}\n')
    bench.run("for n in 1 2 3; do echo $n > $n.json; done")
    until(lambda: len(bench.ops("dead-letter")) == 3, "three dead letters")
    bench.server.rules("")
    done = bench.sh("cd $MOUNT/.relay && mv dead-letter/*.json retry/")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert bench.served() == {f"{n}.json": f"{n}\n".encode() for n in (1, 2, 3)}
    assert bench.out("ls $MOUNT/.relay/dead-letter") == ""


# many files


def test_two_thousand_files_from_tar(mount: Mount) -> None:
    files = archive(mount.folder, 2000)
    before = len(mount.server.requests())
    mount.sh("tar xf in.tar -C $MOUNT", timeout=60)
    ended = time.monotonic()
    mount.delivered()
    assert time.monotonic() - ended < 5.0
    requests = mount.server.requests()[before:]
    assert len(requests) <= 60, Counter(request.split("?")[0] for request in requests)
    assert mount.out("ls $MOUNT/.relay/pending") == ""
    held = {entry.path: entry.content_hash for entry in mount.server.tree() if entry.type == "file"}
    assert held == {f"/{name}": digest for name, digest in digests(files).items()}
    some = sorted(files)[::40]
    assert [mount.server.get(f"/{name}") for name in some] == [files[name] for name in some]
    mount.sh("tar df in.tar -C $MOUNT top/d00 top/d19", timeout=60)


def test_a_tree_is_copied_and_removed(bench: Bench) -> None:
    files = archive(bench.folder, 200)
    bench.sh("rm -rf cpsrc && mkdir cpsrc && tar xf in.tar -C cpsrc")
    bench.run("cp -r ~/cpsrc/top copied; cp -a ~/cpsrc/top kept; diff -r ~/cpsrc/top copied; diff -r copied kept")
    kept = bench.run("stat -c '%a %Y' kept/d00/s0/f0000.txt").split()
    assert kept == ["644", "1700000000"]
    expected = {name.removeprefix("top/"): content for name, content in files.items()}
    held = {f"{top}/{name}": digest for top in ("copied", "kept") for name, digest in digests(expected).items()}
    assert bench.hashed() == held
    assert int(bench.run("find . -type f | wc -l")) == 400
    assert int(bench.run("ls -lR . | grep -c '^-'")) == 400
    assert int(bench.run("grep -rl 'line' copied | wc -l")) == sum(b"line" in content for content in expected.values())
    assert int(bench.run("du -sb --apparent-size copied | cut -f1")) >= sum(map(len, expected.values()))
    assert bench.run("df --output=fstype . | tail -1") == "fuse.fsmount\n"
    bench.run("rm -r kept; test ! -e kept")
    assert bench.hashed() == {name: digest for name, digest in held.items() if name.startswith("copied/")}


def test_rsync(bench: Bench) -> None:
    files = archive(bench.folder, 60)
    bench.sh("rm -rf rssrc && mkdir rssrc && tar xf in.tar -C rssrc")
    since = bench.now()
    bench.run("rsync -a ~/rssrc/top/ synced/")
    expected = {f"synced/{name.removeprefix('top/')}": content for name, content in files.items()}
    assert bench.hashed() == digests(expected)
    assert bench.written(since) == Counter(f"created {name}" for name in expected), (
        "no temporary name reached the server"
    )
    assert bench.run("rsync -ai ~/rssrc/top/ synced/") == "", "the second time nothing is transferred"
    assert bench.run("rsync -aic ~/rssrc/top/ synced/") == ""
    since = bench.now()
    bench.sh("echo changed > rssrc/top/d01/s1/f0001.txt; rm -r rssrc/top/d02")
    bench.run("rsync -a --delete ~/rssrc/top/ synced/")
    expected = {name: content for name, content in expected.items() if "/d02/" not in name}
    expected["synced/d01/s1/f0001.txt"] = b"changed\n"
    assert bench.hashed() == digests(expected)
    assert bench.written(since)["updated synced/d01/s1/f0001.txt"] == 1
    bench.sh("head -c 300000 /dev/zero | tr '\\0' x > rssrc/top/big; touch -d '2020-01-01' rssrc/top/big")
    bench.run("rsync -a --inplace ~/rssrc/top/big synced/big; echo y >> ~/rssrc/top/big")
    bench.run("rsync -a --inplace --no-whole-file ~/rssrc/top/big synced/big")
    assert bench.served()["synced/big"] == b"x" * 300_000 + b"y\n"


def test_git_works_in_a_directory_of_the_mount(bench: Bench) -> None:
    bench.run(
        """
        git init -q repo; cd repo
        for n in $(seq 30); do echo $n > f$n; done
        git add .; git commit -qm first
        test -z "$(git status --porcelain)"; test -z "$(git status --porcelain)"
        echo more >> f1; git mv f2 renamed; git rm -q f3; git commit -qam second
        test -z "$(git status --porcelain)"
        git checkout -q HEAD~1; test "$(cat f2 f3)" = "$(printf '2\\n3')"
        git checkout -q -; git branch side; git tag v1
        git gc -q; git fsck --strict 2>/dev/null
        test -z "$(git status --porcelain)"
        git log --oneline | wc -l
        """
    )
    served = bench.served()
    assert served["repo/f1"] == b"1\nmore\n"
    assert "repo/f3" not in served
    assert not [name for name in served if name.endswith((".lock", "tmp")) or "tmp_obj" in name or "/tmp_" in name]


def test_git_clones_from_and_to_the_mount(bench: Bench) -> None:
    bench.sh(
        "rm -rf local back; git init -q local; cd local; for n in $(seq 30); do echo $n > f$n; done;"
        " git add .; git commit -qm first"
    )
    bench.run('git clone -q --no-hardlinks ~/local here; cd here; test -z "$(git status --porcelain)"')
    bench.run(
        "git clone -q file://$HERE/here ~/back; cd here;"
        " echo 2 >> f1; git commit -qam second; git push -q origin HEAD:side"
    )
    assert bench.sh("git -C local log --oneline side | wc -l").stdout == "2\n"
    assert bench.sh("ls back | wc -l").stdout == "30\n"
    assert bench.served()["here/f1"] == b"1\n2\n"


# one file


def test_files_and_directories_move(bench: Bench) -> None:
    bench.run("mkdir -p d/sub; echo 1 > f; echo 2 > d/sub/g; echo 3 > sent")
    assert bench.served() == {"f": b"1\n", "d/sub/g": b"2\n", "sent": b"3\n"}
    bench.run("mv f f2; mv sent d/; mv d e; test ! -e d; mv -n f2 e/sub/g; mv -T e/sub e/over")
    assert bench.run("cat e/over/g e/sent f2") == "2\n3\n1\n"
    assert bench.served() == {"f2": b"1\n", "e/over/g": b"2\n", "e/sent": b"3\n"}
    bench.run("mv -f f2 e/sent")
    assert bench.served() == {"e/over/g": b"2\n", "e/sent": b"1\n"}


EDITS = {
    "sed": "sed -i s/two/2/ f",
    "sort": "sort -r -o f f; sort -o f f; sed -i s/two/2/ f; sort -r f | sort -o f; printf 'one\\n2\\nthree\\n' > f",
    "patch": "patch -s f < ~/fix.patch",
    "copy": "cp f g; sed s/two/2/ g > f; rm g",
    "perl": "perl -pi -e s/two/2/ f",
    "awk": "awk '{sub(/two/,2)}1' f > t && mv t f",
    # In one program: to start another takes longer than a save rests, where much else is done.
    "replace": "python3 -c \"import os; print(open('f').read().replace('two', '2'), end='', file=open('t', 'w')); "
    "os.replace('t', 'f')\"",
    "install": "install -m 600 ~/wanted f",
    "remove": "rm f; cp ~/wanted f",
    "tee": "printf 'one\\n2\\nthree\\n' | tee f > /dev/null",
    "dd": "dd if=$HOME/wanted of=f bs=6 skip=1 seek=1 iflag=skip_bytes oflag=seek_bytes status=none; cp ~/wanted f",
}


@pytest.fixture(scope="module")
def unedited(shared: Bench) -> None:
    """A file on the server for each of the programs."""
    for program in EDITS:
        shared.server.put(f"/edited/{program}/f", "one\ntwo\nthree\n")


@pytest.mark.usefixtures("unedited")
@pytest.mark.parametrize("program", EDITS)
def test_a_file_is_edited_in_place(bench: Bench, program: str) -> None:
    if program in {"patch", "perl"} and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    bench.work_in(f"edited/{program}")
    (bench.folder / "wanted").write_text("one\n2\nthree\n")
    (bench.folder / "fix.patch").write_text("--- f\n+++ f\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n")
    bench.see("f")
    since = bench.now()
    bench.run(EDITS[program])
    assert bench.run("cat f; ls -A") == "one\n2\nthree\nf\n"
    assert bench.served() == {"f": b"one\n2\nthree\n"}
    assert bench.written(since) == {"updated f": 1}


def test_appending(bench: Bench) -> None:
    since = bench.now()
    bench.run("echo 1 > f; echo 2 >> f; echo 3 | tee -a f > /dev/null; { echo 4; echo 5; } >> f")
    assert bench.served() == {"f": b"1\n2\n3\n4\n5\n"}
    assert bench.written(since) == {"created f": 1}
    bench.run("echo 6 >> f")
    assert bench.served() == {"f": b"1\n2\n3\n4\n5\n6\n"}
    assert bench.written(since) == {"created f": 1, "updated f": 1}


def test_a_growing_file_is_followed(bench: Bench) -> None:
    bench.run("echo first > f")
    told = bench.run(
        """
        timeout 10 tail -n +1 -f f > ~/followed & tail=$!
        for n in 1 2 3; do echo $n >> f; done
        for n in $(seq 100); do test "$(wc -l < ~/followed)" = 4 && break; sleep 0.05; done
        kill $tail; wait $tail 2>/dev/null || true
        cat ~/followed
        """
    )
    assert told == "first\n1\n2\n3\n"


def test_times_and_modes(bench: Bench) -> None:
    bench.run("touch -d '2001-02-03 04:05:06 UTC' f; chmod 640 f; install -m 755 -d dir; install -m 700 f g")
    bench.served()
    assert bench.run("stat -c '%n %a %Y' f") == "f 640 981173106\n"
    assert bench.run("stat -c '%n %a' dir g") == "dir 755\ng 700\n"
    since = bench.now()
    bench.run("touch f; chmod 600 f")
    bench.served()
    assert bench.written(since) == {}, "the remote has no such thing: no op is made"
    assert bench.run("stat -c '%a' f") == "600\n"


def test_sizes_are_set(bench: Bench) -> None:
    bench.run("printf 123456789 > f; truncate -s 4 f; truncate -s 6 f; truncate -s 3000 new; : > empty")
    assert bench.served() == {"f": b"1234\0\0", "new": bytes(3000), "empty": b""}
    bench.run("truncate -s 0 f; dd if=/dev/zero of=holes bs=1K seek=99 count=1 status=none")
    assert bench.served() == {"f": b"", "new": bytes(3000), "empty": b"", "holes": bytes(100 * 1024)}
    done = bench.sh("cd $HERE; fallocate -l 5000 room", check=False)
    if done.returncode:
        assert "Operation not supported" in done.stderr
    assert (
        bench.run("dd if=/dev/urandom of=random bs=64K count=8 status=none; md5sum random > ~/sum; md5sum -c ~/sum")
        == "random: OK\n"
    )


def test_locks(bench: Bench) -> None:
    told = bench.run("touch l; exec 9> l; flock 9; flock -n l true || echo held; flock -u 9; flock -n l echo free")
    assert told == "held\nfree\n"


def test_python_programs(bench: Bench) -> None:
    told = bench.run(
        """
        python3 - <<'END'
import mmap, os, pathlib, shutil, tempfile
os.makedirs("a/b")
pathlib.Path("a/b/f").write_bytes(b"x" * 5000)
os.utime("a/b/f", (1e9, 1e9))
shutil.copytree("a", "copy")
assert os.stat("copy/b/f").st_mtime == 1e9
shutil.move("copy", "moved")
assert not os.path.exists("copy")
with open("moved/b/f", "r+b") as file:
    file.seek(100)
    file.write(b"yy")
    file.flush()
    os.fsync(file.fileno())
    assert os.fstat(file.fileno()).st_size == 5000
with open("moved/b/f", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
    mapped[0:3] = b"zzz"
with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as file:
    file.write("new")
os.replace(file.name, "final")
with open("gone", "w+") as file:
    os.unlink("gone")
    file.write("still")
    file.seek(0)
    assert file.read() == "still"
print(sorted(os.listdir()))
END
        """
    )
    assert told == "['a', 'final', 'moved']\n"
    content = b"zzz" + b"x" * 97 + b"yy" + b"x" * 4898
    assert bench.served() == {"a/b/f": b"x" * 5000, "moved/b/f": content, "final": b"new"}


def test_a_database(bench: Bench) -> None:
    bench.run(
        """
        sqlite3 db 'PRAGMA journal_mode=delete; CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT);' > /dev/null
        for n in $(seq 500); do echo "INSERT INTO t VALUES ($n, 'row $n');"; done > ~/rows.sql
        sqlite3 db BEGIN ".read $HOME/rows.sql" COMMIT
        sqlite3 db "BEGIN; DELETE FROM t WHERE n > 100; ROLLBACK;"
        sqlite3 db "UPDATE t SET v = 'changed' WHERE n = 250; VACUUM;"
        """
    )
    assert (
        bench.run("sqlite3 db 'PRAGMA integrity_check; SELECT count(*) FROM t; SELECT v FROM t WHERE n = 250'")
        == "ok\n500\nchanged\n"
    )
    served = bench.served()
    assert set(served) == {"db"}
    (bench.folder / "db").write_bytes(served["db"])
    assert bench.sh("sqlite3 db 'SELECT count(*) FROM t'").stdout == "500\n"


def test_make_and_zip(bench: Bench) -> None:
    bench.run(
        "printf 'all: out\\nout: in\\n\\tcp in out\\n' > Makefile; echo 1 > in; make -s; make -q;"
        " echo 2 > in; touch -d '1 minute ago' out; make -s"
    )
    assert bench.served()["out"] == b"2\n"
    bench.run("zip -q z.zip in out Makefile; echo 3 > in; zip -q z.zip in; mkdir u; cd u; unzip -q ../z.zip; cat in")
    served = bench.served()
    assert (served["u/in"], served["u/out"]) == (b"3\n", b"2\n")
    assert not [name for name in served if name.startswith("zi")]


def test_a_tree_that_is_being_sent_is_removed(bench: Bench) -> None:
    archive(bench.folder, 150)
    bench.server.rules(f"POST /{bench.here}/** delay=2.5s\nPUT /{bench.here}/** delay=2.5s\n")
    bench.run("tar xf ~/in.tar")
    until(lambda: bench.status()["queue"]["sending"] > 0, "some of it is being sent")
    bench.run("rm -r top; test ! -e top")
    assert bench.run("ls -A") == ""
    until(lambda: bench.status()["queue"]["sending"] == 0, "it was sent")
    assert bench.run("ls -A") == "", "what arrived meanwhile is not seen again"
    bench.server.rules("")
    assert bench.served() == {}
    assert bench.run("ls -A") == ""
