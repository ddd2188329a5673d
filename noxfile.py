"""`make test-all`: the tests with each version of Python that the lock file covers."""

import nox

nox.options.default_venv_backend = "uv"  # which also fetches a Python that is missing
nox.options.error_on_missing_interpreters = True


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Runs the tests in an environment from the lock file. Words after `--` go to pytest."""
    folder = session.virtualenv.location
    environment = {"UV_PROJECT_ENVIRONMENT": folder}
    session.run_install("uv", "sync", "--locked", "--extra=dev", f"--python={folder}", env=environment, external=True)
    words = session.posargs or ["--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder"]
    session.run("python", "-m", "pytest", *words)
