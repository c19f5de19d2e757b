"""What a log says, whoever may have put words into it."""

from __future__ import annotations

from journal import STARTING, entry, zap

from steps.core.etcd.logs import last_start, read, telling
from steps.core.node.service import START

PANIC = "panic: rename /data/etcd/wal.tmp /data/etcd/wal: device or resource busy"


def journal(*starts: list[str]) -> str:
    return "\n".join(
        line for start in starts for line in (entry("Starting etcd...", systemd=True, id=STARTING), *start)
    )


def test_read_journal_levels() -> None:
    lines = read(
        "\n".join(
            [
                entry(zap("fatal", "a", "b")),
                entry("c", priority=2, transport="journal"),
                entry("d", priority=4, transport="journal"),
                entry("e"),
                entry("f", systemd=True),
                entry([104, 105, 255]),
                entry(None),
            ]
        )
    )
    assert [line.level for line in lines] == ["fatal", "fatal", "minor", "plain", "systemd", "plain"]
    assert lines[0].said == "a: b"
    assert lines[5].text == "hi\ufffd"


def test_read_plain_log_levels() -> None:
    time = "2026-11-26 09:07:19.809720"
    lines = read(f"{time} C | etcdmain: x\n{time} W | etcdserver: y\n{PANIC}\n\n[WARNING] z\n{{broken\n")
    assert [(line.level, line.said) for line in lines] == [
        ("fatal", "x"),
        ("minor", "y"),
        ("fatal", PANIC),
        ("plain", "[WARNING] z"),
        ("plain", "{broken"),
    ]


def test_last_start_leaves_out_what_an_earlier_one_said() -> None:
    old, new = entry(zap("fatal", "old")), entry(zap("warn", "new"))
    lines = read(journal([old], [new]))
    assert [line.said for line in last_start(lines, restarting=False)][1:] == ["new"]
    plain = read(f"{START}\n{zap('fatal', 'old')}\n{START}\n{zap('warn', 'new')}\n")
    assert [line.said for line in last_start(plain, restarting=False)] == ["new"]
    assert last_start([], restarting=True) == ()


def test_last_start_while_restarting_is_the_last_that_failed() -> None:
    failed, trying = entry(zap("fatal", "failed")), entry(zap("info", "trying"))
    lines = read(journal([entry(zap("fatal", "long ago"))], [failed], [trying]))
    assert [line.said for line in last_start(lines, restarting=True)][1:] == ["failed"]
    lines = read(journal([failed], [trying, entry(zap("fatal", "again"))]))
    assert [line.said for line in last_start(lines, restarting=True)][1:] == ["trying", "again"]
    crashed = entry("etcd.service: Main process exited, code=killed, status=7/BUS", systemd=True)
    stopped = entry("etcd.service: Deactivated successfully.", systemd=True)
    lines = read(journal([stopped], [crashed]))
    assert "7/BUS" in last_start(lines, restarting=True)[-1].said
    lines = read(journal([stopped], [trying]))
    assert last_start(lines, restarting=True)[-1].said == "trying", "what was stopped has not failed"
    (only,) = last_start(read(trying), restarting=True)
    assert only.said == "trying"


def test_telling_is_what_ended_it() -> None:
    assert telling(read(f"one\n{PANIC}\ngoroutine 1 [running]:\nmain.main()\n")) == [PANIC]
    step = "etcd.service: Failed at step CHDIR spawning /usr/local/bin/etcd: Permission denied"
    lines = read("\n".join([entry(step, systemd=True), *(entry(f"etcd.service: {n}", systemd=True) for n in "abcd")]))
    assert telling(lines) == [step]
    assert telling(read("1\n2\n3\n4"), otherwise=3) == ["2", "3", "4"]
