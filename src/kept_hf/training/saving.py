"""Saving a fine-tuned model: whole, sharded, or as an adapter with its base and the two merged."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, Trainer

from ..models.modeling_kept_longformer import KeptLongformerForICDPrompting
from ..models.processing_kept import KeptProcessor
from .adapters import loads_by_name, merged_model


def save_adapter_base(model: PreTrainedModel, processor: KeptProcessor, folder: Path, is_changed: bool, save: bool):
    """Where an adapter's base is found: the checkpoint that it was loaded from, or `folder`, written here.

    Args:
        model: the base, before the adapter is added.
        processor: of the task.
        folder: to write the base to, if need be.
        is_changed: whether the base has been trained since it was loaded.
        save: whether this process writes.
    """
    if loads_by_name(model) and not is_changed:
        return model.name_or_path
    if save:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return str(folder)


def save_fine_tuned(trainer: Trainer, processor: KeptProcessor) -> None:
    """Write the model and its processor to `output_dir`: call this on all processes.

    An adapter goes to `output_dir/adapter`, and merged with its base to `output_dir`.
    """
    folder = Path(trainer.args.output_dir)
    is_adapter = isinstance(trainer.model, PeftModel)
    _save_model(trainer, folder / "adapter" if is_adapter else folder)
    if not trainer.is_world_process_zero():
        return
    if is_adapter:
        processor.save_pretrained(folder / "adapter")
        merged_model(folder / "adapter", trainer.model.config).save_pretrained(folder)
        if Path(trainer.model.peft_config["default"].base_model_name_or_path) == folder / "base":
            trainer.model.config.save_pretrained(folder / "base")  # peft saves no threshold with the adapter
    processor.save_pretrained(folder)


def _save_model(trainer: Trainer, folder: Path) -> None:
    """Save the model; a sharded one is gathered, and saved as if it had never been sharded. On all processes."""
    if not trainer.is_fsdp_enabled:
        trainer.save_model(folder)
        return
    state = trainer.accelerator.get_state_dict(trainer.model)
    if trainer.is_world_process_zero():
        whole = KeptLongformerForICDPrompting(trainer.model.config)
        whole.load_state_dict({**state, "lm_head.bias": state["lm_head.decoder.bias"]})
        whole.save_pretrained(folder)
