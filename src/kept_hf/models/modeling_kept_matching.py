"""Late interaction: codes matched with notes by the similarity of their encoded texts alone."""

from __future__ import annotations

import torch
from torch import nn

from .auto_map import PUBLISHED_TOGETHER  # noqa: F401 (all published files travel together)
from .configuration_kept_longformer import KeptLongformerMatchingConfig
from .icd_output import PADDED_SCORE, ICDPromptingOutput
from .late_interaction import LateInteractionMixin, check_indices, in_slots
from .modeling_kept_longformer import KeptLongformerModel, KeptLongformerPreTrainedModel
from .window_similarity import WindowSimilarity


class KeptLongformerForICDMatching(LateInteractionMixin, KeptLongformerPreTrainedModel):
    """
    Scores codes by late interaction (MaxSim): the similarity of a description and the note's most similar windows.

    Description and note are encoded apart from each other, and a score is scale · (similarity − threshold), where the
    similarity is a soft maximum of cosines ([`WindowSimilarity`]). A block may hold several names of its code, each
    behind a `<s>` (`KeptProcessor(..., names_per_code=...)`): they are encoded apart, and the best one counts.

    There are no parameters of single codes, so that the model can be asked about codes it was not trained on; it has no
    masks to read, so that it needs no masked language model to start from, and one product a pair is all that a further
    code costs.

    It takes the rows of `KeptProcessor(..., prompt_layout="isolated")`, as `DataCollatorForICDPrompting` puts them
    together.

    Examples:
        >>> import torch
        >>> from kept_hf import KeptLongformerForICDMatching, KeptLongformerMatchingConfig
        >>> config = KeptLongformerMatchingConfig(
        ...     vocab_size=50, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32,
        ...     attention_window=4, id2label={0: "401.9", 1: "038.9"},
        ... )
        >>> model = KeptLongformerForICDMatching(config).eval()
        >>> codes = model.encode_codes({"401.9": [0, 10], "038.9": [0, 11, 12]})
        >>> notes = model.encode_note(torch.tensor([[0, 12, 13, 2]]))
        >>> model.score(notes, codes).shape
        torch.Size([1, 2])
    """

    config_class = KeptLongformerMatchingConfig
    config: KeptLongformerMatchingConfig
    _keys_to_ignore_on_load_missing = [r"^similarity\."]  # noqa: RUF012 (transformers' form)
    prompt_layout = "isolated"
    """The layout of its rows: see [`KeptProcessor`]."""
    _auto_class = "AutoModelForSequenceClassification"
    accepts_loss_kwargs = True
    """The loss is divided by `num_items_in_batch` where the Trainer gives it."""

    def __init__(self, config: KeptLongformerMatchingConfig):
        super().__init__(config)
        self.longformer = KeptLongformerModel(config)
        self.similarity = WindowSimilarity(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        code_input_ids: torch.LongTensor | None = None,
        code_attention_mask: torch.Tensor | None = None,
        code_indices: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
        label_notes: torch.LongTensor | None = None,
        label_codes: torch.LongTensor | None = None,
    ) -> ICDPromptingOutput | tuple:
        """
        Args:
            input_ids (`(batch_size, sequence_length)`):
                Notes, `<s> note </s>`.
            attention_mask, global_attention_mask (`(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding; 1 for global attention, by default of the first token.
            labels (`(batch_size, num_labels)`, *optional*):
                1 for a code that applies, 0 for one that does not; -100 for the slots beyond the codes of a row.
            code_input_ids, code_attention_mask (`(num_blocks, block_length)`):
                The blocks `<s> description`, each once.
            code_indices (`(batch_size, num_labels)`, *optional*):
                Which block each code asked is; -100 for the slots beyond the codes of a row. By default all blocks.
            num_items_in_batch (*optional*):
                Number of codes over which the loss is averaged. By default the codes of this batch.
            label_notes (`(batch_size,)`), label_codes (`(batch_size, num_labels)`) (*optional*):
                The number of the note and the positions of the codes that a row asks about. The model does not read
                them: the Trainer gathers them with the labels, and `ICDMetrics` merges the scores by them.

        Returns:
            [`ICDPromptingOutput`] with `logits` and, with `labels`, the binary cross entropy `loss`; or a tuple of its
            values with `return_dict=False`.

        Raises:
            ValueError: no blocks, or an index that no block has.
        """
        if code_input_ids is None:
            raise ValueError("code_input_ids=None; pass the blocks of KeptProcessor(..., prompt_layout='isolated').")
        if code_attention_mask is None:
            code_attention_mask = torch.ones_like(code_input_ids)
        if code_indices is None:
            code_indices = torch.arange(len(code_input_ids), device=input_ids.device).expand(len(input_ids), -1)
        is_code = code_indices != -100
        check_indices(code_indices, is_code, len(input_ids), len(code_input_ids), labels)
        notes = self._note_vectors(input_ids, attention_mask, global_attention_mask)
        codes = self._batch_block_vectors(code_input_ids, code_attention_mask)
        asked = [[index for index in indices if index != -100] for indices in code_indices.tolist()]
        scores = [self.similarity(notes, note, codes, rows) for note, rows in enumerate(asked)]
        scores = in_slots(torch.cat(scores), is_code)
        loss = None
        if labels is not None:
            loss = nn.functional.binary_cross_entropy_with_logits(
                scores[is_code], labels[is_code].to(scores.dtype), reduction="sum"
            )
            loss = loss / (is_code.sum() if num_items_in_batch is None else num_items_in_batch)
        result = ICDPromptingOutput(loss=loss, logits=scores.masked_fill(~is_code, PADDED_SCORE))
        return_dict = return_dict if return_dict is not None else self.config.return_dict
        return result if return_dict else result.to_tuple()

    def _init_weights(self, module):
        if isinstance(module, WindowSimilarity):
            module.reset_parameters()
        else:
            super()._init_weights(module)
