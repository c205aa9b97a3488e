"""What cannot be is refused in time, in one clear line that says what to do, and leaves all as it was."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import shlex
import shutil
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.attempt import Attempt, Speech, answering, check_shown, endless_headers, saying, silent, speaking
from tests.support.mount import Mount, until
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount
as_root = pytest.mark.skipif(os.getuid() != 0, reason="makes mount namespaces or runs as another user")
NOWHERE = "relayfile+http://127.0.0.1:9/local"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: "
PAGE = OK + b"45\r\ncontent-type: text/html\r\n\r\n<!doctype html><title>Sign in</title>\x1b[31mRED"
FOUND = b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: https://login.example/"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("bad") / "relay") as server:
        yield server


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path)


@pytest.fixture
def everybodys() -> Iterator[Attempt]:
    """A folder that other users can get to: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Attempt(Path(folder))


def token(attempt: Attempt, text: str | bytes) -> tuple[str, str]:
    """The options that give this token."""
    file = attempt.folder / "token"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(0o600)
    return "--token-file", str(file)


# what is typed


REMOTES: list[str | bytes] = [
    "", "nonsense", "http://h/w", "ftp://h/w", "relayfile://h/w", "relayfile+http:/h/w", "relayfile+http://",
    "relayfile+http://h", "relayfile+http://h/", "relayfile+http:///w", "relayfile+http://h:0/w",
    "relayfile+http://h:99999/w", "relayfile+http://h:x/w", "relayfile+http://[::1/w", "relayfile+http://h/w/../x",
    "relayfile+http://h/w//x", "relayfile+http://h/%2e%2e", "relayfile+http://h/w/%00", "relayfile+http://h/w%ff",
    "relayfile+http://h/w?x=1", "relayfile+http://h/w#x", "relayfile+http://h/w x", "relayfile+http://h/w\nx",
    "relayfile+http://\x1b[31mh/w", b"relayfile+http://h/w\xff", "relayfile+http://me:geheim99@h/w",
    "webdav+http://h/w", "s3://bucket", "relayfile+http://h h/w",
]  # fmt: skip
VALUES = [
    ("--timeout", "0"), ("--timeout", "-1"), ("--timeout", "nan"), ("--timeout", "inf"), ("--timeout", "1e999"),
    ("--attr-ttl", "-0.1"), ("--attr-ttl", ""), ("--settle", "x\x1b[31m"), ("--settle", "9"), ("--drain", "1h"),
    ("--max-attempts", "0"), ("--max-attempts", "1.5"), ("--max-deletes", "-1"), ("--keep-discarded", "-1"),
    ("--cache-limit", "-1"), ("--cache-limit", "10X"), ("--spool-limit", "101%"), ("--spool-limit", "nan"),
    ("--discard-limit", "%"), ("--discard-limit", "1\n0"), ("--umask", "8"), ("--umask", "1000"), ("--umask", "-1"),
    ("--uid", "-1"), ("--uid", "99999999999"), ("--gid", "root"), ("--name", ""), ("--name", "a/b"), ("--name", ".."),
    ("--name", "a\nb"), ("--name", "\x1b[31m"), ("--name", "-x"), ("--name", "mounts"), ("--name", "n" * 300),
    ("--nope", "\x1b[31m"), ("--\x1b[31m", "x"), ("--token", "geheim99"),
    ("-o", "nope=geheim99"), ("-o", "ro=1"), ("-o", "attr_ttl"), ("-o", "attr_ttl=x"), ("-o", "token=geheim99"),
    ("-o", "password=geheim99"), ("-o", "\x1b[31m"), ("-o", "foreground"), ("-o", "umask=9"),
]  # fmt: skip


Run = Callable[[Sequence[str | bytes]], str]


