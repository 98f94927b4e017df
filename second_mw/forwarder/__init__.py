"""From the outbox to PostHog. `dispatcher.Forwarder` is what the rest of the package uses."""
