"""The pages, one function each: from the story to HTML, changing nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

from demos.product.chat import App, NotHere
from demos.product.html import Child, Html, el
from demos.product.sample import (
    EXAMPLE_PROMPTS,
    INTEGRATIONS,
    PEOPLE,
    RUNTIMES,
    SKILLS,
    TEAMS,
    WORKSPACE_AGENTS,
    Agent,
    Integration,
)
from demos.product.shell import Look, Place, badge, bare, icon, import_button, mark, within
from demos.product.story import Person, Workspace

ONBOARDING: Final = ("intro", "workspace", "finish")

SETTINGS: Final = {
    "overview": "Overview",
    "members": "Members",
    "teams": "Teams",
    "integrations": "Integrations",
    "connected-apps": "Connected apps",
    "runtime-settings": "Runtime",
    "source-control": "Source control",
    "audit-logs": "Audit log",
    "diagnostics": "Diagnostics",
}

_AUTH_WORDS: Final = {
    "oauth": "Sign in at the service",
    "static_secret": "A key",
    "mixed": "Sign in, or a service account",
    "none": "Nothing to sign",
}


# Outside a workspace


def sign_in(look: Look, people: Iterable[Person], workspaces: dict[str, Workspace]) -> str:
    """Return the sign-in page: three invented people, one click each."""
    about = {each.id: each.about for each in PEOPLE}
    cards = [
        el(
            "li",
            el(
                "form",
                el("input", type="hidden", name="person", value=person.id),
                el(
                    "button",
                    mark(person),
                    el(
                        "span",
                        el("strong", person.name),
                        el("span", person.title, class_="muted"),
                        el("span", about[person.id], class_="small"),
                        el(
                            "span",
                            [
                                el(
                                    "span",
                                    f"{workspaces[each].name} · {role}",
                                    class_="chip",
                                )
                                for each, role in person.roles.items()
                            ],
                            None if person.onboarded else badge("review", "Not onboarded"),
                            class_="chips",
                        ),
                        class_="card-lines",
                    ),
                    class_="card person",
                ),
                method="post",
                action="/sign-in",
            ),
        )
        for person in people
    ]
    return bare(
        look,
        "Sign in",
        el("img", src="/static/mark.svg", alt="", width=40, height=40),
        el("h1", "Sign in to Second"),
        el(
            "p",
            "This is a demo: each of these people, their teams and all they own are invented. "
            "Choose who you are; no password is asked for.",
            class_="muted",
        ),
        el("ul", cards, class_="people"),
        look.inbox
        and el(
            "p",
            "What their clicks would tell PostHog shows in ",
            el("a", "the inbox", href=look.inbox, target="_blank", rel="noopener"),
            ".",
            class_="muted small",
        ),
    )


def onboarding(look: Look, person: Person, workspaces: dict[str, Workspace], step: str) -> str:
    """Return one step of onboarding."""
    workspace = workspaces[next(iter(person.roles))]
    number = ONBOARDING.index(step)
    body: dict[str, tuple[str, Child]] = {
        "intro": (
            f"Welcome, {person.first_name}",
            [
                el(
                    "p",
                    "Second turns a sentence into a small app for your team: it proposes a plan, "
                    "asks before it does anything, and builds it in front of you.",
                ),
                _onward("Begin", "/onboarding/workspace"),
            ],
        ),
        "workspace": (
            f"You were invited to {workspace.name}",
            [
                el(
                    "p",
                    f"You join as {person.roles[workspace.id]}. {len(workspace.apps)} apps are "
                    "there already, and you may open all of them.",
                ),
                _onward(f"Join {workspace.name}", "/onboarding/finish"),
            ],
        ),
        "finish": (
            "Before you start",
            [
                el(
                    "p",
                    "Second counts how it is used, without your name, your words or your team's. "
                    "You can look at that, change it or switch it off in the account menu, under "
                    "Usage data settings.",
                ),
                el(
                    "form",
                    el("button", "Open the workspace", class_="button primary"),
                    method="post",
                    action="/onboarding/finish",
                ),
            ],
        ),
    }
    title, content = body[step]
    return bare(
        look,
        title,
        el("img", src="/static/mark.svg", alt="", width=40, height=40),
        el("p", f"Step {number + 1} of {len(ONBOARDING)}", class_="muted small"),
        el("h1", title),
        content,
        el("form", el("button", "Sign out", class_="link"), method="post", action="/sign-out"),
    )


def not_found(look: Look, person: Person | None) -> str:
    """Return the page for an address that leads nowhere."""
    home = person.home if person else "/sign-in"
    return bare(
        look,
        "Nothing here",
        el("h1", "Nothing here"),
        el("p", "This address leads nowhere, or to something that is not yours.", class_="muted"),
        _onward("Go home", home),
    )


def _onward(words: str, to: str) -> Html:
    return el("p", el("a", words, href=to, class_="button primary"))


# Making apps


def home(place: Place) -> Html:
    """Return the workspace's home: the composer and recent apps."""
    apps = list(place.workspace.apps.values())
    recent: Child = (
        [
            el(
                "div",
                el("h2", "Recent apps"),
                import_button("workspace_home", class_="small"),
                class_="row",
            ),
            _app_cards(place, apps[:6]),
        ]
        if apps
        else _empty(
            "No apps yet",
            "Describe one above, begin with an example, or bring one you have already.",
            import_button("empty_state"),
        )
    )
    return within(
        place,
        "Home",
        el("h1", f"What shall we build, {place.person.first_name}?"),
        _composer("empty_state" if not apps else "workspace_home"),
        recent,
        here="new app",
        scripts=("home.js",),
        data={"runtimes": [asdict(runtime) for runtime in RUNTIMES]},
    )