@pytest.fixture
def refused_here(attempt: Attempt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command that has to end with 2 in this process: there are many, and none comes as far as a fork."""
    from fsmount.cli.main import run

    for name in [name for name in os.environ if name.startswith("FSMOUNT_")]:
        monkeypatch.delenv(name)
    for name, value in attempt.environment.items():
        monkeypatch.setenv(name, value)

    def refused(argv: Sequence[str | bytes]) -> str:
        before = attempt.left()
        code = run([os.fsdecode(word) for word in argv])
        said = capsys.readouterr()
        assert (code, said.out) == (2, ""), (argv, said.err)
        check_shown(said.err)
        assert attempt.left() == before
        assert "geheim99" not in said.err
        return said.err

    return refused


def test_remotes(attempt: Attempt, refused_here: Run) -> None:
    for remote in REMOTES:
        assert "remote" in refused_here(["mount", remote, str(attempt.point)])


def test_values(attempt: Attempt, refused_here: Run) -> None:
    for option, value in VALUES:
        refused_here(["mount", NOWHERE, str(attempt.point), option, value])


def test_values_in_the_environment(attempt: Attempt, refused_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("ATTR_TTL", "\x1b[31m"),
        ("MAX_DELETES", "-1"),
        ("READ_ONLY", "perhaps"),
        ("CACHE_LIMIT", "x"),
    ):
        with monkeypatch.context() as here:
            here.setenv(f"FSMOUNT_{name}", value)
            assert f"FSMOUNT_{name}" in refused_here(["mount", NOWHERE, str(attempt.point)])


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("\x1b[31mnope",), 2), ((b"\xff",), 2), (("mount", NOWHERE, "m", "extra\x1b[0m"), 2),
        (("umount", "\x1b[31m"), 3),
        (("umount", b"\xff\n"), 3), (("wait", "a'\"\n"), 3), (("writeback", "status", "\x1b[31m"), 3),
        (("writeback", "status", "--state-dir", "\x1b[31m\n"), 3), (("writeback", "show", "../../etc"), 3),
        (("serve", "--listen", "\x1b[31m"), 2), (("serve", "--listen", "999.1.1.1:0", "--data", "d"), 2),
    ],
    ids=repr,
)  # fmt: skip
def test_names_that_steer_a_terminal(attempt: Attempt, argv: tuple[str | bytes, ...], code: int) -> None:
    done = attempt.run(*argv)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (code, b""), said
    assert "Traceback" not in said
    assert "error: unexpected: " not in said
    assert not [char for char in said if char != "\n" and not char.isprintable()], ascii(said)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("attr_ttl = ", "no TOML"), ('attr_ttl = "5"', "line 1: attr_ttl must be a number"),
        ("\n\nread_only = 1", "line 3: read_only must be true or false"), ("attr-ttl = 5", "write attr_ttl"),
        ("settel = 5", "line 1: settel is no option"), ('name = "x"', "one mount's own"),
        ("token = 'geheim99'", "token does not belong"), ("[mount.a]\npassword = 'geheim99'", "line 2: password"),
        ("[mount.a]\nlog = 'x'", "line 2: log must be a path"), ("mount = 1", "must be tables"),
        ("[mount]\na = 1", "must be tables"), ("litter = '*'", "a list of name patterns"),
        ("umask = '9'", "line 1: umask"), ("max_attempts = 0", "line 1: max_attempts"),
        ("drain = inf", "line 1: drain"), (b"a = '\xff'", "not UTF-8"),
        ("foreground = true", "on the command line"), ("break_lock = true", "on the command line"),
        ("cache_limit = '5%%'", "line 1: cache_limit"), ('"\\u001b[31m" = 1', "is no option"),
        ("x = " + "[" * 5000, "no TOML"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:30],
)  # fmt: skip
def test_configuration(attempt: Attempt, text: str | bytes, says: str, refused_here: Run) -> None:
    config_toml(attempt).write_bytes(text if isinstance(text, bytes) else text.encode())
    said = refused_here(["mount", NOWHERE, str(attempt.point)])
    assert "config.toml" in said
    assert says in said


def config_toml(attempt: Attempt) -> Path:
    file = attempt.folder / "xdg-config/fsmount/config.toml"
    file.parent.mkdir(exist_ok=True)
    return file


def test_configuration_that_is_no_file(attempt: Attempt) -> None:
    os.mkfifo(config_toml(attempt))
    done = attempt.run("mount", NOWHERE, "m")
    assert done.returncode == 2
    check_shown(done.stderr.decode())


# the remote


def test_a_port_where_nothing_listens(attempt: Attempt, relay: RelayServer) -> None:
    with speaking(silent) as address:
        pass
    attempt.refused("mount", f"relayfile+http://{address}/local", "m", code=4, says="nothing listens")


def test_a_host_that_there_is_not(attempt: Attempt) -> None:
    attempt.refused(
        "mount", "relayfile+http://nowhere.invalid/local", "m", "--timeout", "3", code=4, says="nowhere.invalid"
    )


@pytest.mark.parametrize("workspace", ["other", "loc%20al", "..x"])
def test_a_wrong_workspace(attempt: Attempt, relay: RelayServer, workspace: str) -> None:
    remote = f"{relay.base.join(['relayfile+', ''])}/{workspace}"
    attempt.refused("mount", remote, "m", "--token-file", str(relay.token_file), code=4, says="workspace")


@pytest.mark.parametrize(
    ("speech", "says"),
    [
        (saying(b"\x00\xff\x1b[31m" * 50), "is not reachable"),
        (saying(b"SSH-2.0-OpenSSH_9.6\r\n"), "is not reachable"),
        (saying(b""), "is not reachable"),
        (answering(PAGE), "is no relayfile server"),
        (answering(OK + b'13\r\n\r\n{"ok": "yes"}'), "is no relayfile server"),
        (answering(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), "is no relayfile server"),
        (answering(FOUND + b"\x1b[31m\r\n\r\n"), "is not reachable"),
        (answering(FOUND + b"\r\n\r\n"), "is no relayfile server"),
        (answering(b"HTTP/1.1 500 Oh\r\ncontent-length: 8\r\n\r\n\x1b[31mRED"), "cannot serve now"),
        (answering(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd"), "relayfile server"),
        (endless_headers, "is not reachable"),
    ],
    ids=["garbage", "ssh", "hangs up", "html", "json", "404", "bad redirect", "redirect", "500", "no gzip", "endless"],
)  # fmt: skip
def test_a_server_of_something_else(attempt: Attempt, speech: Speech, says: str) -> None:
    with speaking(speech) as address:
        attempt.refused(
            "mount", f"relayfile+http://{address}/local", "m", "--timeout", "2", *token(attempt, "secret-token"),
            code=4, says=says, within=2,
        )  # fmt: skip


def test_silence_until_the_timeout(attempt: Attempt) -> None:
    with speaking(silent) as address:
        options = ("--timeout", "1", *token(attempt, "secret-token"))
        attempt.refused(
            "mount", f"relayfile+http://{address}/local", "m", *options, code=4, says="did not answer", within=1
        )


def certificate(folder: Path) -> ssl.SSLContext:
    """For a server whose certificate nobody signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
    file = folder / "certificate.pem"
    file.write_bytes(
        made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_tls_where_there_is_none_and_none_where_there_is(attempt: Attempt, relay: RelayServer) -> None:
    given = ("--timeout", "3", "--token-file", str(relay.token_file))
    plain = relay.remote.removeprefix("relayfile+http")
    attempt.refused("mount", f"relayfile+https{plain}", "m", *given, code=4, says="cannot be trusted")
    with speaking(answering(b"never"), certificate(attempt.folder)) as address:
        attempt.refused("mount", f"relayfile+http://{address}/local", "m", *given, code=4, says="is not reachable")
        attempt.refused("mount", f"relayfile+https://{address}/local", "m", *given, code=4, says="cannot be trusted")


# the credential


def test_no_credential(attempt: Attempt, relay: RelayServer) -> None:
    attempt.refused("mount", relay.remote, "m", code=4, says=["FSMOUNT_TOKEN is not set", "--token-file"])
    missing = ("--token-file", str(attempt.folder / "none\x1b[31m"))
    attempt.refused("mount", relay.remote, "m", *missing, code=4, says=["cannot be read", "No such file"])
    both = ("--token-file", "x", "--token-command", "y")
    attempt.refused("mount", relay.remote, "m", *both, code=2, says="both given")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"), ("\n\n", "is empty"), ("two words\n", "holds no token"), (b"\xff\xfe\x00", "holds no token"),
        ("\x1b[31m\n", "holds no token"), ("geheim99-geheim99\n", "the credential was refused"),
    ],
    ids=ascii,
)  # fmt: skip
def test_tokens_that_are_none(attempt: Attempt, relay: RelayServer, text: str | bytes, says: str) -> None:
    said = attempt.refused("mount", relay.remote, "m", *token(attempt, text), code=4, says=says)
    assert "geheim99" not in said


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"exp": 1_000_000_000}, "the credential was refused"),
        ({"wks": "other", "workspace_id": "other"}, "for this workspace"),
        ({"scopes": ["sync:read"]}, "grant fs:read"),
        ({"aud": ["someone"]}, "the credential was refused"),
    ],
    ids=str,
)
def test_tokens_for_something_else(attempt: Attempt, relay: RelayServer, claims: dict[str, object], says: str) -> None:
    signed = relay.sign(**claims)
    said = attempt.refused("mount", relay.remote, "m", *token(attempt, signed), code=4, says=says)
    assert signed not in said


