"""Flags and experiment files become parameters: which value wins, and what is refused."""

from pathlib import Path

import pytest
import yaml

from pipeline.experiment_file import EXPERIMENTS, read_experiment
from pipeline.params import STEPS
from pipeline.settings import resolve, resumed


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_flag_beats_file_beats_default(tmp_path):
    file = write(tmp_path / "e.yaml", "epochs: 7\nbatch_size: 32\n")
    params = resolve("train", {"experiment": file, "epochs": "9"})
    assert (params.epochs, params.batch_size, params.pct_start) == (9, 32, 0.3)
    assert params.experiment == file


@pytest.mark.parametrize(
    ("flags", "experiment"),
    [
        ({}, "experiments/digits.yaml"),
        ({"dataset": "cifar10", "model": "vit"}, "experiments/cifar10_vit.yaml"),
        ({"dataset": "cifar10"}, "experiments/cifar10_resnet18.yaml"),
        ({"model": "vit"}, "none"),
        ({"dataset": "folder", "data_dir": "/photos"}, "experiments/folder.yaml"),
        ({"dataset": "folder", "data_dir": "/photos", "model": "resnet18"}, "none"),
        ({"dataset": "folder", "model": "timm/resnet18", "weights": "default"}, "experiments/folder.yaml"),
        ({"experiment": "none"}, "none"),
    ],
)
def test_auto_uses_the_experiment_file_of_dataset_and_model(flags, experiment):
    params = resolve("train", flags)
    assert params.experiment == experiment
    for name, value in flags.items():
        if name != "experiment":
            assert getattr(params, name) == value


def test_evaluation_uses_no_experiment_file():
    assert resolve("evaluate", {}).experiment == "none"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_file_is_valid_and_has_only_values_that_differ_from_defaults(path):
    params = resolve("main", {"experiment": str(path)})
    defaults = STEPS["main"]().model_dump()
    for key in yaml.safe_load(path.read_text()).keys() - {
        "dataset",
        "model",
        "optimizer",
        "patch_size",
        "momentum",
    }:
        assert getattr(params, key) != defaults[key], key


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("epochs: two\n", ["epochs=two", "integer"]),
        ("epoch: 2\n", ["unknown key epoch", "did you mean epochs?"]),
        ("lr_min: 1e-4\n", ["lr_min is now called ladder_min_lr"]),
        ("watts: 40\n", ["watts was removed"]),
        ("- epochs\n", ["expected `name: value`", "list"]),
        ("", ["expected `name: value`"]),
        ("epochs: [\n", ["not YAML"]),
        ("max_lr: !!python/object/apply:os.system ['true']\n", ["not YAML"]),
        ("experiment: x\n", ["unknown key experiment"]),
        ("1: 2\n", ["unknown key 1"]),
        ("epochs: 1\nwidth: 8\nepochs: 3\n", ["epochs is in line 1 and again in line 3: keep one"]),
        ("epochs: 3\n'epochs': 3\n", ["epochs is in line 1 and again in line 2"]),
        ("space:\n  max_lr: {low: 1e-3, high: 1, low: 1e-2}\n", ["space.max_lr.low is in line 2 and again"]),
        ("space: {width: [4], max_lr: [1],\n  width: [8]}\n", ["space.width is in line 1 and again in line 2"]),
        ("<<: {epochs: 1, epochs: 2}\n", ["epochs is in line 1 and again in line 1"]),
        ("epochs: 010\n", ["epochs=010: YAML reads this as 8: write a plain"]),
        ("epochs: !!int 0_10\n", ["epochs=0_10: YAML reads this as 8"]),
        ("epochs: 1:30\n", ["epochs=1:30: YAML reads this as 90"]),
        ("epochs: 0x10\n", ["epochs=0x10: YAML reads this as 16"]),
        ("checkpoint_minutes: 1:30.5\n", ["checkpoint_minutes=1:30.5: YAML reads this as 90.5"]),
        ("max_lr: .inf\n", ["max_lr=.inf: YAML reads this as inf"]),
        ("max_lr: .nan\n", ["max_lr=.nan: YAML reads this as nan"]),
        (
            "space:\n  epochs: {choices: [10, 012], when: {width: 64}}\n",
            ["space.epochs.choices=012: YAML reads this as 10"],
        ),
        ("epochs: !!int x\n", ["not YAML"]),
    ],
)
def test_a_malformed_file_is_named_with_its_key_in_one_line(tmp_path, text, parts):
    file = write(tmp_path / "broken.yaml", text)
    with pytest.raises(ValueError, match=r"broken\.yaml") as error:
        resolve("train", {"experiment": file})
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("epochs: 1_000\n", "epochs", 1000),
        ("epochs: 007\n", "epochs", 7),
        ("epochs: 08\n", "epochs", 8),
        ("epochs: '010'\n", "epochs", 10),
        ("max_lr: 1e-3\n", "max_lr", 1e-3),
        ("max_lr: +.5\n", "max_lr", 0.5),
        (
            "space: {width: {choices: [8]}, dim: {choices: [8]}}\n",
            "space",
            {n: {"choices": [8]} for n in ("width", "dim")},
        ),
        ("flip: on\nnormalise_weights: no\ncompile: False\n", "flip", "on"),
    ],
)
def test_a_value_in_a_file_is_read_like_a_flag(tmp_path, text, name, value):
    file = write(tmp_path / "e.yaml", text)
    assert getattr(resolve("sweep", {"experiment": file}), name) == value