def _composer(source: str) -> Html:
    return el(
        "form",
        el("label", "Describe an app", for_="message", class_="unseen"),
        el(
            "textarea",
            id="message",
            name="message",
            rows=3,
            required=True,
            placeholder=f"For example: {EXAMPLE_PROMPTS[0]}",
        ),
        el(
            "div",
            el(
                "label",
                icon("clip"),
                el("span", "Attach", data_attached=True),
                el("input", type="file", name="files", multiple=True, class_="unseen"),
                class_="button small",
            ),
            [
                el(
                    "label",
                    el("input", type="checkbox", name="skill", class_="unseen"),
                    el("span", skill),
                    class_="toggle",
                )
                for skill in SKILLS
            ],
            el("span", class_="gap"),
            el("label", "Model", for_="runtime", class_="unseen"),
            el(
                "select",
                [el("option", runtime.model, value=runtime.id) for runtime in RUNTIMES],
                id="runtime",
                name="runtime",
            ),
            el(
                "button",
                icon("send"),
                el("span", "Build it", class_="unseen"),
                class_="button primary square",
            ),
            class_="composer-tools",
        ),
        el(
            "div",
            [
                el("button", prompt, type="button", class_="chip", data_example=True)
                for prompt in EXAMPLE_PROMPTS
            ],
            class_="chips",
        ),
        id="composer",
        class_="composer",
        data_source=source,
    )


def apps(place: Place) -> Html:
    """Return every app of the workspace."""
    every = list(place.workspace.apps.values())
    return within(
        place,
        "Apps",
        _head("Apps", "Everything your team has built or begun."),
        _app_cards(place, every)
        if every
        else _empty("No apps yet", "Describe one on the home page.", import_button("empty_state")),
        here="apps",
    )


def _app_cards(place: Place, every: Iterable[App]) -> Html:
    return el(
        "ul",
        [
            el(
                "li",
                el(
                    "a",
                    el("strong", app.name),
                    el("span", app.recipe.about, class_="muted small"),
                    el(
                        "span",
                        badge(app.state),
                        el("span", f"{app.maker}, {app.edited}", class_="muted small"),
                        class_="row",
                    ),
                    href=f"{place.root}/apps/{app.id}",
                    class_="card",
                ),
            )
            for app in every
        ],
        class_="cards",
    )


