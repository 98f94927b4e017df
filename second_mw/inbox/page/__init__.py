"""The inbox's page: hand-written HTML, CSS and modules, read as resources."""
