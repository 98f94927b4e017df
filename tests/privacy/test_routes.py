"""Route shapes tell the kind of a page and nothing of whom it is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from second_mw.privacy.routes import PRODUCT_WORDS, Templates, route_shape

OBJECT_ID = "507f1f77bcf86cd799439011"
UUID = "8c1fa1b2-0000-4000-8000-0123456789ab"
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

SHAPES = [
    # the product
    ("/w/acme", "/w/:workspace"),
    (f"/w/{OBJECT_ID}/apps/{OBJECT_ID}?tab=1#x", "/w/:workspace/apps/:objectId"),
    (f"/w/acme/apps/{UUID}/chat", "/w/:workspace/apps/:uuid/chat"),
    ("/w/acme/apps/payroll", "/w/:workspace/apps/:segment"),
    ("/w/acme/apps/12", "/w/:workspace/apps/:segment"),
    ("/w/acme/apps/1234", "/w/:workspace/apps/:id"),
    (f"/w/acme/apps/{ULID}", "/w/:workspace/apps/:id"),
    ("/w/acme/settings/integrations/slack", "/w/:workspace/settings/integrations/:integration"),
    ("/w/acme/settings/connected-apps", "/w/:workspace/settings/connected-apps"),
    ("/w/acme/integrations/slack", "/w/:workspace/integrations/:segment"),
    ("/w/acme/agents/payroll-helper", "/w/:workspace/agents/:agent"),
    (f"/w/acme/apps/{OBJECT_ID}/agents/x", "/w/:workspace/apps/:objectId/agents/:agent"),
    ("/w/acme/agents/library/runs", "/w/:workspace/agents/:agent/runs"),
    ("/w/acme/other", "/w/:workspace/other"),
    ("/w/acme/Library/", "/w/:workspace/library"),
    ("/w/acme/runs/ada@example.org", "/w/:workspace/runs/:id"),
    ("/w/acme/:ada", "/w/:workspace/:segment"),
    ("/W/acme/Payroll", "/w/:workspace/:segment"),
    ("/en/w/acme/reviews", "/en/w/:workspace/reviews"),
    ("/w/w/w", "/w/:workspace/:segment"),
    ("/settings/integrations/slack", "/settings/integrations/:integration"),
    ("/agents/ada", "/agents/:agent"),
    ("/onboarding/workspace", "/onboarding/workspace"),
    # how a path can be written
    ("", "/"),
    ("/", "/"),
    ("w/acme/apps", "/w/:workspace/apps"),
    ("//w//acme///apps//", "/w/:workspace/apps"),
    ("/w/./acme/x/../apps", "/w/:workspace/apps"),
    ("/../../w/acme", "/w/:workspace"),
    ("\\w\\acme\\apps", "/w/:workspace/apps"),
    ("/%77/acme/%61pps", "/w/:workspace/apps"),
    ("/%2577/acme", "/w/:workspace"),
    ("/w/acme%2Fapps", "/w/:workspace/apps"),
    ("/w/acme/apps%3Ftoken=1", "/w/:workspace/:id"),
    ("/ｗ/acme/ａｐｐｓ", "/w/:workspace/apps"),
    ("/w/ac\u200bme/ap\u200bps", "/w/:workspace/apps"),
    ("https://ada:pw@second.so/w/acme/apps?x", "/w/:workspace/apps"),
    ("/x/" + "a" * 65, "/x/:id"),
    ("/a" * 40, "/a" * 16),
    ("/b/" + "word-" * 1000, "/b"),
    # another product, without templates
    ("/orders/4711", "/orders/:id"),
    ("/orders/12", "/orders/12"),
    ("/orders/2025-09", "/orders/:id"),
    ("/users/ada@example.org", "/users/:id"),
    ("/users/@ada", "/users/:id"),
    ("/users/~ada", "/users/:id"),
    ("/users/u_1", "/users/:id"),
    ("/users/a1b2c3", "/users/:id"),
    ("/users/Ada Lovelace", "/users/:id"),
    ("/users/10.0.0.1", "/users/:id"),
    (f"/users/{UUID}", "/users/:uuid"),
    (f"/users/run_{UUID}", "/users/:id"),
    (f"/users/{OBJECT_ID}/x", "/users/:objectId/x"),
    (f"/users/{ULID}", "/users/:id"),
    ("/users/0ujtsYcgvSTl8PAuAdqWYSMnLOv", "/users/:id"),
    ("/s/V1StGXR8-Z5jdHi", "/s/:id"),
    ("/reset/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOjF9.c2ln", "/reset/:id"),
]
STAY = [
    "/w",
    "/w/:workspace",
    "/w/:workspace/apps/:objectId",
    "/w/:workspace/settings/integrations/:integration",
    "/w/:workspace/:segment/:id/:uuid",
    "/pricing",
    "/blog/hello-world",
    "/docs/v2/index.html",
    "/orders/:id",
    "/reset/:token",
    "/cafe/menu",
    "/oauth2/callback",
    "/:unknown",
]


@pytest.mark.parametrize(("path", "shape"), SHAPES)
def test_a_path_becomes_its_shape(path: str, shape: str) -> None:
    assert route_shape(path) == shape


@pytest.mark.parametrize("shape", [*STAY, *(shape for _, shape in SHAPES)])
def test_a_shape_stays_what_it_is(shape: str) -> None:
    assert route_shape(shape) == shape


@pytest.mark.parametrize("word", sorted(PRODUCT_WORDS - {"agents", "integrations"}))
def test_the_products_words_stay_under_a_workspace(word: str) -> None:
    assert route_shape(f"/w/acme/{word}/secret-project") == f"/w/:workspace/{word}/:segment"


TEMPLATES = Templates(
    (
        "/",
        "/orders/:id",
        "/orders/new",
        "/users/<int:id>",
        "/users/me",
        "/x/{y}",
        "/price/{amount:float}",
        "/u/<uuid:user>/",
        "/files/{rest:path}",
        "/static/*",
        "/media/*name",
        "/f/<name>.txt",
        "/e/:id(\\d+)?",
        "/l/<string(length=2):lang>/home",
        "shop//{item}",
    )
)
MATCHES = [
    ("/", "/"),
    ("", "/"),
    ("/orders/4711?x=1", "/orders/:id"),
    ("/orders/new", "/orders/new"),
    ("/orders/%61da/", "/orders/:id"),
    ("/users/12", "/users/:id"),
    ("/users/me", "/users/me"),
    ("/users/ada", ":unknown"),
    ("/users/:id", "/users/:id"),
    ("/x/ada", "/x/:y"),
    ("/x/{y}", "/x/:y"),
    ("/price/1.5", "/price/:amount"),
    (f"/u/{UUID}", "/u/:user"),
    ("/u/ada", ":unknown"),
    ("/files/a/b/c", "/files/:rest"),
    ("/static/a/b.css", "/static/:rest"),
    ("/media/a/b", "/media/:name"),
    ("/f/ada.txt", "/f/:name.txt"),
    ("/f/ada.pdf", ":unknown"),
    ("/e/5", "/e/:id"),
    ("/l/de/home", "/l/:lang/home"),
    ("/shop/lamp", "/shop/:item"),
    ("https://host.example/shop/lamp#a", "/shop/:item"),
    ("/orders/1/2", ":unknown"),
    ("/w/acme/apps", ":unknown"),
    ("/nope", ":unknown"),
    (":unknown", ":unknown"),
]


@pytest.mark.parametrize(("path", "shape"), MATCHES)
def test_with_templates_the_shape_is_the_one_that_matches(path: str, shape: str) -> None:
    assert route_shape(path, TEMPLATES) == shape


@pytest.mark.parametrize("shape", [shape for _, shape in MATCHES])
def test_a_template_stays_what_it_is(shape: str) -> None:
    assert route_shape(shape, TEMPLATES) == shape


def test_a_host_with_no_templates_at_all_knows_no_route() -> None:
    assert route_shape("/orders", Templates(())) == ":unknown"


def test_the_order_of_the_templates_does_not_matter() -> None:
    assert route_shape("/a/me", Templates(("/a/:b", "/a/me"))) == "/a/me"
    assert route_shape("/a/me", Templates(("/a/me", "/a/:b"))) == "/a/me"


PIECES = st.sampled_from(
    [
        *(
            "/",
            "/w/",
            "acme",
            "agents",
            "settings/integrations",
            ":id",
            ":x",
            "..",
            ".",
            "%2F",
            "%",
        ),
        *(
            "%252e",
            "\\",
            OBJECT_ID,
            UUID,
            "12",
            "345",
            "?",
            "#",
            "https://",
            "@",
            "é",
            "\u200b",
            " ",
        ),
        *("library", "W", "ﷺ", "İ", "u_1", "apps", "1" * 70, "://", "٣", ":unknown", "~"),
    ]
)
PATHS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join))


@given(PATHS)
def test_the_shape_of_a_shape_is_itself(path: str) -> None:
    shape = route_shape(path)
    assert route_shape(shape) == shape
    known = route_shape(path, TEMPLATES)
    assert route_shape(known, TEMPLATES) == known


@given(st.text(alphabet="abcdefgh", min_size=1), st.text(alphabet="ijklmnop", min_size=1))
def test_nothing_but_known_words_stays_under_a_workspace(workspace: str, segment: str) -> None:
    assert route_shape(f"/w/{workspace}/apps/{segment}x") == "/w/:workspace/apps/:segment"


def test_a_template_that_begins_with_a_parameter_is_tried_for_every_path() -> None:
    templates = Templates(("/{lang}/home", "/about/{page}", "/{lang}-{region}/x", "/about/us"))
    assert route_shape("/about/home", templates) == "/about/:page"
    assert route_shape("/de/home", templates) == "/:lang/home"
    assert route_shape("/de-at/x", templates) == "/:lang-:region/x"
    assert route_shape("/about/us", templates) == "/about/us"
    assert route_shape("/de/nope", templates) == ":unknown"
