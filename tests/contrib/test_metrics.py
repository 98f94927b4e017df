"""What operators see: every figure of the outbox and the forwarder, in each meter's words."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from second_mw import Analytics
from second_mw.contrib import otel, statsd
from second_mw.contrib.metrics import ROWS, Increments, Reading, Recent, Ticker, readings
from second_mw.contrib.prometheus import publish, register
from tests.delivery.sink import Sink, running, status
from tests.hosts import ADA

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with running() as one:
        yield one


@pytest.fixture
def busy(sink: Sink) -> Iterator[Analytics]:
    """An Analytics that has delivered two events, refused two and suppressed one."""
    analytics = Analytics(token="phc_test", host=sink.url)
    analytics.capture_many([(ADA, "page viewed"), (ADA, "page viewed")])
    analytics.capture_many([(None, "page viewed"), (ADA, "coffee drunk")])
    analytics.capture(replace(ADA, sharing=False), "page viewed")
    assert analytics.flush(30.0) == (2, 0)
    yield analytics
    analytics.close(timeout=2.0)


#: What the metrics of `busy` say: name, labels → number.
EXPECTED = {
    ("second_mw_events_accepted_total", ""): 2.0,
    ("second_mw_events_delivered_total", ""): 2.0,
    ("second_mw_events_dead_total", ""): 0.0,
    ("second_mw_events_purged_total", ""): 0.0,
    ("second_mw_events_rejected_total", "invalid_event"): 1.0,
    ("second_mw_events_rejected_total", "not_authenticated"): 1.0,
    ("second_mw_events_suppressed_total", ""): 1.0,
    ("second_mw_privacy_gate_stops_total", ""): 0.0,
    ("second_mw_rules_failed_total", ""): 0.0,
    ("second_mw_preferences_failed_total", ""): 0.0,
    ("second_mw_events_forwarded_total", ""): 2.0,
    ("second_mw_events_retried_total", ""): 0.0,
    ("second_mw_outbox_waiting", ""): 0.0,
    ("second_mw_outbox_ready", ""): 0.0,
    ("second_mw_outbox_oldest_age_seconds", ""): 0.0,
    ("second_mw_batches_in_flight", ""): 0.0,
    ("second_mw_circuit_open", ""): 0.0,
    ("second_mw_enabled", ""): 1.0,
}
#: Figures that time has a part in.
OF_TIME = {"second_mw_forward_latency_seconds", "second_mw_last_success_timestamp_seconds"}


def scraped(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    text = generate_latest(registry).decode()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# Prometheus


def test_prometheus_reads_every_figure(busy: Analytics) -> None:
    registry = CollectorRegistry()
    register(busy, registry)
    found = scraped(registry)
    timed = {key: found.pop(key) for key in list(found) if key[0] in OF_TIME}
    assert found == EXPECTED
    assert {name for name, _ in timed} == OF_TIME
    assert all(value > 0 for value in timed.values())
    assert generate_openmetrics(registry).endswith(b"# EOF\n")


def test_events_that_were_given_up_are_counted_by_their_reason(sink: Sink) -> None:
    sink.answer = status(400)
    analytics = Analytics(token="phc_test", host=sink.url)
    analytics.capture(ADA, "page viewed")
    analytics.flush(30.0)
    registry = CollectorRegistry()
    register(analytics, registry)
    found = scraped(registry)
    assert found["second_mw_events_dead_total", ""] == 1.0
    reasons = {label for name, label in found if name == "second_mw_events_buried_total"}
    assert len(reasons) == 1
    assert all(re.fullmatch(r"[\w:. -]+", reason) for reason in reasons)
    analytics.close(timeout=2.0)


def test_a_disabled_or_idle_analytics_has_figures_too() -> None:
    registry = CollectorRegistry()
    register(Analytics(token=None), registry)
    found = scraped(registry)
    assert found["second_mw_enabled", ""] == 0.0
    idle = ("events_forwarded_total", "events_retried_total", "batches_in_flight", "circuit_open")
    assert [found[f"second_mw_{name}", ""] for name in idle] == [0.0] * 4
    assert ("second_mw_forward_latency_seconds", "") not in found


def test_a_scrape_does_not_fail_with_the_store(make: Any) -> None:
    analytics = make()

    def gone() -> Any:
        raise OSError("disk")

    registry = CollectorRegistry()
    register(analytics, registry)
    assert scraped(registry) != {}
    analytics.stats = gone
    assert scraped(registry) == {}
    assert list(readings(analytics)) == []


def test_to_be_registered_reads_nothing(make: Any) -> None:
    analytics = make()
    analytics.stats = lambda: pytest.fail("the outbox was read")
    register(analytics, CollectorRegistry())


def test_publishing_is_for_several_processes(make: Any) -> None:
    with pytest.raises(RuntimeError, match="PROMETHEUS_MULTIPROC_DIR"):
        publish(make())


def published(publisher: Any) -> dict[tuple[str, str], float]:
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for metric in publisher._metrics.values()
        for family in metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_process_publishes_its_own_figures_and_what_grew(
    busy: Analytics, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    ticker = publish(busy, every=3600)
    publisher = ticker._call.__self__  # type: ignore[attr-defined]
    assert {k: v for k, v in published(publisher).items() if k[0] not in OF_TIME} == EXPECTED
    busy.capture(None, "page viewed")
    publisher.write()
    rejected = ("second_mw_events_rejected_total", "not_authenticated")
    assert published(publisher)[rejected] == 2.0
    # A forked child counts anew, and its figures are its own.
    publisher._pid = -1
    publisher.write()
    assert published(publisher)[rejected] == 4.0
    registry = CollectorRegistry()
    register(busy, registry)
    assert scraped(registry) == {}
    ticker.stop()


def test_what_a_durable_outbox_counts_is_left_to_the_one_who_answers_the_scrape(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    analytics = make()
    analytics.outbox.store.durable = True
    ticker = publish(analytics, every=3600)
    ticker.stop()
    own = {name for name, _ in published(ticker._call.__self__)}  # type: ignore[attr-defined]
    registry = CollectorRegistry()
    register(analytics, registry)
    shared = {name for name, _ in scraped(registry)}
    assert "second_mw_outbox_waiting" in shared - own
    assert "second_mw_events_suppressed_total" in own - shared
    assert not own & shared


MANY = """
    import os, sys
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector
    from second_mw import Analytics, AnalyticsUser
    from second_mw.contrib.prometheus import publish, register

    ada = AnalyticsUser("u_ada")
    analytics = Analytics(token="phc_test", host="http://127.0.0.1:9", outbox=sys.argv[1])
    analytics.settings.__dict__["forward"] = False
    ticker = publish(analytics, every=3600)
    analytics.capture(ada, "page viewed")
    analytics.capture(None, "page viewed")
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            analytics.capture(ada, "page viewed")
            analytics.capture(None, "page viewed")
            ticker.stop()
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    ticker.stop()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    register(analytics, registry)
    print(generate_latest(registry).decode())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("outbox", ["memory://", "sqlite"])
