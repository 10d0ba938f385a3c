import copy
import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_late_interaction import BLOCKS, CODES, NOTES, close, make_model, padded
from tiny import randomize

from kept_hf import KeptLongformerForICDMatching
from kept_hf.models.caches import CodeCache, NoteCache, StaleCacheError
from kept_hf.training.adapters import adapter_config, add_adapter


@pytest.fixture
def model(tiny_config):
    return make_model(tiny_config)


@pytest.fixture
def notes(model):
    return model.encode_note(*padded(NOTES))


@pytest.fixture
def codes(model):
    return model.encode_codes(BLOCKS)


def test_save_and_load(model, notes, codes, tmp_path):
    expected = model.score(notes, codes)
    notes.save(tmp_path / "notes.safetensors")
    codes.save(tmp_path / "codes.safetensors")
    read_notes = NoteCache.load(tmp_path / "notes.safetensors")
    read_codes = CodeCache.load(tmp_path / "codes.safetensors")
    assert torch.equal(model.score(read_notes, read_codes), expected)
    assert read_codes.codes == CODES and read_codes.blocks == BLOCKS
    assert read_notes.token_ids == [token for note in NOTES for token in note]


def test_what_is_no_cache_is_refused(notes, tmp_path):
    notes.save(tmp_path / "notes.safetensors")
    with pytest.raises(ValueError, match=r"holds 'NoteCache' .*not 'CodeCache'"):
        CodeCache.load(tmp_path / "notes.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="something else"):
        NoteCache.load(tmp_path / "other.safetensors")


def change_by_optimizer(model, foreach):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=foreach)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def train_positions(model):
    """A fused optimizer raises no version, and the first position, that of padding, has no gradient."""
    weight = model.longformer.embeddings.position_embeddings.weight
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0, fused=True)
    (note_ids, note_mask), (ids, mask) = padded(NOTES), padded(list(BLOCKS.values()))
    inputs = {"input_ids": note_ids, "attention_mask": note_mask, "code_input_ids": ids, "code_attention_mask": mask}
    model(**inputs).logits.sum().backward()
    before = weight[0].clone()
    optimizer.step()
    assert torch.equal(weight[0], before)


CHANGES = {
    "fused optimizer": train_positions,
    "optimizer": lambda model: change_by_optimizer(model, foreach=False),
    "foreach optimizer": lambda model: change_by_optimizer(model, foreach=True),
    "in place": lambda model: model.longformer.encoder.layer[1].output.dense.weight.detach()[0, 3].add_(0.1),
    "around the versions": lambda model: [p.data.mul_(1.01) for p in model.parameters()],
    "another tensor": lambda model: setattr(
        model.longformer.encoder.layer[0].output.dense, "bias", torch.nn.Parameter(torch.ones(16))
    ),
    "load_state_dict": lambda model: model.load_state_dict(
        randomize(KeptLongformerForICDMatching(model.config), seed=1).state_dict()
    ),
    "precision": lambda model: model.to(torch.bfloat16),
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_of_the_weights_caches_are_stale(model, notes, codes, change):
    CHANGES[change](model)
    with pytest.raises(StaleCacheError, match=r"NoteCache was made with other weights .*model.encode_note"):
        model.score(notes, codes)
    fresh = model.encode_note(*padded(NOTES))
    with pytest.raises(StaleCacheError, match=r"CodeCache was made with other weights .*model.encode_codes"):
        model.score(fresh, codes)
    model.score(fresh, model.encode_codes(BLOCKS))


def test_the_same_weights_elsewhere(model, notes, codes, tmp_path):
    model.save_pretrained(tmp_path)
    same = KeptLongformerForICDMatching.from_pretrained(tmp_path).eval()
    assert torch.equal(same.score(notes, codes), model.score(notes, codes))
    assert copy.deepcopy(model).weights_fingerprint() == model.weights_fingerprint()
    other = randomize(KeptLongformerForICDMatching(model.config), seed=2).eval()
    with pytest.raises(StaleCacheError):
        other.score(notes, codes)


def test_another_window_is_another_encoder(model):
    config = copy.deepcopy(model.config)
    config.attention_window = [8, 8]
    other = KeptLongformerForICDMatching(config)
    other.load_state_dict(model.state_dict())
    assert other.weights_fingerprint() != model.weights_fingerprint()


def test_adapters(model):
    plain = model.score(model.encode_note(*padded(NOTES)), model.encode_codes(BLOCKS))
    adapted = add_adapter(model, adapter_config("lora", lora_r=2, lora_alpha=4), "base").eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    notes, codes = adapted.encode_note(*padded(NOTES)), adapted.encode_codes(BLOCKS)
    assert (adapted.score(notes, codes) - plain).abs().max() > 1e-3
    with adapted.disable_adapter():
        with pytest.raises(StaleCacheError):
            adapted.score(notes, codes)
        close(adapted.score(adapted.encode_note(*padded(NOTES)), adapted.encode_codes(BLOCKS)), plain)
    adapted.score(notes, codes)


def test_weights_are_hashed_once(model, monkeypatch):
    calls, sha256 = [], hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *args: calls.append(1) or sha256(*args))
    assert model.weights_fingerprint() == model.weights_fingerprint()
    assert len(calls) == 1


