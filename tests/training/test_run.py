"""The frame of the training commands."""

import pytest
import torch

from kept_hf.training.run import process_group


def test_the_process_group_is_left_when_a_run_has_ended():
    @process_group()
    def run(fails: bool) -> None:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        if fails:
            raise ValueError("a note without text")

    run(fails=False)
    assert not torch.distributed.is_initialized()
    try:
        with pytest.raises(ValueError, match="a note without text"):
            run(fails=True)
        assert torch.distributed.is_initialized(), "an error in one process must not wait for the others"
    finally:
        torch.distributed.destroy_process_group()
