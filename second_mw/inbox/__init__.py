"""The local PostHog look-alike with a web page (spec §13); nothing else in the package needs it."""