def test_several_processes_are_summed_and_what_they_share_is_read_once(
    outbox: str, tmp_path: Path
) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    url = f"sqlite:///{tmp_path}/outbox.db" if outbox == "sqlite" else outbox
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(MANY), url],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PROMETHEUS_MULTIPROC_DIR": str(figures),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [line.rsplit(" ", 1) for line in done.stdout.splitlines() if line[:1] not in "#"]
    assert ["second_mw_events_accepted_total", "3.0"] in found
    assert ['second_mw_events_rejected_total{code="not_authenticated"}', "3.0"] in found
    names = [name for name, _ in found]
    assert len(names) == len(set(names))


# OpenTelemetry


def test_opentelemetry_reads_every_figure(busy: Analytics) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    otel.instrument(busy, provider)
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[tuple[str, str], float] = {}
    units: dict[str, str] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        units[metric.name] = metric.unit
        for point in metric.data.data_points:
            label = next(iter((point.attributes or {}).values()), "")
            found[metric.name, str(label)] = float(point.value)  # type: ignore[union-attr]
    provider.shutdown()
    expected = {
        (
            name.replace("second_mw_", "second_mw.")
            .removesuffix("_total")
            .removesuffix("_seconds"),
            label,
        ): value
        for (name, label), value in EXPECTED.items()
    }
    assert {key: found[key] for key in expected} == expected
    assert units["second_mw.outbox_oldest_age"] == "s"
    assert units["second_mw.events_accepted"] == "{event}"
    assert units["second_mw.circuit_open"] == "1"


