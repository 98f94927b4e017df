"""client.js in a real Chromium: what it posts, when, and what it keeps to itself."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from second_mw.privacy.catalogue import Catalogue
from second_mw.privacy.routes import route_shape
from tests.browser.host import (
    ACCEPT,
    CLOSE,
    HANG,
    IDENTIFIED,
    Answer,
    Host,
    preferences,
)

pytestmark = pytest.mark.browser

ID = "second:analytics-anonymous-id:v1"
SUBJECT = "second:analytics-subject:v1"
QUEUE = "second:analytics-queue:v1"
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
ANON = re.compile(f"anon_{UUID4}")
OLD_ID = "anon_11111111-1111-4111-8111-111111111111"

Chromium = webdriver.Chrome


def capture(chromium: Chromium, name: str, properties: str = "{}") -> None:
    """Capture an event; the properties are JavaScript."""
    chromium.execute_script(f"secondAnalytics.capture({json.dumps(name)}, {properties});")


def flush(chromium: Chromium) -> None:
    """Flush, and wait until what waited has been tried."""
    chromium.execute_async_script("secondAnalytics.flush().then(arguments[0]);")


def stored(chromium: Chromium) -> dict[str, str]:
    """Return everything in localStorage."""
    return chromium.execute_script("return {...localStorage};")


def store(chromium: Chromium, host: Host, **values: str) -> None:
    """Leave something in the origin's localStorage, as an earlier visit would."""
    chromium.get(host.page("/earlier", client=False))
    for key, value in values.items():
        name = {"id": ID, "subject": SUBJECT, "queue": QUEUE}[key]
        chromium.execute_script("localStorage.setItem(...arguments);", name, value)


def hide(chromium: Chromium) -> None:
    """Tell the page that it is hidden, as a switch of tabs does."""
    _become(chromium, hidden=True)


def show(chromium: Chromium) -> None:
    """Tell the page that it is seen again."""
    _become(chromium, hidden=False)


def _become(chromium: Chromium, *, hidden: bool) -> None:
    chromium.execute_script(
        """
        Object.defineProperty(document, "hidden",
            { value: arguments[0], configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
        """,
        hidden,
    )


def wake(chromium: Chromium) -> None:
    """Show the page from the back/forward cache."""
    chromium.execute_script(
        "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }));"
    )


def change(chromium: Chromium, host: Host, answer: dict[str, object]) -> None:
    """Change the preferences, as the settings do: the server first, then the page is told."""
    host.preferences = answer
    chromium.execute_script(
        "dispatchEvent(new CustomEvent('second-usage-data-change', { detail: arguments[0] }));",
        answer,
    )


def offline(chromium: Chromium, *, off: bool = True) -> None:
    """Take the browser off the network, or back onto it."""
    chromium.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": off, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )


