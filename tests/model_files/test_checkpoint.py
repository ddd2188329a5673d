"""Weights and states are saved as a whole and loaded unchanged. Any other file is refused."""

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model_files import checkpoint


def test_a_saved_state_is_loaded_unchanged(tmp_path):
    state = {
        "weight": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "count": torch.tensor(3),
    }
    checkpoint.save(tmp_path / "deep" / "w.safetensors", state, {"classes": ["é", "b"], "mean": [0.5]})
    loaded, description = checkpoint.load(tmp_path / "deep" / "w.safetensors")
    assert description == {"classes": ["é", "b"], "mean": [0.5]}
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor)


def test_a_failed_save_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, {"a": torch.ones(2)}, {})
    with pytest.raises(TypeError):
        checkpoint.save(path, {"a": torch.zeros(2)}, {"not json": object()})
    assert torch.equal(checkpoint.load(path)[0]["a"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps({"a": 1})])
def test_another_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.safetensors: not weights"):
        checkpoint.load(tmp_path / "w.safetensors")


def test_a_safetensors_file_without_description_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="not weights"):
        checkpoint.load(tmp_path / "w.safetensors")


def test_a_saved_tree_is_loaded_unchanged(tmp_path):
    kernel = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    tree = {"state": {0: {"step": torch.tensor(3.0), "mean": kernel}}, "groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]}
    checkpoint.save_tree(tmp_path / "state", tree, {"step": 7})
    loaded, description = checkpoint.load_tree(tmp_path / "state")
    assert description == {"step": 7}
    assert loaded["groups"] == tree["groups"]
    assert list(loaded["state"]) == [0]
    assert torch.equal(loaded["state"][0]["mean"], kernel)
    assert loaded["state"][0]["mean"].stride() == kernel.stride()


SAVED = {"state": {0: torch.arange(6.0).reshape(2, 3)}, "epoch": 3, "none": None}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "state"
    checkpoint.save_tree(path, SAVED, {"step": 7})
    return path.read_bytes()


@settings(derandomize=True, deadline=None, max_examples=300)
@given(data=st.data())
def test_a_cut_or_changed_file_is_refused_or_loads_equal(written, tmp_path_factory, data):
    kept = data.draw(st.slices(len(written)))
    changed = bytearray(written[kept])
    for place in data.draw(st.lists(st.integers(0, max(len(changed) - 1, 0)), max_size=3)) if changed else []:
        changed[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(changed)
    try:
        tree, description = checkpoint.load_tree(path)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert description == {"step": 7}
    assert (tree["epoch"], tree["none"]) == (3, None)
    assert torch.equal(tree["state"][0], SAVED["state"][0])


def test_a_planted_pickle_is_not_opened(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "state").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="not weights"):
        checkpoint.load_tree(tmp_path / "state")
    assert not (tmp_path / "executed").exists()
