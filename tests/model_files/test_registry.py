"""A paired test chooses champions in a real registry. The trainings and their predictions are written by hand."""

import threading
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.cli import gc
from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag

from pipeline.model_files import registry
from pipeline.tracking.sender import Sender
from tests.conftest import Workplace

NUM_IMAGES = 40
DIGEST = "d" * 32


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    # A registry in a database looks for models in the store that the process uses, as in a step.
    mlflow.set_tracking_uri(place.uri)
    yield place
    mlflow.set_tracking_uri(None)


class Contest:
    """Trainings of one registered name."""

    def __init__(self, place, name):
        self.client, self.name, self.folder = place.client, name, place.folder
        self.training = self.evaluation = ""
        self.group_size = 0

    def enter(self, wrong=(), digest=DIGEST, names=None):
        """Adds a training and an evaluation with all images right except `wrong`, and registers it.

        Returns the message of the registration.
        """
        self.train()
        return self.evaluate(wrong, digest, names)

    def train(self):
        self.training = self.create_run("train", {})
        model = self.client.create_logged_model("0", "model", source_run_id=self.training)
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(self.training, [LoggedModelOutput(model.model_id, 0)])
        self.client.set_terminated(self.training)

    def evaluate(self, wrong=(), digest=DIGEST, names=None):
        self.predict(wrong, digest, names)
        message = self.register(digest)
        self.client.set_terminated(self.evaluation)
        return message

    def predict(self, wrong=(), digest=DIGEST, names=None):
        self.evaluation = self.create_run("evaluate", {"train.run_id": self.training, "test.digest": digest})
        names = names or [f"test/{i}.png" for i in range(NUM_IMAGES)]
        rows = [f"{name},'=a,{'b' if i in wrong else chr(39) + '=a'},0.5" for i, name in enumerate(names)]
        header = "name,true,predicted,confidence"
        if self.group_size:
            header += ",group"
            rows = [f"{row},pond {place // self.group_size}" for place, row in enumerate(rows)]
        (self.folder / "predictions.csv").write_text("\n".join([header, *rows]))
        self.client.log_artifact(self.evaluation, str(self.folder / "predictions.csv"))

    def register(self, digest=DIGEST):
        return registry.register(self.client, self.name, self.training, self.evaluation, digest)

    def create_run(self, step, tags):
        run_id = self.client.create_run("0", tags={"step": step, **tags}).info.run_id
        self.client.log_batch(run_id, params=[Param("checkpoint", "best")], metrics=[Metric("x", 0, 0, 0)])
        return run_id

    @property
    def champion(self):
        return str(self.client.get_registered_model(self.name).aliases["champion"])


@pytest.fixture
def contest(place):
    return Contest(place, f"contest {len(place.client.search_registered_models())}")


def test_the_first_version_is_champion_and_a_better_one_replaces_it(contest):
    assert contest.enter(wrong=range(10)).endswith("version 1, champion: the first version of this name")
    # 9 images against 1: of the 1024 results of 10 fair coins, 22 are as uneven.
    message = contest.enter(wrong=[0, 20])
    assert "version 2, champion: only this version is right on 9 test images, only version 1 on 1 " in message
    assert "p = 0.021" in message
    assert contest.champion == "2"


@pytest.mark.parametrize(
    ("wrong", "counts"),
    [
        (range(10), "0 test images, only version 1 on 0 (McNemar's exact test, p = 1)"),
        (range(5), "5 test images, only version 1 on 0 (McNemar's exact test, p = 0.062)"),
        (range(30), "0 test images, only version 1 on 20 (McNemar's exact test, p = 1.9e-06)"),
    ],
    ids=["the same", "hardly better", "worse"],
)
def test_the_champion_stays_if_another_version_is_not_significantly_better(contest, wrong, counts):
    contest.enter(wrong=range(10))
    message = contest.enter(wrong=wrong)
    assert f"version 2, version 1 stays champion: only this version is right on {counts}" in message
    assert contest.champion == "1"


def test_photos_of_few_groups_are_not_enough_to_replace_the_champion(contest):
    contest.group_size = 5
    contest.enter(wrong=range(10))
    message = contest.enter()
    assert "on 10 test images, only version 1 on 0 (sign flips of groups, p = 0.5)" in message
    assert contest.champion == "1"


def test_versions_are_compared_only_if_the_champion_was_evaluated_on_the_same_images(contest):
    contest.enter(wrong=range(10))
    first = contest.training
    message = contest.enter(digest="e" * 32)
    assert f"has no evaluation on the same test images. `python -m pipeline evaluate --run_id {first}`" in message
    assert contest.champion == "1"
    newer, contest.training = contest.training, first
    contest.evaluate(wrong=range(10), digest="e" * 32)
    contest.training = newer
    assert "version 2, champion: only this version is right on 10 test" in contest.evaluate(digest="e" * 32)


