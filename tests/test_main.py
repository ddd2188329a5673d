"""The command line: bad input is one line, and a step imports only what it needs."""

import re
import subprocess
import sys

import pytest

from pipeline.__main__ import main
from pipeline.params import COMMANDS


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["unknown step trian", "did you mean train?"]),
        (["train", "--modle", "vit"], ["--modle", "--model"]),
        (["train", "--model", "resnet81"], ["model=resnet81", "did you mean resnet18?"]),
        (["train", "--dataset", "cifr10"], ["dataset=cifr10", "did you mean cifar10?"]),
        (["explain", "--method", "gradcma"], ["method=gradcma", "did you mean gradcam?"]),
        (["explain", "--method", "eigencam"], ["method=eigencam: is not offered; should be 'auto', "]),
        (["compare", "--runs", "abcd,abce", "--method", "XGradCAM"], ["is not offered; should be 'auto'"]),
        (["compare", "abcd", "--num_images", "0", "abc"], ["runs=abc: should be the id of a run"]),
        (["doctor", "--epochs"], ["No such option", "--epochs"]),
        (["train", "--model", "vit", "--patch_size", "5"], ["patch_size=5", "divisors: 1, 2, 4, 8, 16, 32"]),
        (["train", "--max_lr", "fast"], ["max_lr=fast", "valid number"]),
        (["train", "--epochs", "-3"], ["epochs=-3", "greater than or equal to 1"]),
        (["train", "--epochs"], ["--epochs", "requires an argument"]),
        (["evaluate", "--run_id", "../../x"], ["run_id=../../x: should be latest, or the id of a run"]),
        (["evaluate", "--run_id", "abc"], ["run_id=abc: should be latest, or the id of a run"]),
        (["train", "--resume", "x' or '1"], ["resume=x' or '1: should be the id of a run, or at least its first 4"]),
        (["train", "--weights", "run:xyz"], ["weights=run:xyz: should be the id of a run, or at least its first 4"]),
        (["train", "--device", "gpu"], ["device=gpu: should be auto, cpu, mps, cuda or cuda:<n>"]),
        (["sweep", "--study_name", "a/b"], ["study_name=a/b: should be 1 to 100 letters, digits, blanks"]),
        (["evaluate", "--register_as", "-x"], ["register_as=-x: should be a letter or digit, then letters"]),
        (["main", "--steps", "lr_range,tran"], ["steps=tran", "did you mean train?"]),
        (["main", "--steps", "evaluate", "--num_seeds", "2"], ["num_seeds=2: train is not among the steps evaluate"]),
        (["main", "--steps", "sweep", "--storage", "optuna.db"], ["storage=optuna.db: is not the URL"]),
        (["lr_range", "--lr_min", "1e-4"], ["--lr_min is now called ladder_min_lr"]),
        (["main", "--lr_max=1"], ["--lr_max is now called ladder_max_lr"]),
        (["lr_range", "--num_steps", "50"], ["--num_steps is now called ladder_steps"]),
        (["sweep", "--num_workers", "2"], ["--num_workers is now called sweep_workers"]),
        (["report", "--watts", "40"], ["--watts was removed"]),
        (
            ["verify_resume", "--epochs", "3"],
            ["verify_resume is now another command: python -m benchmarks.verify_resume"],
        ),
        (["compare"], ["--runs"]),
        (["compare", "--runs", "a,b"], ["runs=a", "should be the id of a run, or at least its first 4"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, arguments, parts):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def in_a_new_process(code, folder=None):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)


def test_a_step_names_and_ignores_parameters_that_only_other_steps_of_its_experiment_need(capsys, tmp_path):
    words = ["--dataset", "folder", "--epochs", "10", "--data_dir", str(tmp_path / "none"), "--max_lr=0.1"]
    assert main(["doctor", *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["epochs=10 is not used by doctor", "max_lr=0.1 is not used by doctor"]
    assert len(said) == 3 and f"data_dir={tmp_path}/none is not a folder" in said[2]


def test_the_list_of_commands_fits_a_narrow_terminal(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert all(len(line) <= 80 for line in listed)


@pytest.mark.parametrize("step", COMMANDS)
def test_help_shows_each_parameter_once_under_its_heading_with_its_default(capsys, step):
    assert main([step, "--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS[step].model_fields:
        assert len(re.findall(rf"^  (--{name}|\[{name.upper()}\]\.\.\.)(?= |$)", shown, re.MULTILINE)) == 1, name
    if step == "train":
        training = shown.partition("\nTraining:\n")[2].partition("\n\n")[0]
        assert re.search(r"^  --epochs INTEGER +passes over the train split \[12\]$", training, re.MULTILINE)
        assert re.search(r"^  --max_lr FLOAT\|auto +peak learning rate;", training, re.MULTILINE)


def test_help_answers_without_importing_torch_or_mlflow():
    code = (
        "import sys; from pipeline.__main__ import main; status = main(['train', '--help']);"
        "print(sorted({'torch', 'mlflow', 'matplotlib'} & set(sys.modules)), status)"
    )
    done = in_a_new_process(code)
    assert done.stdout.endswith("[] 0\n")
    assert "--max_lr" in done.stdout


def test_a_step_starts_without_garbage_collection_during_its_imports(tmp_path):
    code = (
        "import gc; from pipeline.__main__ import main; status = main(['status']);"
        "print(status, gc.get_stats()[2]['collections'], gc.isenabled(), gc.get_freeze_count())"
    )
    done = in_a_new_process(code, tmp_path)  # in a folder without runs, because their objects would be collected too
    assert done.stdout.endswith("0 0 True 0\n")
    assert done.stderr == ""


def test_a_training_starts_without_importing_what_only_its_results_need():
    late = "{'matplotlib', 'scipy.stats', 'scipy.signal', 'sklearn', 'pytorch_grad_cam', 'optuna'}"
    code = f"import sys, pipeline.steps.train; print(sorted({late} & set(sys.modules)))"
    done = in_a_new_process(code)
    assert done.stdout == "[]\n"
