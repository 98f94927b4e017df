"""`{% load second_analytics %}`: the client's script tag and the Usage data settings (spec §16)."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.safestring import SafeString, mark_safe

from second_mw.contrib.django import get_analytics, user_of
from second_mw.contrib.visitors import user_for_page

register: template.Library = template.Library()


@register.simple_tag(takes_context=True)  # type: ignore[untyped-decorator]
def second_analytics(
    context: template.Context, *, nonce: str | None = None, **data: Any
) -> SafeString:
    """Write the browser client's script tag; keyword arguments become its `data-` attributes."""
    request = context.get("request")
    user = user_for_page(lambda: user_of(request)) if request is not None else None
    mount = _mount(request)
    return mark_safe(get_analytics().script_tag(user, mount=mount, nonce=nonce, **data))  # noqa: S308


@register.simple_tag(takes_context=True)  # type: ignore[untyped-decorator]
def second_usage_data(context: template.Context, *, nonce: str | None = None) -> SafeString:
    """Write the Usage data settings and their script."""
    tag = get_analytics().settings_tag(mount=_mount(context.get("request")), nonce=nonce)
    return mark_safe(f"{tag}<second-usage-data></second-usage-data>")  # noqa: S308


def _mount(request: Any) -> str:
    return request.META.get("SCRIPT_NAME", "") if request is not None else ""
