"""The splits of any set are disjoint and complete, with the classes in proportion."""

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.cache import TEST, TRAIN, VALID, Decoded
from pipeline.data.division import divide_into, hold_out_groups
from pipeline.data.splits import Report, Splits, divide

SIZE = 2


def decoded(counts: list[list[int]]) -> Decoded:
    """An image set with `counts[part][class]` images of each class in each part, in random order."""
    numbers = np.array(counts).ravel()
    parts, labels = (np.repeat(index.ravel(), numbers) for index in np.indices(np.shape(counts)))
    order = np.random.default_rng(0).permutation(len(labels))
    images = np.zeros((len(labels), 3, SIZE, SIZE), dtype=np.uint8)
    moments = np.zeros((len(labels), 2, 3), dtype=np.int64)
    by_part = order[np.argsort(parts[order], kind="stable")]
    names = [f"{row}" for row in range(len(labels))]
    classes = [f"{label}" for label in range(len(counts[0]))]
    return Decoded(images, moments, labels[by_part], parts[by_part], names, classes, "digest", [])


def split(images: Decoded, valid_fraction: float, limit: int = 0) -> Splits | None:
    """The splits; None if they are refused. The error must have one line."""
    settings = {"valid_fraction": valid_fraction, "limit_train": limit, "limit_test": 0}
    try:
        return divide(images, "some", flip=False, report=Report(), **settings)
    except ValueError as error:
        assert "\n" not in str(error)
        return None


def is_stratified(held: np.ndarray, whole: np.ndarray) -> bool:
    """Whether no class has a clearly larger held-out share than another class that has more images to give."""
    return all(
        held[a] >= whole[a] - 1 or held[b] / whole[b] - held[a] / whole[a] <= 1 / whole[a] + 1 / whole[b]
        for a, b in permutations(range(len(whole)), 2)
    )


NUMBERS = st.integers(1, 5).flatmap(lambda classes: st.lists(st.integers(1, 40), min_size=classes, max_size=classes))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(train=NUMBERS, parts=st.sampled_from([(), (TEST,), (VALID,), (VALID, TEST)]), fraction=st.floats(0, 0.99))
def test_the_splits_partition_any_set(train: list[int], parts: tuple[int, ...], fraction: float) -> None:
    counts = [[*train] if part in (TRAIN, *parts) else [0] * len(train) for part in (TRAIN, VALID, TEST)]
    images = decoded(counts)
    splits = split(images, fraction)
    if splits is None:
        assert not {VALID, TEST} <= {*parts}
        return
    every = [each for each in (splits.train, splits.valid, splits.test) if each is not None]
    assert sorted(np.concatenate([each.rows for each in every])) == list(range(len(images.labels)))
    for each in every:
        assert (np.diff(each.rows) > 0).all()
        assert (each.labels == images.labels[each.rows]).all()
    assert {*splits.train.labels} == {*range(len(train))}
    assert (splits.valid is not None) == (VALID in parts or fraction > 0)
    number = {name: np.bincount(each.labels, minlength=len(train)) for name, each in zip("abc", every, strict=False)}
    if TEST in parts and VALID not in parts and splits.valid is not None:
        assert len(splits.valid) == max(1, round(fraction * sum(train)))
        assert is_stratified(number["b"], np.array(train))
    if TEST not in parts:
        assert is_stratified(np.bincount(splits.test.labels, minlength=len(train)), np.array(train))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(train=NUMBERS, limit=st.integers(1, 250))
def test_a_limit_takes_a_stratified_part_of_train_with_every_class(train: list[int], limit: int) -> None:
    images = decoded([train, [0] * len(train), train])
    splits = split(images, 0.0, limit)
    if splits is None:
        assert limit < len(train)
        return
    assert len(splits.train) == min(limit, sum(train))
    left_out = np.array(train) - np.bincount(splits.train.labels, minlength=len(train))
    assert {*splits.train.labels} == {*range(len(train))}
    assert is_stratified(left_out, np.array(train))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(data=st.data())
