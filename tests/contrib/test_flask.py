"""The glue for Flask, with real apps."""

from __future__ import annotations

from typing import Any

import flask_login
import pytest
from flask import Blueprint, Flask, g, redirect, render_template_string, request, session
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BaseConverter

from second_mw import Analytics, AnalyticsUser
from second_mw.contrib.captured import CapturedEvents
from second_mw.contrib.flask import SecondAnalytics, routes_of
from second_mw.privacy.routes import Templates
from tests.contrib.visits import PREFIX, walk, wsgi_browser

ADA = AnalyticsUser("u_ada", email="ada@analytical.example", name="Ada Lovelace")
PAGE = "{{ second_analytics(hash=True, nonce='n1') }}|{{ second_usage_data(nonce='n2') }}"


def bare_app() -> Flask:
    app = Flask("shop")
    app.secret_key = "only for tests"

    @app.get("/")
    def home() -> str:
        session["id"] = ADA.id
        return render_template_string(PAGE)

    return app


def of_session() -> AnalyticsUser | None:
    return ADA if session.get("id") == ADA.id else None


def test_an_event_arrives_anonymized_and_after_the_switch_identified(
    captured_events: CapturedEvents,
) -> None:
    app = bare_app()
    SecondAnalytics(app, Analytics(token="phc_test"), user=of_session)
    with wsgi_browser(app) as ask:
        page = walk(ask, captured_events)
    tag, _, settings = page.partition("|")
    assert tag.startswith(f'<script src="{PREFIX}/client.js?v=')
    assert " data-hash" in tag
    assert 'nonce="n1"' in tag
    assert settings.endswith("<second-usage-data></second-usage-data>")


def test_an_application_factory_takes_its_settings_from_the_apps_configuration(
    captured_events: CapturedEvents,
) -> None:
    second = SecondAnalytics(user=of_session)
    apps = []
    for prefix in ("/usage", "/other"):
        app = bare_app()
        app.config["SECOND_ANALYTICS"] = {"prefix": prefix}
        assert second.init_app(app) is app.extensions["second_mw"]
        apps.append(app)
    assert apps[0].extensions["second_mw"] is not apps[1].extensions["second_mw"]
    with wsgi_browser(apps[0]) as ask:
        walk(ask, captured_events, prefix="/usage")
    captured_events.clear()
    with wsgi_browser(apps[1]) as ask:
        walk(ask, captured_events, prefix="/other")


def test_an_app_is_wrapped_once() -> None:
    app = bare_app()
    SecondAnalytics(app, Analytics(token="phc_test"), user=of_session)
    with pytest.raises(RuntimeError, match="wrapped by SecondAnalytics already"):
        SecondAnalytics(app, Analytics(token="phc_test"), user=of_session)


class Person(flask_login.UserMixin):
    id = ADA.id


def login_app(**options: Any) -> Flask:
    app = Flask("shop")
    app.secret_key = "only for tests"
    manager = flask_login.LoginManager(app)
    manager.user_loader(lambda key: Person() if key == ADA.id else None)

    @app.get("/")
    def home() -> str:
        flask_login.login_user(Person())
        return ""

    @app.get("/out")
    def out() -> str:
        flask_login.logout_user()
        return ""

    def of_login() -> Any:
        person = flask_login.current_user
        return ADA if person.is_authenticated else person

    SecondAnalytics(app, Analytics(token="phc_test"), user=of_login, **options)
    return app


def test_flask_logins_current_user_is_known_and_its_visitor_is_nobody(
    captured_events: CapturedEvents,
) -> None:
    with wsgi_browser(login_app()) as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == 401
        walk(ask, captured_events)
        ask("GET", "/out")
        assert ask("GET", f"{PREFIX}/preferences").status == 401


def test_a_user_behind_a_proxy_outlives_its_request_context(
    captured_events: CapturedEvents,
) -> None:
    from werkzeug.local import LocalProxy

    app = bare_app()

    @app.before_request
    def load() -> None:
        g.person = of_session()

    person = LocalProxy(lambda: g.person)
    SecondAnalytics(app, Analytics(token="phc_test"), user=lambda: person, preprocess=True)
    with wsgi_browser(app) as ask:
        walk(ask, captured_events)


def test_before_request_runs_only_when_asked_and_one_that_answers_leaves_no_user() -> None:
    for preprocess, answers, expected in (
        (False, False, (401, [])),
        (True, False, (200, ["before"])),
        (True, True, (401, ["before"])),
    ):
        app = bare_app()
        ran: list[str] = []

        def before(ran: list[str] = ran, answers: bool = answers) -> Any:
            ran.append("before")
            g.person = ADA
            return redirect("/closed") if answers else None

        app.before_request(before)
        SecondAnalytics(
            app,
            Analytics(token="phc_test"),
            user=lambda: g.get("person"),
            preprocess=preprocess,
        )
        with wsgi_browser(app) as ask:
            assert (ask("GET", f"{PREFIX}/preferences").status, ran) == expected


