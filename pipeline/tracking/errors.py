"""Errors of a tracking store, or of the network before it: what they say, and whether trying again may help."""

import re
from typing import Any

import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode

from pipeline.text import without_passwords

FAILURES = (OSError, MlflowException)
USER_ERRORS = {401, 403, 404}  # a password or an address is wrong: waiting does not help, the user must correct it
NO_REASON = re.compile(r"\(raised as a result of [^)]*\)\s*")  # SQLAlchemy writes this before the database's own words


def first_line(error: BaseException) -> str:
    """The error's first line, without passwords.

    If a database refused the request, its own message is used; if the error has no text, the name of its class.
    """
    of_database = error.__cause__ if isinstance(error, MlflowException) else error
    error = getattr(of_database, "orig", None) or error
    return without_passwords((NO_REASON.sub("", str(error)) or type(error).__name__).splitlines()[0])


def is_transient(error: BaseException) -> bool:
    """Whether the store may accept the same request later."""
    if isinstance(error, MlflowException):
        if _is_from_between(error):
            return error.get_http_status_code() not in USER_ERRORS
        # MLflow's client also uses code 500 when it complains about its arguments, without any server.
        is_failing = isinstance(error, RestException) and error.get_http_status_code() >= 500
        return is_failing or error.error_code == "TEMPORARILY_UNAVAILABLE" or error.get_http_status_code() == 429
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return status >= 500 or status == 429 or (_is_from_between(error) and status not in USER_ERRORS)
    return isinstance(error, requests.RequestException)


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the same request may succeed within a minute."""
    # MLflow reports a read-only database with the same code as a busy one.
    return is_transient(error) and "readonly database" not in str(error)


def is_refusal(error: BaseException) -> bool:
    """Whether the store itself will never accept what was sent.

    An answer from a proxy, a login page or a wrong address is no refusal, and neither is an error of a storage library.
    Such a fault may pass within a minute, and the entry may be the only copy of the data.
    """
    if is_transient(error) or _is_from_between(error):
        return False
    return isinstance(error, MlflowException | requests.HTTPError)


def _is_from_between(error: BaseException) -> bool:
    """Whether the answer came from something between here and the store: MLflow's own answers have its error codes."""
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