def test_the_outbox_is_read_once_for_all_of_a_collection(make: Any) -> None:
    analytics = make()
    asked: list[int] = []
    stats = analytics.stats

    def counted() -> Any:
        asked.append(1)
        return stats()

    analytics.stats = counted
    now = [100.0]
    recent = Recent(analytics, clock=lambda: now[0])
    for row in ROWS:
        recent.of(row)
    assert len(asked) == 1
    now[0] += 1.5
    recent.of(ROWS[0])
    assert len(asked) == 2


# StatsD


class Client:
    """What a StatsD client was told."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, float]] = []
        self.gauged: dict[str, float] = {}

    def incr(self, stat: str, count: float = 1) -> None:
        self.counted.append((stat, count))

    def gauge(self, stat: str, value: float) -> None:
        self.gauged[stat] = value


def test_statsd_is_told_what_grew_and_what_is(busy: Analytics) -> None:
    client = Client()
    reporter = statsd.Reporter(busy, client)
    reporter.report()
    assert ("second_mw.events_accepted", 2) in client.counted
    assert ("second_mw.events_rejected.invalid_event", 1) in client.counted
    assert client.gauged["second_mw.circuit_open"] == 0.0
    client.counted.clear()
    reporter.report()
    assert client.counted == []
    busy.capture(ADA, "page viewed")
    reporter.report()
    assert ("second_mw.events_accepted", 1) in client.counted


def test_the_real_statsd_client_takes_it(busy: Analytics) -> None:
    import socket

    from statsd import StatsClient

    heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    heard.bind(("127.0.0.1", 0))
    heard.settimeout(30)
    with heard:
        client = StatsClient("127.0.0.1", heard.getsockname()[1], prefix="shop")
        statsd.report(busy, client, every=3600).stop()
        assert heard.recv(500) == b"shop.second_mw.events_accepted:2|c"
        client.close()


def test_a_counter_that_fell_is_a_forked_childs_and_counts_from_zero() -> None:
    increments = Increments()
    row = ROWS[0]
    grown = [list(increments.of(Reading(row, {"": value}))) for value in (5.0, 7.0, 7.0, 2.0)]
    assert grown == [[("", 5.0)], [("", 2.0)], [], [("", 2.0)]]


# The thread that reports


def test_a_ticker_calls_again_after_a_failure_and_once_more_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []
    twice = threading.Event()

    def call() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("no network")
        twice.set()

    ticker = Ticker(call, every=0.001)
    assert twice.wait(30)
    ticker.stop()
    ended = len(calls)
    ticker.stop()
    ticker.at_exit(1.0)
    ticker.after_fork()
    assert len(calls) == ended >= 3
    assert "metrics can't be reported" in caplog.text


def test_a_ticker_goes_on_in_a_forked_child_and_reports_at_the_exit() -> None:
    calls: list[int] = []
    ticker = Ticker(lambda: calls.append(threading.get_ident()), every=3600)
    before = ticker._thread
    ticker.before_fork()
    ticker.after_fork()
    assert ticker._thread is not before
    ticker.at_exit(1.0)
    assert calls == [threading.get_ident()]


# What people look at


def test_no_metric_carries_a_user(busy: Analytics) -> None:
    registry = CollectorRegistry()
    register(busy, registry)
    text = generate_latest(registry).decode().lower()
    for part in (ADA.id, ADA.email, "lovelace", "w_engine"):
        assert part is not None
        assert part.lower() not in text
    assert {row.label for row in ROWS} == {None, "code", "reason"}


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((ROOT / "demos" / "grafana.json").read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    shown = set(re.findall(r"second_mw_\w+", asked))
    there = {f"second_mw_{row.name}{'_total' if row.kind == 'counter' else ''}" for row in ROWS}
    assert shown == there
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_our_log_lines_are_structlogs_like_any_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import structlog

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    ours = logging.getLogger("second_mw")
    ours.addHandler(handler)
    try:
        Analytics(token=None)
    finally:
        ours.removeHandler(handler)
    line = json.loads(capsys.readouterr().out)
    assert (line["logger"], line["level"]) == ("second_mw", "warning")
    assert "SECOND_POSTHOG_TOKEN" in line["event"]
