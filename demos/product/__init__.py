"""The demo product, without a framework.

`sample` (what the invented teams own) → `chat` (one app and its conversation) → `story` (all that
happens) → `desk` (which request shows or changes what) → `pages` in their `shell` (how it looks).
A host only carries requests to the desk and answers back.
"""
