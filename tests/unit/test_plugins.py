"""What plugins add and how they fail, without hosts. Loading has a file of its own."""

from __future__ import annotations

import ast
import inspect
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, time, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import on_hosts

import steps.api
from steps.api import (
    CARequest,
    Check,
    Cluster,
    Command,
    File,
    LeafProfile,
    Node,
    Pending,
    Refused,
    Resource,
    Step,
    StepFailed,
    hookimpl,
)
from steps.builtin.ca import Builtin
from steps.core.base.errors import CertificateError, ConfigError, PluginError, StepsError
from steps.core.base.report import Report
from steps.core.context.context import Context
from steps.core.extensions import hookspecs as hooks
from steps.core.extensions.manager import Plugins
from steps.core.pipeline.engine import Engine
from steps.core.pipeline.ordering import Misplaced, ordered
from steps.core.tls import pki
from steps.core.tls.authority import Authority
from steps.core.tls.store import Store
from steps.core.transport.pool import Hosts
from steps.testing import MEMBER, cluster, load_plugin, make_cluster, resources

__all__ = ["cluster"]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "plugins"


def plugins(*found: Any) -> Plugins:
    made = Plugins()
    for number, plugin in enumerate(found, 1):
        made.register(f"p{number}", f"file{number}.py", plugin)
    made.raise_problems()
    return made


def hook(name: str, body: Callable[..., Any]) -> Any:
    """A plugin with one hook."""
    body.__name__ = name
    return SimpleNamespace(**{name: hookimpl(body)})


def named(name: str, **anchor: str) -> Step:
    return type(name.title().replace("-", ""), (Step,), {"name": name, **anchor})()


PHASES = [named(name) for name in ("env", "certs", "start")]


# -- every hook is documented, used and tested --------------------------------------------------------------------


@pytest.mark.parametrize("name", hooks.NAMES)
def test_every_hook_is_documented_used_and_tested(name: str) -> None:
    signature = inspect.signature(getattr(hooks, name))
    page = (ROOT / "docs/reference/hooks.md").read_text()
    assert f"| `{name}({', '.join(signature.parameters)})`" in page
    users = [*(ROOT / "plugins").glob("*.py"), *EXAMPLES.glob("*.py"), ROOT / "steps/builtin/hooks.py"]
    assert any(f"def {name}(" in file.read_text() for file in users), "no shipped plugin or example uses it"
    calls = ast.parse(Path(__file__).read_text())
    tested = {n.value for n in ast.walk(calls) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    tested |= {n.attr for n in ast.walk(calls) if isinstance(n, ast.Attribute)}
    assert name in tested, "no test here calls it"


def test_the_api_has_what_the_page_says_and_is_light() -> None:
    assert all(getattr(steps.api, name) is not None for name in steps.api.__all__)
    page = "".join((ROOT / "docs" / name).read_text() for name in ("reference/hooks.md", "how-to/write-a-plugin.md"))
    assert not [name for name in steps.api.__all__ if f"`{name}" not in page]
    with pytest.raises(AttributeError, match="has no 'Stepp'"):
        _ = steps.api.Stepp


# -- the order of steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("custom", "line"),
    [
        ([named("a", after="env")], "env a certs start"),
        ([named("a", before="env")], "a env certs start"),
        ([named("a", after="certs"), named("b", after="certs")], "env certs a b start"),
        ([named("a", before="certs"), named("b", before="certs")], "env a b certs start"),
        ([named("b", after="a"), named("a", after="start")], "env certs start a b"),
        ([named("c", before="b"), named("b", before="a"), named("a", after="env")], "env c b a certs start"),
    ],
)
def test_steps_take_their_place(custom: list[Step], line: str) -> None:
    assert " ".join(step.name for step in ordered(PHASES, custom)) == line


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ([named("certs", after="env")], "there is a step 'certs' already"),
        ([named("a", after="env"), named("a", after="certs")], "there is a step 'a' already"),
        ([named("status", after="env")], "there is a task 'status' already"),
        ([named("a", after="cert")], "beside 'cert', which does not exist"),
        ([named("a", after="a")], "beside 'a', which does not exist"),
        ([named("a")], "needs either"),
        ([named("a", after="env", before="start")], "needs either"),
        ([named("a", after="b"), named("b", before="a")], "wait for each other"),
        ([named("A_b", after="env")], "is no name for a step"),
        ([named("", after="env")], "is no name for a step"),
    ],
)
def test_steps_without_a_place(custom: list[Step], message: str) -> None:
    with pytest.raises(Misplaced, match=message) as caught:
        ordered(PHASES, custom, {"status"})
    assert caught.value.exit_code == 2
    assert caught.value.steps


