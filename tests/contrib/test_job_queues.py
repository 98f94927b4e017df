"""A user's way through the job queues people use: their own decorator, our ticket, JSON between."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import celery
import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from rq.job import Job
from rq.serializers import JSONSerializer

from second_mw import Analytics, AnalyticsUser, Choice, Jobs
from second_mw.contrib.captured import CapturedEvents

ADA = AnalyticsUser("u_ada", email="ada@analytical.example", name="Ada Lovelace")


class Shop:
    """A host with a database of people."""

    def __init__(self) -> None:
        self.analytics = Analytics(token="phc_test")
        self.people: dict[str, AnalyticsUser] = {ADA.id: ADA}
        self.jobs = Jobs(self.analytics, user=self.people.get)

    def choose(self, **choice: bool) -> None:
        self.analytics.preferences.put(self.analytics.pipeline.user_key(ADA.id), Choice(**choice))


@pytest.fixture
def shop(captured_events: CapturedEvents) -> Shop:
    return Shop()


def through_celery(shop: Shop, meanwhile: Any) -> None:
    app = celery.Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(task_always_eager=True, task_eager_propagates=True)

    @app.task
    @shop.jobs.carried
    def build(files: int) -> None:
        shop.analytics.here.capture("build completed", {"file_count": files})

    # An eager task runs at once, so the queue's wait is the ticket's.
    ticket = json.loads(json.dumps(shop.jobs.ticket(ADA)))
    meanwhile()
    build.delay(12, **ticket)


def through_dramatiq(shop: Shop, meanwhile: Any) -> None:
    broker = StubBroker()
    broker.emit_after("process_boot")

    @dramatiq.actor(broker=broker, queue_name="builds", actor_name="build")
    @shop.jobs.carried
    def build(files: int) -> None:
        shop.analytics.here.capture("build completed", {"file_count": files})

    build.send(12, **shop.jobs.ticket(ADA))
    meanwhile()
    worker = dramatiq.Worker(broker, worker_timeout=50)
    worker.start()
    try:
        broker.join("builds", timeout=60_000)
        worker.join()
    finally:
        worker.stop()
        broker.close()


_rq_shop: dict[str, Shop] = {}


def rq_build(files: int, **given: Any) -> None:
    """A module's function, as RQ wants its jobs."""
    shop = _rq_shop["now"]

    @shop.jobs.carried
    def build(files: int) -> None:
        shop.analytics.here.capture("build completed", {"file_count": files})

    build(files, **given)


def through_rq(shop: Shop, meanwhile: Any) -> None:
    class NoRedis:
        """RQ asks a job for its connection, and a job that runs at once uses none."""

        connection_pool = None

    _rq_shop["now"] = shop
    job = Job.create(
        rq_build,
        args=(12,),
        kwargs=shop.jobs.ticket(ADA),
        serializer=JSONSerializer,
        connection=NoRedis(),
    )
    kept = JSONSerializer.loads(JSONSerializer.dumps([job.func_name, job.args, job.kwargs]))
    meanwhile()
    again = Job.create(kept[0], args=kept[1], kwargs=kept[2], connection=NoRedis())
    again.func(*again.args, **again.kwargs)


QUEUES = [through_celery, through_dramatiq, through_rq]


@pytest.mark.parametrize("queue", QUEUES)
def test_a_jobs_event_is_the_users_who_asked_for_it(
    shop: Shop, captured_events: CapturedEvents, queue: Any
) -> None:
    shop.choose(anonymized=False)
    queue(shop, lambda: None)
    assert captured_events.names == ["$identify", "build completed"]
    assert captured_events[-1].distinct_id == ADA.id
    assert captured_events[-1].properties["file_count"] == 12


@pytest.mark.parametrize("queue", QUEUES)
def test_who_became_anonymous_meanwhile_is_anonymous_when_the_job_runs(
    shop: Shop, captured_events: CapturedEvents, queue: Any
) -> None:
    shop.choose(anonymized=False)
    queue(shop, lambda: shop.choose(anonymized=True))
    assert [event.mode for event in captured_events] == ["anonymized"]
    captured_events.assert_anonymous(ADA)


@pytest.mark.parametrize("queue", QUEUES)
def test_the_identity_is_what_the_host_knows_when_the_job_runs(
    shop: Shop, captured_events: CapturedEvents, queue: Any
) -> None:
    shop.choose(anonymized=False)

    def renamed() -> None:
        shop.people[ADA.id] = replace(ADA, name="Ada King")

    queue(shop, renamed)
    assert captured_events[-1].properties["user_name"] == "Ada King"


@pytest.mark.parametrize("queue", QUEUES)
def test_nothing_of_a_user_who_is_gone_is_captured(
    shop: Shop, captured_events: CapturedEvents, queue: Any
) -> None:
    queue(shop, shop.people.clear)
    assert captured_events.names == []
    assert shop.analytics.stats()["rejected"] == {"not_authenticated": 1}
