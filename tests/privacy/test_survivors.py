"""What makes an event useful arrives unchanged: redaction that eats it is a defect like a leak.

The tables are written from the promise, not from the code: every value of every vocabulary, every
declared count, flag and duration, and what product people put beside them. Users whose names are
common words, whose ids are short or plain numbers, lose none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from second_mw import AnalyticsUser
from tests.privacy.people import QUILL, analytics_of, left_of, person

PAGE, CHAT, BUILD, FAILED = "page viewed", "chat initiated", "build completed", "build failed"
SHOWN, ACTED, SETUP = "approval shown", "approval acted", "integration setup started"

# The vocabularies, written out once more by hand.

SURFACES = """onboarding public workspace_home app_chat app_agents settings workspace_agents
    library reviews workspace other""".split()
SETTINGS = """overview members teams integrations connected-apps runtime-settings source-control
    audit-logs diagnostics other""".split()

VOCABULARIES: dict[tuple[str, str], list[str]] = {
    (PAGE, "surface"): SURFACES,
    (PAGE, "onboarding_step"): ["intro", "workspace", "finish", "other"],
    (PAGE, "app_section"): ["chat", "agents", "other"],
    (PAGE, "settings_section"): SETTINGS,
    (PAGE, "workspace_section"): ["available-apps", "other"],
    (CHAT, "source"): ["sidebar", "workspace_home", "app_chat", "empty_state", "button"],
    (CHAT, "agent_type"): ["builder", "workspace_agent", "app_agent"],
    ("sidebar clicked", "target"): [
        "profile", "app name", "new app", "agents", "library", "available apps", "settings",
        "new_app", "reviews",
    ],
    ("import existing app clicked", "source"): ["sidebar", "workspace_home", "button"],
    ("import existing app triggered", "trigger"): ["button", "drop", "paste", "upload_zip"],
    (FAILED, "failure_phase"): [
        "client_stream", "run_status", "planning", "bundling", "install", "runtime", "startup",
    ],
    (SHOWN, "approval_type"): ["plan", "suggestions", "agents"],
    (ACTED, "approval_type"): ["plan", "suggestions", "agents"],
    (ACTED, "action"): ["approved", "rejected", "requested_changes", "picked_suggestion"],
    (ACTED, "approval_mode"): ["manual", "auto"],
    ("agents approved", "approval_mode"): ["manual", "auto"],
    (SETUP, "target_surface"): [
        "connected_apps", "integration_settings", "review_needed", "settings", "app_chat",
    ],
    (SETUP, "auth_kind"): ["mixed", "oauth", "static_secret", "none"],
    ("app agent error", "phase"): ["create", "start", "request", "run"],
}  # fmt: skip

RUN = """message_count user_message_count assistant_message_count tool_call_count attachment_count
    duration_ms""".split()

COUNTS: dict[str, list[str]] = {
    PAGE: ["viewport_width", "viewport_height"],
    CHAT: ["selected_skill_count", "attachment_count", "message_length"],
    BUILD: [*RUN, "file_count", "total_bytes"],
    FAILED: RUN,
    SHOWN: """plan_feature_count plan_agent_count plan_overview_length plan_data_flow_length
        plan_agents_length plan_backend_length suggestion_count suggestion_detail_count agent_count
        agent_detail_count app_tool_count app_tool_detail_count agent_tool_count
        agent_enabled_tool_count agent_recommended_tool_count agent_custom_tool_count
        agent_builtin_tool_count agent_integration_count agent_data_collection_count""".split(),
    ACTED: ["agent_count", "app_tool_count", "suggestion_count", "feedback_length"],
    SETUP: """integration_count permission_count required_secret_count
        optional_secret_count""".split(),
    "integration setup completed": ["integration_count", "permission_count"],
    "app displayed": ["file_count", "total_bytes"],
    "app agent triggered": ["prompt_length", "source_version"],
    "app agent finished": ["duration_ms", "source_version"],
    "app agent error": ["prompt_length", "status_code", "duration_ms", "source_version"],
    "showed suggestions tool called": ["suggestion_count"],
    "agents approved": ["agent_count", "app_tool_count"],
}

FLAGS: dict[str, list[str]] = {
    CHAT: ["message_included", "message_truncated"],
    BUILD: ["has_warning"],
    SHOWN: """plan_has_title plan_has_overview plan_has_features plan_has_data_flow plan_has_agents
        plan_has_backend""".split(),
    SETUP: ["can_manage_integrations"],
    "integration setup completed": ["can_manage_integrations"],
    "app displayed": ["has_warning"],
    "app agent triggered": ["prompt_included", "prompt_truncated"],
    "app agent error": ["prompt_included", "prompt_truncated"],
}

MODELS = [
    "gpt-5 mini", "Claude Sonnet 4.5", "claude-sonnet-4.5", "claude-sonnet-4-5-20250929",
    "claude-sonnet-4-5[1m]", "GPT-4o (mini)", "claude-opus-4-1", "Claude Opus 4.1", "Claude Opus",
    "gpt-4o", "gpt-4.1-mini", "GPT-5", "o3", "o4-mini", "o3 pro", "o1-preview", "codex",
    "gpt-5-codex", "codex mini", "gemini-2.5-pro", "Gemini 2.5 Flash", "Gemini Pro",
    "llama-3.3-70b", "Llama 3.1 405B", "mistral-large-2411", "Mistral Large", "qwen3-coder",
    "qwen-max", "Qwen 2.5 Max", "deepseek-r1", "DeepSeek V3", "grok-4", "Grok 4",
    "anthropic/claude-sonnet-4.5", "openai/gpt-5", "gpt-4-turbo-2024-04-09",
    "accounts/fireworks/models/llama-v3p1-8b", "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "Sonnet 4.5", "Opus 4.5 (1M)", "Haiku 4.5", "Magistral Medium", "Devstral Small 1.1",
    "Pixtral Large", "Nemotron Nano 9B", "MiniMax M2", "QwQ 32B", "Jamba 1.5 Large",
    "Llama Scout", "Llama 4 Maverick", "DeepSeek Reasoner", "Grok Heavy", "GPT Realtime",
    "GPT OSS 120B", "Gemini Deep Think", "Gemini 2.5 Flash Image", "Command R Plus", "GLM Air",
    "unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF", "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
    "qwen2.5-coder:32b-instruct-q4_K_M", "mistral.mistral-large-2407-v1:0", "gemma-3-27b-it",
    "vertex/europe-west4/gemini-2.5-flash", "databricks-meta-llama-3-3-70b-instruct",
]  # fmt: skip

LABELS: list[tuple[str, str, Any]] = [
    # declared
    (CHAT, "runtime_id", "claude-code"),
    (CHAT, "runtime_id", "codex"),
    (CHAT, "runtime_id", "opencode-1.2"),
    (CHAT, "source", "command_palette"),
    ("sidebar clicked", "publish_status", "published"),
    ("sidebar clicked", "publish_status", "draft"),
    ("sidebar clicked", "target", "agents_approval_required"),
    (FAILED, "error_code", "E_TIMEOUT"),
    (FAILED, "error_code", "ECONNREFUSED"),
    (FAILED, "error_code", "ERR_MODULE_NOT_FOUND"),
    (FAILED, "error_code", "UnhandledPromiseRejection"),
    (FAILED, "error_code", "ModuleNotFoundError"),
    (FAILED, "error_code", "TS2345"),
    (FAILED, "error_code", "HTTP_502"),
    (FAILED, "error_code", "rate_limit_exceeded"),
    (FAILED, "error_code", "npm:ERESOLVE"),
    (FAILED, "error_code", "SIGKILL"),
    (FAILED, "error_code", "context_length_exceeded"),
    (FAILED, "error_code", "exit:137"),
    ("app agent triggered", "source_version", "1.2.3"),
    ("app agent finished", "source_version", "2025-09-29"),
    ("app agent finished", "source_version", "v2.0.0-rc.1"),
    (SETUP, "auth_kind", "api-token"),
    # undeclared, one word
    *[
        (PAGE, "variant", value)
        for value in """integration_settings agents_approval_required left-nav pt-BR en-US
        zh-Hant-TW sr-Latn-RS Europe/Berlin America/Argentina/Buenos_Aires dark light mobile tablet
        desktop
        control treatment-b variant_2 A/B GitHub Slack google-drive PostgreSQL TypeScript
        react-router next.js app/router node18.19.0 python3.12.1 linux-x64 darwin-arm64 wasm32
        application/json text/html image/svg+xml utf-8 keyboard pointer 1920x1080 16:9 3.5 42 v1
        v1.2 1.2.3 2.0.0-beta.3 2025-09-29 2025-09-29T10:15:30Z 2025-09-29T10:15:30.123Z
        2025-09-29T10:15:30+02:00 2025-W39 2025-09 PT1H30M P3D PT0.5S P1Y2M10DT2H30M 10:15 2.5e-3
        1e10 0.1234567890123456 100 10-20 50+ USD EUR q3-2025 H264 AES-256 SHA-256 HTTP/1.1 TLS1.3
        IPv6 UTF8 e2e-test A11y i18n k8s checkout.step.2 nav:open billing/plan plan_b
        feature.flag-x new_dashboard_v2 onboarding-checklist-2024 UnhandledPromiseRejection
        ResizeObserverLoopError getServerSideProps XMLHttpRequest useLayoutEffect
        InternalServerErrorException NotificationCenterOpenedFromSidebar facade decade defaced
        accede deadbeef cafe true false null undefined NaN USER API
        OP_NO_SSLv2_OR_SSLv3 IncExSeqOrElseSerSchema mustBeLessThanOrEqual throwIfProxyAuthIsSent
        CVE-2024-42353 o.get_aOrderBy_iColumn gsnXYBarChartColors2 onDidChangeTabBarUI
        iPhone15-Pro-Max-iOS18 Mozilla/5.0/Windows-NT-10.0/Win64/x64 WebGL2-ANGLE-D3D11-vs_5_0
        OAuth2-PKCE-S256-flow i18n-l10n-a11y-k8s-Config GPT-4o-mini-2024-07-18-preview-A1
        H264-AVC1-MP4A-x265-vp9 NousHermes2-Yi34B-32k letterOrDigitNoDollarSign
        CoreFoundation/CFArrayGetValueAtIndex UI/Nav/Tab/On/Off/In/Out
        sk-learn-model-2 sk-SK github_pat_connected glpat-token-rotation
        npm_install_failed hf_transfer pypi-publish key-press-handler secret_rotation
        Chrome/142.0.0.0 Edg/142.0.0.0-beta 1920x1080/60 12:30:45:1234 100+2000+300+4000
        std::vec::Vec std::add grid:1::2 lhr::iad1 at:12:30:45 page:100:200:300 css:a::before
        SK-2026 pul-requests dp.state tskey-rotated
        re_authenticate re_captcha_required pi_succeeded cs_expired seti_requires_action
        live_preview_opened live_someLongNameOfOneFunctionThatSays fw_upgrade_started
        fw_someLongNameOfOneFunction as-a-service ak-analytics as-someLongFunctionNameIs
        fc-barcelona-theme key_pressed sdk-node api-gateway api-v2.beta access-sandbox
        secret-token:rotated v1.0-beta.3 sl.table tr_dev_server cal_live_updates
        API-REFERENCE pat.expired EAAccelerator A3-landscape-60-40 oy2""".split()
    ],
]  # fmt: skip

UNDECLARED: list[tuple[str, Any]] = [
    # keys that only resemble identifying ones
    ("author_count", 3),
    ("tokenizer", "cl100k_base"),
    ("workspace_section", "available-apps"),
    ("workspace_count", 2),
    ("user_message_count", 7),
    ("message_length", 120),
    ("user_count", 5),
    ("users_online", 12),
    ("name_length", 9),
    ("email_verified", True),
    ("is_owner", False),
    ("owner_count", 2),
    ("member_count", 14),
    ("agent_count", 2),
    ("agents_enabled", True),
    ("app_count", 5),
    ("application", "desktop"),
    ("tokens_used", 8192),
    ("token_count", 8192),
    ("token_limit", 200000),
    ("max_tokens", 4096),
    ("idle_ms", 250),
    ("identity_provider", "saml"),
    ("identified", False),
    ("valid", True),
    ("paid", True),
    ("grid", 12),
    ("android", True),
    ("hostname_changed", False),
    ("username_changed", True),
    ("rename_count", 2),
    ("named", True),
    ("url_count", 3),
    ("curl_version", "8.5.0"),
    ("pathology", "none"),
    ("path_length", 3),
    ("pathnames", 2),
    ("ip_version", 6),
    ("ship_status", "ready"),
    ("zip_size", 2048),
    ("unzipped", True),
    ("latency_ms", 31.25),
    ("latest", True),
    ("long_press", True),
    ("page", 4),
    ("agenda", "weekly"),
    ("average", 3.5),
    ("stacked", True),
    ("stack_depth", 12),
    ("tracer", "on"),
    ("error_count", 2),
    ("errors", 2),
    ("prompt_length", 55),
    ("promptness", 0.9),
    ("suggestion_count", 3),
    ("orgasm", False),
    ("organic", True),
    ("accounting", "monthly"),
    ("account_type", "team"),
    ("authored", True),
    ("authorized", True),
    ("keyboard", "qwerty"),
    ("key_count", 3),
    ("monkey", "patch"),
    ("secretary", False),
    ("secret_count", 2),
    ("passwordless", True),
    ("cookie_banner", "shown"),
    ("domain_count", 2),
    ("slug_length", 12),
    ("address_count", 1),
    ("addressed", True),
    ("phone_count", 1),
    ("telephony", "voip"),
    ("mailing", "weekly"),
    ("handled", True),
    ("login_count", 3),
    ("customer_count", 2),
    ("ages", 3),
    ("salary_band_count", 4),
    ("firstTimeUser", True),
    ("isOnboarded", True),
    ("clickCount", 3),
    ("timeToFirstByteMs", 12.5),
    ("app-count", 3),
    ("A/B", "b"),
    ("step.2", 1),
    ("_private", 1),
    # versions
    ("app_version", "1.2.3.4"),
    ("version", "10.0.19045.3803"),
    ("browserVersion", "142.0.0.0"),
    ("os_version", "10.15.7"),
    ("client_version", "2025.11.25.1"),
    # numbers
    ("n", 0),
    ("n", -1),
    ("n", 1.5),
    ("n", 0.1234567890123456),
    ("n", 0.4111111111111111),
    ("n", 2.5e-3),
    ("n", 1e10),
    ("n", 2**53),
    ("n", -(2**53)),
    ("n", 1700000000000),
    ("n", 1732500000123),
    ("n", 1732500000123456),
    ("n", 20250929123045),
    ("n", 20250929),
    ("n", 123456789),
    ("n", 4155552671),
    ("n", 4915112345679),
    ("n", 100000456),
    ("n", 1234567890123),
    ("n", 4111111111111112),
    ("n", 175928847299117),
    ("n", 3.141592653589793),
    ("n", True),
    ("n", False),
    ("n", None),
    ("n", ""),
    ("n", []),
    ("n", {}),
    ("n", [1, 2, 3]),
    ("n", [None, True, 1.5, "left-nav", ""]),
    ("n", {"a": {"b": {"c": [1, "dark", None]}}}),
    ("steps", [{"step": "plan", "ms": 12}, {"step": "build", "ms": 345}]),
    ("web_vitals", {"lcp": 1234.5, "cls": 0.0123456789012345, "inp": 40}),
    # no card: strings of digits
    ("n", "1700000000000"),
    ("n", "20250929123045"),
    ("n", "123456789"),
    ("n", "4111111111111112"),
    ("n", "0.4111111111111111"),
]  # fmt: skip

ROUTES = [
    "/", "/w/:workspace", "/w/:workspace/settings", "/w/:workspace/apps/:objectId",
    "/w/:workspace/agents/:agent", "/w/:workspace/settings/integrations/:integration",
    "/settings", "/onboarding", "/pricing", "/docs/getting-started",
    "/auth/callback", "/login/oauth2", "/reset/done", "/share/overview", "/invite/:id/accept",
    "/design-tokens/spacing4", "/accept-invite/done", "/verify-email/step-two",
    "/download/mac-arm64", "/download/windows-x64", "/docs/webhooks/v2", "/checkout/step-2",
]  # fmt: skip


def declared() -> Iterator[tuple[str, str, Any]]:
    for (event, key), values in VOCABULARIES.items():
        yield from ((event, key, value) for value in values)
    for event, keys in COUNTS.items():
        yield from ((event, key, value) for key in keys for value in (0, 12, 1700000000000))
    for event, keys in FLAGS.items():
        yield from ((event, key, value) for key in keys for value in (True, False))
    for event in (CHAT, BUILD, FAILED):
        for key in ("runtime_model", "runtime_model_family"):
            yield from ((event, key, value) for value in MODELS)


SURVIVORS = [
    *((CHAT, "runtime_model", model) for model in MODELS),
    *LABELS,
    *((PAGE, key, value) for key, value in UNDECLARED),
    *((PAGE, "route_shape", route) for route in ROUTES),
]


@pytest.fixture(scope="module")
def analytics() -> Iterator[Any]:
    analytics = analytics_of()
    yield analytics
    analytics.close(timeout=1.0)


def batches(survivors: list[tuple[str, str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield events that carry these properties, each key once an event."""
    waiting = list(survivors)
    while waiting:
        event, taken, rest = waiting[0][0], dict[str, Any](), []
        for survivor in waiting:
            if survivor[0] == event and survivor[1] not in taken:
                taken[survivor[1]] = survivor[2]
            else:
                rest.append(survivor)
        yield event, taken
        waiting = rest


