"""What an error of a tracking store, or of the way to it, says: why, and whether to try again."""

import re
from typing import Any

import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode

from pipeline.text import without_passwords

FAILURES = (OSError, MlflowException)
WRONG_WAY = {401, 403, 404}  # a password or an address is wrong: to wait does not help, to mend it does
NO_REASON = re.compile(r"\(raised as a result of [^)]*\)\s*")  # what SQLAlchemy writes before a database's own words


def first_line(error: BaseException) -> str:
    """The error's first line, without passwords; a database's own words if it said no; its name if it has no text."""
    of_database = error.__cause__ if isinstance(error, MlflowException) else error
    error = getattr(of_database, "orig", None) or error
    return without_passwords((NO_REASON.sub("", str(error)) or type(error).__name__).splitlines()[0])


def is_transient(error: BaseException) -> bool:
    """Whether the store may take later what it did not take now."""
    if isinstance(error, MlflowException):
        if _is_of_the_way(error):
            return error.get_http_status_code() not in WRONG_WAY
        # MLflow's own complaints about what it is given carry code 500 too, where no server made them.
        is_failing = isinstance(error, RestException) and error.get_http_status_code() >= 500
        return is_failing or error.error_code == "TEMPORARILY_UNAVAILABLE" or error.get_http_status_code() == 429
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return status >= 500 or status == 429 or (_is_of_the_way(error) and status not in WRONG_WAY)
    return isinstance(error, requests.RequestException)


def is_refusal(error: BaseException) -> bool:
    """Whether the store itself will never take what was sent.

    Not so what a proxy, a login or another address says in its place, in whatever form but the store's own, nor what
    another library says of its storage: that may be over in a minute, and what would be lost is all that is left.
    """
    if is_transient(error) or _is_of_the_way(error):
        return False
    return isinstance(error, MlflowException | requests.HTTPError)


def _is_of_the_way(error: BaseException) -> bool:
    """Whether it was answered by something between here and the store: MLflow names a kind of error it knows."""
    if isinstance(error, RestException):
        return not _is_own(error.json)
    if isinstance(error, MlflowException):
        return str(error).startswith("API request to")
    if isinstance(error, requests.HTTPError) and error.response is not None:
        try:
            return not _is_own(error.response.json())
        except ValueError:
            return True
    return False


def _is_own(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("error_code") in ErrorCode.keys()  # noqa: SIM118
