"""A server for a team: what `docker compose` and `make server` start."""
