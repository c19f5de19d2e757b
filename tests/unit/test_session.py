"""The protocol over one shell, against a real `sh` of this machine."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steps.core.transport.local import LocalPipe
from steps.core.transport.node_lock import Lock
from steps.core.transport.shell_session import NotReady, Result, Session, SessionError, Sink, shell_command

Open = Callable[..., Session]


@pytest.fixture
def opened() -> Iterator[Open]:
    sessions: list[Session] = []

    def start(
        path: Path | None = None,
        holder: str = "me",
        *,
        work: str = "here",
        number: str = "1",
        password: str | None = None,
        before: str = "",
    ) -> Session:
        lock = Lock(str(path), holder, work, number) if path else None
        session = Session(LocalPipe(before + shell_command(lock)), password=password, deadline=10)
        sessions.append(session)
        session.run("true", deadline=10)
        return session

    yield start
    for session in sessions:
        session.close()


def run(session: Session, script: str, payload: tuple[bytes, ...] = (), deadline: float = 10) -> Result:
    return session.run(script, payload, deadline=deadline)


def eventually(attempt: Callable[[], object]) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with contextlib.suppress(SessionError):
            if attempt():
                return True
        time.sleep(0.01)
    return False


SCRIPTS = {
    "nothing": ("", "", ""),
    "a word": ("echo hi", "hi\n", ""),
    "no newline at the end": ("printf hi", "hi", ""),
    "newlines at both ends": ("printf '\\n\\nhi\\n\\n'", "\n\nhi\n\n", ""),
    "stderr apart": ("echo out; echo err >&2", "out\n", "err"),
    "several lines": ("for i in 1 2; do\n  echo $i\ndone\n", "1\n2\n", ""),
    "quotes": ("""printf %s 'a"b' "c'd" '$x' \\\\""", """a"bc'd$x\\""", ""),
    "not ASCII": ("printf é; printf ü >&2", "é", "ü"),
    "bytes that are no text": ("printf '\\377\\001'", "\udcff\x01", ""),
    "what looks like a frame": ("printf '\\nsteps-0123456789abcdef 0 0\\n'", "\nsteps-0123456789abcdef 0 0\n", ""),
    "umask": ("umask", "0077\n", ""),
    "a shell of its own each": ("x=1; cd /; exec 2>&1", "", ""),
}


@pytest.mark.parametrize(("script", "out", "err"), SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_says_what_it_says(opened: Open, script: str, out: str, err: str) -> None:
    session = opened()
    for _ in range(2):
        assert run(session, script) == Result(0, out, err)
    assert run(session, 'echo "$x$PWD"').out == f"{Path.cwd()}\n"


def test_many_scripts_share_one_shell(opened: Open) -> None:
    session = opened()
    shells = {run(session, "echo $PPID $$").out for _ in range(20)}
    assert len(shells) == 1


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 3_000_001])
def test_a_payload_arrives_byte_for_byte(opened: Open, tmp_path: Path, size: int) -> None:
    session, sent = opened(), list[int]()
    payload = os.urandom(size)
    chunks = [payload[at : at + 100_000] for at in range(0, size, 100_000)]
    script = f"head -c {size} >{tmp_path}/got; echo done"
    assert session.run(script, chunks, deadline=20, sent=lambda done, _: sent.append(done)) == Result(0, "done\n", "")
    assert (tmp_path / "got").read_bytes() == payload
    assert sent[-1:] == ([size] if size else [])
    assert run(session, "echo next").out == "next\n", "nothing of the payload is left over"


def test_much_output_and_much_stderr(opened: Open) -> None:
    result = run(opened(), "head -c 1000000 /dev/zero | tr '\\0' o; head -c 70000 /dev/zero | tr '\\0' e >&2")
    assert (len(result.out), len(result.err)) == (1_000_000, 70_000)


@pytest.mark.parametrize("size", [0, 5, 65536, 1_000_000])
def test_a_sink_gets_the_bytes_and_the_result_does_not(opened: Open, size: int) -> None:
    session, sink = opened(), io.BytesIO()
    script = f"head -c {size} /dev/zero; echo warned >&2"
    result = session.run(script, deadline=10, sink=Sink(sink, limit=1_000_000))
    assert sink.getvalue() == bytes(size)
    assert result == Result(0, "", "warned")
    assert run(session, "echo next").out == "next\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("false", 1), ("set -e; false; echo no", 1), ("no-such-command", 127)]
)
def test_a_failed_script_gives_its_code_and_ends_the_session(opened: Open, script: str, code: int) -> None:
    session = opened()
    result = run(session, f"echo before; echo why >&2; {script}")
    assert result.code == code
    assert result.out == "before\n"
    assert result.err.startswith("why")
    assert not result.ok
    assert session.closed


