"""A Celery app with a prefork pool; its tasks capture with an `Analytics` the children inherit."""

from __future__ import annotations

import os
from pathlib import Path

import celery

from tests.delivery.process_app import USER, made

app = celery.Celery("tests", broker="filesystem://", set_as_current=False)
app.conf.broker_transport_options = {
    "data_folder_in": os.environ["QUEUE"],
    "data_folder_out": os.environ["QUEUE"],
    "control_folder": os.environ["QUEUE"] + "-control",
}
analytics = made()


@app.task(name="work")
def work(done: str) -> None:
    assert analytics.capture(USER, "page viewed")
    Path(done).write_text(str(os.getpid()))


def ask(*files: str) -> None:
    """Queue a task for each file, which tells that it is done, and by whom."""
    for each in files:
        work.delay(each)
