"""What happens in the demo: who is signed up, what each workspace owns, what people change.

Kept in memory, one story a server; a restart begins again. It knows no request and no page: the
desk calls it, one call at a time, under `lock`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from demos.product.chat import App, NotHere
from demos.product.sample import (
    INTEGRATIONS,
    PEOPLE,
    RECIPES,
    RUNTIMES,
    WORKSPACE_AGENTS,
    WORKSPACES,
    Agent,
    Invitation,
    Recipe,
    Runtime,
)
from second_mw import AnalyticsUser

#: Long enough to watch a build's steps tick, short enough not to wait for it.
BUILD_SECONDS: Final = 6.0
_LATE_PROMPT: Final = "A list of overdue invoices from Ledgerly, with reminders"
_FILLER: Final = frozenset(
    "a an and app application build for from i it list make me my need of our page please that the "
    "to track us want we where which who with".split()
)


@dataclass
class Person:
    """Someone with an account."""

    id: str
    name: str
    email: str
    title: str
    roles: dict[str, str]
    onboarded: bool
    # The workspaces whose home page has yet to say that onboarding is finished, once each.
    just_onboarded: set[str] = field(default_factory=set)

    @property
    def first_name(self) -> str:
        """What a page calls them."""
        return self.name.split()[0]

    @property
    def initials(self) -> str:
        """Two letters for the round mark."""
        return "".join(part[0] for part in self.name.split()[:2])

    @property
    def home(self) -> str:
        """The path to begin at."""
        return f"/w/{next(iter(self.roles))}" if self.onboarded else "/onboarding/intro"


@dataclass
class Workspace:
    """A team's apps, agents and connections."""

    id: str
    name: str
    apps: dict[str, App] = field(default_factory=dict)
    connected: set[str] = field(default_factory=set)
    log: list[tuple[str, str]] = field(default_factory=list)

    def app(self, app_id: str) -> App:
        """Return the app with this id."""
        try:
            return self.apps[app_id]
        except KeyError:
            raise NotHere(app_id) from None

    @property
    def waiting(self) -> int:
        """How many apps wait for somebody's word."""
        return sum(app.state == "review" for app in self.apps.values())

    def note(self, who: Person, what: str) -> None:
        """Write a line in the audit log, newest first."""
        self.log.insert(0, (who.name, what))
        del self.log[50:]