def test_a_champion_without_its_training_in_the_store_is_not_compared(place, contest):
    contest.enter(wrong=range(10))
    for run_id in (contest.evaluation, contest.training):
        place.client.delete_run(run_id)
        done = CliRunner().invoke(gc, ["--backend-store-uri", place.uri, "--run-ids", run_id])
        assert done.exit_code == 0, done.output
    assert contest.enter().endswith("not compared: version 1, the champion, has no evaluation on the same test images")
    assert contest.champion == "1"


def test_a_second_registration_changes_nothing_and_has_the_same_message(contest):
    contest.enter(wrong=range(10))
    message = contest.enter()
    assert contest.register() == message
    assert contest.evaluate() == message
    assert len(contest.client.search_model_versions(f"name = '{contest.name}'")) == 2


def test_images_in_another_order_are_refused(contest):
    contest.enter()
    with pytest.raises(ValueError, match="are not of the same images"):
        contest.enter(names=[f"test/{i}.png" for i in reversed(range(NUM_IMAGES))])
    assert contest.champion == "1"


def test_a_training_whose_served_model_was_deleted_cannot_be_registered(contest):
    contest.training = contest.create_run("train", {})
    contest.evaluation = contest.create_run("evaluate", {})
    model = contest.client.create_logged_model("0", "model", source_run_id=contest.training)
    contest.client.log_outputs(contest.training, [LoggedModelOutput(model.model_id, 0)])
    contest.client.finalize_logged_model(model.model_id, "READY")
    contest.client.delete_logged_model(model.model_id)
    with pytest.raises(ValueError, match="has no served model to register"):
        contest.register()


def test_a_training_without_a_served_model_cannot_be_registered(contest):
    contest.training = contest.create_run("train", {})
    contest.evaluation = contest.create_run("evaluate", {})
    with pytest.raises(ValueError, match="has no served model to register"):
        contest.register()


@pytest.mark.parametrize("content", [b"", b"name,true\na,b\n", b"\xff\xfe\x00", b'name,true,predicted\n"'])
def test_predictions_that_cannot_be_read_are_refused_with_a_reason(contest, content):
    contest.enter()
    other = contest.evaluation
    (contest.folder / "predictions.csv").write_bytes(content)
    contest.client.log_artifact(other, str(contest.folder / "predictions.csv"))
    with pytest.raises(ValueError, match=f"evaluation {other}: predictions.csv cannot be read"):
        contest.enter()


def test_a_champion_that_a_user_registered_by_hand_is_not_compared(contest):
    contest.client.create_registered_model(contest.name)
    by_hand = contest.client.create_model_version(contest.name, str(contest.folder), await_creation_for=0)
    contest.client.set_registered_model_alias(contest.name, "champion", by_hand.version)
    assert "not compared: version 1" in contest.enter()
    assert contest.champion == "1"


def test_the_evaluations_description_has_the_result_once(place, contest):
    contest.enter()
    run_id = contest.evaluation
    contest.client.log_batch(run_id, tags=[RunTag("mlflow.note.content", "**Evaluation**")])
    entry = {"kind": "register", "name": contest.name, "train_run_id": contest.training, "test_digest": DIGEST}
    sender = Sender(run_id, place.uri)
    for _ in range(2):
        sender(place.folder, entry)
    tags = contest.client.get_run(run_id).data.tags
    assert tags["mlflow.note.content"] == f"**Evaluation**\n\n{tags['registered']}"
    assert sender.messages == [tags["registered"]] * 2


ROUNDS = 6


@pytest.mark.parametrize("is_first", [True, False], ids=["of the name", "after a champion"])
@pytest.mark.parametrize("num_rivals", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_best_of_several_simultaneous_registrations_is_champion(place, num_rivals, is_first):
    for number in range(ROUNDS):
        name = f"race {num_rivals} {is_first} {number}"
        if not is_first:
            Contest(place, name).enter(wrong=range(30))
        rivals = [Contest(place, name) for _ in range(num_rivals)]
        for place_in_order, rival in enumerate(rivals):
            rival.train()
            rival.predict(wrong=range(0, 10 * ((place_in_order + number) % num_rivals)))
        start = threading.Barrier(num_rivals)

        def register(rival, start=start):
            rival.client = MlflowClient(place.uri)
            start.wait()
            rival.message = rival.register()

        with ThreadPoolExecutor(num_rivals) as threads:
            list(threads.map(register, rivals))
        (best,) = (rival for order, rival in enumerate(rivals) if (order + number) % num_rivals == 0)
        champion = place.client.get_model_version_by_alias(name, "champion")
        assert champion.run_id == best.training, [rival.message for rival in rivals]
        assert ", champion: " in best.message
        # A second registration names the same champion.
        assert all((", champion: " in rival.register()) == (rival is best) for rival in rivals)