def kept(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event's properties without the page context."""
    context = ("surface", "route_shape", "viewport_width", "viewport_height")
    return {key: value for key, value in event["properties"].items() if key not in context}


def no_errors(chromium: Chromium) -> None:
    assert chromium.execute_script("return errors;") == []


# One event


def test_a_page_view_is_posted_with_everything_the_endpoint_wants(
    chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page("/w/acme"))
    (event,) = host.until_events()
    size = chromium.execute_script("return [innerWidth, innerHeight];")
    identifier = stored(chromium)[ID]
    assert ANON.fullmatch(identifier)
    assert re.fullmatch(UUID4, event.pop("uuid"))
    moment = event.pop("timestamp")
    assert datetime.fromisoformat(moment.replace("Z", "+00:00")).tzinfo is not None
    assert event == {
        "event": "page viewed",
        "anonymousDistinctId": identifier,
        "subject": "a1b2",
        "properties": {
            "anonymized": True,
            "surface": "workspace_home",
            "route_shape": "/w/:workspace",
            "viewport_width": size[0],
            "viewport_height": size[1],
        },
    }
    assert host.posts[0].content_type == "application/json"
    no_errors(chromium)


def test_events_of_two_seconds_leave_in_one_request(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(manual=""))
    chromium.execute_script(
        "for (const n of [1, 2, 3]) secondAnalytics.capture('app displayed', { file_count: n });"
    )
    host.until_events(3)
    assert [len(post.batch) for post in host.posts] == [3]
    assert [event["properties"]["file_count"] for event in host.events] == [1, 2, 3]
    assert len({event["uuid"] for event in host.events}) == 3
    assert len({event["anonymousDistinctId"] for event in host.events}) == 1


def test_there_is_one_name_on_window(chromium: Chromium, host: Host) -> None:
    names = "return Object.getOwnPropertyNames(window);"
    chromium.get(host.page("/without", early="watch", client=False))
    without = set(chromium.execute_script(names))
    chromium.get(host.page("/with", early="watch"))
    assert set(chromium.execute_script(names)) - without == {"secondAnalytics"}
    assert chromium.execute_script("return Object.keys(secondAnalytics);") == [
        "capture",
        "reset",
        "flush",
    ]
    assert chromium.get_cookies() == []


def test_the_prefix_and_the_names_come_from_the_script_tag(chromium: Chromium, host: Host) -> None:
    page = host.page()
    body = host.pages["/"].replace("/api/analytics/client.js", "/api/analytics/client.js?v=1")
    host.pages["/"] = body
    chromium.get(page)
    host.until_events()
    assert host.asked == 1


def test_a_script_that_stands_twice_on_a_page_counts_once(chromium: Chromium, host: Host) -> None:
    page = host.page()
    tag = '<script src="/api/analytics/client.js" defer></script>'
    host.pages["/"] = host.pages["/"].replace(tag, tag * 2)
    chromium.get(page)
    flush(chromium)
    assert len(host.events) == 1
    assert host.asked == 1


@pytest.mark.parametrize(
    ("properties", "arrives"),
    [
        ("undefined", {}),
        ("null", {}),
        ("'text'", {"0": "t", "1": "e", "2": "x", "3": "t"}),
        ("{ good: 1, bad: 10n }", {"good": 1}),
        ("(() => { const o = { good: 1 }; o.self = o; return o; })()", {"good": 1}),
        ("{ good: 1, bad: { toJSON() { throw new Error('no'); } } }", {"good": 1}),
        ("{ good: 1, get bad() { throw new Error('no'); } }", {"good": 1}),
        ("new Proxy({}, { ownKeys() { throw new Error('no'); } })", {}),
        ("{ good: 1, bad: () => 1, worse: Symbol('s'), none: undefined }", {"good": 1}),
        ("{ good: NaN, at: new Date(0) }", {"good": None, "at": "1970-01-01T00:00:00.000Z"}),
        ('JSON.parse(\'{"__proto__": {"x": 1}, "good": 1}\')', {"good": 1}),
    ],
)
def test_what_cant_be_written_as_json_costs_itself_alone(
    chromium: Chromium, host: Host, properties: str, arrives: dict[str, object]
) -> None:
    chromium.get(host.page(manual=""))
    capture(chromium, "app displayed", properties)
    flush(chromium)
    (event,) = host.events
    assert kept(event) == {**arrives, "anonymized": True}
    no_errors(chromium)


def test_nothing_a_page_hands_over_is_thrown_back_at_it(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(manual=""))
    chromium.execute_script(
        """
        const { capture, reset, flush } = secondAnalytics;
        capture();
        capture(Symbol("name"));
        capture({ toString() { throw new Error("no"); } });
        dispatchEvent(new CustomEvent("second-usage-data-change"));
        dispatchEvent(new StorageEvent("storage", { key: null }));
        document.dispatchEvent(new Event("click"));
        history.pushState(null, "", "#x");
        flush();
        reset();
        reset();
        flush();
        capture("late");
        """
    )
    no_errors(chromium)


def test_properties_are_copied_at_capture(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(manual=""))
    chromium.execute_script(
        """
        const properties = { counts: { files: 1 } };
        secondAnalytics.capture("app displayed", properties);
        properties.counts.files = 2;
        """
    )
    flush(chromium)
    assert host.events[0]["properties"]["counts"] == {"files": 1}


def test_a_uuid_is_made_where_the_page_is_no_secure_context(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch fast no-uuid"))
    (event,) = host.until_events()
    assert re.fullmatch(UUID4, event["uuid"])
    assert ANON.fullmatch(event["anonymousDistinctId"])


def test_a_page_may_say_more_of_where_it_is_than_the_address_does(
    chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page("/w/acme", manual=""))
    capture(chromium, "page viewed", "{ surface: 'library', route_shape: '/w/acme/library' }")
    flush(chromium)
    properties = host.events[0]["properties"]
    assert properties["surface"] == "library"
    assert properties["route_shape"] == "/w/:workspace/library"


# Page context

OBJECT = "507f1f77bcf86cd799439011"
A_UUID = "0189f7a2-5c1e-7000-8000-0123456789ab"
PLACES: list[tuple[str, dict[str, str]]] = [
    ("/", {"surface": "public", "route_shape": "/"}),
    ("/sign-in", {"surface": "public", "route_shape": "/sign-in"}),
    ("/orders/4711", {"surface": "public", "route_shape": "/orders/:id"}),
    (f"/orders/{A_UUID}/edit", {"surface": "public", "route_shape": "/orders/:uuid/edit"}),
    ("/u/jane%40example.org", {"surface": "public", "route_shape": "/u/:id"}),
    ("/onboarding", {"surface": "onboarding", "route_shape": "/onboarding"}),
    (
        "/onboarding/workspace",
        {
            "surface": "onboarding",
            "route_shape": "/onboarding/workspace",
            "onboarding_step": "workspace",
        },
    ),
    (
        "/onboarding/payment",
        {
            "surface": "onboarding",
            "route_shape": "/onboarding/payment",
            "onboarding_step": "other",
        },
    ),
    ("/w/acme", {"surface": "workspace_home", "route_shape": "/w/:workspace"}),
    (
        f"/w/acme/apps/{OBJECT}",
        {
            "surface": "app_chat",
            "route_shape": "/w/:workspace/apps/:objectId",
            "app_section": "chat",
        },
    ),
    (
        f"/w/acme/apps/{OBJECT}/agents",
        {
            "surface": "app_agents",
            "route_shape": "/w/:workspace/apps/:objectId/agents",
            "app_section": "agents",
        },
    ),
    (
        "/w/acme/apps/payroll/logs",
        {
            "surface": "app_chat",
            "route_shape": "/w/:workspace/apps/:segment/:segment",
            "app_section": "other",
        },
    ),
    ("/w/acme/agents", {"surface": "workspace_agents", "route_shape": "/w/:workspace/agents"}),
    (
        "/w/acme/agents/payroll-helper",
        {"surface": "workspace_agents", "route_shape": "/w/:workspace/agents/:agent"},
    ),
    ("/w/acme/library", {"surface": "library", "route_shape": "/w/:workspace/library"}),
    ("/w/acme/reviews", {"surface": "reviews", "route_shape": "/w/:workspace/reviews"}),
    (
        "/w/acme/settings",
        {
            "surface": "settings",
            "route_shape": "/w/:workspace/settings",
            "settings_section": "overview",
        },
    ),
    (
        "/w/acme/settings/integrations/hubspot",
        {
            "surface": "settings",
            "route_shape": "/w/:workspace/settings/integrations/:integration",
            "settings_section": "integrations",
        },
    ),
    (
        "/w/acme/settings/secrets-of-jane",
        {
            "surface": "settings",
            "route_shape": "/w/:workspace/settings/:segment",
            "settings_section": "other",
        },
    ),
    (
        "/w/acme/available-apps",
        {
            "surface": "workspace",
            "route_shape": "/w/:workspace/available-apps",
            "workspace_section": "available-apps",
        },
    ),
    (
        "/w/acme/constructor",
        {
            "surface": "workspace",
            "route_shape": "/w/:workspace/:segment",
            "workspace_section": "other",
        },
    ),
]


def test_an_address_leaves_as_known_words_and_shapes(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page("/start", manual=""))
    for path, _ in PLACES:
        chromium.execute_script("history.pushState(null, '', arguments[0]);", path)
        capture(chromium, "page viewed")
    flush(chromium)
    sizes = ("viewport_width", "viewport_height", "anonymized")
    found = [
        {key: value for key, value in event["properties"].items() if key not in sizes}
        for event in host.events
    ]
    assert found == [place for _, place in PLACES]


@pytest.mark.parametrize("path", [path for path, _ in PLACES])
def test_the_server_finds_nothing_to_mend_in_a_shape(path: str) -> None:
    (shape,) = [place["route_shape"] for known, place in PLACES if known == path]
    assert route_shape(shape) == shape == route_shape(path)


# Page views


def views(host: Host) -> list[str]:
    """Return the shapes of the pages that were viewed."""
    return [event["properties"]["route_shape"] for event in host.named("page viewed")]


def test_each_change_of_path_is_one_view(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page("/w/acme"))
    chromium.execute_script(
        """
        history.pushState(null, "", "/w/acme/library");
        history.pushState(null, "", "/w/acme/library?tab=2");
        history.replaceState(null, "", "/w/acme/library#top");
        history.replaceState(null, "", "/w/acme/agents");
        location.hash = "#elsewhere";
        """
    )
    chromium.execute_async_script(
        "addEventListener('popstate', () => setTimeout(arguments[0]), { once: true });"
        "history.go(-2);"
    )
    flush(chromium)
    shapes = ["", "/library", "/agents", "/library"]
    assert views(host) == [f"/w/:workspace{shape}" for shape in shapes]


def test_pushstate_still_answers_and_refuses_as_it_did(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page())
    assert chromium.execute_script(
        """
        let refused;
        try { history.pushState(() => 1, ""); } catch (error) { refused = error.name; }
        history.pushState({ n: 1 }, "", "/next");
        return [refused, history.state.n, location.pathname];
        """
    ) == ["DataCloneError", 1, "/next"]


def test_a_hash_router_counts_its_routes_when_asked(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page("/#/w/acme", hash=""))
    chromium.execute_async_script(
        "addEventListener('hashchange', () => setTimeout(arguments[0]), { once: true });"
        "location.hash = '#/w/acme/library?tab=1';"
    )
    flush(chromium)
    assert views(host) == ["/w/:workspace", "/w/:workspace/library"]
    assert host.events[1]["properties"]["surface"] == "library"


def test_a_manual_page_counts_its_own_views(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page("/w/acme", manual=""))
    chromium.execute_script("history.pushState(null, '', '/w/acme/library');")
    wake(chromium)
    capture(chromium, "page viewed")
    flush(chromium)
    assert views(host) == ["/w/:workspace/library"]


def test_a_page_from_the_back_forward_cache_is_viewed_again(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page("/w/acme"))
    chromium.execute_script("dispatchEvent(new PageTransitionEvent('pageshow'));")
    flush(chromium)
    wake(chromium)
    flush(chromium)
    assert len(views(host)) == 2
    # Somebody else may be signed in by now.
    assert host.asked == 2


def test_a_prerendered_page_waits_until_somebody_sees_it(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch fast prerendering"))
    flush(chromium)
    assert host.asked == 0
    assert host.posts == []
    assert stored(chromium) == {}
    chromium.execute_script(
        """
        Object.defineProperty(document, "prerendering", { value: false });
        document.dispatchEvent(new Event("prerenderingchange"));
        """
    )
    host.until_events()
    assert len(views(host)) == 1


# The mode


def test_events_wait_unstamped_until_the_mode_is_known(chromium: Chromium, host: Host) -> None:
    store(chromium, host, id=OLD_ID, subject="a1b2")
    host.preferences = HANG
    chromium.get(host.page(early="watch still"))
    capture(chromium, "app displayed")
    assert host.until(lambda: host.asked) == 1
    assert host.posts == []
    assert stored(chromium) == {ID: OLD_ID, SUBJECT: "a1b2"}
    change(chromium, host, IDENTIFIED)
    flush(chromium)
    assert [event["properties"]["anonymized"] for event in host.events] == [False, False]
    assert not [event for event in host.events if "anonymousDistinctId" in event]


@pytest.mark.parametrize(
    "answer",
    [HANG, CLOSE, Answer(500, {}), Answer(404, "<p>Not here"), Answer(200, None), Answer(200, "[")],
    ids=["hangs", "closes", "500", "404", "null", "no JSON"],
)
def test_while_the_mode_cant_be_known_events_are_anonymized_without_an_id(
    chromium: Chromium, host: Host, answer: Answer
) -> None:
    host.preferences = answer
    chromium.get(host.page("/w/acme", early="watch fast hasty"))
    (event,) = host.until_events()
    assert event["properties"]["anonymized"] is True
    assert "anonymousDistinctId" not in event
    assert "subject" not in event
    assert stored(chromium) == {}


def test_the_script_tag_can_say_who_this_is(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page("/w/acme", mode="identified", subject="a1b2"))
    (event,) = host.until_events()
    assert event["properties"]["anonymized"] is False
    assert event["subject"] == "a1b2"
    assert host.asked == 0


@pytest.mark.parametrize(
    "data",
    [{"mode": "anonymized"}, {"subject": "a1b2"}, {"mode": "yes", "subject": "a1b2"}],
    ids=["no subject", "no mode", "no such mode"],
)
def test_half_of_what_the_tag_could_say_is_not_enough(
    chromium: Chromium, host: Host, data: dict[str, str]
) -> None:
    chromium.get(host.page(**data))
    host.until_events()
    assert host.asked == 1


def test_under_global_privacy_control_only_the_server_makes_a_user_identified(
    chromium: Chromium, host: Host
) -> None:
    host.preferences = preferences(anonymized=False, reason="gpc")
    chromium.get(host.page(early="watch fast gpc", mode="identified", subject="a1b2"))
    (event,) = host.until_events()
    assert event["properties"]["anonymized"] is True


def test_an_identified_event_says_where_it_happened(chromium: Chromium, host: Host) -> None:
    host.preferences = IDENTIFIED
    store(chromium, host, id=OLD_ID, subject="a1b2")
    chromium.get(host.page("/w/acme/library?q=1"))
    capture(chromium, "chat initiated", "{ message: 'hello', app_id: 'x' }")
    flush(chromium)
    view, chat = host.events
    assert kept(view) == {
        "page_url": f"{host.url}/w/acme/library?q=1",
        "pathname": "/w/acme/library",
        "referrer": "",
        "anonymized": False,
    }
    assert chat["properties"]["message"] == "hello"
    assert chat["properties"]["app_id"] == "x"
    assert "anonymousDistinctId" not in chat
    assert stored(chromium) == {}


def test_an_identified_users_event_may_ask_for_anonymity(chromium: Chromium, host: Host) -> None:
    host.preferences = IDENTIFIED
    chromium.get(host.page(manual=""))
    capture(chromium, "chat initiated", "{ anonymized: true, message: 'hello', file_count: 1 }")
    flush(chromium)
    (event,) = host.events
    assert kept(event) == {"anonymized": True, "file_count": 1}
    assert "anonymousDistinctId" not in event


def test_an_anonymized_event_leaves_out_every_key_of_text_and_identity(
    chromium: Chromium, host: Host
) -> None:
    kinds = {
        key: kind.is_safe for event in Catalogue.default() for key, kind in event.properties.items()
    }
    posted = {key: {"in": [{"message": "deep", "count": 1}]} for key in kinds}
    respelled = {"pageUrl": "x", "User-Id": "x", "AppName": "x", "agentIDs": "x"}
    chromium.get(host.page(manual=""))
    capture(chromium, "approval shown", json.dumps({**posted, **respelled}))
    flush(chromium)
    (event,) = host.events
    safe = {key for key, is_safe in kinds.items() if is_safe}
    assert set(event["properties"]) == safe | {"anonymized"}
    assert event["properties"]["plan_agents_length"] == {"in": [{"count": 1}]}


# The anonymous id


def test_the_id_is_kept_for_the_next_visit(chromium: Chromium, host: Host) -> None:
    store(chromium, host, id=OLD_ID, subject="a1b2")
    chromium.get(host.page())
    (event,) = host.until_events()
    assert event["anonymousDistinctId"] == OLD_ID


@pytest.mark.parametrize(
    "left",
    [
        {"id": OLD_ID, "subject": "ffff"},
        {"id": OLD_ID},
        {"id": "anon_jane.doe@example.org", "subject": "a1b2"},
        {"id": "u_1", "subject": "a1b2"},
    ],
    ids=["another's", "nobody's", "no uuid", "no anon"],
)
def test_an_id_that_is_not_this_users_own_is_replaced(
    chromium: Chromium, host: Host, left: dict[str, str]
) -> None:
    store(chromium, host, **left)
    chromium.get(host.page())
    (event,) = host.until_events()
    assert ANON.fullmatch(event["anonymousDistinctId"])
    assert event["anonymousDistinctId"] != OLD_ID
    assert stored(chromium) == {ID: event["anonymousDistinctId"], SUBJECT: "a1b2"}


def test_what_another_user_left_goes_before_anything_is_posted(
    chromium: Chromium, host: Host
) -> None:
    others = [{"event": "app displayed", "subject": "ffff", "properties": {"anonymized": True}}]
    store(chromium, host, id=OLD_ID, subject="ffff", queue=json.dumps(others))
    host.otherwise = HANG
    chromium.get(host.page(mode="anonymized", subject="a1b2"))
    (event,) = host.until_events()
    assert event["subject"] == "a1b2"
    left = stored(chromium)
    assert left[SUBJECT] == "a1b2"
    assert left[ID] != OLD_ID
    assert QUEUE not in left


@pytest.mark.parametrize("where", ["preferences", "capture"])
def test_a_401_removes_id_and_queue_and_ends_it(chromium: Chromium, host: Host, where: str) -> None:
    refused = Answer(401, {"error": "not_authenticated"})
    store(chromium, host, id=OLD_ID, subject="a1b2", queue="[]")
    if where == "preferences":
        host.preferences = refused
        chromium.get(host.page())
    else:
        host.answers.append(refused)
        chromium.get(host.page())
        host.until(lambda: host.posts)
    flush(chromium)
    posts = len(host.posts)
    capture(chromium, "app displayed")
    flush(chromium)
    assert len(host.posts) == posts == (where == "capture")
    assert stored(chromium) == {}


@pytest.mark.parametrize(
    "answer",
    [
        preferences(enabled=False, reason="disabled"),
        preferences(sharing=False, reason="user"),
        preferences(sharing=None),
    ],
    ids=["disabled or not onboarded", "not sharing", "not asked yet"],
)
def test_where_nothing_is_taken_the_client_is_inert(
    chromium: Chromium, host: Host, answer: dict[str, object]
) -> None:
    store(chromium, host, id=OLD_ID, subject="a1b2", queue="[]")
    host.preferences = answer
    chromium.get(host.page())
    flush(chromium)
    capture(chromium, "app displayed")
    flush(chromium)
    assert host.posts == []
    assert stored(chromium) == {}
    # It wakes when the user chooses to share.
    change(chromium, host, preferences())
    capture(chromium, "app displayed")
    flush(chromium)
    assert [event["event"] for event in host.events] == ["app displayed"]


def test_a_204_means_that_nothing_is_taken_and_the_client_asks_why(
    chromium: Chromium, host: Host
) -> None:
    host.answers.append(Answer(204))
    host.preferences = preferences(sharing=False)
    chromium.get(host.page(mode="anonymized", subject="a1b2"))
    host.until(lambda: host.asked)
    flush(chromium)
    assert stored(chromium) == {}
    capture(chromium, "app displayed")
    flush(chromium)
    assert len(host.posts) == 1


def test_when_somebody_else_has_signed_in_the_client_asks_who(
    chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page(mode="anonymized", subject="a1b2", manual=""))
    first = chromium.execute_script(
        "secondAnalytics.capture('app displayed'); return localStorage.getItem(arguments[0]);", ID
    )
    host.preferences = preferences(subject="ffff")
    host.otherwise = Answer(409, {"error": "other_user"})
    flush(chromium)
    host.until(lambda: host.asked)
    host.otherwise = ACCEPT
    flush(chromium)
    capture(chromium, "app displayed")
    flush(chromium)
    last = host.events[-1]
    assert last["subject"] == "ffff"
    assert last["anonymousDistinctId"] != first


def test_going_identified_removes_the_id_and_going_back_makes_a_new_one(
    chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page(early="watch still", manual=""))
    flush(chromium)
    capture(chromium, "app displayed", "{ file_count: 1 }")
    first = stored(chromium)[ID]
    change(chromium, host, IDENTIFIED)
    assert stored(chromium) == {}
    capture(chromium, "app displayed", "{ file_count: 2 }")
    change(chromium, host, preferences(reason="user"))
    capture(chromium, "app displayed", "{ file_count: 3 }")
    second = stored(chromium)[ID]
    flush(chromium)
    by_count = {event["properties"]["file_count"]: event for event in host.events}
    assert by_count[1]["anonymousDistinctId"] == first
    assert by_count[2]["properties"]["anonymized"] is False
    assert "anonymousDistinctId" not in by_count[2]
    assert by_count[3]["anonymousDistinctId"] == second != first
    # One request never mixes the modes.
    modes = [{event["properties"]["anonymized"] for event in post.batch} for post in host.posts]
    assert modes == [{True}, {False}]


def test_no_request_mixes_modes_however_often_they_change(chromium: Chromium, host: Host) -> None:
    host.preferences = IDENTIFIED
    chromium.get(host.page(early="watch still", manual=""))
    flush(chromium)
    answers = [IDENTIFIED, preferences(reason="user")] * 3
    for count, answer in enumerate(answers):
        change(chromium, host, answer)
        capture(chromium, "app displayed", f"{{ file_count: {count} }}")
    flush(chromium)
    posted = [
        (
            post.batch[0]["properties"]["anonymized"],
            {e["properties"]["file_count"] for e in post.batch},
        )
        for post in host.posts
    ]
    assert posted == [(False, {0, 2, 4}), (True, {1, 3, 5})]
    for post in host.posts:
        assert len({event["properties"]["anonymized"] for event in post.batch}) == 1
    # Each stay in anonymized mode has an id of its own, and identified events have none.
    ids = [event.get("anonymousDistinctId") for event in host.events]
    assert ids[:3] == [None] * 3
    assert len({*ids[3:]}) == 3


def test_an_event_captured_anonymized_keeps_its_id_after_the_switch(
    chromium: Chromium, host: Host
) -> None:
    host.otherwise = Answer(503, {})
    chromium.get(host.page())
    (first, *_) = host.until_events()
    change(chromium, host, IDENTIFIED)
    host.otherwise = ACCEPT
    chromium.execute_script("dispatchEvent(new Event('online'));")
    host.until(lambda: host.posts[-1].answer is ACCEPT)
    assert host.events[-1] == first
    assert first["anonymousDistinctId"].startswith("anon_")


def test_an_id_that_another_tab_made_for_another_user_is_not_used(
    chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page(early="watch still", manual=""))
    flush(chromium)
    chromium.execute_script(
        "for (const key in arguments[0]) localStorage.setItem(key, arguments[0][key]);",
        {ID: OLD_ID, SUBJECT: "ffff"},
    )
    capture(chromium, "app displayed")
    flush(chromium)
    (event,) = host.events
    assert ANON.fullmatch(event["anonymousDistinctId"])
    assert event["anonymousDistinctId"] != OLD_ID
    assert stored(chromium) == {ID: event["anonymousDistinctId"], SUBJECT: "a1b2"}


@pytest.mark.parametrize(
    "left",
    [
        {"id": "signed out", "subject": "a1b2"},
        {"id": "signed out"},
        {"subject": "a1b2"},
        {"subject": "ffff"},
        {"subject": "ffff", "queue": '[{"subject": "ffff"}]'},
        {"id": OLD_ID, "queue": '[{"subject": "ffff"}]'},
    ],
    ids=str,
)
def test_what_a_crash_leaves_half_done_is_nobodys(
    chromium: Chromium, host: Host, left: dict[str, str]
) -> None:
    store(chromium, host, **left)
    chromium.get(host.page())
    (event,) = host.until_events()
    assert ANON.fullmatch(event["anonymousDistinctId"])
    assert event["anonymousDistinctId"] != OLD_ID
    assert stored(chromium) == {ID: event["anonymousDistinctId"], SUBJECT: "a1b2"}


def test_when_somebody_else_signs_in_every_tab_drops_what_was_the_earlier_users(
    chromium: Chromium, host: Host
) -> None:
    host.otherwise = Answer(503, {})
    chromium.get(host.page("/one", early="watch still", manual=""))
    flush(chromium)
    capture(chromium, "app displayed", "{ file_count: 1 }")
    flush(chromium)
    first = stored(chromium)[ID]
    hide(chromium)
    assert QUEUE in stored(chromium)
    one = chromium.current_window_handle
    # No sign-out was seen: the session ran out, and another person signs in in a second tab.
    host.preferences = preferences(subject="ffff")
    chromium.switch_to.new_window("tab")
    chromium.get(host.page("/two", early="watch still", manual=""))
    flush(chromium)
    assert stored(chromium) == {}
    host.otherwise = ACCEPT
    capture(chromium, "app displayed", "{ file_count: 2 }")
    flush(chromium)
    second = stored(chromium)
    assert second == {ID: second[ID], SUBJECT: "ffff"}
    assert second[ID] != first
    chromium.switch_to.window(one)
    host.until(lambda: host.asked >= 3)
    chromium.execute_script("dispatchEvent(new Event('online'));")  # it rests no longer
    flush(chromium)
    capture(chromium, "app displayed", "{ file_count: 3 }")
    flush(chromium)
    taken = [event for post in host.posts if post.answer is ACCEPT for event in post.batch]
    assert [event["properties"]["file_count"] for event in taken] == [2, 3]
    assert {event["subject"] for event in taken} == {"ffff"}
    assert {event["anonymousDistinctId"] for event in taken} == {second[ID]}


def test_a_batch_of_which_some_are_another_users_has_the_client_ask_who_is_there(
    chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page(mode="anonymized", subject="a1b2"))
    host.until_events()
    flush(chromium)
    assert host.asked == 0
    host.preferences = preferences(subject="ffff")
    usual = host.on_capture

    def answer(body: bytes, content_type: str) -> Answer:
        given = usual(body, content_type)
        results = given.body["results"]  # type: ignore[index]
        rejected = {"status": "rejected", "error": "other_user"}
        return Answer(200, {"results": dict.fromkeys(results, rejected)})

    host.on_capture = answer  # type: ignore[method-assign]
    capture(chromium, "app displayed")
    host.until(lambda: host.asked == 1)
    flush(chromium)
    assert SUBJECT not in stored(chromium)


def test_without_storage_the_id_lives_as_long_as_the_page(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch fast no-storage"))
    capture(chromium, "app displayed")
    flush(chromium)
    first, second = host.events
    assert ANON.fullmatch(first["anonymousDistinctId"])
    assert first["anonymousDistinctId"] == second["anonymousDistinctId"]
    no_errors(chromium)


def test_full_storage_is_like_none(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch fast full-storage"))
    capture(chromium, "app displayed")
    flush(chromium)
    assert len({event["anonymousDistinctId"] for event in host.events}) == 1
    no_errors(chromium)


# Sign-out


def test_reset_posts_what_waits_and_forgets(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch still"))
    flush(chromium)
    capture(chromium, "app displayed")
    chromium.execute_script("secondAnalytics.reset();")
    host.until_events(1, "app displayed")
    assert stored(chromium) == {}
    posts = len(host.posts)
    capture(chromium, "app displayed")
    change(chromium, host, preferences())
    wake(chromium)
    capture(chromium, "app displayed")
    flush(chromium)
    assert len(host.posts) == posts
    assert stored(chromium) == {}
    # Until the next page.
    chromium.get(host.page())
    host.until_events(2, "page viewed")


def test_reset_posts_what_hidden_tabs_have_kept(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch still", manual=""))
    flush(chromium)
    waiting = {
        "event": "app displayed",
        "uuid": "11111111-1111-4111-8111-111111111111",
        "subject": "a1b2",
        "properties": {"anonymized": True},
    }
    kept = json.dumps([{**waiting, "subject": "ffff"}, waiting])
    chromium.execute_script("localStorage.setItem(...arguments);", QUEUE, kept)
    chromium.execute_script("secondAnalytics.reset();")
    assert host.until_events() == [waiting]
    assert stored(chromium) == {}


@pytest.mark.parametrize(
    "body",
    [
        '<form data-second-sign-out method="post" action="/out"><button>Out</button></form>',
        '<form method="post" action="/out"><button data-second-sign-out>Out</button></form>',
        '<button data-second-sign-out><span id="in">Out</span></button>',
    ],
    ids=["form", "button of a form", "button"],
)
def test_a_sign_out_control_resets(chromium: Chromium, host: Host, body: str) -> None:
    chromium.get(host.page(early="watch still", body=body))
    flush(chromium)
    capture(chromium, "app displayed")
    chromium.find_element(By.TAG_NAME, "button").click()
    host.until_events(1, "app displayed")
    if "/out" in body:
        host.until(lambda: "POST /out" in host.visited)
    chromium.get(host.page("/after", client=False))
    assert stored(chromium) == {}


def test_other_tabs_sign_out_too(chromium: Chromium, host: Host) -> None:
    for answer in (preferences(), IDENTIFIED):
        host.preferences = answer
        chromium.get(host.page("/one", early="watch still"))
        flush(chromium)
        one = chromium.current_window_handle
        chromium.switch_to.new_window("tab")
        chromium.get(host.page("/two", early="watch still"))
        flush(chromium)
        two = chromium.current_window_handle
        waiting = len(host.named("sidebar clicked"))
        capture(chromium, "sidebar clicked")
        chromium.execute_script(
            "window.told = new Promise((done) => addEventListener('storage', done));"
        )
        chromium.switch_to.window(one)
        chromium.execute_script("secondAnalytics.reset();")
        chromium.switch_to.window(two)
        chromium.execute_async_script("told.then(() => setTimeout(arguments[0]));")
        host.until_events(waiting + 1, "sidebar clicked")
        posts, asked = len(host.posts), host.asked
        capture(chromium, "app displayed")
        flush(chromium)
        hide(chromium)
        assert (len(host.posts), host.asked) == (posts, asked)
        assert stored(chromium) == {}
        chromium.close()
        chromium.switch_to.window(one)


def test_two_tabs_share_an_id_and_follow_a_switch(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page("/one", early="watch still"))
    flush(chromium)
    one = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    chromium.get(host.page("/two", early="watch still"))
    flush(chromium)
    assert len({event["anonymousDistinctId"] for event in host.events}) == 1
    asked = host.asked
    change(chromium, host, IDENTIFIED)
    chromium.switch_to.window(one)
    host.until(lambda: host.asked > asked)
    capture(chromium, "app displayed")
    flush(chromium)
    (event,) = host.named("app displayed")
    assert event["properties"]["anonymized"] is False
    assert stored(chromium) == {}


# Trying again


def test_a_post_that_fails_is_tried_again_as_it_was(chromium: Chromium, host: Host) -> None:
    failures = [CLOSE, Answer(503, {}), Answer(429, {}), Answer(502, "<p>"), Answer(200, "<p>")]
    host.answers.extend(failures)
    chromium.get(host.page())
    host.until_events(len(failures) + 1)
    flush(chromium)
    assert len(host.posts) == len(failures) + 1
    first, *again = host.events
    assert again == [first] * len(failures)


def test_an_answer_that_never_comes_is_a_failure(chromium: Chromium, host: Host) -> None:
    host.answers.append(HANG)
    chromium.get(host.page(early="watch fast hasty"))
    first, second, *_ = host.until_events(2)
    assert first == second


def test_the_rests_double_and_then_it_is_quiet(chromium: Chromium, host: Host) -> None:
    host.otherwise = Answer(503, {})
    chromium.get(host.page())
    host.until(lambda: len(host.posts) == 7)
    capture(chromium, "app displayed")
    flush(chromium)
    rests = chromium.execute_script("return rests;")
    assert [1000 * 2**n <= rest <= 2000 * 2**n for n, rest in enumerate(rests)] == [True] * 6
    # Nothing is under way, and nothing will be of itself.
    flush(chromium)
    assert len(host.posts) == 7
    # But the browser may say that it is online again.
    host.otherwise = ACCEPT
    chromium.execute_script("dispatchEvent(new Event('online'));")
    host.until_events(1, "app displayed")
    assert len(host.posts) == 8


@pytest.mark.parametrize(
    ("after", "at_least", "at_most"),
    [
        ("77", 77_000, 77_000),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3_600_000, 3_600_000),
        ("Fri, 01 Jan 1999 00:00:00 GMT", 1_000, 2_000),
        ("soon", 1_000, 2_000),
        ("99999999999", 3_600_000, 3_600_000),
    ],
)
def test_a_retry_after_is_waited_for_within_reason(
    chromium: Chromium, host: Host, after: str, at_least: int, at_most: int
) -> None:
    host.answers.append(Answer(429, {}, {"Retry-After": after}))
    chromium.get(host.page())
    host.until(lambda: host.posts)
    flush(chromium)
    (rest,) = chromium.execute_script("return rests;")
    assert at_least <= rest <= at_most


@pytest.mark.parametrize("status", [400, 404, 415, 422])
def test_a_refusal_settles(chromium: Chromium, host: Host, status: int) -> None:
    host.answers.append(Answer(status, {"error": "no"}))
    chromium.get(host.page())
    host.until(lambda: host.posts)
    flush(chromium)
    capture(chromium, "app displayed")
    flush(chromium)
    assert [event["event"] for event in host.events] == ["page viewed", "app displayed"]


def test_each_event_of_a_batch_settles_by_its_own_result(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch still", manual=""))
    for _ in range(3):
        capture(chromium, "app displayed")
    host.on_capture = answer_all_but_the_last(host)  # type: ignore[method-assign]
    flush(chromium)
    uuids = [event["uuid"] for event in host.events]
    # Accepted and rejected ones are settled, the one without a word goes again.
    assert len(uuids) == 4
    assert uuids[2] == uuids[3]


def answer_all_but_the_last(host: Host) -> Any:
    """Return an endpoint that rejects the first, accepts the second and forgets the third."""
    usual = host.on_capture

    def answer(body: bytes, content_type: str) -> Answer:
        given = usual(body, content_type)
        results = given.body["results"]  # type: ignore[index]
        if len(results) == 3:
            first, _, last = results
            results[first] = {"status": "rejected", "error": "invalid_event"}
            del results[last]
        return given

    return answer


def test_a_batch_that_is_too_large_is_halved(chromium: Chromium, host: Host) -> None:
    host.answers.append(Answer(413, {"error": "payload_too_large"}))
    chromium.get(host.page(early="watch still", manual=""))
    for number in range(4):
        capture(chromium, "app displayed", f"{{ file_count: {number} }}")
    flush(chromium)
    assert [len(post.batch) for post in host.posts] == [4, 2, 2]


def test_an_event_that_is_too_large_by_itself_is_given_up(chromium: Chromium, host: Host) -> None:
    host.answers.append(Answer(413, {"error": "payload_too_large"}))
    chromium.get(host.page())
    host.until(lambda: host.posts)
    flush(chromium)
    assert len(host.posts) == 1


def test_what_waits_leaves_in_requests_of_bounded_size(chromium: Chromium, host: Host) -> None:
    host.preferences = IDENTIFIED
    chromium.get(host.page(early="watch still", manual=""))
    chromium.execute_script(
        """
        for (let n = 0; n < 150; n++) secondAnalytics.capture("app displayed", { file_count: n });
        const error = "ü".repeat(9000);
        for (let n = 0; n < 9; n++) secondAnalytics.capture("build failed", { error });
        """
    )
    flush(chromium)
    assert len(host.events) == 159
    assert max(len(post.batch) for post in host.posts) <= 100
    assert max(post.size for post in host.posts) < 60_000


def test_memory_is_bounded(chromium: Chromium, host: Host) -> None:
    host.otherwise = Answer(503, {})
    chromium.get(host.page(early="watch still", manual=""))
    flush(chromium)
    chromium.execute_script(
        "for (let n = 0; n < 1100; n++) secondAnalytics.capture('app displayed');"
    )
    host.otherwise = ACCEPT
    flush(chromium)
    assert len(host.events) == 1000


def test_events_captured_while_a_batch_is_on_its_way_are_sent_once(
    chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page(early="watch still", manual=""))
    chromium.execute_async_script(
        """
        secondAnalytics.capture("app displayed", { file_count: 1 });
        const first = secondAnalytics.flush();
        secondAnalytics.capture("app displayed", { file_count: 2 });
        first.then(() => secondAnalytics.flush()).then(arguments[0]);
        secondAnalytics.capture("app displayed", { file_count: 3 });
        """
    )
    assert sorted(event["properties"]["file_count"] for event in host.events) == [1, 2, 3]


# Going away


def test_a_hidden_page_posts_by_beacon(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch still"))
    flush(chromium)
    capture(chromium, "app displayed")
    hide(chromium)
    host.until_events(1, "app displayed")
    assert host.posts[-1].content_type == "text/plain;charset=UTF-8"
    show(chromium)
    flush(chromium)
    assert len(host.named("app displayed")) == 1


def test_events_of_the_last_moment_arrive(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch still"))
    flush(chromium)
    capture(chromium, "app displayed")
    chromium.execute_script(
        "addEventListener('pagehide', () => secondAnalytics.capture('sidebar clicked'));"
    )
    chromium.get(host.page("/next", client=False))
    host.until_events(1, "app displayed")
    host.until_events(1, "sidebar clicked")
    assert len(host.events) == 3


def test_a_tab_that_is_closed_right_after_a_click_loses_nothing(
    chromium: Chromium, host: Host
) -> None:
    body = '<button data-second-event="sidebar clicked">Go</button>'
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    chromium.get(host.page(early="watch still", body=body))
    flush(chromium)
    chromium.find_element(By.TAG_NAME, "button").click()
    chromium.close()
    chromium.switch_to.window(first)
    host.until_events(1, "sidebar clicked")
    assert len(host.events) == 2


def test_a_page_that_goes_before_the_mode_is_known_posts_without_an_id(
    chromium: Chromium, host: Host
) -> None:
    host.preferences = HANG
    chromium.get(host.page("/w/acme", early="watch still"))
    host.until(lambda: host.asked)
    chromium.get(host.page("/next", client=False))
    (event,) = host.until_events()
    assert event["properties"]["anonymized"] is True
    assert "anonymousDistinctId" not in event
    assert stored(chromium) == {}


def test_a_beacon_that_is_refused_is_split(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch still small-beacon", manual=""))
    flush(chromium)
    for number in range(8):
        capture(chromium, "app displayed", f"{{ file_count: {number}, label: 'x'.repeat(300) }}")
    hide(chromium)
    host.until_events(8)
    assert chromium.execute_script("return beacons;").count(True) == len(host.posts) > 1
    assert sorted(event["properties"]["file_count"] for event in host.events) == [*range(8)]


def test_what_a_hidden_page_posts_is_split_below_the_browsers_limit(
    chromium: Chromium, host: Host
) -> None:
    host.preferences = IDENTIFIED
    chromium.get(host.page(early="watch fast", manual=""))
    flush(chromium)
    chromium.execute_script(
        """
        for (let n = 0; n < 8; n++)
            secondAnalytics.capture("build failed", { error: "x".repeat(20000), file_count: n });
        Object.defineProperty(document, "hidden", { value: true });
        document.dispatchEvent(new Event("visibilitychange"));
        """
    )
    # A browser gives all of a page's beacons 64 KiB together: what is over is tried again.
    host.until(lambda: len({event["uuid"] for event in host.events}) == 8)
    assert max(post.size for post in host.posts) < 60_000
    assert host.posts[0].content_type == "text/plain;charset=UTF-8"
    assert {event["properties"]["file_count"] for event in host.events} == {*range(8)}


def test_without_beacons_a_fetch_goes(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch still no-beacon"))
    flush(chromium)
    capture(chromium, "app displayed")
    chromium.get(host.page("/next", client=False))
    host.until_events(1, "app displayed")
    assert host.posts[-1].content_type == "application/json"


def test_a_batch_on_its_way_survives_a_navigation_and_goes_once(
    chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page(early="watch still", manual=""))
    flush(chromium)
    capture(chromium, "app displayed")
    chromium.execute_script("secondAnalytics.flush(); location.href = arguments[0];", "/next")
    host.until_events(1)
    chromium.get(host.page("/after", client=False))
    assert len(host.events) == 1


# Offline


def test_anonymized_events_wait_in_storage_while_offline(chromium: Chromium, host: Host) -> None:
    chromium.get(host.page(early="watch still", manual=""))
    flush(chromium)
    offline(chromium)
    try:
        chromium.execute_script(
            "for (let n = 0; n < 120; n++)"
            " secondAnalytics.capture('app displayed', { file_count: n });"
        )
        hide(chromium)
        waiting = json.loads(stored(chromium)[QUEUE])
        assert len(waiting) == 100
        assert {event["properties"]["anonymized"] for event in waiting} == {True}
        show(chromium)
        assert QUEUE not in stored(chromium)
        hide(chromium)
        assert QUEUE in stored(chromium)
        assert host.posts == []
    finally:
        offline(chromium, off=False)
    # The browser says that it is online again.
    events = host.until_events(100)
    assert [event["properties"]["file_count"] for event in events] == [*range(20, 120)]
    assert QUEUE not in stored(chromium)


def test_what_fails_waits_in_storage_for_the_next_page(chromium: Chromium, host: Host) -> None:
    host.otherwise = Answer(503, {})
    chromium.get(host.page(early="watch still"))
    flush(chromium)
    chromium.get(host.page("/next", client=False))
    assert len(json.loads(stored(chromium)[QUEUE])) == 1
    host.otherwise = ACCEPT
    chromium.get(host.page("/after", manual=""))
    host.until(lambda: host.posts[-1].answer is ACCEPT)
    first, *again = host.events
    assert again == [first]


def test_what_is_on_its_way_when_the_connection_goes_waits_in_storage_too(
    chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page(early="watch still", manual=""))
    flush(chromium)
    host.otherwise = HANG
    capture(chromium, "app displayed")
    # In one task: nobody has told the page yet that its request has failed.
    chromium.execute_script(
        """
        secondAnalytics.flush();
        Object.defineProperty(navigator, "onLine", { value: false, configurable: true });
        return new Promise((sent) => setTimeout(sent));
        """
    )
    (event,) = host.until_events()
    hide(chromium)
    (waiting,) = json.loads(stored(chromium)[QUEUE])
    assert waiting == event
    host.otherwise = ACCEPT
    chromium.get(host.page("/after", manual=""))
    host.until(lambda: host.posts[-1].answer is ACCEPT)
    assert host.events == [event, event]


def test_what_fails_is_kept_even_over_a_spoilt_queue(chromium: Chromium, host: Host) -> None:
    host.otherwise = Answer(503, {})
    chromium.get(host.page(early="watch still"))
    flush(chromium)
    chromium.execute_script("localStorage.setItem(...arguments);", QUEUE, '{"no": "list"}')
    hide(chromium)
    assert len(json.loads(stored(chromium)[QUEUE])) == 2
    show(chromium)
    host.otherwise = ACCEPT
    chromium.execute_script("dispatchEvent(new Event('online'));")
    flush(chromium)
    assert host.posts[-1].answer is ACCEPT
    assert [event["event"] for event in host.posts[-1].batch] == ["page viewed"]


def test_identified_events_are_never_kept(chromium: Chromium, host: Host) -> None:
    host.preferences = IDENTIFIED
    host.otherwise = Answer(503, {})
    chromium.get(host.page(early="watch still"))
    flush(chromium)
    hide(chromium)
    assert stored(chromium) == {}


def test_events_of_nobody_known_are_never_kept(chromium: Chromium, host: Host) -> None:
    host.preferences = CLOSE
    host.otherwise = Answer(503, {})
    chromium.get(host.page(early="watch still"))
    flush(chromium)
    hide(chromium)
    assert stored(chromium) == {}


@pytest.mark.parametrize("left", ["no JSON", "null", "{}", "[null]", '[{"subject": "ffff"}]'])
def test_a_spoilt_queue_in_storage_does_no_harm(chromium: Chromium, host: Host, left: str) -> None:
    store(chromium, host, queue=left)
    chromium.get(host.page())
    (event,) = host.until_events()
    assert event["event"] == "page viewed"
    assert QUEUE not in stored(chromium)
    no_errors(chromium)


# Declared in the page


def test_a_click_on_a_declared_element_is_an_event(chromium: Chromium, host: Host) -> None:
    body = """
        <button data-second-event="sidebar clicked" data-second-prop-target="new app"
            data-second-prop-publish-status="draft" data-second-prop-file-count="3"
            data-second-prop-has-warning="true" data-second-prop-code="007"><span id="in">New</span>
        </button>
    """
    chromium.get(host.page(manual="", body=body))
    chromium.execute_script(
        "document.addEventListener('click', (event) => event.stopImmediatePropagation(), true);"
    )
    chromium.find_element(By.ID, "in").click()
    flush(chromium)
    (event,) = host.events
    assert event["event"] == "sidebar clicked"
    assert kept(event) == {
        "target": "new app",
        "publish_status": "draft",
        "file_count": 3,
        "has_warning": True,
        "code": "007",
        "anonymized": True,
    }


def test_a_declared_form_is_an_event_when_it_is_sent(chromium: Chromium, host: Host) -> None:
    body = """
        <form data-second-event="chat initiated" data-second-prop-source="button"
            method="post" action="/done"><p id="in">Text</p><button>Send</button></form>
    """
    chromium.get(host.page(manual="", body=body))
    chromium.find_element(By.ID, "in").click()
    chromium.find_element(By.TAG_NAME, "button").click()
    (event,) = host.until_events()
    assert event["event"] == "chat initiated"


def test_what_is_declared_nearest_counts_and_a_form_only_when_it_is_sent(
    chromium: Chromium, host: Host
) -> None:
    body = """
        <section data-second-event="app displayed">
          <form data-second-event="chat initiated"><p id="in">Text</p>
            <button type="button" data-second-event="sidebar clicked">Aside</button></form>
          <p id="out">Text</p>
        </section>
    """
    chromium.get(host.page(manual="", early="watch still", body=body))
    for selector in ("button", "#in", "#out"):
        chromium.find_element(By.CSS_SELECTOR, selector).click()
    flush(chromium)
    assert [event["event"] for event in host.events] == [
        "sidebar clicked",
        "app displayed",
        "app displayed",
    ]


def test_an_event_declared_on_what_signs_out_is_the_last_one(
    chromium: Chromium, host: Host
) -> None:
    body = '<button data-second-event="sidebar clicked" data-second-sign-out>Out</button>'
    chromium.get(host.page(manual="", early="watch still", body=body))
    flush(chromium)
    chromium.find_element(By.TAG_NAME, "button").click()
    host.until_events(1, "sidebar clicked")
    assert stored(chromium) == {}