@pytest.mark.parametrize(
    ("event", "key", "value"), SURVIVORS, ids=lambda part: ascii(part) if part != "" else "empty"
)
def test_it_arrives_unchanged(event: str, key: str, value: Any, analytics: Any) -> None:
    assert left_of(QUILL, {key: value}, event=event, analytics=analytics) == {key: value}


def test_whatever_is_declared_arrives_unchanged_together(analytics: Any) -> None:
    for event, properties in batches(list(declared())):
        assert left_of(QUILL, properties, event=event, analytics=analytics) == properties


def test_there_are_many_of_them() -> None:
    assert len({(event, key, repr(value)) for event, key, value in SURVIVORS}) >= 300


#: Users in whom a rule could mistake product data for identity. None loses anything.
COMMON: list[AnalyticsUser] = [
    *[
        person("usr_7Gk2Pw93Zt5q", name=name)
        for name in (
            "Violet Page", "Amal Chat", "Jean Claude", "Erika Max", "Bob Build", "Ines Event",
            "Tilda Mini", "Dora Opus", "Nils Pro", "Haiku Sato", "Ada Agent", "Kim Library",
            "Carl Setting", "Rosa Builder", "Gemini Cruz", "Flash Gordonsen", "Sonnet Ely",
            "Max Large", "Olga Source", "Grok Torvaldsen", "Ann Run", "Ben Auto", "Eva Plan",
            "Sam Button", "Ada Profile", "Al Drop", "Li Wu", "Bo X", "J. R. Y", "A B C D",
            "Ida Workspace", "Mona Model", "Tim Count", "Zoe Length", "Pia None", "Ed Start",
        )
    ],
    *[person(id) for id in ("1", "42", "u1", "a", "7a", "999", "0x1", "u-1", "x_y")],
    person("page"), person("chat"), person("agents"),
    person("u-1", email="page@gmail.com", name="Page"),
    person("u-1", email="claude@outlook.com"),
    person("u-1", email="mini@proton.me"),
    person("u-1", email="a.b@gmail.com", workspaces={"1": "admin", "w": None, "42": "x"}),
    person("u-1", aliases=("x", "b", "12", "")),
]  # fmt: skip


