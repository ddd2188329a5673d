"""The documentation site: pages from the code, and the checks of what was built. `make docs` runs both."""