def app_chat(place: Place, app_id: str) -> Html:
    """Return an app's chat; its thread is drawn by the page, which has to follow builds anyway."""
    app = place.workspace.app(app_id)
    return within(
        place,
        app.name,
        _app_head(place, app, "chat"),
        el("section", id="thread", class_="thread", aria_label="Chat"),
        el("p", id="said", role="status", class_="unseen"),
        el(
            "form",
            el("label", "Ask for a change", for_="more", class_="unseen"),
            el(
                "textarea",
                id="more",
                name="message",
                rows=1,
                required=True,
                placeholder="Ask for a change",
            ),
            el(
                "button",
                icon("send"),
                el("span", "Send", class_="unseen"),
                class_="button primary square",
            ),
            id="ask",
            class_="composer slim",
        ),
        el("dialog", id="window", class_="app-window", aria_labelledby="window-title"),
        here=app.id,
        scripts=("chat.js",),
        data=_app_data(place, app),
    )


def app_agents(place: Place, app_id: str) -> Html:
    """Return an app's agents, each to be run."""
    app = place.workspace.app(app_id)
    agents = app.recipe.agents if app.agents_approved else ()
    return within(
        place,
        f"{app.name}: agents",
        _app_head(place, app, "agents"),
        el("ul", [_app_agent(app, agent) for agent in agents], class_="cards wide")
        if agents
        else _empty("No agents yet", "An app's agents stand here once you have approved them."),
        here=app.id,
        scripts=("agents.js",),
        data=_app_data(place, app),
    )


def _app_agent(app: App, agent: Agent) -> Html:
    agent_id = app.agent_id(agent)
    needs = [INTEGRATIONS[slug].name for slug in agent.integrations]
    return el(
        "li",
        el("h2", agent.name),
        el("p", agent.about, class_="muted"),
        el("p", f"Needs {', '.join(needs)}", class_="small") if needs else None,
        el(
            "form",
            el("label", f"What should {agent.name} look at?", for_=f"prompt-{agent_id}"),
            el(
                "textarea",
                id=f"prompt-{agent_id}",
                name="prompt",
                rows=2,
                placeholder="Everything since yesterday",
            ),
            el("button", icon("play"), "Run", class_="button primary"),
            data_agent=agent_id,
        ),
        el("div", role="status", data_outcome=agent_id, class_="outcome"),
        class_="card",
    )


def _app_data(place: Place, app: App) -> dict[str, object]:
    return app.view(place.story.now)


def _app_head(place: Place, app: App, tab: str) -> Html:
    path = f"{place.root}/apps/{app.id}"
    tabs = (("chat", "Chat", path), ("agents", "Agents", f"{path}/agents"))
    return el(
        "header",
        el(
            "div",
            el("h1", app.name),
            el("span", badge(app.state), id="app-state"),
            class_="row start",
        ),
        el(
            "nav",
            el(
                "ul",
                [
                    el(
                        "li",
                        el("a", words, href=to, aria_current="page" if key == tab else None),
                    )
                    for key, words, to in tabs
                ],
                class_="tabs",
            ),
            aria_label="App",
        ),
        class_="app-head",
    )


# The workspace's other pages


def agents(place: Place) -> Html:
    """Return the agents that belong to the whole workspace."""
    return within(
        place,
        "Agents",
        _head("Agents", "They belong to the whole workspace and read from every app in it."),
        el(
            "ul",
            [
                el(
                    "li",
                    el("h2", agent.name),
                    el("p", agent.about, class_="muted"),
                    el(
                        "form",
                        el("label", f"Ask {agent.name}", for_=f"ask-{agent.slug}"),
                        el(
                            "textarea",
                            id=f"ask-{agent.slug}",
                            name="message",
                            rows=2,
                            required=True,
                            placeholder="What should I know this morning?",
                        ),
                        el("button", icon("send"), "Ask", class_="button primary"),
                        data_workspace_agent=agent.slug,
                        data_name=agent.name,
                    ),
                    el("div", role="status", data_outcome=agent.slug, class_="outcome"),
                    class_="card",
                )
                for agent in WORKSPACE_AGENTS
            ],
            class_="cards wide",
        ),
        here="agents",
        scripts=("agents.js",),
        data={"runtime": asdict(RUNTIMES[0])},
    )


