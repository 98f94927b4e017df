"""What every page has round it: the head, the rail, the account menu, the import dialog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from demos.product.chat import App
from demos.product.html import Child, Html, data_block, document, el
from demos.product.story import Person, Story, Workspace


class Look(NamedTuple):
    """Where the analytics' two files are served, which every page names, and where the inbox is."""

    client: str
    settings: str
    inbox: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a page is shown: whose workspace, to whom, out of which story.

    `fresh` says, on one page, that this person has just finished onboarding here.
    """

    look: Look
    story: Story
    person: Person
    workspace: Workspace
    fresh: bool = False

    @property
    def root(self) -> str:
        """The workspace's own path."""
        return f"/w/{self.workspace.id}"

    @property
    def is_admin(self) -> bool:
        """Whether the person manages the workspace's integrations."""
        return self.person.roles[self.workspace.id] == "admin"


STATE_WORDS = {
    "building": "Building",
    "review": "Waits for you",
    "ready": "Ready",
    "failed": "Build failed",
    "draft": "Draft",
}


def icon(name: str) -> Html:
    """Return an icon, hidden from screen readers: a word stands beside it or in a label."""
    return el("svg", el("use", href=f"/static/icons.svg#{name}"), class_="icon", aria_hidden="true")


def badge(state: str, words: str | None = None) -> Html:
    """Return a state as a word with a dot; the colour only repeats the word."""
    return el("span", words or STATE_WORDS[state], class_=f"badge {state}")


def mark(person: Person) -> Html:
    """Return a person's initials in a round."""
    return el("span", person.initials, class_="initials", aria_hidden="true")


def bare(look: Look, title: str, *body: Child, class_: str = "bare") -> str:
    """Return a page without a workspace: signing in, onboarding, a wrong address."""
    return document(
        _head(look, title, ()),
        el("body", el("main", *body, id="main"), class_=class_),
    )


def within(
    place: Place,
    title: str,
    *body: Child,
    here: str = "",
    scripts: tuple[str, ...] = (),
    data: dict[str, Any] | None = None,
) -> Html:
    """Return a page of a workspace.

    Args:
        here: the rail's entry that this page is, a target or an app's id.
        scripts: the page's own modules, beside the shell's.
        data: what they need to begin with.
    """
    person, workspace = place.person, place.workspace
    page = {
        "workspace": workspace.id,
        "root": place.root,
        "user": person.id,
        "role": person.roles[workspace.id],
        "is_admin": place.is_admin,
        "fresh": place.fresh,
        **(data or {}),
    }
    return Html(
        document(
            _head(place.look, f"{title} · {workspace.name}", ("shell.js", *scripts)),
            el(
                "body",
                el("a", "Skip to content", href="#main", class_="skip"),
                _top_bar(place),
                _rail(place, here),
                el("div", class_="scrim", data_close_drawer=True, hidden=True),
                el("main", *body, id="main", tabindex="-1"),
                _import_dialog(),
                el("p", id="toast", role="status", class_="toast", hidden=True),
                data_block("page", page),
                class_="within",
            ),
        )
    )


def _head(look: Look, title: str, modules: tuple[str, ...]) -> Html:
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("title", f"{title} · Second"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="/static/mark.svg"),
        el("link", rel="stylesheet", href="/static/product.css"),
        # Deferred scripts and modules run in the order they stand in: the client is there first.
        el("script", src=look.client, defer=True),
        el("script", src=look.settings, defer=True),
        [el("script", type="module", src=f"/static/{name}") for name in modules],
    )


def _top_bar(place: Place) -> Html:
    return el(
        "header",
        el(
            "button",
            icon("menu"),
            el("span", "Menu", class_="unseen"),
            type="button",
            class_="quiet square",
            data_open_drawer=True,
            aria_expanded="false",
            aria_controls="rail",
        ),
        el("span", place.workspace.name, class_="where"),
        class_="top-bar",
    )


def _rail(place: Place, here: str) -> Html:
    apps = list(place.workspace.apps.values())[:6]
    return el(
        "nav",
        _workspace_switch(place),
        el(
            "a",
            icon("plus"),
            "New app",
            href=place.root,
            class_="button primary",
            data_target="new app",
            aria_current="page" if here == "new app" else None,
        ),
        el(
            "ul",
            _rail_link(place, here, "agents", "Agents", "agents"),
            _rail_link(place, here, "library", "Library", "library"),
            _rail_link(place, here, "available apps", "Available apps", "available", "-"),
            _rail_link(place, here, "reviews", "Reviews", "reviews", count=place.workspace.waiting),
            _rail_link(place, here, "settings", "Settings", "settings"),
        ),
        el("h2", el("a", "Apps", href=f"{place.root}/apps", data_target="apps")),
        el("ul", [_app_link(place, here, app) for app in apps], class_="rail-apps")
        if apps
        else el("p", "None yet: describe one, and it will stand here.", class_="muted small"),
        _account(place),
        id="rail",
        class_="rail",
        aria_label="Workspace",
    )


