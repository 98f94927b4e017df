"""URLs leave without userinfo, fragment and query, and without tokens in their paths."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from second_mw.privacy.urls import clean_url, clean_urls

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOjF9.c2lnbmF0dXJl"
HASH = "d41d8cd98f00b204e9800998ecf8427e"
OBJECT_ID = "507f1f77bcf86cd799439011"
UUID = "8c1fa1b2-0000-4000-8000-0123456789ab"

CLEANED = [
    # userinfo
    ("https://ada:pw@x.org/a", "https://x.org/a"),
    ("https://ada@x.org", "https://x.org"),
    ("postgres://u:p@h:5432/db", "postgres://h:5432/db"),
    ("//u:p@h/x", "//h/x"),
    ("https://u:pa/ss@host/x", "https://host/x"),
    ("https://u:p@v@host/x", "https://host/x"),
    ("https://u:pa#ss@host/x", "https://host/x"),
    ("postgres://u:pa?ss@host/x?sslmode=require", "postgres://host/x"),
    ("redis://:pa?s#s/w@host", "redis://host"),
    ("https://u:pa?ss@host?x=1", "https://host"),
    ("https://host:8080/x?to=a@b", "https://host:8080/x"),
    ("https://host/x#a@b", "https://host/x"),
    ("https://u%3Ap%40host/x", "https://host/x"),
    ("https://u:pa/ss%40w@host/x", "https://host/x"),
    ("https://u:pa/ss@a%40host/x", "https://host/x"),
    ("/x//;a=1/u:p@h//u:p@", "/x///h//:token"),
    ("https://web.archive.org/https://u:p@h/x?z=1", "https://web.archive.org/https://h/x"),
    # query and fragment
    ("https://x.org/a?b=c#d", "https://x.org/a"),
    ("https://x.org/?", "https://x.org/"),
    ("https://x.org/a#access_token=abc", "https://x.org/a"),
    ("https://x.org/a#b?utm_source=mail", "https://x.org/a"),
    ("https://x.org/a?next=%2Fhome&utm_source=mail&q=ada", "https://x.org/a?utm_source=mail"),
    ("https://x.org/a?utm_source=a;utm_medium=b", "https://x.org/a?utm_source=a&utm_medium=b"),
    ("?next=/reset", ""),
    ("search?q=ada", "search"),
    ("https://[::1]:80/x?q", "https://[::1]:80/x"),
    ("https://x.org/a;jsessionid=AB12;v=1/b", "https://x.org/a/b"),
    ("https://x.org/accept_invite/AbC123xyz9", "https://x.org/accept_invite/:token"),
    ("https://x.org/password-resets/a1b2c3d4e5/edit", "https://x.org/password-resets/:token/edit"),
    ("https://x.org/Magic_Link/aBcdEfgh", "https://x.org/Magic_Link/:token"),
    ("https://x.org/invite%2FAbC123xyz9", "https://x.org/:token"),
    ("jdbc:sqlserver://db:1433;user=sa;password=aBc1;enc=1", "jdbc:sqlserver://db:1433"),
    # campaigns that carry something else
    (f"https://x.org/?utm_source={quote('https://y.org/?a=b', safe='')}", "https://x.org/"),
    ("https://x.org/?utm_campaign=ada%40example.org", "https://x.org/"),
    # of more pairs than a campaign has, the first hundred
    (f"/a?{'&'.join(['utm_id=a'] * 101)}&utm_id=b", f"/a?{'&'.join(['utm_id=a'] * 100)}"),
    (f"https://x.org/?utm_campaign={JWT}", "https://x.org/"),
    ("https://x.org/?utm_term=%2525252540", "https://x.org/"),
    ("https://x.org/?utm_source=%2Freset%3Ftoken%3Da", "https://x.org/"),
    ("https://x.org/?utm_1234567=a", "https://x.org/"),
    ("https://x.org/?UTM_source=a", "https://x.org/"),
    # tokens in the path
    (f"https://x.org/reset/{JWT}?next=/", "https://x.org/reset/:token"),
    (f"/reset/{JWT}", "/reset/:token"),
    (f"/a/{HASH}/b", "/a/:token/b"),
    ("/a/Zx9Yw8Vu7Ts6Rq5Po4Nm3", "/a/:token"),
    ("/a/%65%79" + JWT[2:], "/a/:token"),
    ("/a/ghp_abcdefghijklmnopqrst0123456789", "/a/:token"),
    ("/a/https%3A%2F%2Fu%3Ap%40h%2F", "/a/:token"),
    ("/a/b%3Ftoken%3Dabc", "/a/:token"),
    ("/a/%2525252541bc", "/a/:token"),
    (f"/reset-password/{UUID}", "/reset-password/:token"),
    (f"/share/{OBJECT_ID}/x", "/share/:token/x"),
    ("/invite/aBcdEfgh", "/invite/:token"),
    ("/Verify/12345678", "/Verify/:token"),
    ("/verify/123456", "/verify/:token"),
    ("/magic/AbC12x", "/magic/:token"),
    # no platform and no version
    ("/download/brave-fox-42", "/download/:token"),
    ("/download/linux-9f3k2p7w", "/download/:token"),
    ("/download/a1.b2.c3.d4", "/download/:token"),
    ("/share/aB3-x64-QrT9", "/share/:token"),
]

UNCHANGED = [
    "",
    "/",
    "https://x.org",
    "https://x.org/w/acme/apps",
    f"https://x.org/w/{OBJECT_ID}/apps/{UUID}",
    "https://x.org/a?utm_source=mail&utm_campaign=spring_2026",
    "https://medium.com/@user/x",
    "/login/callback",
    "/settings/integrations",
    "/reset/:token",
    "/share/Overview",
    "/login/oauth2",
    "/auth/saml2/v2",
    "/download/2026",
    "/design-tokens/spacing4",
    "/auth-providers/github2fa",
    "/accept-invite/done",
    "/verify_email/callback",
    "https://x.org/docs%2Fgetting-started",
    "/download/mac-arm64",
    "/download/Linux_x86_64",
    "/releases/download/v1.2.3-beta/second-1.2.3-arm64.tar.gz",
    "https://x.org/download/Second-Setup-1.2.3_x64.exe",
    "/models/claude-sonnet-4-5-20250929",
    "/docs/v1.2.3.4/index.html",
    "mailto:ada@x.org",
    "C:\\Users\\ada",
    "workspace_home",
    "caf%C3%A9",
    "100%25 sure",
]

IN_TEXT = [
    (
        "see https://u:p@x.org/a?b=c, and (http://y.z/?q#f).",
        "see https://x.org/a, and (http://y.z/).",
    ),
    ("GET /api/login?token=abc 404", "GET /api/login 404"),
    (f"GET /reset/{JWT}?next=/home 404", "GET /reset/:token 404"),
    ("go to acme.com/reset?t=1!", "go to acme.com/reset!"),
    ("go to acme.com?token=1", "go to acme.com"),
    ('{"u":"https://x.y/?a=b","v":1}', '{"u":"https://x.y/","v":1}'),
    ("[link](https://x.y/z?q=1)", "[link](https://x.y/z)"),
    ("www.x.org/?a=b is", "www.x.org/ is"),
    ("xhttps://u:p@h/", "xhttps://h/"),
    ("a\nhttps://x.y/#z\nb", "a\nhttps://x.y/\nb"),
    ("from redis://:pw@cache:6379/0", "from redis://cache:6379/0"),
    ("https://a.b/?x https://c.d/?y", "https://a.b/ https://c.d/"),
    # slashes escaped, as in JSON in a string, and percent-encoded
    (r'{"u":"https:\/\/u:p@x.org\/a?t=1#f","v":1}', r'{"u":"https:\/\/x.org\/a","v":1}'),
    (rf"https:\/\/x.org\/reset\/{HASH}", r"https:\/\/x.org\/reset\/:token"),
    (r"see https:\\/\\/x.org\\/?t=1, now", r"see https:\/\/x.org\/, now"),
    ("to https%3A%2F%2Fx.org%2Fa%3Ft%3D1 now", "to https://x.org/a now"),
    ("to https%253A%252F%252Fu%253Ap%2540x.org now", "to https://x.org now"),
    # no scheme
    ("at localhost:3000/?code=1.", "at localhost:3000/."),
    ("at localhost/a?code=1", "at localhost/a"),
    (f"at 127.0.0.1:80/reset/{HASH}", "at 127.0.0.1:80/reset/:token"),
    ("at [::1]:3000/?code=1 now", "at [::1]:3000/ now"),
    ("at app:8080/x#y now", "at app:8080/x now"),
    # a query behind whatever may be an address
    ("at intranet/a?b=1&utm_source=mail", "at intranet/a?utm_source=mail"),
    ("at about:blank?b=1", "at about:blank"),
    ("at x.org#access_token=1", "at x.org"),
    ("at x?reset_token=1, and", "at x, and"),
    (r"at https:\\x.org\?b=1 now", r"at https:\\x.org\ now"),
]

TEXT_UNCHANGED = [
    "no address at all",
    "what? yes # no / 2",
    "and/or, either /or",
    "a </div> stays",
    "README.md#usage e.g./i.e.",
    "if x? then y: https://x.org/a.",
    "1/2 + 3/4 = 5/4",
    "TypeError: a?.b is undefined",
    "e?t=n:r=1,f(a/b?c=1)",
    "x = cond?a=1:b=2",
    "color:#fff=1",
    "localhost:3000 is up, 127.0.0.1:8000/health too",
    "at 12:30/13:45, lines 10:5/7 of 12/34",
    r"a regex such as /^a\/b$/ or https:\/\/x.org\/a",
    "50%2F50 and https%3A%2F%2Fx.org%2Fa",
]


@pytest.mark.parametrize(("url", "cleaned"), CLEANED)
def test_a_url_leaves_clean(url: str, cleaned: str) -> None:
    assert clean_url(url) == cleaned


@pytest.mark.parametrize("url", UNCHANGED)
def test_a_clean_url_comes_back_as_the_same_object(url: str) -> None:
    assert clean_url(url) is url


@pytest.mark.parametrize(("text", "cleaned"), IN_TEXT)
def test_urls_inside_a_text_are_cleaned_and_the_text_stays(text: str, cleaned: str) -> None:
    assert clean_urls(text) == cleaned


@pytest.mark.parametrize("text", [*TEXT_UNCHANGED, *UNCHANGED])
def test_a_text_with_nothing_to_clean_comes_back_as_the_same_object(text: str) -> None:
    assert clean_urls(text) is text


@pytest.mark.parametrize("url", [url for url, _ in CLEANED if "://" in url and url[-1] != "?"])
def test_a_url_is_cleaned_inside_a_text_as_it_is_alone(url: str) -> None:
    assert clean_urls(f"at {url} now") == f"at {clean_url(url)} now"


PIECES = st.sampled_from(
    [
        *("https://", "//", "/", "?", "#", "@", ":", ";", "=", "&", "%", "%25", "%40", "%2F", "."),
        *("utm_source=", "a", "reset", "x.org", JWT, HASH, UUID, " ", '"', ")", "u:p@", "\\", "é"),
        *("www.", ":token", "jsessionid=1", "aBcdEfgh1", "[", "]", "<", "\n"),
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join))


@given(TEXTS)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean_url(clean_url(text)) == clean_url(text)
    assert clean_urls(clean_urls(text)) == clean_urls(text)


@given(TEXTS)
def test_a_clean_url_has_no_fragment_and_no_query_but_the_campaigns(text: str) -> None:
    url = clean_url(text)
    assert "#" not in url
    query = url.partition("?")[2]
    assert all(pair.startswith("utm_") for pair in query.split("&") if query)
