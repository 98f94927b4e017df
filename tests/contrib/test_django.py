"""The glue for Django, with a real project, under WSGI and ASGI."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.test import Client, RequestFactory, override_settings
from django.urls import path

from second_mw import Analytics, AnalyticsUser
from second_mw.contrib.captured import CapturedEvents
from second_mw.contrib.django import get_analytics, routes_of, user_of, wrap_asgi, wrap_wsgi
from second_mw.errors import ConfigurationError
from second_mw.privacy.routes import Templates
from tests.contrib import django_project
from tests.contrib.visits import PREFIX, Browser, asgi_browser, walk, wsgi_browser


@pytest.fixture(scope="module")
def ada() -> Iterator[Any]:
    """A user in a real database, which is gone afterwards."""
    call_command("migrate", run_syncdb=True, verbosity=0)
    yield get_user_model().objects.create_user(
        "ada.l", "ada@analytical.example", "secret", first_name="Ada", last_name="Lovelace"
    )
    connections.close_all()
    shutil.rmtree(django_project.DATABASE.parent)


@pytest.fixture(autouse=True)
def _fresh(captured_events: CapturedEvents) -> Iterator[None]:
    get_analytics.cache_clear()
    yield
    get_analytics.cache_clear()
    connections.close_all()


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, ada: Any) -> Iterator[Browser]:
    """A browser of the wrapped project, under either protocol."""
    if request.param == "wsgi":
        with wsgi_browser(wrap_wsgi(get_wsgi_application())) as browser:
            yield browser
    else:
        with asgi_browser(wrap_asgi(get_asgi_application()), lifespan=False) as browser:
            yield browser


def test_an_event_arrives_anonymized_and_after_the_switch_identified(
    ask: Browser, captured_events: CapturedEvents, ada: Any
) -> None:
    assert ask("GET", f"{PREFIX}/preferences").status == 401
    page = walk(ask, captured_events)
    tag, _, rest = page.partition("|")
    assert tag.startswith(f'<script src="{PREFIX}/client.js?v=')
    assert " data-hash" in tag
    assert 'nonce="n1"' in tag
    assert rest.endswith("<second-usage-data></second-usage-data>")
    assert captured_events[-1].distinct_id == str(ada.pk)
    assert captured_events[-1].properties["user_name"] == "Ada Lovelace"


def test_the_tag_names_the_mode_except_on_an_event_loop_where_a_look_up_would_block(
    ask: Browser,
) -> None:
    assert ask("GET", "/").status == 200
    assert "data-mode" in ask("GET", "/page").text
    assert "client.js" in ask("GET", "/loop").text
    assert "data-mode" not in ask("GET", "/bare").text


def test_an_async_view_renders_the_tag_without_looking_the_user_up(ada: Any) -> None:
    with asgi_browser(wrap_asgi(get_asgi_application()), lifespan=False) as ask:
        ask("GET", "/")
        page = ask("GET", "/loop")
    assert (page.status, "data-mode" in page.text) == (200, False)


def test_a_session_that_is_nobodys_is_a_visitor(ask: Browser) -> None:
    assert ask("POST", f"{PREFIX}/capture", {"event": "page viewed"}).status == 401


def of_request(request: Any) -> AnalyticsUser | None:
    return AnalyticsUser("u_custom") if request.user.is_authenticated else request.user


@pytest.mark.parametrize("user", [of_request, f"{__name__}.of_request"])
def test_the_project_may_name_its_own_callable(
    user: Any, ada: Any, captured_events: CapturedEvents
) -> None:
    with override_settings(SECOND_ANALYTICS={"token": "phc_test", "user": user}):
        get_analytics.cache_clear()
        with wsgi_browser(wrap_wsgi(get_wsgi_application())) as ask:
            assert ask("GET", f"{PREFIX}/preferences").status == 401
            ask("GET", "/")
            ask("PUT", f"{PREFIX}/preferences", {"anonymized": False})
    assert captured_events[-1].distinct_id == "u_custom"


def test_events_of_views_are_captured_with_djangos_own_test_client(
    ada: Any, captured_events: CapturedEvents
) -> None:
    client = Client()
    client.force_login(ada)
    client.get("/build")
    assert captured_events.names == ["build completed"]
    captured_events.assert_anonymous(user_of(_request_of(ada)))


def _request_of(person: Any) -> Any:
    request = RequestFactory().get("/")
    request.user = person
    return request


def test_a_user_without_names_is_known_by_what_there_is(ada: Any) -> None:
    class Machine:
        pk = 7
        is_authenticated = True

        @staticmethod
        def get_email_field_name() -> str:
            return "mail"

        def get_username(self) -> str:
            return "robot-7"

    assert user_of(_request_of(Machine())) == AnalyticsUser("7", aliases=("robot-7",))
    assert user_of(RequestFactory().get("/")) is None


# System checks

CHECKS: list[tuple[str, Any, list[str]]] = [
    ("good", {"token": "phc_test"}, []),
    ("no mapping", ["user"], ["second_analytics.E001"]),
    ("user is a number", {"token": "phc_test", "user": 7}, ["second_analytics.E001"]),
    ("an unknown setting", {"tokn": "phc_test"}, ["second_analytics.E002"]),
    ("a wrong value", {"token": "phc_test", "gpc": "perhaps"}, ["second_analytics.E002"]),
    ("no such callable", {"token": "phc_test", "user": "shop.no"}, ["second_analytics.E003"]),
    ("no token", {}, ["second_analytics.W001"]),
    ("the project's routes", {"token": "phc_test", "routes": "urlconf"}, []),
]


@pytest.mark.parametrize(("name", "given", "found"), CHECKS, ids=[row[0] for row in CHECKS])
def test_the_system_checks_say_what_is_wrong(name: str, given: Any, found: list[str]) -> None:
    from second_mw.contrib.django.checks import check_settings

    with override_settings(SECOND_ANALYTICS=given):
        assert [message.id for message in check_settings()] == found


def test_the_system_checks_say_so_where_request_user_is_not_known() -> None:
    from second_mw.contrib.django.checks import check_settings

    with override_settings(INSTALLED_APPS=["django.contrib.contenttypes"]):
        assert [message.id for message in check_settings()] == ["second_analytics.W002"] * 2
    own = {"token": "phc_test", "user": of_request}
    with override_settings(INSTALLED_APPS=[], SECOND_ANALYTICS=own):
        assert check_settings() == []


def test_manage_py_check_runs_them() -> None:
    from django.core.checks import run_checks

    with override_settings(SECOND_ANALYTICS={"gpc": "perhaps"}):
        ids = [message.id for message in run_checks()]
    assert "second_analytics.E002" in ids


def test_a_wrong_setting_stops_the_start() -> None:
    with (
        override_settings(SECOND_ANALYTICS="phc_test"),
        pytest.raises(ConfigurationError, match="must be a dict"),
    ):
        get_analytics()


# Routes


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/", "/"),
        ("/users/7/", "/users/:pk"),
        ("/articles/of-mice/", "/articles/:slug"),
        ("/articles/2026/11/", "/articles/:year/:month"),
        ("/old/12/", "/old/:var"),
        ("/users/ada/", ":unknown"),
    ],
)
def test_route_shapes_are_the_projects_own_routes(path: str, shape: str) -> None:
    assert Templates(routes_of()).match(path) == shape


@pytest.mark.parametrize("prefixed", [True, False])
def test_translated_routes_have_their_language(prefixed: bool) -> None:
    class Translated:
        urlpatterns = i18n_patterns(
            path("about/", django_project.page), prefix_default_language=prefixed
        )

    with override_settings(ROOT_URLCONF=Translated, USE_I18N=True):
        found = routes_of()
    assert found == (("/:language/about/",) if prefixed else ("/:language/about/", "/about/"))


def test_a_setting_lets_the_analytics_have_the_projects_routes(
    captured_events: CapturedEvents, ada: Any
) -> None:
    with override_settings(SECOND_ANALYTICS={"token": "phc_test", "routes": "urlconf"}):
        get_analytics.cache_clear()
        assert "/users/<int:pk>/" in get_analytics().settings.routes
        get_analytics().capture(
            AnalyticsUser("u_1"), "page viewed", {"route_shape": "/articles/of-mice"}
        )
    assert captured_events[0].properties["route_shape"] == "/articles/:slug"


def test_an_analytics_of_the_projects_own_may_be_given(
    ada: Any, captured_events: CapturedEvents
) -> None:
    own = Analytics(token="phc_test", prefix="/usage")
    with wsgi_browser(wrap_wsgi(get_wsgi_application(), own)) as ask:
        walk(ask, captured_events, prefix="/usage")
    assert settings.SECOND_ANALYTICS == {"token": "phc_test"}
