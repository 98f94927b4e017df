"""The demos: one small invented product, "Second" in miniature, in two hosts.

`product/` holds the story and its pages and knows no framework; `flask_host.py` and
`starlette_host.py` wrap it as a host wraps its own app; `python -m demos` starts one of them beside
an inbox that shows each event as it arrives. Nothing of the package imports this.
"""