def test_a_repeated_name_in_json_is_refused():
    with pytest.raises(ValueError, match=r"^space=.*: width occurs 2 times: keep one$"):
        resolve("sweep", {"experiment": "none", "space": '{"width": [4], "width": [8]}'})


@pytest.mark.parametrize(
    "text",
    [
        "localhost:5432:db:me:hunter2",
        "localhost:5432:db:me: hunter2",
        "db me hunter2: 1",
        "password: 'hunter2",
        "epochs: !hunter2 3",
        "epochs: !!int hunter2",
        "epochs: *hunter2",
        "a: b: hunter2",
        "%hunter2",
        "epochs: 3\n\thunter2",
    ],
)
def test_the_content_of_a_refused_file_is_not_quoted(tmp_path, text):
    with pytest.raises(ValueError, match=r"other\.yaml") as refusal:
        read_experiment(Path(write(tmp_path / "other.yaml", text)))
    assert "hunter2" not in str(refusal.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.yaml: No such file"):
        read_experiment(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"binary\.yaml: not YAML"):
        read_experiment(tmp_path / "binary.yaml")


def test_an_experiment_file_is_found_in_the_home_folder_and_a_missing_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "e.yaml", "epochs: 7\n")
    assert resolve("train", {"experiment": "~/e.yaml"}).epochs == 7
    assert resolve("train", {"experiment": "e.yaml"}).experiment == file
    stored = resolve("train", {"experiment": "none"}).model_dump()
    with pytest.raises(ValueError, match="epochs=7 was 12"):
        resumed("train", {"experiment": "~/e.yaml"}, "0" * 32, stored)
    with pytest.raises(ValueError, match=f"^experiment {tmp_path}/gone.yaml: No such file"):
        resolve("train", {"experiment": "gone.yaml"})


def test_the_path_of_images_is_stored_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ({"dataset": "folder"}, {"dataset": "folder", "data_dir": "data"}, {"data_dir": "./data/"}):
        assert resolve("train", {"experiment": "none", **given}).data_dir == f"{tmp_path}/data"
    assert resolve("train", {"experiment": "none"}).data_dir == "data"
    assert resolve("evaluate", {}).data_dir == ""


def test_an_error_in_a_flag_does_not_name_the_file(tmp_path):
    file = write(tmp_path / "e.yaml", "epochs: 7\n")
    with pytest.raises(ValueError, match=r"^epochs=x: should be a valid integer$"):
        resolve("train", {"experiment": file, "epochs": "x"})


def test_hostile_names_do_not_reach_the_file_system():
    with pytest.raises(ValueError, match=r"^dataset=\.\./\.\./etc/passwd: should be"):
        resolve("train", {"dataset": "../../etc/passwd"})


def test_from_study_uses_the_studys_parameters_except_those_given(tmp_path):
    asked = []

    def best_of(name, storage):
        asked.append((name, storage))
        return {"model": "vit", "patch_size": 8, "max_lr": 0.002, "epochs": 5}

    file = write(tmp_path / "e.yaml", "epochs: 7\nseed: 3\n")
    flags = {"experiment": file, "from_study": "mine", "storage": "sqlite:///s.db", "max_lr": "1e-3"}
    params = resolve("train", flags, best_of)
    assert asked == [("mine", "sqlite:///s.db")]
    assert (params.model, params.patch_size, params.max_lr, params.epochs, params.seed) == ("vit", 8, 1e-3, 5, 3)


def test_a_sweep_of_another_network_does_not_use_the_file_for_vit():
    assert resolve("sweep", {"model": "vit", "dataset": "folder"}).experiment == "experiments/sweep_vit.yaml"
    params = resolve("sweep", {"model": "convnext_tiny", "dataset": "folder"})
    assert (params.experiment, params.space, params.weight_decay) == ("none", {}, 5e-4)


def test_the_file_of_a_sweep_is_used_for_its_other_steps_too():
    file = "experiments/sweep_vit.yaml"
    assert resolve("sweep", {}).space.keys() == {"max_lr", "patch_size"}
    assert resolve("train", {"experiment": file}).dim == resolve("sweep", {}).dim
    assert resolve("main", {"experiment": file}).steps[0] == "sweep"
