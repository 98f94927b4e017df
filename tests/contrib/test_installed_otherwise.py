"""Installed as a read-only zip, on a system without fork; examples of docstrings; lazy imports."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FROM_A_ZIP = """
    import os, sys
    # A system without fork, such as Windows.
    for name in ("fork", "register_at_fork"):
        if hasattr(os, name):
            delattr(os, name)
    import second_mw
    assert ".zip" in second_mw.__file__, second_mw.__file__
    from second_mw import Analytics, AnalyticsUser, docs
    from second_mw.contrib.flask import SecondAnalytics
    from flask import Flask, render_template_string
    from second_mw.contrib.captured import CapturedEvents, capturing

    app = Flask("zipped")
    app.add_url_rule("/", "page", lambda: render_template_string("{{ second_analytics() }}"))
    SecondAnalytics(app, Analytics(token="phc_test"), user=lambda: AnalyticsUser("u_1"))
    with capturing(captured := CapturedEvents()):
        browser = app.test_client()
        assert "client.js" in browser.get("/").text
        for name in ("client.js", "settings.js"):
            assert browser.get(f"/api/analytics/{name}").status_code == 200
        posted = browser.post("/api/analytics/capture", json={"event": "page viewed"})
        assert posted.status_code == 204
    assert captured.names == ["page viewed"]
    assert docs.page("migrating").startswith("# From posthog-python")
    print("all there")
"""


@pytest.mark.timeout(300)
def test_the_package_works_from_a_zip_and_without_fork(tmp_path: Path) -> None:
    archive = tmp_path / "second_mw.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted((ROOT / "second_mw").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                zipped.write(path, path.relative_to(ROOT))
    archive.chmod(0o444)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FROM_A_ZIP)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(archive)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "all there" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "second_mw.contrib.fastapi",
        "second_mw.contrib.flask",
        "second_mw.contrib.metrics",
        "second_mw.contrib.otel",
        "second_mw.contrib.route_templates",
        "second_mw.contrib.starlette",
        "second_mw.contrib.statsd",
        "second_mw.contrib.visitors",
        "second_mw.jobs",
        "second_mw.server_code",
    ],
)
def test_the_examples_of_the_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_no_framework_is_imported_unless_its_glue_is() -> None:
    code = """
        import sys
        import second_mw, second_mw.contrib
        from second_mw import Analytics
        import second_mw.contrib.pytest_plugin
        heavy = {"flask", "starlette", "fastapi", "django", "jinja2", "prometheus_client",
                 "opentelemetry", "statsd"}
        found = heavy & {name.partition(".")[0] for name in sys.modules}
        assert not found, found
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True, timeout=110)
