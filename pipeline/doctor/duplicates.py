"""Finds duplicate images, exact or near, within a split and across splits."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.doctor.looks import Looks

GRID = 16  # px of the compared thumbnails
COMPONENTS = 128  # principal components of their pixels, those with the largest variances
SHRINKAGE = 0.1  # share of the mean variance that is added to each variance, so that noise is not amplified
HASH = 8  # frequencies along each axis
MOST_BITS = 16  # bits of 64 that may differ; unrelated images differ in 32 ± 4
IMAGES_AT_ONCE = 4096  # images as floats at the same time, 50 MB
CELLS_AT_ONCE = 2**25  # cells of the table of similarities

COLUMNS = ["image", "twin", "kind", "similarity", "bits"]


def find(looks: Looks, parts: np.ndarray, eligible: np.ndarray, similarity: float) -> pd.DataFrame:
    """A row for each image and each part in which it has a twin: its own part or an earlier one.

    parts: (N,) int, ascending: 0 for train and so on. eligible: (N,) bool: the images that are compared.
    `image` and `twin` are positions in `looks`; `twin` is the nearest one in that part. Within one part, the later of
    the two is the `image`. `kind` is exact if all pixels are equal, else near. Near twins pass two tests: their
    similarity (the cosine between whitened thumbnails, in [-1, 1]) is at least `similarity`, and their perceptual
    hashes differ in at most 16 of 64 `bits`.
    """
    features, hashes = whitened(looks.thumbnails), perceptual_hashes(looks.thumbnails)
    places = [np.flatnonzero((parts == part) & eligible) for part in range(int(parts.max()) + 1)]
    found = [pd.DataFrame(columns=COLUMNS)]
    for later, images in enumerate(places):
        for earlier in range(later + 1):
            twins = _exact(looks.digests, images, places[earlier], earlier == later)
            rest = images[twins < 0]
            nearest, cosines = _nearest(features, rest, places[earlier])
            bits = (hashes[rest] != hashes[nearest]).sum(1)
            # similarity=1 finds only exact twins: for different images, too, the cosine may round to 1.
            close = (cosines >= similarity) & (bits <= MOST_BITS) & (similarity < 1)
            found += [
                _rows(images[twins >= 0], twins[twins >= 0], "exact", 1.0, 0),
                _rows(rest[close], nearest[close], "near", cosines[close], bits[close]),
            ]
    filled = [each for each in found if len(each)]
    return pd.concat(filled, ignore_index=True) if filled else found[0]


def whitened(thumbnails: np.ndarray) -> Tensor:
    """Unit vectors (N, up to 128). The product of two is the similarity of the images, without brightness and contrast.

    They are the principal components of the pixels, each divided by its deviation over the set. With raw pixels, all
    skies would look alike. Mirrored and turned copies do not look alike.
    """
    cell = thumbnails.shape[-1] // GRID
    blocks = torch.from_numpy(thumbnails).split(IMAGES_AT_ONCE)
    pixels = torch.cat([F.avg_pool2d(block.float(), cell).flatten(1) for block in blocks])
    pixels -= pixels.mean(1, keepdim=True)
    pixels /= pixels.std(1, keepdim=True).clamp(min=1)
    pixels -= pixels.mean(0)
    covariance = (pixels.T @ pixels).double() / len(pixels)
    variances, directions = torch.linalg.eigh(covariance)
    scale = (variances.clamp(min=0) + SHRINKAGE * variances.mean() + 1e-9).rsqrt()
    return F.normalize(pixels @ (directions * scale)[:, -COMPONENTS:].float(), dim=1)


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Bits (N, 64) bool: the signs of the 8 x 8 lowest frequencies of the grey image, without constant ones.

    This is the pHash of Zauner 2010 ("Implementation and Benchmarking of Perceptual Image Hash Functions"), without its
    median.
    """
    side = thumbnails.shape[-1]
    waves = np.cos(np.pi * np.outer(np.arange(1, HASH + 1), 2 * np.arange(side) + 1) / (2 * side)).astype(np.float32)
    blocks = (thumbnails[i : i + IMAGES_AT_ONCE] for i in range(0, len(thumbnails), IMAGES_AT_ONCE))
    signs = [waves @ block.mean(1, dtype=np.float32) @ waves.T > 0 for block in blocks]
    return np.concatenate(signs).reshape(len(thumbnails), HASH**2)


def _exact(digests: np.ndarray, images: np.ndarray, among: np.ndarray, same: bool) -> np.ndarray:
    """For each of `images`, the first of `among` with the same digest, (N,); -1 if there is no other image."""
    first = pd.Series(among, index=pd.Index([each.tobytes() for each in digests[among]]))
    first = first[~first.index.duplicated()]
    twins = first.reindex([each.tobytes() for each in digests[images]], fill_value=-1).to_numpy()
    return np.where(twins == images, -1, twins) if same else twins


def _nearest(features: Tensor, images: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `images`, the position and the similarity of the nearest image in `among` that comes before it."""
    nearest, cosines = np.zeros(len(images), dtype=np.int64), np.full(len(images), -1.0, dtype=np.float32)
    others = features[torch.from_numpy(among)]
    rows = max(1, CELLS_AT_ONCE // max(1, len(among)))
    for start in range(0, len(images), rows):
        block = images[start : start + rows]
        # Both arrays ascend, so images after the last one of the block are not compared.
        before = int(np.searchsorted(among, block[-1]))
        if not before:
            continue
        products = features[torch.from_numpy(block)] @ others[:before].T
        if among[before - 1] >= block[0]:
            later = torch.from_numpy(among[:before])[None] >= torch.from_numpy(block)[:, None]
            products.masked_fill_(later, -1)
        values, places = products.max(1)
        nearest[start : start + rows], cosines[start : start + rows] = among[places.numpy()], values.numpy()
    return nearest, cosines


def _rows(images: np.ndarray, twins: np.ndarray, kind: str, similarity: object, bits: object) -> pd.DataFrame:
    columns = [images, twins, kind, similarity, bits]
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), index=range(len(images)))


def in_order(found: pd.DataFrame, parts: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """`found` with the most important rows first.

    Exact copies in two classes come first. Then come test images with a twin in train, pairs from other splits, and
    pairs within a split; in each of these, exact twins come before near ones.
    """
    image, twin = (found[column].to_numpy(dtype=np.int64) for column in ("image", "twin"))
    distance, is_near = parts[image] - parts[twin], found["kind"] == "near"
    is_sure = (labels[image] != labels[twin]) & ~is_near
    order = np.lexsort([-found["similarity"].to_numpy(dtype=np.float64), is_near, -distance, ~is_sure])
    return found.iloc[order].reset_index(drop=True)


def contradictions(found: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    """The rows of `found` whose images are exact copies but have two classes."""
    image, twin = (found[column].to_numpy(dtype=np.int64) for column in ("image", "twin"))
    return found[(labels[image] != labels[twin]) & (found["kind"] == "exact").to_numpy()]