def test_a_token_that_somebody_else_signed(attempt: Attempt, relay: RelayServer) -> None:
    head, claims, signature = relay.token.split(".")
    foreign = f"{head}.{claims}.{signature[::-1]}"
    given = token(attempt, foreign)
    said = attempt.refused("mount", relay.remote, "m", *given, code=4, says="the credential was refused")
    assert foreign not in said


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo geheim99 is not known >&2; exit 3", "ended with 3"), ("sleep 30", "did not end within"),
        ("printf 'a b'", "holds no token"), ("head -c 99999 /dev/zero", "holds no token"), ("true", "is empty"),
        ("no-such-command-here", "ended with 127"), ("yes", "did not end within"),
    ],
)  # fmt: skip
def test_token_commands(attempt: Attempt, relay: RelayServer, command: str, says: str) -> None:
    attempt.refused(
        "mount", relay.remote, "m", "--timeout", "1", "--token-command", command, code=4, says=says, within=1
    )


def test_a_token_that_others_can_read_is_warned_about_once(attempt: Attempt, relay: RelayServer) -> None:
    file = attempt.folder / "token"
    file.write_text(relay.token)
    file.chmod(0o644)
    done = attempt.run("mount", relay.remote, "m", "--token-file", str(file))
    try:
        said = done.stderr.decode()
        assert (done.returncode, said.count("warning")) == (0, 1), said
        assert f"chmod 600 {file}" in said
        (log,) = (attempt.folder / "xdg-state").rglob("log")
        assert log.read_text().count("credential.exposed") == 1
    finally:
        assert attempt.run("umount", "m").returncode == 0


