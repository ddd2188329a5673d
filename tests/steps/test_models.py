"""`models` lists the networks that `model` takes, from the data of torchvision and timm, without the internet."""

from fnmatch import fnmatch

import pytest

from pipeline import models
from pipeline.models import catalogue
from pipeline.params import RecipeParams
from pipeline.params.networks import OWN, TORCHVISION
from pipeline.steps import models as step
from tests.conftest import PROJECT
from tests.terminal import COLUMNS, Terminal


@pytest.fixture
def listed(workplace, capsys):
    """The output of `models`: its head, a row for each network, and its messages."""

    def look(*words):
        capsys.readouterr()
        assert workplace.run("models", *words) == 0
        out, err = capsys.readouterr()
        head, *rows = out.splitlines()
        assert head.split() == ["model", "parameters", "px", "licence", "of", "the", "default", "weights"]
        return {row.split()[0]: " ".join(row.split()[1:]) for row in rows}, err

    return look


def test_without_like_our_own_networks_are_listed_and_the_way_to_list_others(listed):
    rows, said = listed()
    assert list(rows) == list(OWN)
    assert rows["resnet18"] == "11.17 M no weights"
    assert f"torchvision ({len(TORCHVISION)})" in said
    assert "python -m pipeline models --like convnext" in said


@pytest.mark.parametrize(
    ("like", "wanted"),
    [
        ("mobilenet", {"mobilenet_v2": "3.50 M 224 not stated", "timm/mobilenetv2_100": "3.50 M 224 apache-2.0"}),
        ("VIT_H_14", {"vit_h_14": "633.47 M 518 https://github.com/facebookresearch/SWAG/blob/main/LICENSE"}),
        ("resnet18", {"resnet18": "11.17 M no weights", "torchvision/resnet18": "11.69 M 224 not stated"}),
        (" timm/convnextv2*o ", {"timm/convnextv2_atto": "3.71 M 224 cc-by-nc-4.0"}),
        ("convnextv2_small", {"timm/convnextv2_small": "50.32 M no weights"}),
    ],
)  # fmt: skip
def test_like_lists_networks_by_name_with_parameters_image_size_and_licence(listed, like, wanted):
    rows, _ = listed("--like", like)
    assert wanted.items() <= rows.items()
    assert all(fnmatch(name, f"*{like.strip().lower()}*") for name in rows)


def test_each_listed_network_can_be_chosen_and_its_count_is_that_of_the_built_network(listed):
    rows, _ = listed("--like", "shufflenet")
    for name in rows:
        assert RecipeParams(model=name).model == name
        network = catalogue.find(name)
        built = models.outline(name, num_classes=1000, image_size=224)
        assert catalogue.count(network) == sum(parameter.numel() for parameter in built.parameters())


@pytest.mark.parametrize("like", ["convnxt", "timm/resnt50", "effcientnet_b3"])
def test_a_word_that_is_in_no_name_is_refused_with_similar_names(workplace, capsys, like):
    assert workplace.run("models", like=like) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: like={like}: no network has that in its name; did you mean ")
    assert line.count("\n") == 1


def test_a_word_without_similar_names_is_refused(workplace, capsys):
    assert workplace.run("models", like="[]") == 2
    assert capsys.readouterr().err == "error: like=[]: no network has that in its name\n"


def test_networks_that_take_long_to_count_are_listed_without_a_count(listed, monkeypatch):
    monkeypatch.setattr(step, "SECONDS", 0)
    rows, said = listed("--like", "resnet34")
    assert rows["resnet34"] == "21.80 M 224 not stated"  # torchvision says so
    assert rows["timm/resnet34"] == "224 apache-2.0"
    uncounted = sum(name.startswith("timm/") for name in rows)
    assert f"the parameters of {uncounted} are not counted" in said


@pytest.mark.slow
def test_no_line_is_wider_than_the_terminal(workplace):
    environment = {**workplace.environment, "PYTHONPATH": str(PROJECT)}
    with Terminal(workplace.command("models", like="vit_h_14"), cwd=workplace.folder, env=environment) as terminal:
        shown = terminal.read(60)
    assert "633.47 M" in shown
    assert max(map(len, shown.splitlines())) <= COLUMNS