@pytest.mark.parametrize("user", COMMON, ids=lambda user: user.name or user.email or user.id)
def test_a_user_of_common_words_loses_nothing_that_is_declared(
    user: AnalyticsUser, analytics: Any
) -> None:
    for event, properties in batches(list(declared())):
        assert left_of(user, properties, event=event, analytics=analytics) == properties


#: Identity and product data that are the same words: either may win, the event arrives.
SAME: list[tuple[AnalyticsUser, str, dict[str, Any]]] = [
    (person("claude"), CHAT, {"runtime_model": "claude-sonnet-4-5"}),
    (person("u-1", workspaces={"claude": None}), CHAT, {"runtime_model_family": "claude"}),
    (person("u-1", aliases=("codex",)), CHAT, {"runtime_id": "codex"}),
    (person("qwen"), BUILD, {"runtime_model": "claude-code_qwen"}),
    (person("u-1", name="12345"), PAGE, {"clicks": 12345}),
    (person("u-1", name="12345 (1)"), FAILED, {"publish_status": 12345}),
    (person("u-1", email="12345@agent.example"), BUILD, {"has_warning": 12345}),
    (person("viewport_width"), PAGE, {"viewport_width": 12}),
    (person("workspace_home"), PAGE, {"surface": "workspace_home", "theme": "workspace_home"}),
    (person("page"), PAGE, {"page": "page", "theme": ["page", {"page": "page"}]}),
    (person("u-1", name="Page :Workspace"), PAGE, {"theme": "a/:workspace", "x": "page.1"}),
    (person("u-1", email="a@gmail.com", name="page"), PAGE, {"route_shape": ["/page", "page"]}),
    (person("u-1", name="Page"), PAGE, {"route_shape": {"page": "page"}, "surface": ["page"]}),
]


