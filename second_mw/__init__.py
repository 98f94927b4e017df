"""second_mw: a privacy-first analytics endpoint of its own for any WSGI or ASGI app."""
