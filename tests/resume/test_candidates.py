"""resume=auto takes the newest run with the same parameters, and passes over runs that it cannot read."""

import json

import pytest

from pipeline.params import MainParams
from pipeline.resume import candidates
from pipeline.tracking import owners, store


def interrupted(params_json):
    """The id of a new interrupted experiment of this user with this text as its params.json."""
    client = store.Client()
    run_id = client.create_run(store.experiment_id(), "an experiment", {"step": "main"}).info.run_id
    for name, value in owners.seal(run_id).items():
        client.set_tag(run_id, name, value)
    client.log_text(run_id, params_json, "params.json")
    client.set_terminated(run_id, "KILLED")
    return run_id


@pytest.mark.parametrize("damaged", ["{", "[]", '{"epochs": "many"}', '{"no_such_parameter": 1}'])
def test_a_damaged_run_does_not_hide_an_older_one_that_can_continue(place, damaged, capsys):
    params = MainParams()
    good = interrupted(json.dumps(params.model_dump(mode="json")))
    bad = interrupted(damaged)
    assert candidates.with_same_params("main", params) == good
    is_readable = damaged.startswith('{"')  # then only its parameters differ
    assert (f"not continued: run {bad}: params.json" in capsys.readouterr().err) is not is_readable
