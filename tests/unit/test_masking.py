"""No part of a password in a URL is shown, whatever the password is made of and wherever the URL stands."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from steps.core.base.errors import ConfigError, Refused, SourceUnavailable, StepFailed
from steps.core.base.report import Report
from steps.core.base.urls import masked, masked_url, shown
from steps.core.config.load import parse
from steps.core.config.messages import show
from steps.core.release import web

# Letters that stand nowhere else in these tests' sentences, and all that separates the parts of a URL.
LETTERS = "QWXYZKäß√"
passwords = st.text(alphabet=LETTERS + "@:/%?#[]!'\",;\\&= \N{NO-BREAK SPACE}", min_size=1, max_size=12)
in_a_word = passwords.map(lambda text: text.replace(" ", "+"))
hosts = st.sampled_from(["mirror.test", "mirror.test:8443", "10.0.0.1", "[fd00::1]:2379"])


def shows_none_of(password: str, said: str) -> None:
    assert not set(password) & set(LETTERS) & set(said), said


@given(in_a_word, in_a_word, hosts)
@example("p@ss/w:rd", "x", "h")
@example("/@", "://@", "h")
def test_masked_a_sentence_with_two_urls_shows_no_password(first: str, second: str, host: str) -> None:
    said = masked(f"cannot get https://me:{first}@{host}/a, nor (http://me:{second}@{host}): see https://etcd.io/docs")
    shows_none_of(first + second, said)
    assert said.endswith("): see https://etcd.io/docs")
    assert said.startswith("cannot get https://***@")


@given(passwords, hosts, st.sampled_from(["https://", "http://", "socks5h://", "//", ""]))
def test_masked_url_of_any_password_shows_none_of_it(password: str, host: str, scheme: str) -> None:
    assume(scheme or not password.startswith("//"))  # me:// would be the scheme; no password is shown then, either
    assert masked_url(f"{scheme}me:{password}@{host}") == f"{scheme}***@{host}"


@pytest.mark.parametrize(
    "url",
    [
        *("https://mirror.test/etcd@3.5/x", "https://mirror.test:8443/v{version}", "http://[::1]:8080/", "debian"),
        *("root@10.0.0.1:22", "ops@a.test,root@b.test:2222", "/etc/etcd//cert", "10.0.0.1"),
    ],
)
def test_masked_url_without_a_password_is_left_as_it_is(url: str) -> None:
    assert masked_url(url) == url
    assert masked(url) == url


@given(passwords, hosts)
@example("ZZ℀Z", "h")  # urlsplit's own error quotes what it does not take
@example("ZZ[Z", "h")
def test_a_mirror_with_a_password_is_refused_and_no_part_of_it_shown(password: str, host: str) -> None:
    url = f"https://me:{password}@{host}/etcd"
    quoted = "".join(f"\\U{ord(letter):08X}" for letter in url)
    text = f'[cluster]\nname = "c"\n[release]\nmirror = "{quoted}"\n"{quoted}" = 1\n'
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), Path("/x/etcd.toml"))
    said = caught.value.message
    shows_none_of(password, said)
    assert 'release.mirror: found "https://***@' in said
    shows_none_of(password, "".join(problem.message + problem.key for problem in caught.value.problems))
    assert show(url) == f'"https://***@{host}/etcd"'


@given(in_a_word, hosts)
def test_every_error_and_every_line_is_masked(password: str, host: str) -> None:
    said = f"tried https://me:{password}@{host}/x"
    for kind in (Refused, StepFailed, SourceUnavailable):
        error = kind(said)
        error.within(f"the plugin of https://me:{password}@{host}")
        shows_none_of(password, f"{error} {error.message}")
    stream, heard = io.StringIO(), list[str]()
    report = Report(stream)
    report.heard = lambda _kind, _node, message: heard.append(message)
    report.say(said)
    report.warn(said)
    report.change(said, "n", f"+--discovery-proxy=https://me:{password}@{host}")
    shows_none_of(password, stream.getvalue() + "".join(heard))


@settings(max_examples=30, deadline=None)
@given(in_a_word, st.sampled_from(["", "http://", "ftp://"]))
@example("Q/Z@W", "http://")
def test_a_proxy_of_no_use_is_named_without_its_password(password: str, scheme: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("https_proxy", f"{scheme}me:{password}@127.0.0.1:1")
        for name in ("no_proxy", "NO_PROXY"):
            patch.delenv(name, raising=False)
        with pytest.raises(SourceUnavailable) as caught:
            web.download("https://mirror.test/x", Path("/nowhere/x"), who="github", deadline=5, limit=1)
    shows_none_of(password, caught.value.message)
    assert "https_proxy" in caught.value.message
    assert "@127.0.0.1:1" in caught.value.message


@given(in_a_word, hosts)
def test_shown_a_url_has_neither_login_nor_query(password: str, host: str) -> None:
    assert shown(f"https://me:{password}@{host}/x?signature=abc") == f"https://***@{host}/x"
