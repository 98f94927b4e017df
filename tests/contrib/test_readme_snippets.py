"""Every host of the README's "Wrap your app", run from the README itself.

A snippet is the fenced block behind `<!-- snippet: name -->`. Its page is asked for, which signs
in, and then `visits.walk` goes on: an event arrives anonymized, after the switch identified.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from second_mw.contrib.captured import CapturedEvents
from tests.contrib.visits import PREFIX, asgi_browser, walk, wsgi_browser

ROOT = Path(__file__).parents[2]
_SNIPPET = re.compile(
    r"<!-- snippet: (?P<name>[\w-]+) -->\s*```python\n(?P<code>.*?)```", re.DOTALL
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = {found["name"]: found["code"] for found in _SNIPPET.finditer(README)}
#: What stands above each host: everything that has to be installed to run it.
INSTALLS = {
    name: words.split()
    for words, name in re.findall(
        r"^pip install second_mw ([\w ]+)[^`]*```\n<!-- snippet: ([\w-]+) -->", README, re.MULTILINE
    )
}
WSGI = ("flask", "bottle", "any-wsgi")
ASGI = ("starlette", "fastapi", "quart", "litestar", "any-asgi")


def test_the_readme_has_a_host_for_each_framework() -> None:
    assert set(SNIPPETS) == {*WSGI, *ASGI, "django"}


@pytest.mark.parametrize("name", SNIPPETS)
def test_what_a_host_imports_and_a_server_for_it_are_in_its_pip_line(name: str) -> None:
    imported = re.findall(r"^(?:from|import) (\w+)", SNIPPETS[name], re.MULTILINE)
    wanted = {*imported} - sys.stdlib_module_names - {"second_mw"}
    # Quart brings itsdangerous; Starlette leaves it to who uses sessions.
    wanted -= {"itsdangerous"} if name == "quart" else set()
    wanted |= {"itsdangerous"} if "SessionMiddleware" in SNIPPETS[name] else set()
    server = "waitress" if name in (*WSGI, "django") else "uvicorn"
    assert {*INSTALLS[name]} == {*wanted, server}


def app_of(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a snippet as the module that a reader would make of it; return its `app`."""
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", "phc_test")
    module = ModuleType(f"readme_{name.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(SNIPPETS[name], f"README.md:{name}", "exec", dont_inherit=True), vars(module))
    return module.app


@pytest.mark.parametrize("name", WSGI)
def test_a_wsgi_host_of_the_readme_works(
    name: str, captured_events: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wsgi_browser(app_of(name, monkeypatch), REMOTE_USER="ada") as ask:
        page = walk(ask, captured_events)
    assert f'<script src="{PREFIX}/client.js' in page


@pytest.mark.parametrize("name", ASGI)
def test_an_asgi_host_of_the_readme_works(
    name: str, captured_events: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(name, monkeypatch)
    with asgi_browser(app, lifespan=name != "any-asgi", **{"remote-user": "ada"}) as ask:
        page = walk(ask, captured_events)
    assert f'<script src="{PREFIX}/client.js' in page


# Django, whose snippet is the end of three files of a project

VISIT = """
import django
django.setup()
from django.core.management import call_command
from second_mw.contrib.captured import CapturedEvents, capturing
from tests.contrib.visits import asgi_browser, walk, wsgi_browser

call_command("migrate", verbosity=0)
call_command("check", fail_level="WARNING")

with capturing(captured := CapturedEvents()):
    from shop.wsgi import application
    with wsgi_browser(application) as ask:
        assert "/api/analytics/client.js" in walk(ask, captured)
with capturing(captured := CapturedEvents()):
    from shop.asgi import application
    with asgi_browser(application, lifespan=False) as ask:
        assert "/api/analytics/client.js" in walk(ask, captured)
print("walked both")
"""


@pytest.mark.timeout(300)
def test_the_django_project_of_the_readme_works(tmp_path: Path) -> None:
    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
                "SECOND_POSTHOG_TOKEN": "phc_test",
                "DJANGO_SETTINGS_MODULE": "shop.settings",
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-c", "from django.core.management import ManagementUtility as M;"
        "M(['django-admin', 'startproject', 'shop', '.']).execute()")  # fmt: skip
    _, *parts = re.split(r"^# (shop/\w+\.py)\n", SNIPPETS["django"], flags=re.MULTILINE)
    for name, code in zip(parts[::2], parts[1::2], strict=True):
        with (tmp_path / name).open("a", encoding="utf-8") as file:
            file.write("\n" + code)
    with (tmp_path / "shop" / "settings.py").open("a", encoding="utf-8") as file:
        file.write("ALLOWED_HOSTS = ['*']\n")
    assert "walked both" in run("-c", VISIT)
