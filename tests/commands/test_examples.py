"""The scripts of examples/, each with tiny settings."""

from __future__ import annotations

import importlib.util

import pytest
from launching import ROOT
from train_runs import unchanged_process

from kept_hf import KeptLongformerForICDPrompting, KeptProcessor
from kept_hf.corpora import CORPORA, load_corpus


@pytest.fixture
def run_example(monkeypatch, run_values):
    """Run a script of examples/ with other values of its constants, on the demo corpus that the tests share."""

    def run(name: str, **constants: object) -> None:
        spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for constant, value in constants.items():
            assert hasattr(module, constant)
            monkeypatch.setattr(module, constant, value)
        if hasattr(module, "load_corpus"):
            cached = {"cache_dir": run_values["--cache_dir"]}
            monkeypatch.setattr(module, "load_corpus", lambda corpus, **more: load_corpus(corpus, **cached, **more))
        with unchanged_process():
            module.main()

    return run


def test_fine_tune(run_example, tiny_checkpoint, tmp_path, capsys):
    tiny = {"BASE": str(tiny_checkpoint), "MAX_LENGTH": 700, "ATTENTION_WINDOW": 16, "POSITION_PERIOD": 32}
    training = {"max_steps": 1, "per_device_eval_batch_size": 32, "report_to": "none", "use_cpu": True}
    run_example("fine_tune", **tiny, OUTPUT=tmp_path / "out", TRAINING=training)
    assert "eval_f1_macro" in capsys.readouterr().out
    model = KeptLongformerForICDPrompting.from_pretrained(tmp_path / "out")
    assert model.config.threshold != 0 and model.config.data_license == "apache-2.0"
    assert len(KeptProcessor.from_pretrained(tmp_path / "out").code_set) == 60


def test_zero_shot(run_example, trained, capsys):
    run_example("zero_shot", MODEL=str(trained))
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"R00.1", "N39.0", "J45.909"}


def test_two_stages(run_example, trained, capsys):
    run_example("two_stages", MODEL=str(trained), NUM_NOTES=2, NUM_CANDIDATES=6, GROUP_SIZE=3)
    assert capsys.readouterr().out.count("KEPT:") == 2


@pytest.mark.skipif("own" not in CORPORA, reason="needs the corpus 'own'")
def test_own_notes(run_example, tiny_checkpoint, tmp_path, capsys):
    training = {"max_steps": 1, "report_to": "none", "use_cpu": True}
    run_example("own_notes", BASE=str(tiny_checkpoint), FOLDER=tmp_path, POSITION_PERIOD=32, TRAINING=training)
    assert "'train': " in capsys.readouterr().out
    assert (tmp_path / "model" / "code_set.json").is_file()
