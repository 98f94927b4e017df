"""`python -m second_mw` is `second-mw`."""

from second_mw.cli import main

raise SystemExit(main())
