import pickle

import pytest
import torch

from pipeline.tracking import checkpoint


def test_round_trip(tmp_path):
    state = {
        "weight": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "count": torch.tensor(3),
    }
    checkpoint.save(tmp_path / "deep" / "w.safetensors", state, {"classes": ["é", "b"], "mean": [0.5]})
    loaded, description = checkpoint.load(tmp_path / "deep" / "w.safetensors")
    assert description == {"classes": ["é", "b"], "mean": [0.5]}
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor)


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path):
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
