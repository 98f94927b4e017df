"""The desk: which request shows or changes what. No framework, no socket.

A host turns a request into a `Visit`, calls `Desk.answer` with the `Route` it matched and writes
the `Reply`. `ROUTES` is the whole site; both hosts register it as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl

from demos.product import pages
from demos.product.chat import App, NotHere, Settled
from demos.product.shell import Look, Place
from demos.product.story import Person, Story, Workspace

#: The names under which the demo answers. A site that points a name of its own at this machine
#: (DNS rebinding) would else use the demo as the person who looks at it.
HOST_NAMES: Final = ("127.0.0.1", "localhost")

#: Sent with every answer of the demo's own. The policy allows no inline script and no inline
#: style: the analytics' files have to work under it, and so do ours.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: A demo's bodies are a prompt at most.
MAX_BODY: Final = 64 * 1024


@dataclass(frozen=True)
class Visit:
    """One request, as far as the desk cares.

    Args:
        person_id: what the session holds, None for a visitor.
        places: the path's parameters.
        fields: the query's, the form's or the JSON body's.
    """

    person_id: str | None
    places: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str, limit: int = 4000) -> str:
        """Return a field as trimmed text, empty if it is none."""
        value = self.fields.get(name)
        return value.strip()[:limit] if isinstance(value, str) else ""

    def count(self, name: str) -> int:
        """Return a field as a number of things, 0 if it is none."""
        value = self.fields.get(name)
        return value if type(value) is int and 0 <= value <= 1000 else 0


@dataclass(frozen=True)
class Reply:
    """What the host writes: a page or JSON, or a way to go (303), and who is signed in now."""

    body: str = ""
    media: Literal["text/html", "application/json"] = "text/html"
    status: int = 200
    to: str | None = None
    session: Literal["keep", "clear"] | Person = "keep"


class Route(NamedTuple):
    """One path of the site; a parameter is written `{name}`."""

    method: Literal["GET", "POST"]
    path: str
    answer: Callable[[Desk, Visit], Reply]


class Desk:
    """Answers visits from one story.

    Args:
        prefix, client_name: where the host's analytics answer; their script tags need it.
        inbox: the address of an inbox beside the demo, for the link to it.
    """

    def __init__(
        self,
        story: Story,
        *,
        prefix: str = "/api/analytics",
        client_name: str = "client.js",
        inbox: str | None = None,
    ) -> None:
        self.story = story
        self.look = Look(f"{prefix}/{client_name}", f"{prefix}/settings.js", inbox)

    def answer(self, route: Route, visit: Visit) -> Reply:
        """Return the reply to a visit of this route."""
        with self.story.lock:
            try:
                return route.answer(self, visit)
            except NotHere:
                return self.not_found(visit)
            except Settled:
                return _json({"error": "This was answered before."}, status=409)

    def not_found(self, visit: Visit) -> Reply:
        """Return the page for an address that leads nowhere."""
        return Reply(pages.not_found(self.look, self.person(visit)), status=404)

    def person(self, visit: Visit) -> Person | None:
        """Return who visits."""
        return self.story.people.get(visit.person_id or "")

    # Signing in and out

    def front_door(self, visit: Visit) -> Reply:
        person = self.person(visit)
        return Reply(to=person.home if person else "/sign-in", status=303)

    def sign_in_page(self, visit: Visit) -> Reply:
        people = list(self.story.people.values())
        return Reply(pages.sign_in(self.look, people, self.story.workspaces))

    def sign_in(self, visit: Visit) -> Reply:
        person = self.story.people.get(visit.text("person"))
        if person is None:
            raise NotHere("person")
        return Reply(to=person.home, status=303, session=person)

    def sign_out(self, visit: Visit) -> Reply:
        return Reply(to="/sign-in", status=303, session="clear")

    # Onboarding

    def onboarding(self, visit: Visit) -> Reply:
        person, step = self.person(visit), visit.places["step"]
        if person is None:
            return Reply(to="/sign-in", status=303)
        if step not in pages.ONBOARDING:
            raise NotHere(step)
        if person.onboarded:
            return Reply(to=person.home, status=303)
        return Reply(pages.onboarding(self.look, person, self.story.workspaces, step))

    def onboard(self, visit: Visit) -> Reply:
        person = self.person(visit)
        if person is None:
            return Reply(to="/sign-in", status=303)
        self.story.finish_onboarding(person)
        return Reply(to=person.home, status=303)

    # Pages of a workspace

    def page(self, visit: Visit, show: Callable[[Place], str]) -> Reply:
        """Return a page inside a workspace, or the way to sign in or be onboarded."""
        person = self.person(visit)
        if person is None:
            return Reply(to="/sign-in", status=303)
        if not person.onboarded:
            return Reply(to=person.home, status=303)
        workspace = self.story.workspace(person, visit.places["workspace"])
        for app in workspace.apps.values():
            app.settle(self.story.now)
        fresh = workspace.id in person.just_onboarded
        person.just_onboarded.discard(workspace.id)
        place = Place(self.look, self.story, person, workspace, fresh)
        return Reply(show(place))

    def home(self, visit: Visit) -> Reply:
        return self.page(visit, pages.home)

    def apps(self, visit: Visit) -> Reply:
        return self.page(visit, pages.apps)

    def app_chat(self, visit: Visit) -> Reply:
        return self.page(visit, lambda place: pages.app_chat(place, visit.places["app"]))

    def app_agents(self, visit: Visit) -> Reply:
        return self.page(visit, lambda place: pages.app_agents(place, visit.places["app"]))

    def agents(self, visit: Visit) -> Reply:
        return self.page(visit, pages.agents)

    def library(self, visit: Visit) -> Reply:
        return self.page(visit, pages.library)

    def reviews(self, visit: Visit) -> Reply:
        return self.page(visit, pages.reviews)

    def available_apps(self, visit: Visit) -> Reply:
        return self.page(visit, pages.available_apps)

    def settings_door(self, visit: Visit) -> Reply:
        return Reply(to=f"/w/{visit.places['workspace']}/settings/overview", status=303)

    def settings(self, visit: Visit) -> Reply:
        return self.page(visit, lambda place: pages.settings(place, visit.places["section"]))

    def integration(self, visit: Visit) -> Reply:
        slug, source = visit.places["integration"], visit.text("from")
        return self.page(visit, lambda place: pages.integration(place, slug, source))

    # What pages ask for and change, as JSON

    def here(self, visit: Visit) -> tuple[Person, Workspace]:
        """Return who asks and where; nobody who is not signed in and let in gets this far."""
        person = self.person(visit)
        if person is None or not person.onboarded:
            raise NotHere("person")
        return person, self.story.workspace(person, visit.places["workspace"])

    def app(self, visit: Visit) -> App:
        """Return the app the visit is about, as it is now."""
        app = self.here(visit)[1].app(visit.places["app"])
        app.settle(self.story.now)
        return app

    def start_app(self, visit: Visit) -> Reply:
        person, workspace = self.here(visit)
        prompt = visit.text("message")
        if not prompt:
            return _json({"error": "Say what to build."}, status=400)
        app = self.story.start_app(
            workspace,
            person,
            prompt,
            runtime=visit.text("runtime"),
            attachments=visit.count("attachments"),
        )
        return _json(_made(workspace, app))

    def import_app(self, visit: Visit) -> Reply:
        person, workspace = self.here(visit)
        app = self.story.import_app(workspace, person, visit.text("name", 120) or "app.zip")
        return _json(_made(workspace, app))

    def catch_up(self, visit: Visit) -> Reply:
        return self._view(visit, self.app(visit))

    def act(self, visit: Visit) -> Reply:
        app = self.app(visit)
        word = visit.text("word")
        app.act(visit.text("entry"), visit.text("action"), self.story.now, word=word)
        return self._view(visit, app)

    def say(self, visit: Visit) -> Reply:
        app = self.app(visit)
        if text := visit.text("message"):
            app.ask(text, self.story.now)
        return self._view(visit, app)

    def build(self, visit: Visit) -> Reply:
        app = self.app(visit)
        app.build(self.story.now)
        return self._view(visit, app)

    def run(self, visit: Visit) -> Reply:
        app = self.app(visit)
        run = app.run(visit.places["agent"], visit.text("prompt"), self.story.now)
        return self._view(visit, app, run=run.view())

    def ask_agent(self, visit: Visit) -> Reply:
        self.here(visit)
        agent = self.story.workspace_agent(visit.places["agent"])
        return _json({"answer": agent.answer})

    def connect(self, visit: Visit) -> Reply:
        person, workspace = self.here(visit)
        self.story.connect(workspace, person, visit.places["integration"])
        return _json({"connected": True})

    def _view(self, visit: Visit, app: App, **more: Any) -> Reply:
        waiting = self.here(visit)[1].waiting
        return _json({**app.catch_up(self.story.now), "waiting": waiting, **more})


def fields_of(content_type: str, body: bytes) -> dict[str, Any]:
    """Return the fields of a body: a form's or a JSON object's; nothing readable is no field."""
    text = body[:MAX_BODY].decode("utf-8", "replace")
    if content_type.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(text))
    if not content_type.startswith("application/json"):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _made(workspace: Workspace, app: App) -> dict[str, str]:
    return {"id": app.id, "name": app.name, "to": f"/w/{workspace.id}/apps/{app.id}"}


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value), "application/json", status)


_APP: Final = "/w/{workspace}/apps/{app}"

ROUTES: Final = (
    Route("GET", "/", Desk.front_door),
    Route("GET", "/sign-in", Desk.sign_in_page),
    Route("POST", "/sign-in", Desk.sign_in),
    Route("POST", "/sign-out", Desk.sign_out),
    Route("GET", "/onboarding/{step}", Desk.onboarding),
    Route("POST", "/onboarding/finish", Desk.onboard),
    Route("GET", "/w/{workspace}", Desk.home),
    Route("GET", "/w/{workspace}/apps", Desk.apps),
    Route("POST", "/w/{workspace}/apps", Desk.start_app),
    Route("POST", "/w/{workspace}/imports", Desk.import_app),
    Route("GET", _APP, Desk.app_chat),
    Route("GET", f"{_APP}/agents", Desk.app_agents),
    Route("POST", f"{_APP}/catch-up", Desk.catch_up),
    Route("POST", f"{_APP}/acts", Desk.act),
    Route("POST", f"{_APP}/messages", Desk.say),
    Route("POST", f"{_APP}/builds", Desk.build),
    Route("POST", f"{_APP}/agents/{{agent}}/runs", Desk.run),
    Route("GET", "/w/{workspace}/agents", Desk.agents),
    Route("POST", "/w/{workspace}/agents/{agent}/messages", Desk.ask_agent),
    Route("GET", "/w/{workspace}/library", Desk.library),
    Route("GET", "/w/{workspace}/reviews", Desk.reviews),
    Route("GET", "/w/{workspace}/available-apps", Desk.available_apps),
    Route("GET", "/w/{workspace}/settings", Desk.settings_door),
    Route("GET", "/w/{workspace}/settings/{section}", Desk.settings),
    Route("GET", "/w/{workspace}/settings/integrations/{integration}", Desk.integration),
    Route("POST", "/w/{workspace}/settings/integrations/{integration}", Desk.connect),
)