def test_another_description_is_stale(model, notes, codes):
    model.score(notes, codes, {"401.9": BLOCKS["401.9"]})
    with pytest.raises(StaleCacheError, match=r"another description of '401.9' .*model.encode_codes"):
        model.score(notes, codes, {"038.9": BLOCKS["038.9"], "401.9": [0, 50, 52]})


def test_unknown_codes(model, notes, codes):
    with pytest.raises(ValueError, match=r"'A00' \(1 in all\), not in the CodeCache; add"):
        model.score(notes, codes, ["401.9", "A00"])
    with pytest.raises(TypeError, match="pass a list of codes"):
        model.score(notes, codes, "401.9")


@pytest.mark.parametrize("groups", [[6], [2, 4], [1] * 6])
def test_added_codes_equal_all_at_once(model, notes, codes, groups):
    cache, start = None, 0
    for size in groups:
        part = model.encode_codes({code: BLOCKS[code] for code in CODES[start : start + size]})
        cache = part if cache is None else cache.add(part)
        start += size
    assert (cache.codes, cache.blocks) == (CODES, BLOCKS)
    close(model.score(notes, cache), model.score(notes, codes))


def test_adding_what_is_there(model, notes, codes):
    expected = model.score(notes, codes)
    again = codes.add(model.encode_codes({"584.9": BLOCKS["584.9"], "new": [0, 70, 71]}))
    assert again is codes and codes.codes == [*CODES, "new"] and len(codes) == 7
    close(model.score(notes, codes)[:, :6], expected)
    close(model.score(notes, codes)[:, 6:], model.score(notes, model.encode_codes({"new": [0, 70, 71]})))
    with pytest.raises(StaleCacheError, match=r"another description of '584.9'"):
        codes.add(model.encode_codes({"584.9": [0, 1], "newer": [0]}))
    change_by_optimizer(model, foreach=True)
    with pytest.raises(StaleCacheError, match="other weights"):
        codes.add(model.encode_codes({"newer": [0]}))
    assert codes.codes == [*CODES, "new"]


@pytest.mark.parametrize("kind", ["notes", "codes"])
def test_damaged_files_are_refused(notes, codes, kind, tmp_path):
    """Every flipped byte, and every truncation: either it is an error, or what is read is what was saved."""
    cache, path = {"notes": notes, "codes": codes}[kind], tmp_path / "cache.safetensors"
    cache.save(path)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    damaged = [whole[:length] for length in generator.integers(0, len(whole), 20)]
    for place in {*range(0, len(whole), 7), *range(8)}:
        damaged.append(whole[:place] + bytes([whole[place] ^ (1 << generator.integers(8))]) + whole[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            again = type(cache).load(path)
        except ValueError:
            refused += 1
            continue
        assert torch.equal(again.vectors, cache.vectors) and again._description() == cache._description()
    assert refused > 0.9 * len(damaged)