class Lost(Step):
    name = "lost"
    after = "nowhere"


def test_a_step_without_a_place_is_its_plugins_problem_alone() -> None:
    found = plugins(hook("etcd_steps", lambda: [named("good", after="env")]), hook("etcd_steps", lambda: [Lost()]))
    assert [step.name for step in found.placed(PHASES, ())] == ["env", "good", "certs", "start"]
    line = inspect.getsourcelines(Lost)[1]
    assert found.problems == {
        "p2": f"{__file__}:{line}: the step 'lost' runs beside 'nowhere', which does not exist "
        "(known: env, certs, start, good)"
    }
    found.raise_problems(["p2"])


@pytest.mark.parametrize(
    ("answer", "message"), [([Lost], "the class Lost, not an instance"), ([3], "returned 3"), (3, "returned 3")]
)
def test_etcd_steps_that_returns_no_steps(answer: Any, message: str) -> None:
    found = plugins(hook("etcd_steps", lambda: answer))
    assert found.placed(PHASES, ()) == PHASES
    assert message in found.problems["p1"]


# -- what hooks return --------------------------------------------------------------------------------------------


def test_etcd_tasks(cluster: Cluster) -> None:
    from invoke.tasks import task

    @task
    def mine(c: Any) -> None:
        """Mine"""

    @task
    def status(c: Any) -> None:
        """Taken"""

    found = plugins(
        hook("etcd_tasks", lambda: [mine]), hook("etcd_tasks", lambda: [status]), hook("etcd_tasks", lambda: 3)
    )
    assert found.tasks({"status"}) == [mine]
    assert "there is a task 'status' already" in found.problems["p2"]
    assert "test_plugins.py:" in found.problems["p2"]
    assert "a list was expected" in found.problems["p3"]


def test_etcd_options_and_etcd_validate(tmp_path: Path) -> None:
    from pydantic import BaseModel

    class Options(BaseModel):
        size: int = 1

    plugin = hook("etcd_options", lambda: Options)
    plugin.etcd_validate = hookimpl(etcd_validate)
    assert make_cluster(tmp_path, plugin=plugin, name="mine").options["mine"].size == 1
    wrong = {"size = 2": "too large", 'size = "x"': "plugins.mine.size", "sise = 2": "did you mean"}
    for text, message in wrong.items():
        with pytest.raises(ConfigError, match=message):
            make_cluster(tmp_path, f"[plugins.mine]\n{text}\n", plugin=plugin, name="mine")
    with pytest.raises(ConfigError, match=r"line 16: plugins\.mine\.size"):
        make_cluster(tmp_path, '[plugins.mine]\nsize = "x"\n', plugin=plugin, name="mine")


def etcd_validate(cluster: Cluster) -> list[str]:
    return ["the size is too large"] if cluster.options["mine"].size > 1 else []


def test_etcd_cert_backend_and_etcd_release_source_the_last_plugin_wins(cluster: Cluster) -> None:
    found = plugins(
        hook("etcd_cert_backend", lambda name: f"first {name}"),
        hook("etcd_cert_backend", lambda name: f"second {name}" if name == "x" else None),
        hook("etcd_release_source", lambda name, cluster: f"{name} of {cluster.name}"),
    )
    assert str(found.cert_backend("x", cluster)._inner) == "second x"
    assert str(found.cert_backend("y", cluster)._inner) == "first y"
    assert str(found.release_source("z", cluster)._inner) == "z of test"
    found.disable(["p2"])
    assert str(found.cert_backend("x", cluster)._inner) == "first x"
    with pytest.raises(PluginError, match="no plugin offers 'x'"):
        plugins().cert_backend("x", cluster)


