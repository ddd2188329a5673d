"""The classes of photos by an exported model, with NumPy, ONNX Runtime and Pillow: python THIS model.onnx PHOTO ..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def pixels(path, image_size, margin, resize, interpolation):
    """The photo (3, image_size, image_size) uint8, as the training saw it: upright, in RGB, a square of `side` px."""
    side = image_size + 2 * margin
    image = Image.open(path)
    image.draft(None, (2 * side, 2 * side))  # a large JPEG comes smaller from its decoder, as it did in training
    image = ImageOps.exif_transpose(image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    by = Image.Resampling[interpolation.upper()]
    if resize == "crop":  # the middle square first, then scaled in one step: cut off before scaling, not after
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        image = image.resize((side, side), by, box=(left, top, left + short, top + short))
    elif resize == "squash":
        image = image.resize((side, side), by)
    else:  # pad: all of it, in the middle of a grey square
        width, height = (max(1, round(each * side / max(image.size))) for each in image.size)
        scaled, image = image.resize((width, height), by), Image.new("RGB", (side, side), (128, 128, 128))
        image.paste(scaled, ((side - width) // 2, (side - height) // 2))
    within = slice(margin, margin + image_size)  # what scaling saw beyond is cut off now
    return np.asarray(image)[within, within].transpose(2, 0, 1)


def probabilities(model, paths):
    """The classes, and their probabilities for each photo, (N, C) float32."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map  # the file says how its photos are read
    sizes = int(said["image_size"]), int(said["margin"])
    images = np.stack([pixels(path, *sizes, said["resize"], said["interpolation"]) for path in paths])
    return json.loads(said["classes"]), session.run(["probabilities"], {"images": images})[0]


if __name__ == "__main__":
    classes, found = probabilities(sys.argv[1], sys.argv[2:])
    for path, each in zip(sys.argv[2:], found, strict=True):
        print(f"{path}: {classes[each.argmax()]} {each.max():.4f}")
