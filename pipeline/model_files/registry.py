"""The model registry: registers a training once as a version, and as champion if a paired test finds it better."""

import re
import tempfile
import uuid
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

from pipeline.results import dependence
from pipeline.results.arms import network_test
from pipeline.settings import command

ALIAS = "champion"
ALPHA = 0.05
PREDICTIONS = "predictions.csv"
NEEDED, OPTIONAL = ("name", "true", "predicted"), "group"  # columns of predictions.csv
# Tags of a version: the id of the request that created it, why it became champion, the evaluation that registered it.
REQUEST, REASON, EVALUATION = "request", "champion.because", "evaluation"
CLAIM, OPEN, DONE = "champion.claim", "open", "done"  # tag: the version is becoming champion, or has become it


def register(client: MlflowClient, name: str, train_run_id: str, evaluation_id: str, test_digest: str) -> str:
    """Registers the training's served model as a version of `name`, and as champion if it is better.

    Returns the result in one line. A version is better if McNemar's exact test gives p < 0.05 against the champion's
    newest evaluation on the same test images. The first version becomes champion without a test. A second call changes
    nothing. Raises ValueError if the training has no served model, or if predictions cannot be read.

    MLflow cannot read and replace the champion in one step. So a version first sets its claim, then becomes champion,
    and then looks for claims that were open when it began. The best of these versions becomes champion, whoever wrote
    last.
    """
    retrying = Retrying(
        retry=retry_if_exception(_is_clash), stop=stop_after_attempt(5), wait=wait_random(0, 0.5), reraise=True
    )
    return str(retrying(_register, client, name, train_run_id, evaluation_id, test_digest))


def _register(client: MlflowClient, name: str, train_run_id: str, evaluation_id: str, test_digest: str) -> str:
    version = _version(client, name, train_run_id)
    client.set_model_version_tag(name, version.version, EVALUATION, evaluation_id)
    known = {number for number, claim in _claims(client, name).items() if claim == DONE}
    champion = client.get_registered_model(name).aliases.get(ALIAS)
    if champion is None:
        why = "the first version of this name"
    elif str(champion) == str(version.version):
        why = version.tags.get(REASON, "it already was champion")
        if version.tags.get(CLAIM, DONE) == DONE:
            return _message(version, f"champion: {why}")
    else:
        is_better, why = _judged(client, version, client.get_model_version(name, champion), evaluation_id, test_digest)
        if not is_better:
            return _message(version, why)
    # The reason is set before the alias, so that a repeated call after a lost answer finds it.
    client.set_model_version_tag(name, version.version, REASON, why)
    client.set_model_version_tag(name, version.version, CLAIM, OPEN)
    client.set_registered_model_alias(name, ALIAS, version.version)
    verdict = _settled(client, client.get_model_version(name, version.version), known, test_digest)
    client.set_model_version_tag(name, version.version, CLAIM, DONE)
    return _message(version, verdict)


def _is_clash(error: BaseException) -> bool:
    """Whether a database refused a row because another process has written it at the same time."""
    return isinstance(error, MlflowException) and bool(re.search("IntegrityError|UniqueViolation", str(error)))


def _settled(client: MlflowClient, version: ModelVersion, known: set[int], test_digest: str) -> str:
    """The result for a version that has become champion, after a comparison of all versions that claimed it together.

    They are compared in the order of their numbers, and a later one wins if it is better. So every process that
    compares them gets the same champion.
    """
    champion, why, compared = version, version.tags.get(REASON, ""), {int(version.version)}
    while (claims := (_claims(client, version.name).keys() - known) | {int(version.version)}) != compared:
        first, *others = (client.get_model_version(version.name, str(number)) for number in sorted(claims))
        champion = first
        for rival in others:
            if (of_rival := _registering(client, rival, test_digest)) is None:  # not on the same images: no comparison
                continue
            is_better, why = _judged(client, rival, champion, of_rival, test_digest)
            champion = rival if is_better else champion
        client.set_registered_model_alias(version.name, ALIAS, champion.version)
        compared = claims  # the loop sees claims made meanwhile; a later claim finds this champion
    if champion.version == version.version:
        return f"champion: {why}"
    return f"version {champion.version} was registered at the same time and is champion: {why}"


def _judged(
    client: MlflowClient, version: ModelVersion, holder: ModelVersion, evaluation_id: str, test_digest: str
) -> tuple[bool, str]:
    """(whether `version`, with this evaluation, is better than the champion `holder`, the reason)."""
    other_id = _evaluation(client, holder, test_digest, evaluation_id)
    if other_id is None:
        why = f"not compared: version {holder.version}, the champion, has no evaluation on the same test images"
        if _experiment(client, holder.run_id or ""):
            why += f". `{command('evaluate', run_id=str(holder.run_id))}` creates one if it has the same test images"
        return False, why
    (of_holder, of_version), groups = _correct(client, other_id, evaluation_id)
    test = network_test(of_holder, of_version, groups)
    name, p_value = "McNemar's exact test", test["p_value"]
    if groups is not None:
        name, p_value = "sign flips of groups", test["p_value_over_groups"]
    counts = (
        f"only this version is right on {test['only_b']} test images, only version {holder.version} on "
        f"{test['only_a']} ({name}, p = {p_value:.2g})"
    )
    if test["only_b"] > test["only_a"] and p_value < ALPHA:
        return True, counts
    return False, f"version {holder.version} stays champion: {counts}; a better version needs p below {ALPHA:g}"