def library(place: Place) -> Html:
    """Return what the workspace keeps for reuse."""
    return within(
        place,
        "Library",
        _head(
            "Library",
            "Skills and examples to begin with, and a door for what you have already.",
            import_button("button", class_="small"),
        ),
        _table(
            ("Skill", "What it adds", "Used by"),
            [
                ("Spreadsheet import", "A page that takes a sheet and checks each row", "2 apps"),
                ("Charts", "Lines and bars over any table", "3 apps"),
                ("Weekly digest", "A page each Friday of what changed", "1 app"),
            ],
        ),
        here="library",
    )


def reviews(place: Place) -> Html:
    """Return the apps that wait for somebody's word."""
    waiting = [app for app in place.workspace.apps.values() if app.state == "review"]
    return within(
        place,
        "Reviews",
        _head("Reviews", "Second asks before it builds. What waits for an answer stands here."),
        _app_cards(place, waiting)
        if waiting
        else _empty("Nothing waits", "When a plan or an agent needs your word, it is listed here."),
        here="reviews",
    )


def available_apps(place: Place) -> Html:
    """Return the published apps, to open."""
    published = [app for app in place.workspace.apps.values() if app.published and app.bundle]
    return within(
        place,
        "Available apps",
        _head("Available apps", "Published by your team, ready to use."),
        el(
            "ul",
            [
                el(
                    "li",
                    el("strong", app.name),
                    el("span", app.recipe.about, class_="muted small"),
                    el(
                        "a",
                        "Open",
                        href=f"{place.root}/apps/{app.id}#open",
                        class_="button",
                        aria_label=f"Open {app.name}",
                    ),
                    class_="card",
                )
                for app in published
            ],
            class_="cards",
        )
        if published
        else _empty("Nothing published", "An app appears here when its maker publishes it."),
        here="available apps",
    )


# Settings


def settings(place: Place, section: str) -> Html:
    """Return one section of the settings."""
    if section not in SETTINGS:
        raise NotHere(section)
    content = {
        "overview": _overview,
        "members": _members,
        "teams": _teams,
        "integrations": lambda place: _integrations(place, "integration_settings"),
        "connected-apps": lambda place: _integrations(place, "connected_apps"),
        "runtime-settings": _runtimes,
        "source-control": lambda place: _empty(
            "No repository", "Apps are kept here. Connecting a repository is not part of the demo."
        ),
        "audit-logs": _audit_log,
        "diagnostics": _diagnostics,
    }[section]
    return _settings_page(place, section, el("h2", SETTINGS[section]), content(place))


def integration(place: Place, slug: str, source: str) -> Html:
    """Return the page that sets one integration up.

    `source` says which page led here: it becomes the events' `target_surface`.
    """
    if slug not in INTEGRATIONS:
        raise NotHere(slug)
    each = INTEGRATIONS[slug]
    surface = source if source in ("connected_apps", "app_chat") else "integration_settings"
    done = slug in place.workspace.connected
    return _settings_page(
        place,
        "integrations",
        el(
            "p",
            el("a", "All integrations", href=f"{place.root}/settings/integrations"),
            class_="small",
        ),
        el("h2", f"Set up {each.name}"),
        el("p", each.about, class_="muted"),
        el("h3", "It may"),
        el("ul", [el("li", words) for words in each.permissions], class_="plain"),
        badge("ready", "Connected") if done else _setup_form(each),
        scripts=("integrations.js",),
        data={
            "integration": {**asdict(each), "connected": done},
            "surface": surface,
        },
    )


def _setup_form(each: Integration) -> Html:
    secrets = [(name, True) for name in each.required_secrets]
    secrets += [(name, False) for name in each.optional_secrets]
    return el(
        "form",
        [
            el(
                "label",
                name if needed else f"{name} (optional)",
                el(
                    "input",
                    type="password",
                    name=f"secret-{index}",
                    required=needed,
                    autocomplete="off",
                    placeholder="Anything: it is not read",
                ),
                class_="field",
            )
            for index, (name, needed) in enumerate(secrets)
        ],
        el(
            "p",
            "In this demo no service is asked: connecting takes a click.",
            class_="muted small",
        ),
        el("button", icon("plug"), f"Connect {each.name}", class_="button primary"),
        id="setup",
        class_="stack",
    )


