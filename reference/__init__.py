"""Pages of docs/ from the code, and checks of the built site: `make docs` runs both."""
