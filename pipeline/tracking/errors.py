"""What an error of a tracking store, or of the way to it, says of trying again."""

import requests
from mlflow.exceptions import MlflowException, RestException

FAILURES = (OSError, MlflowException)
OF_THE_WAY = {401, 403, 404, 408, 413}  # what a proxy or a login says, and not the store itself, in plain text


def is_transient(error: BaseException) -> bool:
    """Whether the store may take later what it did not take now."""
    if isinstance(error, MlflowException):
        # MLflow's own complaints about what it is given carry code 500 too.
        is_from_afar = isinstance(error, RestException) or _is_plain(error)
        is_busy = error.error_code == "TEMPORARILY_UNAVAILABLE" or error.get_http_status_code() == 429
        return is_busy or (is_from_afar and bool(error.get_http_status_code() >= 500))
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, requests.RequestException)


def is_refusal(error: BaseException) -> bool:
    """Whether what was sent will never be taken, as it is wrong in itself.

    Not so a password that has run out, an address that leads elsewhere for a while, or what another library says of
    its own storage: what would be lost is all that is left of a run.
    """
    if is_transient(error):
        return False
    if isinstance(error, MlflowException):
        return not (_is_plain(error) and error.get_http_status_code() in OF_THE_WAY)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code not in OF_THE_WAY
    return False


def _is_plain(error: MlflowException) -> bool:
    """Whether it came from a server, but not in the store's own form: only the words tell."""
    return not isinstance(error, RestException) and str(error).startswith("API request to")