def test_offers_are_the_known_names_that_a_plugin_answers_to(cluster: Cluster) -> None:
    plugin = hook("etcd_cert_backend", lambda name: object() if name in ("p1", "listed", "hidden", "builtin") else None)
    found = plugins(plugin)
    assert found.offers(found.sources[0], "etcd_cert_backend", cluster) == ["builtin", "p1"]
    plugin.OFFERS = ("listed", "not there")
    assert found.offers(found.sources[0], "etcd_cert_backend", cluster) == ["builtin", "listed", "p1"]
    assert found.offers(found.sources[0], "etcd_release_source", cluster) == []


def test_etcd_flags_of_two_plugins_may_not_clash(cluster: Cluster) -> None:
    found = plugins(hook("etcd_flags", lambda: {"a": 1}), hook("etcd_flags", lambda node: {"b": node.name}))
    assert found.flags(cluster, cluster.nodes[0]) == {"a": "1", "b": "etcd-1"}
    clash = plugins(hook("etcd_flags", lambda: {"a": 1}), hook("etcd_flags", lambda: {"a": 2}))
    with pytest.raises(PluginError, match="both set --a on etcd-1"):
        clash.flags(cluster, cluster.nodes[0])


def test_flags_of_a_plugin_that_the_release_calls_otherwise_are_an_error() -> None:
    cluster = on_hosts(version="3.6.14")
    old = plugins(hook("etcd_flags", lambda: {"experimental-memory-mlock": True}))
    words = r"sets --experimental-memory-mlock on etcd-1: etcd 3\.6 calls it memory-mlock"
    with pytest.raises(PluginError, match=words) as caught:
        old.flags(cluster, cluster.nodes[0])
    assert "set memory-mlock" in caught.value.hint


def test_etcd_template_dirs_a_sites_own_come_first(cluster: Cluster) -> None:
    found = plugins(hook("etcd_template_dirs", lambda: [Path("/a")]), hook("etcd_template_dirs", lambda: [Path("/b")]))
    assert found.template_dirs(cluster) == [Path("/b"), Path("/a")]


def test_wrappers_are_refused() -> None:
    def etcd_flags() -> Iterator[None]:
        yield

    made = Plugins()
    made.register("p", "p.py", SimpleNamespace(etcd_flags=hookimpl(wrapper=True)(etcd_flags)))
    assert "none can wrap another" in made.problems["p"]


# -- failures -----------------------------------------------------------------------------------------------------


class Shells:
    """Hosts that do nothing, each look as if nothing was there."""

    def __init__(self, cluster: Cluster) -> None:
        self.ran: list[str] = []
        self.each = Hosts(cluster, locked=False).each


