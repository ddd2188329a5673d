"""Images that are there twice, equal to the bit or nearly, within a split and across splits."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.doctor.looks import Looks

GRID = 16  # px of the thumbnails that are compared
COMPONENTS = 128  # of their pixels, by variance
SHRINKAGE = 0.1  # of the mean variance, added to each, so that mere noise is not blown up
HASH = 8  # frequencies along each axis
MOST_BITS = 16  # of 64 that may differ; of unrelated images 32 do, give or take 4
IMAGES_AT_ONCE = 4096  # that are numbers in place of bytes, 50 MB
CELLS_AT_ONCE = 2**25  # of the table of similarities

COLUMNS = ["image", "twin", "kind", "similarity", "bits"]


def find(looks: Looks, parts: np.ndarray, eligible: np.ndarray, similarity: float) -> pd.DataFrame:
    """Each image that has a twin in its own part or an earlier one: a row per such part, with the nearest twin there.

    parts: (N,) int, ascending: 0 for train and so on. eligible: (N,) bool, which images are compared.
    Of two twins in one part the later is the `image`, the earlier its `twin`, both positions in `looks`. `kind` is
    exact where the pixels are equal, else near: two witnesses agree, a `similarity` of at least so much (the cosine
    between whitened thumbnails, in [-1, 1]) and a perceptual hash that differs in `bits`, 16 of 64 at most.
    """
    features, hashes = whitened(looks.thumbnails), perceptual_hashes(looks.thumbnails)
    places = [np.flatnonzero((parts == part) & eligible) for part in range(int(parts.max()) + 1)]
    found = [pd.DataFrame(columns=COLUMNS)]
    for later, images in enumerate(places):
        for earlier in range(later + 1):
            twins = _exact(looks.digests, images, places[earlier], earlier == later)
            rest = images[twins < 0]
            nearest, alike = _nearest(features, rest, places[earlier])
            bits = (hashes[rest] != hashes[nearest]).sum(1)
            # Of two others, too, the cosine may round to 1.
            close = (alike >= similarity) & (bits <= MOST_BITS) & (similarity < 1)
            found += [
                _rows(images[twins >= 0], twins[twins >= 0], "exact", 1.0, 0),
                _rows(rest[close], nearest[close], "near", alike[close], bits[close]),
            ]
    filled = [each for each in found if len(each)]
    return pd.concat(filled, ignore_index=True) if filled else found[0]


def whitened(thumbnails: np.ndarray) -> Tensor:
    """Unit vectors (N, up to 128) whose products say how alike two images are, whatever their brightness and contrast.

    The pixels' principal components, each divided by its deviation over the set: of raw pixels all skies are alike.
    Mirrored and turned copies are not alike.
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
    """Bits (N, 64) bool: the signs of the 8 x 8 lowest frequencies of the grey image, constants aside.

    The pHash of Zauner 2010 ("Implementation and Benchmarking of Perceptual Image Hash Functions") without its median.
    """
    side = thumbnails.shape[-1]
    waves = np.cos(np.pi * np.outer(np.arange(1, HASH + 1), 2 * np.arange(side) + 1) / (2 * side)).astype(np.float32)
    blocks = (thumbnails[i : i + IMAGES_AT_ONCE] for i in range(0, len(thumbnails), IMAGES_AT_ONCE))
    signs = [waves @ block.mean(1, dtype=np.float32) @ waves.T > 0 for block in blocks]
    return np.concatenate(signs).reshape(len(thumbnails), HASH**2)


def _exact(digests: np.ndarray, images: np.ndarray, among: np.ndarray, same: bool) -> np.ndarray:
    """For each of `images`, the first of `among` with its digest, (N,); -1 where there is none but itself."""
    first = pd.Series(among, index=pd.Index([each.tobytes() for each in digests[among]]))
    first = first[~first.index.duplicated()]
    twins = first.reindex([each.tobytes() for each in digests[images]], fill_value=-1).to_numpy()
    return np.where(twins == images, -1, twins) if same else twins


def _nearest(features: Tensor, images: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `images`, the position and the similarity of the nearest of those `among` that come before it."""
    nearest, alike = np.zeros(len(images), dtype=np.int64), np.full(len(images), -1.0, dtype=np.float32)
    others = features[torch.from_numpy(among)]
    rows = max(1, CELLS_AT_ONCE // max(1, len(among)))
    for start in range(0, len(images), rows):
        block = images[start : start + rows]
        # Both ascend: of what comes after the block's last image nothing need be asked.
        before = int(np.searchsorted(among, block[-1]))
        if not before:
            continue
        products = features[torch.from_numpy(block)] @ others[:before].T
        if among[before - 1] >= block[0]:
            later = torch.from_numpy(among[:before])[None] >= torch.from_numpy(block)[:, None]
            products.masked_fill_(later, -1)
        values, places = products.max(1)
        nearest[start : start + rows], alike[start : start + rows] = among[places.numpy()], values.numpy()
    return nearest, alike


def _rows(images: np.ndarray, twins: np.ndarray, kind: str, similarity: object, bits: object) -> pd.DataFrame:
    columns = [images, twins, kind, similarity, bits]
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), index=range(len(images)))


def in_order(found: pd.DataFrame, parts: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """`found` with what matters most first.

    Exact copies of two classes, then test images in train, then other splits' pairs; exact before near.
    """
    image, twin = (found[column].to_numpy(dtype=np.int64) for column in ("image", "twin"))
    distance, is_near = parts[image] - parts[twin], found["kind"] == "near"
    is_sure = (labels[image] != labels[twin]) & ~is_near
    order = np.lexsort([-found["similarity"].to_numpy(dtype=np.float64), is_near, -distance, ~is_sure])
    return found.iloc[order].reset_index(drop=True)


def contradictions(found: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    """The rows of `found` whose images are equal to the bit and of two classes."""
    image, twin = (found[column].to_numpy(dtype=np.int64) for column in ("image", "twin"))
    return found[(labels[image] != labels[twin]) & (found["kind"] == "exact").to_numpy()]