# the mount point


def test_mount_points(attempt: Attempt) -> None:
    (attempt.folder / "file").write_text("")
    (attempt.folder / "full").mkdir()
    (attempt.folder / "full/a\x1b[31m\nb").write_text("")
    (attempt.folder / "loop").symlink_to("loop")
    (attempt.folder / "dangling").symlink_to("none")
    (attempt.folder / os.fsdecode(b"\xff")).mkdir()
    for point, says in (
        ("none\x1b[31m\n'x", "mkdir -p"), ("file", "not a directory"), ("full", "--nonempty"), ("loop", "mount point"),
        ("dangling", "does not exist"), ("file/x", "mount point"), ("n" * 300, "mount point"), ("", "is empty"),
        (b"\xff", "UTF-8"),
    ):  # fmt: skip
        attempt.refused("mount", NOWHERE, point, code=2, says=says)


@as_root
def test_a_mount_point_of_another_filesystem(attempt: Attempt) -> None:
    script = 'mount -t tmpfs busy m && exec "$@"'
    private = ("unshare", "-m", "sh", "-c", script, "sh")
    attempt.refused("mount", NOWHERE, "m", before=private, code=5, says=["a mount already", "tmpfs", "--nonempty"])


@as_root
def test_a_mount_point_of_another_program(attempt: Attempt) -> None:
    """One that is dead, and one that never answers."""
    program = (
        "import ctypes, os, subprocess, sys\n"
        "device = os.open('/dev/fuse', os.O_RDWR)\n"
        "options = f'fd={device},rootmode=40000,user_id=0,group_id=0'.encode()\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.mount(b'x', b'm', b'fuse.other', 0, options) == 0, ctypes.get_errno()\n"
        "if sys.argv[1] == 'dead': os.close(device)\n"
        "code = subprocess.run(sys.argv[2:]).returncode\n"
        "assert libc.umount2(b'm', 2) == 0\n"
        "sys.exit(code)\n"
    )
    for how, code, says in (("dead", 2, "dead mount of another program"), ("silent", 6, "does not answer")):
        before = ("unshare", "-m", sys.executable, "-c", program, how)
        attempt.refused("mount", NOWHERE, "m", before=before, code=code, says=says)


