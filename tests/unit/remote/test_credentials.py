"""Tokens are read where they lie, read again when refused, and shown to nobody."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import trio

from fsmount.config import Credentials
from fsmount.errors import Refusal
from fsmount.remote.credentials import TokenSource

SECRET = "eyJ.secret.token"


def source(credentials: Credentials, *, timeout: float = 10) -> tuple[TokenSource, list[str]]:
    warnings: list[str] = []
    return TokenSource(credentials, warn=warnings.append, command_timeout=timeout), warnings


def token_file(folder: Path, content: str = SECRET + "\n", mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(content)
    path.chmod(mode)
    return path


async def test_a_file_is_read_and_read_again_when_refused(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    tokens, warnings = source(Credentials(token_file=path))
    assert await tokens.token() == SECRET
    assert not await tokens.renewed(SECRET)
    assert not tokens.changed()
    path.write_text("another")
    assert tokens.changed()
    assert await tokens.token() == "another"
    assert warnings == []


async def test_requests_refused_together_get_the_token_that_one_of_them_read(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    tokens, _ = source(Credentials(token_file=path))
    await tokens.token()
    path.write_text("fresh")
    assert await tokens.renewed(SECRET) == "fresh"
    path.unlink()
    assert await tokens.renewed(SECRET) == "fresh"


async def test_a_file_open_to_others_is_warned_of_once(tmp_path: Path) -> None:
    path = token_file(tmp_path, mode=0o640)
    tokens, warnings = source(Credentials(token_file=path))
    await tokens.token()
    await tokens.renewed(SECRET)
    assert len(warnings) == 1
    assert str(path) in warnings[0]


@pytest.mark.parametrize("content", ["", " \n", "two words", "line\nline", "ключ"])
async def test_a_file_without_a_token_is_refused_without_its_content(tmp_path: Path, content: str) -> None:
    tokens, _ = source(Credentials(token_file=token_file(tmp_path, content)))
    with pytest.raises(Refusal) as caught:
        await tokens.token()
    assert (caught.value.status, caught.value.code) == (401, "no_credential")
    assert caught.value.hint
    assert not content.strip() or content not in str(caught.value)
    assert not tokens.changed()


async def test_a_missing_file_names_itself_and_may_come_back(tmp_path: Path) -> None:
    path = tmp_path / "token"
    tokens, _ = source(Credentials(token_file=path))
    with pytest.raises(Refusal, match="cannot be read: No such file"):
        await tokens.token()
    token_file(tmp_path)
    assert tokens.changed()


async def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, _ = source(Credentials())
    monkeypatch.delenv("FSMOUNT_TOKEN", raising=False)
    with pytest.raises(Refusal, match="FSMOUNT_TOKEN is not set"):
        await tokens.token()
    monkeypatch.setenv("FSMOUNT_TOKEN", SECRET)
    assert await tokens.token() == SECRET


async def test_a_command_runs_again_only_when_refused(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    tokens, _ = source(Credentials(token_command=f"echo x >> {runs}; printf token-; wc -l < {runs} | tr -d ' '"))
    assert [await tokens.token(), await tokens.token()] == ["token-1", "token-1"]
    assert await tokens.renewed("token-1") == "token-2"


async def test_a_refused_command_is_asked_again_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.2
    tokens, _ = source(Credentials(token_command="echo same"))
    await tokens.token()
    assert await tokens.renewed("same") is None
    assert not tokens.changed()
    await trio.sleep(31)
    assert tokens.changed()
    assert await tokens.token() == "same"


async def test_a_person_may_have_a_refused_command_asked_at_once_and_in_a_thread() -> None:
    tokens, _ = source(Credentials(token_command="echo same"))
    await tokens.token()
    assert await tokens.renewed("same") is None
    assert not await trio.to_thread.run_sync(tokens.changed)
    assert await trio.to_thread.run_sync(lambda: tokens.changed(asked=True))


async def test_a_failing_command_shows_one_line_of_its_complaint() -> None:
    tokens, _ = source(Credentials(token_command=f"echo {SECRET}; printf 'vault is sealed\\nmore\\n' >&2; exit 3"))
    with pytest.raises(Refusal) as caught:
        await tokens.token()
    assert caught.value.detail == "the token command ended with 3: vault is sealed"


@pytest.mark.parametrize("command", ["sleep 60", "sleep 60 | cat", "yes"])
async def test_a_command_that_does_not_end_is_ended(command: str) -> None:
    tokens, _ = source(Credentials(token_command=command), timeout=0.3)
    with trio.fail_after(5), pytest.raises(Refusal, match=r"did not end within 0\.3 s"):
        await tokens.token()


async def test_an_echoed_token_is_hidden(tmp_path: Path) -> None:
    tokens, _ = source(Credentials(token_file=token_file(tmp_path)))
    await tokens.token()
    assert tokens.hides(f"Authorization: Bearer {SECRET}") == "Authorization: Bearer ***"
    assert SECRET not in repr(tokens)


@pytest.mark.parametrize("name", ["relay_pa_", "relay_ws_", "relay_id_", "relay_ag_"])
async def test_an_echo_without_the_tokens_class_is_hidden(tmp_path: Path, name: str) -> None:
    tokens, _ = source(Credentials(token_file=token_file(tmp_path, name + SECRET)))
    await tokens.token()
    assert tokens.hides(f"no session {SECRET}") == "no session ***"
    assert tokens.hides(f"no session {name}{SECRET}") == "no session ***"


async def test_an_echo_of_a_url_is_hidden(tmp_path: Path) -> None:
    tokens, _ = source(Credentials(token_file=token_file(tmp_path, "opaque+secret==")))
    await tokens.token()
    assert tokens.hides("/fs/ws?token=opaque%2Bsecret%3D%3D") == "/fs/ws?token=***"


async def test_echoes_of_earlier_tokens_are_hidden(tmp_path: Path) -> None:
    names = [f"secret-token-{letter}" for letter in "abcdefgh"]
    path = token_file(tmp_path, names[0])
    tokens, _ = source(Credentials(token_file=path))
    await tokens.token()
    for before, name in pairwise(names):
        path.write_text(name)
        assert await tokens.renewed(before) == name if name in names[::2] else tokens.changed()
    assert tokens.hides(" ".join(names)) == " ".join(["***"] * len(names))
