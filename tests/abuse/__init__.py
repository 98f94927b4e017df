"""How it can be attacked, and the test that holds against it: the table below.

`test_attacks.py` checks that every test named here exists. A later attack gets a row of its own.
"""

from __future__ import annotations

from typing import Final

_ORIGIN: Final = "test_origins.py::test_a_request_passes_only_from_this_site_or_an_allowed_one"
_BODY: Final = "test_bodies.py::test_a_hostile_body_gets_its_status_and_leaves_nothing"
_TENANT: Final = "test_tenancy.py::test_a_workspace_is_the_users_own_or_not_found"
_FAULT: Final = "test_faults.py::test_whatever_raises_the_host_hears_nothing_of_it"
_LOG: Final = "test_log_hygiene.py::test_no_refusal_and_no_failure_tells_what_it_must_not"

#: Attack → the test that holds against it, in this folder.
ATTACKS: Final[dict[str, str]] = {
    # Another site
    "a form or script of another site, with the user's cookie": _ORIGIN,
    "a sibling subdomain (same-site, not same-origin)": _ORIGIN,
    "a sandboxed frame, a file, an extension: opaque and null origins": _ORIGIN,
    "an origin that only looks like ours: suffix, prefix, userinfo, port, scheme": _ORIGIN,
    "an IPv6 or international name in another spelling": _ORIGIN,
    "a list of origins, or one with characters that parsers drop": _ORIGIN,
    "X-Forwarded-Host, -Proto and -Port forged by the client": _ORIGIN,
    "text/plain, which needs no preflight": _ORIGIN,
    "a forged beacon where WebViews are allowed": _ORIGIN,
    "a CORS answer with credentials to a site that is not listed":
        "test_origins.py::test_a_refused_origin_gets_no_permission_and_an_allowed_one_only_its_own",
    "a preflight that asks for more than is allowed":
        "test_origins.py::test_a_preflight_is_answered_to_listed_origins_only_and_asks_nobody",
    "a cache that hands one site the answer to another":
        "test_origins.py::test_a_refused_origin_gets_no_permission_and_an_allowed_one_only_its_own",
    # Bodies
    "a body larger than any": _BODY,
    "a Content-Length that lies, of thousands of digits": _BODY,
    "a Content-Length that is none, or negative":
        "test_bodies.py::test_a_length_that_is_none_is_never_read_by_wsgi",
    "Transfer-Encoding beside Content-Length": _BODY,
    "a gzip bomb": "test_bodies.py::test_a_bomb_is_refused_after_the_limit_and_not_after_memory",
    "a gzip of a thousand members, or cut short": _BODY,
    "an unknown or a doubled Content-Encoding": _BODY,
    "nesting of 100,000 levels": _BODY,
    "integers of 100,000 digits, NaN and Infinity": _BODY,
    "duplicate keys, which two readers take differently": _BODY,
    "tens of thousands of keys (hash flooding)": _BODY,
    "unpaired surrogates, NUL, overlong UTF-8, a byte-order mark": _BODY,
    "a charset that makes other text of the same bytes": _BODY,
    "headers by the hundred and of great length": _BODY,
    "empty chunks without end": _BODY,
    "a body that trickles in": "test_bodies.py::test_a_body_that_trickles_in_is_given_up",
    "a client that goes away while it is answered":
        "test_bodies.py::test_a_client_that_is_gone_when_it_is_answered_troubles_nobody",
    "__proto__ and constructor as keys": _BODY,
    "a batch of too many events": _BODY,
    # Other people
    "another's workspace id": _TENANT,
    "a workspace id as number, list, object, look-alike, in another case": _TENANT,
    "a workspace under another spelling of the key": _TENANT,
    "guessing which workspaces exist":
        "test_tenancy.py::test_the_answer_is_the_same_whether_a_workspace_exists_or_not",
    "a role that the browser claims":
        "test_tenancy.py::test_role_and_person_come_from_the_server_whatever_the_event_claims",
    "a distinct_id, user or token that a property claims":
        "test_tenancy.py::test_role_and_person_come_from_the_server_whatever_the_event_claims",
    "$set and $identify from the browser":
        "test_tenancy.py::test_role_and_person_come_from_the_server_whatever_the_event_claims",
    "events left by an earlier user of the browser":
        "test_tenancy.py::test_a_subject_of_another_user_is_refused_and_never_tells_whose_it_is",
    "guessing a subject":
        "test_tenancy.py::test_a_subject_of_another_user_is_refused_and_never_tells_whose_it_is",
    # Too much
    "one user posting without end":
        "test_rates.py::test_over_the_rate_is_429_with_when_to_try_again",
    "one user slowing the others": "test_rates.py::test_one_user_at_the_limit_slows_no_other",
    "visitors without end": "test_rates.py::test_who_is_not_signed_in_is_counted_by_address",
    "a new X-Forwarded-For for each request":
        "test_rates.py::test_an_address_is_believed_as_far_as_the_proxies_are",
    "a new IPv6 address for each request":
        "test_rates.py::test_a_household_of_ipv6_is_one_address",
    "a million users, to fill the memory of the limits":
        "test_rates.py::test_a_million_users_are_counted_in_bounded_memory_and_one_at_the_limit_slows_none",
    "a crowd, to wash out one's own limit":
        "test_rates.py::test_who_is_at_the_limit_is_not_forgotten_for_others",
    "so many events that a user can't stop sharing any more":
        "test_rates.py::test_choosing_has_a_rate_of_its_own",
    "a rate store that is down":
        "test_rates.py::test_a_shared_store_that_is_gone_costs_nobody_an_event",
    "ten thousand requests at once, a tenth of them hostile":
        "test_load.py::test_under_load_every_well_formed_event_arrives_and_memory_stays_flat",
    # Failures
    "anything that makes a rule, a store or a hook raise": _FAULT,
    "a preference store that hangs":
        "test_faults.py::test_a_preference_store_that_hangs_means_anonymized_and_holds_up_no_host",
    "an outbox that hangs": "test_faults.py::test_no_request_hangs_on_an_outbox",
    "whatever ends the forwarder's thread":
        "test_faults.py::test_a_put_after_a_dead_dispatcher_starts_another_and_says_so",
    "a fault in the forwarder":
        "test_faults.py::test_a_fault_in_the_forwarder_ends_no_thread_and_costs_no_request",
    # What is told
    "a token, an id or a value in an answer": _LOG,
    "a token, an id or a value in a log line": _LOG,
    "a value quoted by an exception of the host's code": _LOG,
    "PostHog's answers quoted in a log line":
        "test_log_hygiene.py::test_the_forwarder_is_as_discreet_whatever_posthog_says",
    "two adapters that judge differently (request smuggling between them)":
        "test_fuzz.py::test_both_adapters_agree_on_whatever_is_sent",
}  # fmt: skip