# this machine


@as_root
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("mount -t tmpfs none /dev", "/dev/fuse is missing"),
        ("touch fuse; chmod 600 fuse; mount --bind fuse /dev/fuse; set -- $NOBODY \"$@\"", "cannot be opened by you"),
        ("mount --bind /dev/null /dev/fuse", "could not be mounted: "),
        ("mount -t tmpfs -o ro none xdg-state", "xdg-state"),
        ("mount -t tmpfs -o ro none xdg-cache", "xdg-cache"),
    ],
    ids=["no device", "not permitted", "no fuse", "state read-only", "cache read-only"],
)  # fmt: skip
def test_what_this_machine_lacks(everybodys: Attempt, relay: RelayServer, script: str, says: str) -> None:
    nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    attempt = everybodys
    (attempt.folder / "fuse").write_text("")
    (attempt.folder / "fuse").chmod(0o600)
    private = ("unshare", "-m", "sh", "-ec", f'NOBODY="{nobody}"; {script}; exec "$@"', "sh")
    given = ("--token-file", str(relay.token_file), "--timeout", "5")
    attempt.refused("mount", relay.remote, "m", *given, before=private, code=7, says=says)


def test_without_fusermount(attempt: Attempt) -> None:
    attempt.refused("mount", NOWHERE, "m", PATH="/nowhere", code=7, says=["fusermount3", "apt install fuse3"])


@as_root
def test_a_home_that_nobody_knows(everybodys: Attempt, relay: RelayServer) -> None:
    """No variable, and a user that no database has."""
    attempt = everybodys
    del attempt.environment["XDG_STATE_HOME"]
    attempt.environment.pop("HOME", None)
    fuse = attempt.folder / "fuse"
    os.mknod(fuse, 0o020666, os.makedev(10, 229))
    fuse.chmod(0o666)
    script = f'mount --bind {shlex.quote(str(fuse))} /dev/fuse; exec setpriv --reuid 54321 --clear-groups "$@"'
    attempt.refused(
        "mount", relay.remote, "m", before=("unshare", "-m", "sh", "-ec", script, "sh"), code=7, says="XDG_STATE_HOME"
    )


# the state directory


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory, relay: RelayServer) -> Path:
    """A state directory with one op that was not delivered."""
    folder = tmp_path_factory.mktemp("left")
    with Mount(folder, relay, "--settle", "60", "--max-settle", "60", "--drain", "0") as mount:
        mount.sh("echo unsent > $MOUNT/unsent.txt")
        assert mount.umount().returncode == 0
    return mount.state