def test_groups_are_held_out_whole_and_every_class_keeps_an_image(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 80))
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=number, max_size=number)))
    groups = np.array(data.draw(st.lists(st.integers(0, 20), min_size=number, max_size=number)))
    held = hold_out_groups(labels, groups, data.draw(st.floats(0.01, 0.99)), 0)
    assert not {*groups[held]} & {*groups[~held]}
    assert {*labels[~held]} == {*labels}


def test_held_out_groups_have_the_wanted_fraction_of_each_class() -> None:
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 300, 6000)
    labels = np.where(draw.random(6000) < 0.1, 2, groups % 2)  # mostly of one class, as a patient's images are
    held = hold_out_groups(labels, groups, 0.2, 0)
    shares = np.bincount(labels[held]) / np.bincount(labels)
    assert np.abs(shares - 0.2).max() < 0.02
    assert hold_out_groups(labels, groups, 0.2, 1).tolist() != held.tolist()


@settings(derandomize=True, deadline=None, max_examples=100)
@given(counts=NUMBERS, folds=st.integers(2, 6), grouped=st.booleans())
def test_folds_partition_any_set_and_are_stratified(counts: list[int], folds: int, grouped: bool) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    groups = np.arange(len(labels)) // 2 if grouped else None
    try:
        found = divide_into(folds, np.arange(len(labels)), labels, groups)
    except ValueError as error:
        assert "\n" not in str(error) and min(counts) < 2 * folds
        return
    assert sorted(np.concatenate(found)) == list(range(len(labels)))
    for fold in found:
        assert {*np.delete(labels, fold)} == {*range(len(counts))}  # every class can be learned without it
    if groups is None:
        assert max(map(len, found)) - min(map(len, found)) <= 1
        assert all(
            is_stratified(np.bincount(fold, minlength=len(counts)), np.array(counts))
            for fold in (labels[each] for each in found[:1])
        )
    else:
        assert all(not {*groups[fold]} & {*np.delete(groups, fold)} for fold in found)


def test_each_fold_is_a_test_split_without_the_test_part_and_validation_is_carved_from_the_rest() -> None:
    images = decoded([[30, 30], [10, 10], [5, 5]])
    common = {"flip": False, "report": Report(), "valid_fraction": 0.1, "limit_train": 0, "limit_test": 0}
    parts = [divide(images, "some", folds=4, fold=fold, **common) for fold in range(1, 5)]
    tested = np.concatenate([each.test.rows for each in parts])
    assert sorted(tested) == list(range(80))  # the test part, rows 80 to 89, is in no fold
    for each in parts:
        assert each.valid is not None and len(each.valid) == 6
        assert len({*each.train.rows} | {*each.valid.rows} | {*each.test.rows}) == 80
    assert len({each.digest for each in parts}) == 4


def test_a_part_of_a_split_is_evenly_spaced() -> None:
    splits = split(decoded([[30, 30], [0, 0], [50, 50]]), 0.1)
    assert splits is not None
    few = splits.test.spread(20)
    positions = [splits.test.names.index(name) for name in few.names]
    assert len(few) == 20 and {*np.diff(positions)} <= {5, 6} and positions[0] == 0 and positions[-1] == 99
    assert splits.test.spread(1000).names == splits.test.names


def test_the_digest_of_a_split_depends_only_on_its_images() -> None:
    images = decoded([[30, 30], [0, 0], [300, 4]])
    whole, cut = split(images, 0.1), split(images, 0.2, limit=20)
    assert whole is not None and cut is not None
    assert whole.digest != cut.digest
    assert whole.test.digest() == cut.test.digest() != whole.train.digest()
    before = whole.test.digest()
    images.images[whole.test.rows[-1], 0, 0, 0] = 1  # of the last image, which is digested after 256 others
    assert whole.test.digest() != before
