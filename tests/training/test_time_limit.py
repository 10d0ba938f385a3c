import json

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from kept_hf.training import time_limit
from kept_hf.training.time_limit import TimeLimit


class Line(nn.Module):
    """A model that takes a second of the clock for each step, and three for each evaluation batch."""

    def __init__(self, clock):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.clock = clock

    def forward(self, x, labels=None):
        self.clock.now += 1 if self.training else 3
        return {"loss": ((self.weight * x - labels) ** 2).mean(), "logits": self.weight * x}


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time_limit, "time", clock)
    return clock


def train(clock, folder, limit, resume=None, **options):
    rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 1000
    arguments = TrainingArguments(
        output_dir=str(folder),
        learning_rate=1.0,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        warmup_steps=2,
        logging_steps=1,
        restore_callback_states_from_checkpoint=True,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **{"lr_scheduler_type": "constant_with_warmup", "save_strategy": "no", **options},
    )
    trainer = Trainer(Line(clock), arguments, train_dataset=rows, eval_dataset=rows[:2], callbacks=[limit])
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def rates(trainer):
    return [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]


def test_training_stops_in_time_and_the_rate_falls_to_nothing(clock, tmp_path):
    trainer = train(clock, tmp_path, TimeLimit(10 / 60))
    assert trainer.state.global_step == 10
    # Two steps of warm-up. The rate of a step is set before the clock is read at the end of the step before.
    assert rates(trainer) == pytest.approx([0, 0.5, *(1 - step / 10 for step in range(1, 9))], abs=1e-6)


def test_evaluation_does_not_count(clock, tmp_path):
    trainer = train(clock, tmp_path, TimeLimit(10 / 60), eval_strategy="steps", eval_steps=3)
    assert trainer.state.global_step == 10 and clock.now > 110 + 15
    clock.now = 0.0
    trainer = train(clock, tmp_path, TimeLimit(10 / 60), eval_on_start=True)
    assert trainer.state.global_step == 10


def test_a_resumed_run_has_the_time_that_was_left(clock, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 4}
    whole = train(clock, tmp_path, TimeLimit(10 / 60), **options)
    state = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["TimeLimit"]["attributes"] == {"seconds": 4.0}
    clock.now = 5000.0
    resumed = train(clock, tmp_path, TimeLimit(10 / 60), resume=str(tmp_path / "checkpoint-4"), **options)
    assert resumed.state.global_step == 10 and rates(resumed) == pytest.approx(rates(whole), abs=1e-6)
    # The end is saved too: who starts the command again pays for one step, no more.
    again = train(clock, tmp_path, TimeLimit(10 / 60), resume=str(tmp_path / "checkpoint-10"), **options)
    assert again.state.global_step == 11 and rates(again)[-1] < rates(resumed)[-1]


def test_other_schedules_are_refused(clock, tmp_path):
    with pytest.raises(ValueError, match=r"lr_scheduler_type=.*cannot be fitted to a time limit; pass constant_w"):
        train(clock, tmp_path, TimeLimit(1), lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="epoch")


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_no_time(minutes):
    with pytest.raises(ValueError, match="is no time to train; pass more than 0"):
        TimeLimit(minutes)