class Story:
    """Everything the demo knows.

    Args:
        build_seconds: how long a build takes; None reads `SECOND_DEMO_BUILD_SECONDS`.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        *,
        build_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if build_seconds is None:
            build_seconds = float(os.environ.get("SECOND_DEMO_BUILD_SECONDS") or BUILD_SECONDS)
        self.build_seconds = max(build_seconds, 0.01)
        self.lock = threading.RLock()
        self._clock = clock
        self._numbers = itertools.count(1)
        self.people = {each.id: _person(each) for each in PEOPLE}
        self.workspaces = {key: Workspace(key, name) for key, name in WORKSPACES.items()}
        self._furnish(self.workspaces["kestrel-coffee"])

    @property
    def now(self) -> float:
        """The time, in seconds since some moment."""
        return self._clock()

    def new_id(self) -> str:
        """Return the next id: 24 hex digits, the same in the same order at each start."""
        return hashlib.sha256(f"second {next(self._numbers)}".encode()).hexdigest()[:24]

    def analytics_user(self, person_id: str | None) -> AnalyticsUser | None:
        """Return whom the analytics see behind a session that holds this id.

        Whether events are anonymized is left to the preference store (`anonymized` stays None), so
        the person decides in Usage data settings.
        """
        person = self.people.get(person_id or "")
        if person is None:
            return None
        return AnalyticsUser(
            id=person.id,
            email=person.email,
            name=person.name,
            onboarded=person.onboarded,
            workspaces=person.roles,
        )

    def workspace(self, person: Person, workspace_id: str) -> Workspace:
        """Return this workspace of this person; another's is as absent as one that is not."""
        if workspace_id not in person.roles:
            raise NotHere(workspace_id)
        return self.workspaces[workspace_id]

    def members(self, workspace: Workspace) -> list[Person]:
        """Return who belongs to a workspace."""
        return [person for person in self.people.values() if workspace.id in person.roles]

    def finish_onboarding(self, person: Person) -> None:
        """Let the person in; the next home page says so once."""
        if not person.onboarded:
            person.onboarded = True
            first = next(iter(person.roles))
            person.just_onboarded.add(first)
            self.workspaces[first].note(person, "finished onboarding")

    def start_app(
        self,
        workspace: Workspace,
        person: Person,
        prompt: str,
        *,
        runtime: str = RUNTIMES[0].id,
        attachments: int = 0,
    ) -> App:
        """Begin a chat that is to become an app."""
        recipe = recipe_for(prompt)
        app = self._app(workspace, person, name_for(prompt, recipe), recipe, runtime_of(runtime))
        app.attachments = attachments
        app.begin(prompt)
        workspace.note(person, f"began {app.name}")
        return app

    def import_app(self, workspace: Workspace, person: Person, name: str) -> App:
        """Bring in an app that exists already, and build it."""
        title = re.sub(r"\.\w+$", "", name).replace("-", " ").replace("_", " ").strip()
        title = title.capitalize() or "Imported app"
        app = self._app(workspace, person, title[:40], RECIPES[-1], RUNTIMES[0])
        app.imported = app.agents_approved = True
        app.say("second", f"I unpacked {name[:80]} and am building it as it is.")
        app.build(self.now)
        workspace.note(person, f"imported {app.name}")
        return app

    def connect(self, workspace: Workspace, person: Person, slug: str) -> None:
        """Connect an integration for the workspace."""
        if slug not in INTEGRATIONS:
            raise NotHere(slug)
        workspace.connected.add(slug)
        workspace.note(person, f"connected {INTEGRATIONS[slug].name}")

    def workspace_agent(self, slug: str) -> Agent:
        """Return an agent that belongs to the whole workspace."""
        for agent in WORKSPACE_AGENTS:
            if agent.slug == slug:
                return agent
        raise NotHere(slug)

    def _app(
        self, workspace: Workspace, person: Person, name: str, recipe: Recipe, runtime: Runtime
    ) -> App:
        app = App(
            self.new_id(),
            name,
            recipe,
            runtime,
            person.first_name,
            workspace.connected,
            self.new_id,
            self.build_seconds,
        )
        workspace.apps = {app.id: app, **workspace.apps}
        return app

    def _furnish(self, workspace: Workspace) -> None:
        """Give a workspace a past: two apps that work, one that waits and one that fails."""
        workspace.connected.add("chatterbox")
        maren = self.people[PEOPLE[0].id]
        late, stock, rota, notes = ((recipe, recipe.suggestions[0].title) for recipe in RECIPES)
        for (recipe, pick), name, prompt, edited, published in (
            (late, "Invoice chaser", _LATE_PROMPT, "yesterday", False),
            (rota, "Counter rota", "A shift planner for the five counters", "on Monday", True),
            (stock, "Bean counter", "A stock count for our five shops", "last week", True),
        ):
            app = self._app(workspace, maren, name, recipe, RUNTIMES[0])
            app.begin(prompt)
            app.act(app.cards[-1].id, "picked_suggestion", 0.0, word=pick)
            app.act(app.cards[-1].id, "approved", 0.0)
            app.act(app.cards[-1].id, "approved", 0.0)
            app.settle(self.build_seconds)
            app.news.clear()  # it happened before anyone looked
            app.edited, app.published = edited, published
        waiting = self._app(workspace, maren, "Tasting notes", notes[0], RUNTIMES[1])
        waiting.begin("A notebook for cuppings, one page a week")
        waiting.act(waiting.cards[-1].id, "picked_suggestion", 0.0, word=notes[1])
        waiting.news = waiting.news[-1:]
        waiting.edited = "an hour ago"
        workspace.note(maren, "published Bean counter")
        workspace.note(maren, "published Counter rota")
        workspace.note(maren, "connected Chatterbox")


def recipe_for(prompt: str) -> Recipe:
    """Return what a prompt leads to: the first recipe with a word of it, else the last."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    words |= {word.removesuffix("s") for word in words}
    return next((recipe for recipe in RECIPES if words & set(recipe.words)), RECIPES[-1])


def name_for(prompt: str, recipe: Recipe) -> str:
    """Return an app's name: its recipe's, or the first telling words of the prompt."""
    if recipe.words:
        return recipe.name
    telling = [word for word in re.findall(r"\w+", prompt) if word.lower() not in _FILLER]
    return " ".join(telling[:2]).capitalize()[:40] or recipe.name


def runtime_of(runtime_id: str) -> Runtime:
    """Return the runtime with this id, else the first."""
    return next((each for each in RUNTIMES if each.id == runtime_id), RUNTIMES[0])


def _person(invitation: Invitation) -> Person:
    return Person(
        invitation.id,
        invitation.name,
        invitation.email,
        invitation.title,
        dict(invitation.roles),
        invitation.onboarded,
    )
