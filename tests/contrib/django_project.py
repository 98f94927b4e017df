"""A small Django project in one file, set up when it is imported."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import django
from django.conf import settings

DATABASE = Path(tempfile.mkdtemp(prefix="second_mw-django-")) / "db.sqlite3"

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
    USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "second_mw.contrib.django",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "tests.contrib.django_project.plain_middleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }
    ],
    # Tables as the models are, without the steps that led there.
    MIGRATION_MODULES={"auth": None, "contenttypes": None, "sessions": None},
    SECOND_ANALYTICS={"token": "phc_test"},
)
django.setup()

from django.contrib.auth import get_user_model, login  # noqa: E402 - after the setup
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.template import engines  # noqa: E402
from django.urls import include, path, re_path  # noqa: E402

from second_mw.contrib.django import get_analytics, user_of  # noqa: E402

TEMPLATE = (
    "{% load second_analytics %}{% second_analytics hash=True nonce='n1' %}|"
    "{% second_usage_data nonce='n2' %}"
)


def plain_middleware(get_response: Any) -> Any:
    """A middleware that is a function, as Django allows."""
    return get_response


def page(request: HttpRequest, **places: Any) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(TEMPLATE).render({}, request))


def home(request: HttpRequest) -> HttpResponse:
    login(request, get_user_model().objects.get(username="ada.l"))
    return page(request)


async def page_on_the_loop(request: HttpRequest) -> HttpResponse:
    return page(request)


def bare_page(request: HttpRequest) -> HttpResponse:
    """A page whose template is given no request."""
    return HttpResponse(engines["django"].from_string(TEMPLATE).render({}))


def build(request: HttpRequest) -> HttpResponse:
    get_analytics().capture(user_of(request), "build completed", {"file_count": 3})
    return HttpResponse()


INNER = [path("<slug:slug>/", page), re_path(r"^(?P<year>[0-9]{4})/(?P<month>(0|1)\d)/$", page)]
urlpatterns = [
    path("", home),
    path("page", page),
    path("loop", page_on_the_loop),
    path("bare", bare_page),
    path("build", build),
    path("users/<int:pk>/", page),
    path("articles/", include(INNER)),
    re_path(r"^old/(\d+)/$", page),
]
