import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from kept_hf.models.tensor_file import tensor_file

KINDS = {
    "half": ((3,), torch.float16),  # three of two bytes: what follows must not begin in the middle of a number
    "keys": ((2, 5, 3), torch.float32),
    "brain": ((5, 1), torch.bfloat16),
    "empty": ((0, 4), torch.float32),
    "wide": ((2,), torch.float64),
}


def filled(tensors):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(*t.shape, generator=generator).to(t.dtype) for name, t in tensors.items()}


def test_it_holds_what_save_file_writes(tmp_path):
    with tensor_file(tmp_path / "ours", KINDS, {"about": "ä {}"}) as tensors:
        assert {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()} == KINDS
        expected = filled(tensors)
        for name, states in tensors.items():
            for place in reversed(range(states.shape[0])):
                states[place] = expected[name][place]
    save_file(expected, tmp_path / "theirs", {"about": "ä {}"})
    ours, theirs = load_file(tmp_path / "ours"), load_file(tmp_path / "theirs")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    with safe_open(tmp_path / "ours", framework="pt") as file:
        assert file.metadata() == {"about": "ä {}"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_until_the_end_nothing_can_be_loaded(tmp_path):
    with tensor_file(tmp_path / "a", KINDS, {}) as tensors:
        tensors["keys"].fill_(1)
        (unfinished,) = tmp_path.iterdir()  # what a killed process leaves
        assert unfinished.name != "a"
        with pytest.raises(SafetensorError):
            load_file(unfinished)
    assert load_file(tmp_path / "a")["keys"].eq(1).all()


def test_an_interruption_leaves_what_was_there(tmp_path):
    save_file({"old": torch.ones(2)}, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt), tensor_file(tmp_path / "a", KINDS, {}):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and list(load_file(tmp_path / "a")) == ["old"]


def test_precisions_without_a_name(tmp_path):
    with pytest.raises(TypeError, match=r"'a' in torch.int64; pass one of torch.float32"):
        tensor_file(tmp_path / "a", {"a": ((1,), torch.int64)}, {}).__enter__()
    assert not list(tmp_path.iterdir())