def test_a_script_that_fails_before_it_reads_its_payload_is_heard(opened: Open) -> None:
    payload = (bytes(1 << 18) for _ in range(16))
    result = opened().run("echo no room >&2; exit 5", payload, deadline=10)
    assert (result.code, result.err) == (5, "no room")


@pytest.mark.parametrize("missing", [1, 8, 100])
def test_a_script_that_is_cut_off_is_not_run(tmp_path: Path, missing: int) -> None:
    """`rm -r data/member`, cut, is `rm -r data`."""
    script = f"touch {tmp_path}/made\necho é {'x' * 100}".encode()
    given = b"token\n%d\n%s" % (len(script), script[:-missing])
    done = subprocess.run(["sh", "-c", shell_command(None)], input=given, capture_output=True, check=False)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (1, b"ready\n", [])


def test_a_syntax_error_is_the_scripts_own(opened: Open) -> None:
    result = run(opened(), "if then")
    assert result.code != 0
    assert "yntax error" in result.err


def test_no_answer_within_the_deadline(opened: Open, tmp_path: Path) -> None:
    session = opened()
    begin = time.monotonic()
    with pytest.raises(SessionError, match="no answer within the deadline: halfway"):
        run(session, f"echo halfway; echo $$ >{tmp_path}/pid; sleep 600", deadline=0.3)
    assert session.closed
    assert time.monotonic() - begin < 4
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_run_output_beyond_any_size_ends_the_session(opened: Open) -> None:
    session, begin = opened(), time.monotonic()
    with pytest.raises(SessionError, match="it says more than 16 MiB"):
        run(session, "cat /dev/zero", deadline=60)
    assert session.closed
    assert time.monotonic() - begin < 20


def test_run_sink_beyond_its_limit_ends_the_session(opened: Open) -> None:
    session, file = opened(), io.BytesIO()
    with pytest.raises(SessionError, match="more than 1000000 bytes came"):
        session.run("cat /dev/zero", deadline=60, sink=Sink(file, limit=1_000_000))
    assert session.closed
    assert len(file.getvalue()) <= 1_000_000


class Hostile:
    """A pipe of a host that answers what it likes, and takes little."""

    def __init__(self, answer: Callable[[bytes], bytes], *, takes: float = 0) -> None:
        self._answer, self._takes, self._said, self._out = answer, takes, b"", b"ready\n"

    def send(self, data: bytes) -> None:
        time.sleep(self._takes)
        self._said += data

    def recv(self, timeout: float) -> bytes:
        del timeout
        out, self._out = self._out or self._answer(self._said.split(b"\n")[0]), b""
        return out

    def close(self) -> None: ...


@pytest.mark.parametrize("sink", [None, Sink(io.BytesIO(), limit=1 << 30)], ids=["said", "sink"])
def test_run_output_that_never_ends_ends_at_the_deadline(sink: Sink | None) -> None:
    session, begin = Session(Hostile(lambda _: b"more\n")), time.monotonic()
    with pytest.raises(SessionError, match="no answer within the deadline"):
        session.run("true", deadline=0.3, sink=sink)
    assert session.closed
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("end", [b"0", b"x 0", b"0 -5", b"0 0 0", b"0 999999999999", b"-1 0", b"\xff 0"])
def test_run_result_that_makes_no_sense_is_said(end: bytes) -> None:
    session = Session(Hostile(lambda token: b"\n" + token + b" " + end + b"\n"))
    with pytest.raises(SessionError, match="no end that makes sense"):
        session.run("true", deadline=5)


def test_run_payload_that_is_taken_too_slowly_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steps.core.transport.shell_session.STALL", 0.2)
    session, begin = Session(Hostile(lambda _: b"", takes=0.05)), time.monotonic()
    with pytest.raises(SessionError, match=r"only .* bytes were taken in"):
        session.run("cat >/dev/null", (bytes(10) for _ in range(1000)), deadline=60)
    assert time.monotonic() - begin < 5


def test_local_pipe_that_is_read_too_slowly_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steps.core.transport.shell_session.STALL", 0.5)
    monkeypatch.setattr("steps.core.transport.shell_session.SLOWEST", 1 << 20)
    pipe, begin = LocalPipe("while head -c 4096; do sleep 0.1; done >/dev/null"), time.monotonic()
    try:
        with pytest.raises(TimeoutError, match="nothing was read"):
            pipe.send(bytes(1 << 20))
        assert time.monotonic() - begin < 5
    finally:
        pipe.close()


def test_a_shell_that_dies_is_told(opened: Open) -> None:
    session = opened()
    with pytest.raises(SessionError, match="the remote shell ended: last words"):
        run(session, "echo last words; kill -9 $$")
    assert session.closed