@pytest.mark.parametrize(
    ("left", "status"), [(ADA, 200), (None, 401), ({"id": "u_ada"}, 500), (..., 401)]
)
def test_without_a_callable_the_user_is_what_stands_in_environ(left: Any, status: int) -> None:
    app, second, analytics = bare_app(), SecondAnalytics(), Analytics(token="phc_test")
    assert second.init_app(app, analytics) is analytics
    ours = app.wsgi_app

    def auth_proxy(environ: dict[str, Any], start_response: Any) -> Any:
        if left is not ...:
            environ["second_mw.user"] = left
        return ours(environ, start_response)

    app.wsgi_app = auth_proxy  # type: ignore[method-assign]
    with wsgi_browser(app) as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == status
        page = ask("GET", "/")
    assert (page.status, "data-mode" in page.text) == (200, status == 200)


def test_the_requests_teardown_runs_so_that_database_sessions_are_given_back() -> None:
    app = bare_app()
    ended: list[str] = []
    app.teardown_request(lambda error: ended.append(request.path))
    SecondAnalytics(app, Analytics(token="phc_test"), user=lambda: ADA)
    with wsgi_browser(app) as ask:
        ask("GET", f"{PREFIX}/preferences")
    assert ended == [f"{PREFIX}/preferences"]


def test_an_async_callable_is_awaited(captured_events: CapturedEvents) -> None:
    async def later() -> AnalyticsUser | None:
        return of_session()

    app = bare_app()
    SecondAnalytics(app, Analytics(token="phc_test"), user=later)
    with wsgi_browser(app) as ask:
        walk(ask, captured_events)


def test_a_page_never_fails_because_the_user_can_not_be_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing() -> AnalyticsUser:
        raise LookupError("no database")

    app = bare_app()
    SecondAnalytics(app, Analytics(token="phc_test"), user=failing)
    with wsgi_browser(app) as ask:
        page = ask("GET", "/")
        assert (page.status, "data-mode" in page.text) == (200, False)
        assert ask("GET", f"{PREFIX}/preferences").status == 500
    assert "its script tag names none" in caplog.text


def test_below_a_mount_the_script_tag_names_the_mount(captured_events: CapturedEvents) -> None:
    app = bare_app()
    SecondAnalytics(app, Analytics(token="phc_test"), user=of_session)
    mounted = DispatcherMiddleware(Flask("outer"), {"/shop": app.wsgi_app})
    with wsgi_browser(mounted) as ask:
        page = walk(ask, captured_events, page="/shop/", prefix=f"/shop{PREFIX}")
        assert f'src="/shop{PREFIX}/client.js' in page
        assert ask("GET", f"/shop{PREFIX}/client.js").status == 200


class Dots(BaseConverter):
    part_isolating = False
    regex = ".*?"


@pytest.fixture
def routed() -> Flask:
    app = Flask("shop")
    app.url_map.converters["dots"] = Dots
    pages = Blueprint("pages", "pages", url_prefix="/p")
    for rule in (
        "/users/<int:id>",
        "/users/<name>",
        "/users/new",
        "/tags/<any(red, 'b)lue'):tag>/",
        "/prices/<float(min=1.5):price>",
        "/keys/<uuid:key>",
        "/<string(length=2):language>/about",
        "/files/<path:rest>",
        "/odd/<dots:rest>/end",
    ):
        pages.add_url_rule(rule, rule.replace(".", " "), lambda **_: "")
    app.register_blueprint(pages)
    return app


ROUTES = [
    ("/p/users/12", "/p/users/:id"),
    ("/p/users/ada", "/p/users/:name"),
    ("/p/users/new", "/p/users/new"),
    ("/p/tags/red", "/p/tags/:tag"),
    ("/p/prices/2.5", "/p/prices/:price"),
    ("/p/keys/0190a6e4-3d5b-7c1e-8a52-0123456789ab", "/p/keys/:key"),
    ("/p/de/about", "/p/:language/about"),
    ("/p/files/a/b.txt", "/p/files/:rest"),
    ("/p/odd/x/y/end", "/p/odd/:rest/end"),
    ("/static/app.css", "/static/:filename"),
    ("/p/nowhere/at/all", ":unknown"),
]


@pytest.mark.parametrize(("path", "shape"), ROUTES)
def test_route_shapes_are_the_apps_own_rules(routed: Flask, path: str, shape: str) -> None:
    assert Templates(routes_of(routed)).match(path) == shape


def test_the_apps_routes_are_what_settings_take(
    routed: Flask, captured_events: CapturedEvents
) -> None:
    analytics = Analytics(token="phc_test", routes=routes_of(routed))
    analytics.capture(ADA, "page viewed", {"route_shape": "/p/users/ada"})
    assert captured_events[0].properties["route_shape"] == "/p/users/:name"