def _settings_page(
    place: Place,
    section: str,
    *body: Child,
    scripts: tuple[str, ...] = (),
    data: dict[str, object] | None = None,
) -> Html:
    links = [
        el(
            "li",
            el(
                "a",
                words,
                href=f"{place.root}/settings/{key}",
                aria_current="page" if key == section else None,
            ),
        )
        for key, words in SETTINGS.items()
    ]
    return within(
        place,
        SETTINGS[section],
        el("h1", "Settings"),
        el(
            "div",
            el("nav", el("ul", links), class_="sections", aria_label="Settings"),
            el("section", *body, class_="section"),
            class_="settings",
        ),
        here="settings",
        scripts=scripts,
        data=data,
    )


def _overview(place: Place) -> Child:
    workspace = place.workspace
    facts = (
        ("Workspace", workspace.name),
        ("Address", place.root),
        ("Members", str(len(place.story.members(workspace)))),
        ("Apps", str(len(workspace.apps))),
        ("Your role", place.person.roles[workspace.id]),
    )
    return el("dl", [[el("dt", key), el("dd", value)] for key, value in facts], class_="facts")


def _members(place: Place) -> Child:
    return _table(
        ("Name", "E-mail", "Role", "State"),
        [
            (
                person.name,
                person.email,
                person.roles[place.workspace.id],
                "Active" if person.onboarded else "Invited",
            )
            for person in place.story.members(place.workspace)
        ],
    )


def _teams(place: Place) -> Child:
    return _table(
        ("Team", "What they do", "People"),
        [(name, about, str(size)) for name, about, size in TEAMS[place.workspace.id]],
    )


def _integrations(place: Place, source: str) -> Child:
    connected = place.workspace.connected
    rows = [
        el(
            "li",
            el(
                "span",
                el("strong", each.name),
                el("span", each.about, class_="muted small"),
                el("span", _AUTH_WORDS[each.auth], class_="muted small"),
                class_="card-lines",
            ),
            badge("ready", "Connected")
            if each.slug in connected
            else el(
                "a",
                "Set up",
                href=f"{place.root}/settings/integrations/{each.slug}?from={source}",
                class_="button",
                aria_label=f"Set up {each.name}",
            ),
            class_="row line",
        )
        for each in INTEGRATIONS.values()
    ]
    return el("ul", rows, class_="lines")


def _runtimes(place: Place) -> Child:
    return _table(
        ("Runtime", "Model", "Family"),
        [(runtime.id, runtime.model, runtime.family) for runtime in RUNTIMES],
    )


def _audit_log(place: Place) -> Child:
    return _table(("Who", "What"), place.workspace.log)


def _diagnostics(place: Place) -> Child:
    builds = sum(app.version for app in place.workspace.apps.values())
    return _table(
        ("Check", "Result"),
        [
            ("Builds that succeeded", str(builds)),
            ("A build takes", f"{place.story.build_seconds:g} s"),
            ("Kept", "In memory: a restart begins again"),
        ],
    )


# Pieces


def _head(title: str, about: str, *aside: Child) -> Html:
    return el(
        "header",
        el("div", el("h1", title), *aside, class_="row"),
        el("p", about, class_="muted"),
    )


def _empty(title: str, words: str, *action: Child) -> Html:
    return el("div", el("h2", title), el("p", words, class_="muted"), *action, class_="empty")


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Html:
    return el(
        "div",
        el(
            "table",
            el("thead", el("tr", [el("th", words, scope="col") for words in columns])),
            el("tbody", [el("tr", [el("td", cell) for cell in row]) for row in rows]),
        ),
        class_="scroll",
        tabindex="0",
        role="group",
        aria_label=f"Table of {columns[0].lower()}",
    )