@pytest.mark.parametrize(("user", "event", "properties"), SAME, ids=str)
def test_an_event_arrives_although_its_users_identity_is_one_of_the_products_words(
    user: AnalyticsUser, event: str, properties: dict[str, Any], analytics: Any
) -> None:
    left = left_of(user, {**properties, "n": 3}, event=event, analytics=analytics)
    assert left["n"] == 3


@pytest.mark.parametrize(
    ("user", "properties"),
    [
        (person("1"), {"n": 1, "s": "v1", "t": [1, "x1"], "u": 11, "v": 1.1}),
        (person("42"), {"n": 42, "s": "v42", "t": "42px", "u": 4242}),
        (person("u1"), {"s": "menu1", "t": "u10", "u": "qu1ck"}),
        # four letters of base64 say three of anything, and one or two of them by chance alone
        (person("0"), {"s": "01-ai/Yi-1.5-34B-Chat"}),
        (person("6"), {"s": "gemma-3-27b-it", "t": "npm-6.2"}),
        (person("42"), {"s": "NS_BINDING_ABORTED", "t": "NDI"}),
        (person("1234"), {"n": 1234, "s": "v12345", "t": 1234.5}),
        (person("48151"), {"n": 148151, "s": "v481516", "t": 4815}),
        (person("a"), {"s": "a-b", "t": "plan-a", "u": "banana"}),
        (person("abcdefgh"), {"s": "abcdefghi", "t": "xabcdefgh"}),
        (person("u-1", name="Ada Lovelace"), {"s": "canada", "t": "adaptive", "u": "lovelaces"}),
        (person("u-1", name="Al Ng"), {"s": "al", "t": "ng-model", "u": "final"}),
        (person("u-1", name="Rob"), {"s": "robot", "t": "problem", "u": "robust-mode"}),
        (person("u-1", name="Mark Down"), {"s": "markdowns", "t": "bookmark", "u": "breakdown"}),
        (person("u-1", email="bob@gmail.com"), {"s": "gmail.com", "t": "gmail", "u": "bob"}),
        (person("u-1", email="anna@outlook.com"), {"s": "outlook.com", "t": "annals"}),
        (person("u-1", email="a.dark2.com@gmail.com"), {"s": "dark", "t": "dark2", "u": "com"}),
        (person("user_abcd"), {"s": "abcd", "t": "user", "u": "x-abcd"}),
        (person("usr_dark"), {"s": "dark", "t": "dark-mode"}),
        (person("u-1", email="page.settings@gmail.com"), {"s": "page", "t": "settings"}),
        (person("u-1", email="team@proton.me"), {"s": "proton.me", "t": "proton"}),
        (person("u-1", email="x@acme.example"), {"s": "acme", "t": "x", "u": "example"}),
        (person("u-1", workspaces={"w1": None}), {"s": "w10", "t": "raw1", "u": "w-1"}),
        (person("u-1", name="José Soulé"), {"s": "jos-soul", "t": "soul", "u": "jossouls"}),
        (person("u-1", name="王 Plané"), {"s": "plan", "t": "plan-b"}),
        (person("u-1", name="Jo D'Or-Kim"), {"s": "d", "t": "or", "u": "or-else", "v": "door"}),
        (person("u-1", name="Jo O'Neil"), {"s": "one", "t": "neilson", "u": "jo"}),
        (person("u-1", name="Mr Max"), {"s": "maximum", "t": "climax", "u": "maxed-out"}),
        (person("u-1", name="A.B. Quill"), {"s": "A/B", "t": "a-b", "u": "ab", "v": "a.b.2"}),
        (person("u-1", name="Dr. Ada L. Jr."), {"s": "dr", "t": "jr-2", "u": "dr.2"}),
        (person("u-1", name="Violet Page."), {"s": "page.2", "t": "x/page"}),
        (person("auth0|9f3k2p7w"), {"s": "auth0", "t": "9f3k-2p"}),
        (person("google-oauth2|103547991597142817347"), {"s": "google-oauth2"}),
        (person("u-1", workspaces={"acme-inc": None}), {"s": "acme", "t": "acmeincs", "u": "inc"}),
        (person("u-1", email="x@mail.acme.co.uk"), {"s": "co.uk", "t": "mail", "u": "acme"}),
        (person("u-1", email="x@yahoo.co.uk"), {"s": "yahoo.co.uk", "t": "yahoo"}),
        (person("u-1", name="Bo Øst"), {"s": "host", "t": "lost-cost"}),
        (person("u-1", name="Ugo D´Angelo"), {"s": "d", "t": "angelos", "u": "o-d"}),
        (person("acme-2024-report"), {"s": "2024-report", "t": "acme", "u": 2024}),
        (person("175928847299117056"), {"s": 1e17, "t": 1.8e17, "u": 175928}),
        (person("u-1", name="Ed Pug"), {"s": "12:30:45", "t": "45-64-10", "u": "22.04.10"}),
    ],
    ids=lambda part: part.name or part.email or part.id if isinstance(part, AnalyticsUser) else "",
)
def test_what_only_resembles_a_users_identity_stays(
    user: AnalyticsUser, properties: dict[str, Any], analytics: Any
) -> None:
    assert left_of(user, properties, analytics=analytics) == properties


def test_the_events_own_names_take_nothing_from_counts_and_models(analytics: Any) -> None:
    posted = {
        "agent_name": "claude", "app_name": "gpt-5", "agent_id": "codex",
        "runtime_model": "claude-sonnet-4-5", "runtime_model_family": "claude",
        "attachment_count": 3, "source": "sidebar",
    }  # fmt: skip
    kept = {key: value for key, value in posted.items() if key[:3] not in ("age", "app")}
    assert left_of(QUILL, posted, event=CHAT, analytics=analytics) == kept


def test_an_events_name_of_three_letters_takes_nothing(analytics: Any) -> None:
    posted = {"app_name": "nav", "theme": "left-nav"}
    assert left_of(QUILL, posted, event=CHAT, analytics=analytics) == {"theme": "left-nav"}


def test_a_key_of_a_common_word_stays_a_key(analytics: Any) -> None:
    posted = {"page": 1, "chat-opened": True, "agent_runs": 4, "source_count": 2}
    for user in COMMON:
        assert left_of(user, posted, analytics=analytics) == posted
