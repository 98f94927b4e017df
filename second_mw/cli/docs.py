"""`second-mw docs`: the documentation, printed, or served on this machine."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from second_mw import docs
from second_mw.cli import screen, usage

EXAMPLE: Final = "second-mw docs delivery"
DESCRIPTION: Final = "Print a page of the documentation, or serve all of them on this machine."

_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 76ch; margin: 24px auto; padding: 0 16px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; }
pre, code { font: 13px ui-monospace, monospace; }
pre { overflow-x: auto; padding: 12px; border: 1px solid; border-radius: 6px; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: 4px 8px; border: 1px solid; text-align: start; vertical-align: top; }
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "page",
        nargs="?",
        metavar="PAGE",
        choices=sorted(docs.PAGES),
        help=f"{', '.join(docs.PAGES)}; left out, the pages are listed",
    )
    parser.add_argument("--serve", action="store_true", help="as web pages, on 127.0.0.1")
    parser.add_argument("--port", type=usage.port, default=8766, help="for --serve, default 8766")


def run(given: argparse.Namespace) -> int:
    """Print or serve what was asked for."""
    if given.serve:
        return _serve(given.port)
    if given.page is None:
        screen.table(("page", "about"), list(docs.PAGES.items()))
        print("\nsecond-mw docs PAGE prints one; second-mw docs --serve shows them in a browser.")
        return 0
    text = docs.page(given.page)
    if screen.is_rich():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        print(text)
    return 0


def _serve(port: int) -> int:
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        print("second-mw: --serve needs an extra: pip install 'second_mw[cli]'", file=sys.stderr)
        return 1
    from werkzeug.serving import make_server

    written = MarkdownIt("commonmark", {"html": False}).enable("table")
    pages = {name: _page(name, written.render(docs.page(name))) for name in docs.PAGES}
    try:
        server = make_server("127.0.0.1", port, _app(pages), threaded=True)
    except (OSError, SystemExit):
        print(f"second-mw: port {port} is taken: choose another with --port", file=sys.stderr)
        return 1
    print(f"The documentation is at http://127.0.0.1:{server.port} (Ctrl-C ends it)", flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
    return 0


def _app(pages: dict[str, str]) -> Any:
    from werkzeug.wrappers import Response

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        name = environ.get("PATH_INFO", "/").strip("/") or "readme"
        body = pages.get(name)
        headers = {
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
            "X-Content-Type-Options": "nosniff",
        }
        if body is None:
            return Response("There is no such page.", 404, headers)(environ, start_response)
        return Response(body, 200, headers, mimetype="text/html")(environ, start_response)

    return app


def _page(name: str, body: str) -> str:
    links = " ".join(f'<a href="/{page}">{page}</a>' for page in docs.PAGES)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>second_mw: {name}</title><style>{_STYLE}</style>"
        f"<nav>{links}</nav><main>{body}</main></html>"
    )