def newer_journal(state: Path) -> None:
    with sqlite3.connect(state / "journal.db") as journal:
        journal.execute("PRAGMA user_version=99")
    journal.close()


def newer_identity(state: Path) -> None:
    file = state / "remote.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99, "version": "9.\x1b[31m9"}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _: None, "belongs to relayfile+http://"),
        (newer_journal, "newer fsmount"),
        (newer_identity, "newer fsmount"),
        (lambda state: (state / "journal.db").write_bytes(b"garbage" * 999), "cannot be read"),
        (lambda state: (state / "remote.json").write_text("{"), "is damaged"),
        (lambda state: (state / "remote.json").write_bytes(b"\x1b\xff"), "is damaged"),
    ],
    ids=["another remote", "newer journal", "newer identity", "damaged journal", "cut identity", "no identity"],
)
def test_state_that_is_another_one(attempt: Attempt, relay: RelayServer, left: Path, spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    state = attempt.folder / "state"
    shutil.copytree(left, state)
    spoil(state)
    remote = f"{relay.remote}/sub"
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file() and path.name in KEPT}
    done = attempt.run("mount", remote, "m", "--state-dir", "state", "--token-file", str(relay.token_file))
    assert done.returncode == 5, done.stderr
    check_shown(done.stderr.decode())
    assert says in done.stderr.decode()
    assert {path: path.read_bytes() for path in before} == before, "nothing is lost"
    assert sorted(path.name for path in (state / "spool/bodies").rglob("*") if path.is_file()) == sorted(
        path.name for path in (left / "spool/bodies").rglob("*") if path.is_file()
    )


KEPT = ("journal.db", "remote.json")


# locks

