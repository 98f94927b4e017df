"""The one place where the version stands; setup.cfg and every payload read it here."""

VERSION = "0.1.0"
