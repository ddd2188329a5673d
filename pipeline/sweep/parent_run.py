"""Gives a study one run in MLflow, even if several machines start the study in the same second."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import Engine, Integer, String, Text, column, insert, select, table, update
from sqlalchemy.exc import IntegrityError

RUN_ID_KEY = "mlflow.run_id"  # attribute of the study
# The columns of Optuna's tables that this module needs. The database allows one row for each study and key.
STUDIES = table("studies", column("study_id", Integer), column("study_name", String))
ATTRIBUTES = table(
    "study_user_attributes", column("study_id", Integer), column("key", String), column("value_json", Text)
)


@dataclass
class ParentRun:
    """The run of a study. An empty id means that there is none yet."""

    id: str


@contextmanager
def exclusive(engine: Engine, study_name: str) -> Iterator[ParentRun]:
    """The run of the study in the database of `engine`. An id that is set on it is stored at the end of this context.

    On all machines, only one process at a time is inside this context for a study; the others wait. If that process
    dies or fails, the database undoes what it wrote and lets the next one in.
    """
    study_id = select(STUDIES.c.study_id).where(STUDIES.c.study_name == study_name).scalar_subquery()
    of_study = (ATTRIBUTES.c.study_id == study_id) & (ATTRIBUTES.c.key == RUN_ID_KEY)
    row = {"study_id": study_id, "key": RUN_ID_KEY, "value_json": json.dumps("")}
    with suppress(IntegrityError), engine.begin() as connection:  # another machine may create the row in this moment
        if connection.scalar(select(ATTRIBUTES.c.key).where(of_study)) is None:
            connection.execute(insert(ATTRIBUTES).values(row))
    with engine.begin() as connection:
        # A change locks the row in every kind of database, until the end of the transaction.
        connection.execute(update(ATTRIBUTES).where(of_study).values(key=RUN_ID_KEY))
        run = ParentRun(str(json.loads(connection.scalar(select(ATTRIBUTES.c.value_json).where(of_study)) or '""')))
        yield run
        connection.execute(update(ATTRIBUTES).where(of_study).values(value_json=json.dumps(run.id)))