def _claims(client: MlflowClient, name: str) -> dict[int, str]:
    """The versions that have claimed to be champion, by number, and whether the claim is OPEN or DONE."""
    found = client.search_model_versions(f"name = '{name}'")
    return {int(version.version): version.tags[CLAIM] for version in found if CLAIM in version.tags}


def served_model(client: MlflowClient, run: Run) -> str:
    """The id of the training's served model, if all its files are stored; otherwise empty."""
    for output in run.outputs.model_outputs if run.outputs is not None else []:
        # MLflow links a model to its run before it sends the files. If they are lost, the link stays.
        try:
            is_whole = client.get_logged_model(output.model_id).status == LoggedModelStatus.READY
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # for example, the model was deleted
                raise
            continue
        if is_whole:
            return str(output.model_id)
    return ""


def _version(client: MlflowClient, name: str, train_run_id: str) -> ModelVersion:
    """The training's version of `name`, created if there is none."""
    model_id = served_model(client, client.get_run(train_run_id))
    if not model_id:
        raise ValueError(f"training {train_run_id} has no served model to register")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = _versions(client, name, train_run_id)
    if not found:
        client.create_model_version(
            name,
            f"models:/{model_id}",
            train_run_id,
            tags={REQUEST: uuid.uuid4().hex},
            await_creation_for=0,
            model_id=model_id,
        )
        found = _versions(client, name, train_run_id)
    # MLflow's own client repeats a request if the answer is lost, which can create two versions for one request.
    requests = [version.tags.get(REQUEST, version.version) for version in found]
    for place, version in enumerate(found):
        if requests[place] in requests[:place]:
            client.delete_model_version(name, version.version)
    return found[0]


def _versions(client: MlflowClient, name: str, train_run_id: str) -> list[ModelVersion]:
    found = client.search_model_versions(f"name = '{name}' and run_id = '{train_run_id}'")
    return sorted(found, key=lambda version: int(version.version))


def _message(version: ModelVersion, verdict: str) -> str:
    return f"registered as {version.name} version {version.version}, {verdict}"


def _evaluation(client: MlflowClient, holder: ModelVersion, test_digest: str, other_id: str) -> str | None:
    """The newest evaluation of the champion `holder` on the same test images; None if there is none.

    It is searched in the experiments of the champion's training and of run `other_id`.
    """
    train_run_id = holder.run_id or ""
    if not re.fullmatch(r"[0-9a-f]{32}", train_run_id):
        return None
    experiments = {place for run_id in (train_run_id, other_id) if (place := _experiment(client, run_id))}
    wanted: dict[str, Any] = {
        "attributes.status": "FINISHED",
        "tags.step": "evaluate",
        "tags.`train.run_id`": train_run_id,
        "tags.`test.digest`": test_digest,
        "params.checkpoint": "best",
    }
    query = " and ".join(f"{name} = '{value}'" for name, value in wanted.items())
    found = client.search_runs(list(experiments), query, max_results=1, order_by=["attributes.start_time DESC"])
    if found:
        return str(found[0].info.run_id)
    return _registering(client, holder, test_digest)


def _registering(client: MlflowClient, holder: ModelVersion, test_digest: str) -> str | None:
    """The evaluation that is registering a version now, and so is not finished; None if it is on other images."""
    run_id = holder.tags.get(EVALUATION, "")
    if not re.fullmatch(r"[0-9a-f]{32}", run_id) or not _experiment(client, run_id):
        return None
    run = client.get_run(run_id)
    is_same = run.data.tags.get("test.digest") == test_digest and run.data.tags.get("train.run_id") == holder.run_id
    return run_id if is_same and run.data.params.get("checkpoint") == "best" else None


def _experiment(client: MlflowClient, run_id: str) -> str:
    """The experiment of a run; empty if there is no such run, for example after `mlflow gc`."""
    try:
        return str(client.get_run(run_id).info.experiment_id) if run_id else ""
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""


def _correct(client: MlflowClient, *evaluation_ids: str) -> tuple[list[np.ndarray], np.ndarray | None]:
    """For each evaluation, whether each test image is right: (N,) bool, in the same order; and the images' groups.

    The groups are (N,) int64; None if the images have none. The newest evaluation has them.
    """
    first, *others = tables = [_predictions(client, evaluation_id) for evaluation_id in evaluation_ids]
    same = ["name", "true"]
    if not all(table[same].equals(first[same]) for table in others):
        raise ValueError(f"{PREDICTIONS} of {' and '.join(evaluation_ids)} are not of the same images")
    names = tables[-1].get(OPTIONAL, pd.Series(dtype=str)).tolist()
    return [(table["true"] == table["predicted"]).to_numpy() for table in tables], dependence.numbers(names)


def _predictions(client: MlflowClient, evaluation_id: str) -> pd.DataFrame:
    if not any(item.path == PREDICTIONS for item in client.list_artifacts(evaluation_id)):
        raise ValueError(f"evaluation {evaluation_id} has no {PREDICTIONS}")
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        path = client.download_artifacts(evaluation_id, PREDICTIONS, folder)
        try:
            table = pd.read_csv(path, usecols=[*NEEDED, OPTIONAL].__contains__, dtype=str, keep_default_na=False)
        except ValueError:
            table = pd.DataFrame()
    if not {*NEEDED} <= {*table.columns}:
        raise ValueError(f"evaluation {evaluation_id}: {PREDICTIONS} cannot be read")
    return table