def test_a_shell_that_never_comes_is_told_in_its_own_words(opened: Open) -> None:
    with pytest.raises(SessionError, match="the remote shell ended: This account is not available"):
        opened(before="echo This account is not available; exit 1\n")


def test_what_a_login_prints_first_does_no_harm(opened: Open) -> None:
    session = opened(before="echo Welcome; echo ready or not\n")
    assert run(session, "echo hi").out == "hi\n"


def test_a_password_that_nobody_asked_for_is_no_script(opened: Open) -> None:
    session = opened(password="5")
    assert run(session, "echo hi") == Result(0, "hi\n", "")


def test_no_script_and_no_password_ever_stands_in_argv(opened: Open) -> None:
    session = opened(password="hunter2")
    assert "MARKED-SECRET" not in run(session, "ps -eo args; : MARKED-SECRET").out
    assert "hunter2" not in run(session, "ps -eo args").out


# -- the node's lock ----------------------------------------------------------------------------------------------


def test_one_writer_at_a_time_and_readers_always(opened: Open, tmp_path: Path) -> None:
    lock = tmp_path / "new" / "lock"
    first = opened(lock, "anna@desk, pid 5")
    with pytest.raises(NotReady, match="locked by anna@desk, pid 5"):
        opened(lock, "berta", work="elsewhere", number="2")
    assert run(opened(None), "echo read").out == "read\n"
    assert lock.stat().st_mode & 0o777 == 0o600
    first.close()
    opened(lock, "it's $(free) again")
    assert lock.read_text().splitlines()[0] == "it's $(free) again"


def test_the_lock_is_gone_with_its_shell_however_that_ends(opened: Open, tmp_path: Path) -> None:
    first = opened(tmp_path / "lock")
    pid = int(run(first, "echo $$").out)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: opened(tmp_path / "lock")), "the lock outlived its holder"


def test_an_orphan_keeps_the_lock(opened: Open, tmp_path: Path) -> None:
    """What a killed run still does on the node is not joined by the next run."""
    lock, fifo = tmp_path / "lock", tmp_path / "fifo"
    os.mkfifo(fifo)
    first = opened(lock)
    pid = int(run(first, f"(read x <{fifo}) >/dev/null 2>&1 & echo $$").out)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(NotReady, match="locked by"):
        opened(lock, number="2")
    fifo.write_text("end\n")
    assert eventually(lambda: opened(lock)), "the lock outlived the orphan"


SILENT = {"between two scripts": "touch {mark}", "in the middle of an upload": "touch {mark}; head -c 9 >{mark}"}


@pytest.mark.parametrize("doing", SILENT.values(), ids=SILENT.keys())
def test_the_next_run_ends_a_shell_whose_own_run_is_over(opened: Open, tmp_path: Path, doing: str) -> None:
    """Its pipe stays open, as after a cut cable. Neither another work directory nor the shell's own run does so."""
    lock, mark = tmp_path / "lock", tmp_path / "mark"
    silent = LocalPipe(shell_command(Lock(str(lock), "me", "here", "1")))
    try:
        script = doing.format(mark=mark)
        silent.send(f"token\n{len(script)}\n{script}".encode())
        assert eventually(mark.exists)
        for work, number in (("elsewhere", "2"), ("here", "1")):
            with pytest.raises(NotReady, match="locked by me"):
                opened(lock, "you", work=work, number=number)
        assert run(opened(lock, "you", number="2"), "echo mine").out == "mine\n"
    finally:
        silent.close()


def test_a_lock_that_cannot_be_made_is_told(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SessionError, match=r"the remote shell ended: .*file"):
        opened(tmp_path / "file" / "lock")


def test_lock_directory_that_others_may_write_is_refused(opened: Open, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(SessionError, match="must lie in a directory of ours"):
        opened(folder / "lock")
    assert list(folder.iterdir()) == []


def test_lock_directory_that_is_a_link_is_refused(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(SessionError, match="must lie in a directory of ours"):
        opened(tmp_path / "link" / "lock")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_lock_directory_of_another_user_is_refused(opened: Open, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(SessionError, match="must lie in a directory of ours"):
        opened(folder / "lock")
    assert list(folder.iterdir()) == []


def test_lock_directory_is_made_for_its_owner_alone(opened: Open, tmp_path: Path) -> None:
    opened(tmp_path / "new" / "lock")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_the_shell_text_is_posix(tmp_path: Path) -> None:
    text = shell_command(Lock("/run/a lock", "x'y", "$here", "1"))
    assert subprocess.run(["sh", "-n", "-c", text], check=False).returncode == 0