HOLDER = """
import fcntl, json, os, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
holder = {"pid": int(sys.argv[2]) or os.getpid(), "host": sys.argv[3] or os.uname().nodename,
          "pidNamespace": os.readlink("/proc/self/ns/pid"), "serving": True,
          "startedAt": float(sys.argv[4]) or time.time()}
file.write(json.dumps(holder)); file.flush()
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("pid", "host", "started", "breakable"),
    [("0", "", "0", False), ("77", "elsewhere", "0", True), ("1", "", "1000", True)],
    ids=["runs here", "another host", "a pid used again"],
)
def test_locks(attempt: Attempt, relay: RelayServer, pid: str, host: str, started: str, breakable: bool) -> None:
    state = attempt.folder / "state"
    state.mkdir()
    given = ("mount", relay.remote, "m", "--state-dir", "state", "--token-file", str(relay.token_file))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state / "lock"), pid, host, started],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        named = f"pid {holder.pid}" if pid == "0" else f"pid {pid}"
        attempt.refused(*given, code=5, says=[named, "--break-lock"] if host else named)
        if not breakable:
            attempt.refused(*given, "--break-lock", code=5, says=named)
            return
        old = (state / "lock").stat().st_ino
        done = attempt.run(*given, "--break-lock")
        assert done.returncode == 0, done.stderr
        try:
            assert (state / "lock").stat().st_ino != old
            with (state / "lock").open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert f'"pid":{done.stdout.split()[-1].decode()}' in (state / "lock").read_text()
            attempt_again = attempt.run(*given, "--break-lock")
            assert attempt_again.returncode == 5, attempt_again.stderr
        finally:
            assert attempt.run("umount", "m").returncode == 0
        holder.kill()


@as_root
def test_a_daemon_in_another_pid_namespace(attempt: Attempt, relay: RelayServer) -> None:
    """Even --break-lock does not let two daemons write one journal where the kernel can tell."""
    given = ("mount", relay.remote, "--state-dir", "state", "--token-file", str(relay.token_file))
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
         sys.executable, "-m", "fsmount", *given, "m", "-f"],
        cwd=attempt.folder, env=attempt.environment, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        try:
            assert other.stdout is not None
            assert [other.stdout.readline() for _ in range(4)][3] == "pid 1\n"
            (attempt.folder / "n").mkdir()
            for more, says in (((), "another host or container"), (("--break-lock",), "has the journal")):
                done = attempt.run(*given, "n", *more)
                assert done.returncode == 5, done.stderr
                check_shown(done.stderr.decode())
                assert says in done.stderr.decode()
                assert '"pid":1,' in (attempt.folder / "state/lock").read_text(), "the lock is the other's still"
        finally:
            other.kill()
    until(lambda: is_free(attempt.folder / "state/lock"), "the kernel takes the lock from the daemon that was killed")
    done = attempt.run(*given, "n")
    assert done.returncode == 0, done.stderr
    assert attempt.run("umount", "n").returncode == 0


def is_free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# names that are odd, but can be


def test_odd_names_mount_and_are_shown_without_control_characters(attempt: Attempt, relay: RelayServer) -> None:
    point = attempt.folder / "a b\n\x1b[31m'\"\\,=é"
    point.mkdir()
    given = ("--token-file", str(relay.token_file), "--name", "x.y_z-1")
    done = attempt.run("mount", relay.remote, str(point), *given)
    try:
        assert done.returncode == 0, done.stderr
        for said in (
            done.stdout, attempt.run("writeback", "status").stdout, attempt.run("list").stdout,
            attempt.run("doctor").stdout, attempt.run("mount", relay.remote, str(point), *given).stderr,
        ):  # fmt: skip
            assert not [char for char in said.decode() if char != "\n" and not char.isprintable()], said
            assert rb"\x1b[31m" in said or b"x.y_z-1" in said
    finally:
        away = attempt.run("umount", str(point))
    assert away.returncode == 0, away.stderr
    assert b"\x1b" not in away.stdout


# the server's rules


def test_rules_and_data_of_the_server(attempt: Attempt) -> None:
    (attempt.folder / "file").write_text("")
    attempt.refused("serve", "--data", "file", code=2, says="file")
    attempt.refused("serve", "--data", "d", "--workspace", "a/b", code=2, says="workspace")
    rules = attempt.folder / "rules"
    rules.write_text("PUT /a 422 {\nFETCH /b 503\n* /c \x1b[31m\n* d 503\n")
    with subprocess.Popen(
        [sys.executable, "-m", "fsmount", "serve", "--data", "d", "--rules", "rules"],
        cwd=attempt.folder, env=attempt.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            remote = server.stdout.readline().decode().split()[1]
            port = remote.rpartition(":")[2].partition("/")[0]
            attempt.run("doctor", remote, "--token-file", "d/token")
            done = attempt.run("serve", "--data", "e", "--listen", f"127.0.0.1:{port}")
            assert done.returncode == 2, done.stderr
            check_shown(done.stderr.decode())
        finally:
            server.terminate()
            _, said = server.communicate(timeout=10)
    assert [f"line {number}" in said.decode() for number in (1, 2, 3, 4)] == [True] * 4, said
    assert b"\x1b" not in said


def test_a_mount_that_was_ended_by_a_signal_leaves_nothing(attempt: Attempt) -> None:
    """Ctrl-C while the remote is silent."""
    with speaking(silent) as address:
        before = attempt.left()
        (attempt.folder / "token").write_text("t")
        before = attempt.left()
        with subprocess.Popen(
            ["timeout", "-s", "INT", "--foreground", "1.5", sys.executable, "-m", "fsmount", "mount", "-f",
             f"relayfile+http://{address}/local", "m", "--token-file", "token"],
            cwd=attempt.folder, env=attempt.environment, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            began = time.monotonic()
            _, said = process.communicate(timeout=20)
        assert time.monotonic() - began < 8
        assert b"interrupted" in said
        assert attempt.left() == before
