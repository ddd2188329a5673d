"""Names, tags and parameters are cut to what every store accepts, and errors show the store's own reason."""

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels import models

from pipeline.tracking import lifecycle, limits, store
from pipeline.tracking.errors import first_line


@pytest.mark.parametrize(
    ("cut", "column", "most"),
    [
        (limits.name, models.SqlRun.name, limits.NAME),
        (limits.tag, models.SqlTag.value, limits.TAG),
        (limits.param, models.SqlParam.value, limits.PARAM),
    ],
)
def test_a_text_is_cut_to_the_width_of_its_column(cut, column, most):
    assert most <= column.type.length
    assert cut("a" * most) == "a" * most
    assert len(cut("a" * (most + 1))) == most
    assert cut("a\0b\udcff") == r"a\x00b\udcff"
    assert cut("größe 猫\n\t") == "größe 猫\n\t"


def test_a_long_name_keeps_the_result_at_its_end():
    assert limits.name("trial 3  " + "x" * 300 + "  valid/accuracy 0.91").endswith("xx  valid/accuracy 0.91")


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_every_store_accepts_long_texts(where, tmp_path, monkeypatch, request):
    server = where == "postgres" and request.getfixturevalue("postgres")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    mlflow.set_tracking_uri(server or f"sqlite:///{tmp_path}/a.db")
    try:
        with lifecycle.start("trial", "n" * 251) as run:
            run.tags({"dataset": "t" * 9_000, "model": "a\0b"})
            run.params({"labels": "p" * 9_000})
            run.describe("n" * 300 + " result", "d" * 9_000)
        stored = store.stored_run(run.id)
        assert stored.info.status == "FINISHED"
        assert stored.info.run_name.endswith(" result")
        assert len(stored.data.params["labels"]) == limits.PARAM
        assert {len(stored.data.tags[name]) for name in ("dataset", "mlflow.note.content")} == {limits.TAG}
        if server:
            with pytest.raises(MlflowException) as refused:
                MlflowClient(store.uri()).create_run("0", run_name="n" * 251)
            assert first_line(refused.value) == "value too long for type character varying(250)"
    finally:
        mlflow.set_tracking_uri(None)


def test_the_reason_from_a_server_is_the_databases_own_message():
    text = (
        "BAD_REQUEST: (raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block if "
        "this flush is occurring prematurely)\n(psycopg.errors.StringDataRightTruncation) value too long\n[SQL: ...]"
    )
    assert first_line(MlflowException(text)) == "BAD_REQUEST: (psycopg.errors.StringDataRightTruncation) value too long"