def _rail_link(
    place: Place,
    here: str,
    target: str,
    words: str,
    picture: str,
    joint: str = "",
    *,
    count: int | None = None,
) -> Html:
    path = target.replace(" ", joint)
    return el(
        "li",
        el(
            "a",
            icon(picture),
            el("span", words),
            None if count is None else _count(count),
            href=f"{place.root}/{path}",
            data_target=target,
            aria_current="page" if here == target else None,
        ),
    )


def _count(number: int) -> Html:
    words = el("span", " waiting", class_="unseen")
    return el("span", el("span", str(number)), words, class_="count", hidden=not number)


def _app_link(place: Place, here: str, app: App) -> Html:
    return el(
        "li",
        el(
            "a",
            el("span", class_=f"dot {app.state}", aria_hidden="true"),
            el("span", app.name),
            el("span", f", {STATE_WORDS[app.state]}", class_="unseen"),
            href=f"{place.root}/apps/{app.id}",
            # The app's own name stays out of `target`: the word says what kind of thing it was.
            data_target="app name",
            data_publish_status="published" if app.published else "draft",
            aria_current="page" if here == app.id else None,
        ),
    )


def _workspace_switch(place: Place) -> Html:
    return el(
        "div",
        el(
            "button",
            el("img", src="/static/mark.svg", alt="", width=24, height=24),
            el("span", el("span", "Workspace: ", class_="unseen"), place.workspace.name),
            icon("swap"),
            type="button",
            class_="quiet switch",
            popovertarget="workspaces",
        ),
        el(
            "div",
            el("p", "Workspaces", class_="muted small"),
            el(
                "ul",
                [
                    el(
                        "li",
                        el(
                            "a",
                            el("span", place.story.workspaces[each].name),
                            el("span", role.capitalize(), class_="muted small"),
                            href=f"/w/{each}",
                            aria_current="true" if each == place.workspace.id else None,
                        ),
                    )
                    for each, role in place.person.roles.items()
                ],
            ),
            id="workspaces",
            popover=True,
            class_="menu from-top",
        ),
        class_="rail-top",
    )


def _account(place: Place) -> Html:
    person = place.person
    return el(
        "div",
        el(
            "button",
            mark(person),
            el(
                "span",
                el("span", el("span", "Account: ", class_="unseen"), person.name),
                el("span", person.roles[place.workspace.id].capitalize(), class_="muted small"),
                class_="two-lines",
            ),
            type="button",
            class_="quiet switch",
            popovertarget="account",
            data_target="profile",
        ),
        el(
            "div",
            el(
                "p",
                el("strong", person.name),
                el("span", person.email, class_="muted small"),
                class_="two-lines menu-head",
            ),
            el(
                "ul",
                el(
                    "li",
                    el(
                        "button",
                        icon("chart"),
                        "Usage data settings",
                        type="button",
                        class_="quiet",
                        data_second_settings=True,
                    ),
                ),
                el(
                    "li",
                    el(
                        "form",
                        el("button", icon("out"), "Sign out", class_="quiet"),
                        method="post",
                        action="/sign-out",
                        # The client posts what waits and forgets its id before this is sent.
                        data_second_sign_out=True,
                    ),
                ),
            ),
            id="account",
            popover=True,
            class_="menu from-bottom",
        ),
        class_="rail-bottom",
    )


def import_button(source: str, words: str = "Import existing app", class_: str = "") -> Html:
    """Return a button that opens the import dialog and says where it stands."""
    return el(
        "button",
        icon("import"),
        words,
        type="button",
        class_=f"button {class_}".strip(),
        data_import=source,
    )


def _import_dialog() -> Html:
    return el(
        "dialog",
        el(
            "div",
            el("h2", "Import an existing app", id="import-title"),
            el(
                "button",
                icon("close"),
                el("span", "Close", class_="unseen"),
                type="button",
                class_="quiet square",
                data_close=True,
            ),
            class_="dialog-head",
        ),
        el(
            "p",
            "Bring a zip of the app's files. Only its name is read here: this is a demo, and the "
            "file stays on your machine.",
            class_="muted",
        ),
        el(
            "label",
            icon("import"),
            el("span", "Choose a zip, drop one here, or paste one"),
            el("input", type="file", accept=".zip", class_="unseen"),
            class_="drop",
        ),
        el("p", "No app at hand?", class_="muted small"),
        el("button", "Import the sample app", type="button", class_="button", data_sample=True),
        id="import",
        aria_labelledby="import-title",
    )
