"""Commands that fine-tune a folder of photos with other libraries, as their documentation shows.

All libraries take the same folder: train, val and test, each with a folder per class. They start from the same weights
if they can. Each entry names the documentation that its settings come from. No setting was chosen on the test photos.
"""

from dataclasses import dataclass
from pathlib import Path

BACKBONE = "tf_efficientnet_lite0"
IMAGE_SIZE = 224  # px

# Values for the placeholders in `commands`: paths of the photos, the weights and the peer's own files, and counts.
Words = dict[str, str]


@dataclass(frozen=True)
class Peer:
    """A library, how it is documented to be used, and the commands that do so.

    A command is the arguments of the Python interpreter, and `{name}` in it is a key of `Words`. The last command
    prints `CORRECT` and the number of test photos that the peer predicts correctly.
    """

    package: str
    network: str
    weights: str  # the file that it starts from, below the folder of weights
    epochs: int
    settings: str
    documentation: str
    commands: tuple[tuple[str, ...], ...]
    scripts: tuple[str, ...] = ()  # that its package does not hold, below the folder {scripts}

    def missing(self, weights: Path, scripts: Path) -> str:
        """The files that the peer needs and does not find, with what to do; empty if it can start."""
        if not (weights / self.weights).is_file():
            return f"no weights at hand: put {self.weights} into {weights}"
        absent = [name for name in self.scripts if not (scripts / name).is_file()]
        return f"its package holds no {' and '.join(absent)}: give their folder with --timm" if absent else ""


FASTAI = """
import sys
from fastai.vision.all import *
data, weights, epochs = sys.argv[1:]
dls = ImageDataLoaders.from_folder(data, valid="val", item_tfms=Resize(460), batch_tfms=aug_transforms(size=224))
learn = vision_learner(dls, "tf_efficientnet_lite0", metrics=error_rate, pretrained_cfg_overlay={"file": weights})
learn.fine_tune(int(epochs), 3e-3)
test = dls.test_dl(get_image_files(Path(data) / "test"), with_labels=True)
probabilities, labels = learn.get_preds(dl=test)
print("CORRECT", int((probabilities.argmax(1) == labels).sum()))
"""

ULTRALYTICS = """
import sys
from ultralytics import YOLO
data, weights, epochs, number = sys.argv[1:]
model = YOLO(weights)
model.train(data=data, epochs=int(epochs), imgsz=224)
print("CORRECT", round(model.val(split="test").top1 * int(number)))
"""

TIMM = """
import json, sys
results, number = sys.argv[1:]
print("CORRECT", round(json.load(open(results))["top1"] / 100 * int(number)))
"""

_OF_TIMM = ("--model", BACKBONE, "--num-classes", "{classes}", "--device", "{device}")

PEERS = {
    "timm train.py": Peer(
        package="timm",
        network=BACKBONE,
        weights=f"{BACKBONE}.safetensors",
        epochs=30,
        settings="--pretrained --batch-size 32 --epochs 30 --opt adamw --lr 1e-4 --weight-decay 0.01",
        documentation="https://huggingface.co/docs/timm/training_script",
        commands=(
            (
                *("{scripts}/train.py", "--data-dir", "{data}", *_OF_TIMM),
                *("--pretrained", "--pretrained-path", "{weights}", "--batch-size", "32", "--epochs", "{epochs}"),
                *("--opt", "adamw", "--lr", "1e-4", "--weight-decay", "0.01", "--workers", "{cores}"),
                *("--output", "{out}", "--experiment", "of_timm"),
            ),
            (
                *("{scripts}/validate.py", "--data-dir", "{data}/test", *_OF_TIMM, "--workers", "{cores}"),
                *("--checkpoint", "{out}/of_timm/model_best.pth.tar", "--batch-size", "32"),
                *("--results-file", "{out}/of_timm.json", "--results-format", "json"),
            ),
            ("-c", TIMM, "{out}/of_timm.json", "{photos}"),
        ),
        scripts=("train.py", "validate.py"),
    ),
    "fastai": Peer(
        package="fastai",
        network=BACKBONE,
        weights=f"{BACKBONE}.safetensors",
        epochs=2,
        settings="Resize(460), aug_transforms(size=224), fine_tune(2, 3e-3)",
        documentation="https://docs.fast.ai/tutorial.vision.html",
        commands=(("-c", FASTAI, "{data}", "{weights}", "{epochs}"),),
    ),
    "ultralytics": Peer(
        package="ultralytics-opencv-headless",
        network="yolo11n-cls",
        weights="yolo11n-cls.pt",
        epochs=100,
        settings="epochs=100 imgsz=224; rest as is",
        documentation="https://docs.ultralytics.com/tasks/classify/",
        commands=(("-c", ULTRALYTICS, "{data}", "{weights}", "{epochs}", "{photos}"),),
    ),
}