class Rec(Step):
    """A step that records"""

    name = "rec"
    after = "env"
    reads_only = True

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.seen: list[str] = []

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        self._note("prepare")

    def run(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        self._note("run")

    def _note(self, what: str) -> None:
        self.seen.append(what)
        if what == self.fail:
            raise ZeroDivisionError("division by zero")


def engine(cluster: Cluster, found: Plugins, *, dry: bool = False) -> tuple[Engine, io.StringIO]:
    said = io.StringIO()
    shells: Any = Shells(cluster)
    ctx = Context(cluster, shells, Report(said), found, dry=dry)
    return Engine(ctx, cluster.nodes, []), said


def test_before_and_after_hear_of_a_step_and_of_its_error(cluster: Cluster) -> None:
    heard: list[Any] = []
    step = Rec("run")
    plugin = hook("etcd_steps", lambda: [step])
    found = plugins(
        plugin,
        hook("etcd_before_step", lambda step, nodes: heard.append(("before", step, len(nodes)))),
        hook("etcd_after_step", lambda step, error: heard.append(("after", step, type(error).__name__))),
    )
    with pytest.raises(StepFailed, match=r"plugin p1: Rec.run in step rec: .*test_plugins.py:\d+: ZeroDivisionError"):
        engine(cluster, found)[0].take(step)
    assert heard == [("before", "rec", 3), ("after", "rec", "StepFailed")]
    step.fail = ""
    engine(cluster, found)[0].take(step)
    assert heard[2:] == [("before", "rec", 3), ("after", "rec", "NoneType")]
    engine(cluster, found, dry=True)[0].take(step)
    assert len(heard) == 4, "no hook hears of a dry run"


def test_a_step_that_fails_on_a_node_names_it(cluster: Cluster) -> None:
    class Bad(Step):
        name = "bad"
        after = "env"

        def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
            yield Command(("true",), unless="false")
            raise KeyError(node.name)

    step = Bad()
    running, _ = engine(cluster, plugins(hook("etcd_steps", lambda: [step])))
    with pytest.raises(PluginError, match=r"plugin p1: Bad.desired in step bad on etcd-2: .*: KeyError: 'etcd-2'"):
        running._desired(step, cluster.nodes[1])


class Old(Step):
    """As 0.1 had it"""

    name = "old"
    after = "env"

    def desired(self, cluster: Cluster, node: Node) -> Iterator[Resource]:  # type: ignore[override]  # that is tested
        yield Command((cluster.name, node.name), unless="false")


def test_desired_of_a_former_plugin_is_given_the_cluster(cluster: Cluster) -> None:
    step = Old()
    running, _ = engine(cluster, plugins(hook("etcd_steps", lambda: [step])))
    (wanted,) = running._desired(step, cluster.nodes[1])
    assert wanted == Command(("test", "etcd-2"), unless="false")
    assert resources(step, cluster)["etcd-2"] == [wanted]


@pytest.mark.parametrize("parameter", ["", "self", "c", "*words"])
def test_desired_with_another_parameter_is_its_plugins_problem_with_file_and_line(parameter: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def desired({parameter}): return ()", namespace)
    wrong = type("Wrong", (Step,), {"name": "wrong", "after": "env", "desired": staticmethod(namespace["desired"])})
    found = Plugins()
    found.register("p1", "file1.py", hook("etcd_steps", lambda: [wrong()]))
    assert found.steps() == []
    said = f"Wrong.desired takes {parameter.strip('*') or 'nothing'!r} first; desired(self, ctx, node) was expected"
    assert found.problems["p1"].endswith(f": {said}")
    with pytest.raises(PluginError):
        found.raise_problems()


def test_raising_before_aborts_and_all_others_still_hear_of_the_end(cluster: Cluster) -> None:
    heard: list[Any] = []

    def veto(step: str) -> None:
        raise Refused("not today", hint="tomorrow")

    def broken(error: BaseException | None) -> None:
        raise RuntimeError("broken too")

    found = plugins(
        hook("etcd_after_step", lambda step, error: heard.append(error)),
        hook("etcd_before_step", veto),
        hook("etcd_after_step", broken),
    )
    step = Rec()
    running, said = engine(cluster, found)
    with pytest.raises(Refused, match="plugin p2: etcd_before_step in step rec: not today") as caught:
        running.take(step)
    assert (caught.value.exit_code, caught.value.hint, step.seen) == (3, "tomorrow", [])
    assert heard == [caught.value]
    assert "plugin p3: etcd_after_step in step rec" in said.getvalue()
    found.disable(["p2"])
    with pytest.raises(StepFailed, match="broken too"):
        running.take(step)
    assert step.seen == ["prepare", "run"]
    assert heard[1:] == [None]


def test_a_veto_of_a_restart_names_its_plugin_and_the_node(cluster: Cluster) -> None:
    def etcd_before_restart(node: Node) -> None:
        if node.name == "etcd-2":
            raise Refused("closed")

    found = plugins(SimpleNamespace(etcd_before_restart=hookimpl(etcd_before_restart)))
    assert found.before_restart(cluster, cluster.nodes[0])
    assert not plugins().before_restart(cluster, cluster.nodes[0]), "there was nobody to ask"
    with pytest.raises(Refused, match="plugin p1: etcd_before_restart on etcd-2: closed"):
        found.before_restart(cluster, cluster.nodes[1])


def test_a_check_that_raises_names_its_plugin_and_the_node(cluster: Cluster) -> None:
    def run(ctx: Context) -> str | None:
        raise ValueError("no number")

    found = plugins(hook("etcd_checks", lambda cluster, node: [Check("fine", lambda ctx: None), Check("disk", run)]))
    fine, disk = found.checks(cluster, cluster.nodes[0])
    context: Any = None
    assert fine.run(context) is None
    with pytest.raises(StepsError, match=r"plugin p1: check 'disk' on etcd-1: .*no number"):
        disk.run(context)


@pytest.mark.parametrize("name", ["etcd_validate", "etcd_flags", "etcd_template_dirs", "etcd_checks"])
@pytest.mark.parametrize("how", ["raises", "returns nonsense", "exits"])
def test_every_hook_fails_in_its_plugins_name(cluster: Cluster, name: str, how: str) -> None:
    def body() -> Any:
        if how == "raises":
            raise ZeroDivisionError("division by zero")
        if how == "exits":
            sys.exit(7)
        return "nonsense"

    found = plugins(hook(name, body))
    node = cluster.nodes[0]
    calls = {
        "etcd_validate": lambda: found.validate(cluster),
        "etcd_flags": lambda: found.flags(cluster, node),
        "etcd_template_dirs": lambda: found.template_dirs(cluster),
        "etcd_checks": lambda: found.checks(cluster, node),
    }
    with pytest.raises(PluginError, match=rf"plugin p1: {name}.*test_plugins.py:\d+: |was expected") as caught:
        calls[name]()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["etcd_steps", "etcd_tasks"])
def test_a_hook_that_raises_while_tasks_load_is_its_plugins_problem(name: str) -> None:
    def body() -> Any:
        raise ZeroDivisionError("division by zero")

    found = plugins(hook(name, body))
    assert found.placed(PHASES, ()) == PHASES
    assert found.tasks(()) == []
    assert f"plugin p1: {name}: {__file__}:" in found.problems["p1"]


def test_a_backend_that_raises_names_its_plugin_and_keeps_the_kind_of_error(cluster: Cluster) -> None:
    class Backend:
        still = "an attribute"

        def ca(self, request: CARequest) -> bytes:
            raise Pending(["a.csr"], "sign it")

        def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
            raise OSError(5, "broken pipe")

    found = plugins(hook("etcd_cert_backend", lambda name: Backend()))
    backend: Any = found.cert_backend("x", cluster)
    with pytest.raises(Pending, match=r"plugin p1: Backend.ca: sign it") as pending:
        backend.ca(None)
    assert pending.value.files == ("a.csr",)
    with pytest.raises(PluginError, match=r"plugin p1: Backend.sign on etcd-1: .*test_plugins.py:\d+: OSError"):
        backend.sign(b"", MEMBER)
    assert backend.still == "an attribute"
    assert not hasattr(backend, "fetch")


# -- wrong certificates -------------------------------------------------------------------------------------------


class Crooked(Builtin):
    """Signs something else than what it was asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
        from dataclasses import replace

        if self.how == "SAN missing":
            profile = replace(profile, sans=profile.sans[1:])
            csr = pki.new_csr(pki.new_key("ecdsa:p256"), profile)
        elif self.how == "other key":
            csr = pki.new_csr(pki.new_key("ecdsa:p256"), profile)
        elif self.how == "other issuer":
            other = self._dir.with_name("other") if self._dir else Path()
            other.mkdir(mode=0o700, exist_ok=True)
            stranger = Stranger()
            stranger.make(CARequest("etcd-ca", {}, "ecdsa:p256", 30, other))
            return stranger.sign(csr, profile)
        return super().sign(csr, profile)


class Stranger(Builtin):
    def make(self, request: CARequest) -> None:
        from steps.builtin import ca as builtin

        self._dir = request.dir
        builtin._create(request)


def sabotaged(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "serverAuth only":
        usages = {"member": (pki.ExtendedKeyUsageOID.SERVER_AUTH,), "client": (pki.ExtendedKeyUsageOID.SERVER_AUTH,)}
        from steps.builtin import ca as builtin

        real = pki.leaf_extensions

        def crooked(profile: LeafProfile, key: object) -> Any:
            found = real(profile, key)
            return [
                (pki.x509.ExtendedKeyUsage(usages[profile.kind]), c)
                if isinstance(e, pki.x509.ExtendedKeyUsage)
                else (e, c)
                for e, c in found
            ]

        monkeypatch.setattr(builtin.pki, "leaf_extensions", crooked)
    if how == "expired":
        from steps.core.tls import store

        late = datetime.now(timezone.utc) + timedelta(days=4000)
        monkeypatch.setattr(store, "_now", lambda: late)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("SAN missing", r"SAN: .*\+10\.0\.0\.1"),
        ("serverAuth only", "clientAuth is missing"),
        ("other key", "public key: not ours"),
        ("other issuer", "issuer: not signed by the CA"),
        ("expired", "expired on"),
    ],
)
def test_a_wrong_certificate_is_caught_before_it_is_kept(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    store = Store(cluster.work)
    backend = Crooked(how)
    found = plugins(hook("etcd_cert_backend", lambda name: backend))
    made = Authority(cluster, found.cert_backend("builtin", cluster), store)
    made.ca()
    sabotaged(monkeypatch, how)
    with pytest.raises(CertificateError, match=message) as caught:
        made.issue(MEMBER)
    assert caught.value.exit_code == 1
    assert store.pair("etcd-1") is None


# -- the examples -------------------------------------------------------------------------------------------------


def example(tmp_path: Path, name: str, more: str = "") -> tuple[Any, Cluster]:
    plugin = load_plugin(EXAMPLES / f"{name}.py")
    return plugin, make_cluster(tmp_path, more, plugin, name)


def files(step: Step, cluster: Cluster) -> dict[str, str]:
    return {
        node: "".join(str(r.content) for r in wanted if isinstance(r, File))
        for node, wanted in resources(step, cluster).items()
    }


def test_sysctl(tmp_path: Path) -> None:
    plugin, found = example(tmp_path, "sysctl", '[plugins.sysctl]\nsettings = { "vm.swappiness" = 7 }\n')
    assert set(files(plugin.etcd_steps()[0], found).values()) == {"vm.swappiness = 7\n"}
    (check,) = plugin.etcd_checks(found, found.nodes[0])
    asked = []

    def answering(text: str) -> Any:
        return SimpleNamespace(sh=lambda node, script: asked.append(script) or SimpleNamespace(out=text))

    assert check.run(answering("7\n")) is None
    assert check.run(answering("60\n")) == "vm.swappiness is 60, not 7"
    assert asked[0] == "cat /proc/sys/vm/swappiness"


def test_nftables(tmp_path: Path) -> None:
    plugin, found = example(tmp_path, "nftables", '[plugins.nftables]\nclients = ["10.9.0.0/16", "fd00::/64"]\n')
    text = files(plugin.etcd_steps()[0], found)["etcd-1"]
    assert "ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.9.0.0/16 } tcp dport 2379 accept" in text
    assert "ip6 saddr { fd00::/64 } tcp dport 2379 accept" in text
    assert "ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3 } tcp dport 2380 accept" in text
    with pytest.raises(ConfigError, match=r"clients: 10\.9\.0\.1/16 has host bits set"):
        example(tmp_path, "nftables", '[plugins.nftables]\nclients = ["10.9.0.1/16"]\n')


def test_prometheus(tmp_path: Path) -> None:
    plugin, found = example(tmp_path, "prometheus")
    (step,) = plugin.etcd_steps()
    assert "Promise" in files(step, found)["etcd-1"]
    Authority(found, Builtin(), Store(found.work)).issue(MEMBER)
    ends = int(pki.read(Store(found.work).pair("etcd-1").cert)[0].not_valid_after_utc.timestamp())  # type: ignore[union-attr]
    assert f'{{cluster="test",member="etcd-1"}} {ends}\n' in files(step, found)["etcd-1"]
    assert plugin.etcd_flags() == {"metrics": "extensive"}


@pytest.mark.parametrize(
    ("window", "now", "is_open"),
    [
        ("01:00-05:00", time(1), True),
        ("01:00-05:00", time(5), False),
        ("22:00-02:00", time(23), True),
        ("22:00-02:00", time(1, 59), True),
        ("22:00-02:00", time(12), False),
    ],
)
def test_maintenance(tmp_path: Path, window: str, now: time, *, is_open: bool) -> None:
    plugin, found = example(tmp_path, "maintenance", f'[plugins.maintenance]\nwindow = "{window}"\n')
    assert plugin.is_open(window, now) is is_open
    closed = make_cluster(tmp_path, '[plugins.maintenance]\nwindow = "00:00-00:00"\n', plugin, "maintenance")
    with pytest.raises(Refused, match="restarts are for 00:00-00:00"):
        plugin.etcd_before_restart(closed)
    assert found.options["maintenance"].window == window


def test_a_maintenance_window_that_is_none(tmp_path: Path) -> None:
    for wrong in ("", 'window = "25:00-01:00"'):
        with pytest.raises(ConfigError, match=r"plugins\.maintenance\.window"):
            example(tmp_path, "maintenance", f"[plugins.maintenance]\n{wrong}\n")


def test_webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    came: list[tuple[str, str]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append((self.headers["Authorization"], json.loads(body)["text"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    options = f'[plugins.webhook]\nurl = "http://127.0.0.1:{server.server_port}/"\n'
    monkeypatch.delenv("ETCD_WEBHOOK_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="ETCD_WEBHOOK_TOKEN is not set"):
        example(tmp_path, "webhook", options)
    monkeypatch.setenv("ETCD_WEBHOOK_TOKEN", "hush")
    plugin, found = example(tmp_path, "webhook", options)
    plugin.etcd_before_step("start", found, found.nodes)
    plugin.etcd_before_step("env", found, found.nodes)
    plugin.etcd_after_step("env", found, found.nodes[:1], StepFailed("no disk"))
    (announce,) = plugin.etcd_tasks()
    announce.body(SimpleNamespace(command=SimpleNamespace(cluster=found)), "hello")
    server.shutdown()
    thread.join()
    server.server_close()
    assert came == [
        ("Bearer hush", "test: start begins on etcd-1, etcd-2, etcd-3"),
        ("Bearer hush", "test: env on etcd-1 failed: no disk"),
        ("Bearer hush", "test: hello"),
    ]
    plugin.etcd_after_step("start", found, found.nodes, None)
    said = capsys.readouterr()
    assert "the webhook did not take it" in said.err
    assert "hush" not in said.err + said.out


def test_oom(tmp_path: Path) -> None:
    from steps.core.node.render import render

    plugin, found = example(tmp_path, "oom")
    values = {"cluster": found, "node": found.nodes[0], "argv": ["/e"], "systemd": 252, "writable": ("/d",)}
    plain = render("etcd.service.j2", (), **values)
    text = render("etcd.service.j2", plugin.etcd_template_dirs(), **values)
    assert text == plain.replace("\n[Install]", "OOMScoreAdjust=-900\nNice=-5\n\n[Install]")


def test_loading_plugins_reads_nothing_heavy() -> None:
    import subprocess

    heavy = ("cryptography", "pydantic", "fabric", "paramiko", "urllib3", "rich", "jinja2", "asyncssh")
    code = (
        "import sys; from pathlib import Path; from steps.builtin import hooks as h; "
        "from steps.core.extensions.manager import Plugins;"
        f"p = Plugins.load(Path({str(EXAMPLES)!r}), builtin=h); "
        f"q = Plugins.load(Path({str(ROOT / 'plugins')!r}), builtin=h);"
        "assert not p.problems and not q.problems, (p.problems, q.problems); p.placed([], ()); q.steps();"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
