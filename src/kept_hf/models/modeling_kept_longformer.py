"""KEPT Longformer models: encoder, masked language model and ICD prompting.

Parameter names are those of the published checkpoints: `longformer.*` and `lm_head.*`.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.longformer.modeling_longformer import (
    LongformerBaseModelOutputWithPooling,
    LongformerForMaskedLM,
    LongformerLMHead,
    LongformerModel,
    LongformerPreTrainedModel,
    create_position_ids_from_input_ids,
)

from .attention_backends import BACKENDS, DEFAULT, choose_backend
from .auto_map import PUBLISHED_TOGETHER  # noqa: F401 (all published files travel together)
from .configuration_kept_longformer import KeptLongformerConfig
from .icd_output import PADDED_SCORE, ICDPromptingOutput
from .joint_layout import mask_slots, prompt_attention
from .loading import CompleteLoadingMixin
from .longformer_layers import KeptLongformerEncoder, states_at
from .packed_tokens import PackedTokens
from .publication import PublicationMixin


class KeptLongformerPreTrainedModel(CompleteLoadingMixin, PublicationMixin, LongformerPreTrainedModel):
    """Base class: configuration, and which entries of older checkpoints are of no use here."""

    config_class = KeptLongformerConfig
    config: KeptLongformerConfig
    _no_split_modules = ["KeptLongformerLayer"]  # noqa: RUF012 (transformers' form)
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$", r"pooler\."]  # noqa: RUF012 (transformers' form)

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, LongformerLMHead):
            nn.init.zeros_(module.bias)  # transformers forgets it, and what lay in memory stays


class KeptLongformerModel(KeptLongformerPreTrainedModel, LongformerModel):
    """
    The encoder: Longformer, with a clear error for inputs that are too long.

    Args:
        config: the configuration.
        add_pooling_layer: whether to add Longformer's pooler. KEPT checkpoints have none that is trained.

    Raises:
        ValueError: `config` has fields that do not fit each other.
    """

    _auto_class = "AutoModel"
    new_when_missing = (r"^pooler\.",)

    def __init__(self, config: KeptLongformerConfig, add_pooling_layer: bool = False):
        config.validate_fields()
        super().__init__(config, add_pooling_layer=add_pooling_layer)
        self.encoder = KeptLongformerEncoder(config)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        global_attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        output_positions=None,
        **kwargs,
    ):
        """As `LongformerModel.forward`: shapes `(batch_size, sequence_length)`, values 0 and 1 in both masks.

        Unless the backend is "eager", nothing is computed for padding, and its hidden states are zero.

        Args:
            output_positions (`(batch_size, num_positions)`, *optional*):
                The tokens whose last hidden state is wanted; `last_hidden_state` then holds these only. All by default.

        Raises:
            ValueError: the sequence is longer than the position table, or the backend cannot do what is asked.
        """
        inputs = input_ids if input_ids is not None else inputs_embeds
        if inputs is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("Pass either input_ids or inputs_embeds, not both.")
        self._check_length(inputs)
        settings = self.config
        output_attentions = settings.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = settings.output_hidden_states if output_hidden_states is None else output_hidden_states
        return_dict = settings.return_dict if return_dict is None else return_dict
        backend = choose_backend(settings, inputs.device, self.training, output_attentions)
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "global_attention_mask": global_attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "output_hidden_states": output_hidden_states,
        }
        if backend is None:
            outputs = super().forward(**arguments, output_attentions=output_attentions, return_dict=True, **kwargs)
            if output_positions is not None:
                outputs["last_hidden_state"] = states_at(outputs.last_hidden_state, output_positions)
        else:
            outputs = self._forward_packed(**arguments, output_positions=output_positions, backend=backend)
        return outputs if return_dict else outputs.to_tuple()

    def _forward_packed(
        self,
        input_ids,
        attention_mask,
        global_attention_mask,
        token_type_ids,
        position_ids,
        inputs_embeds,
        output_hidden_states,
        output_positions,
        backend,
    ):
        tokens, embeddings = self._embedded(
            input_ids, attention_mask, global_attention_mask, token_type_ids, position_ids, inputs_embeds
        )
        outputs = self.encoder(
            embeddings,
            plan=backend.plan(tokens, tokens.all_queries()),
            output_positions=output_positions,
            output_hidden_states=output_hidden_states,
        )
        last = outputs.last_hidden_state
        return LongformerBaseModelOutputWithPooling(
            last_hidden_state=last,
            pooler_output=None if self.pooler is None else self.pooler(last),
            hidden_states=outputs.hidden_states,
        )

    def _embedded(
        self,
        input_ids,
        attention_mask,
        global_attention_mask,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
    ) -> tuple[PackedTokens, torch.Tensor]:
        """What stands where, and the embeddings of packed tokens, `(1, num_tokens, hidden_size)`."""
        if torch.is_grad_enabled():
            self._known_fingerprint = None  # a step may follow, and a fused optimizer raises no version
        inputs = input_ids if input_ids is not None else inputs_embeds
        shape, device = inputs.shape[:2], inputs.device
        if input_ids is not None:
            self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        kinds = torch.ones(shape, device=device) if attention_mask is None else attention_mask
        if global_attention_mask is not None:
            kinds = self._merge_to_attention_mask(kinds, global_attention_mask)
        tokens = PackedTokens(kinds, [window // 2 for window in self.config.attention_window])
        if position_ids is None:
            if input_ids is not None:
                position_ids = create_position_ids_from_input_ids(input_ids, self.embeddings.padding_idx)
            else:
                position_ids = self.embeddings.create_position_ids_from_inputs_embeds(inputs_embeds)
        embeddings = self.embeddings(
            **{
                name: None if values is None else tokens.pack(values)
                for name, values in (
                    ("input_ids", input_ids),
                    ("token_type_ids", token_type_ids),
                    ("position_ids", position_ids.expand(shape)),
                    ("inputs_embeds", inputs_embeds),
                )
            }
        )
        return tokens, embeddings

    def token_states(
        self, input_ids, attention_mask=None, global_attention_mask=None
    ) -> tuple[torch.Tensor, list[int]]:
        """Last hidden states without padding, for late interaction.

        Args:
            input_ids, attention_mask, global_attention_mask (`(batch_size, sequence_length)`, *optional*):
                As in `forward`.

        Returns:
            `(num_tokens, hidden_size)`, one row's tokens after the other's, and how many tokens each row has.

        Raises:
            ValueError: the sequence is longer than the position table, or the backend cannot do what is asked.
        """
        self._check_length(input_ids)
        backend = choose_backend(self.config, input_ids.device, self.training, output_attentions=False)
        backend = backend or BACKENDS[DEFAULT]  # transformers' own code knows no packed tokens
        tokens, embeddings = self._embedded(input_ids, attention_mask, global_attention_mask)
        return self.encoder.token_states(embeddings, backend.plan(tokens, tokens.all_queries()))

    def _check_length(self, inputs: torch.Tensor) -> None:
        if inputs.shape[1] > self.config.max_sequence_length:
            raise ValueError(
                f"The input has {inputs.shape[1]} tokens, the model positions for {self.config.max_sequence_length} "
                f"(max_position_embeddings={self.config.max_position_embeddings}). Pass a shorter max_length to the "
                "processor, or a model with a longer position table."
            )


class KeptLongformerForMaskedLM(KeptLongformerPreTrainedModel, LongformerForMaskedLM):
    """
    Longformer masked language model whose decoder is tied to the word embeddings.

    `forward` is `LongformerForMaskedLM.forward`.
    """

    _auto_class = "AutoModelForMaskedLM"

    def __init__(self, config: KeptLongformerConfig):
        LongformerPreTrainedModel.__init__(self, config)
        self.longformer = KeptLongformerModel(config)
        self.lm_head = LongformerLMHead(config)
        self.post_init()


class KeptLongformerForICDPrompting(KeptLongformerForMaskedLM):
    """
    Scores the codes that a prompt asks about, one at each mask token.

    The parameters are those of [`KeptLongformerForMaskedLM`]; no classifier is added, so the model can be asked about
    codes it was not trained on.

    Source: Yang et al., Findings of EMNLP 2022, section 3 (arXiv 2210.03304).

    Examples:
        >>> import torch
        >>> from kept_hf import KeptLongformerConfig, KeptLongformerForICDPrompting
        >>> config = KeptLongformerConfig(
        ...     vocab_size=50, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32,
        ...     attention_window=4, yes_token_id=5, no_token_id=6, mask_token_id=4, id2label={0: "401.9", 1: "038.9"},
        ... )
        >>> model = KeptLongformerForICDPrompting(config).eval()
        >>> output = model(torch.tensor([[0, 10, 4, 11, 4, 12, 13, 2]]), labels=torch.tensor([[1, 0]]))
        >>> output.logits.shape, output.loss.shape
        (torch.Size([1, 2]), torch.Size([]))
    """

    prompt_layout = "joint"
    """The layout of its rows: see [`KeptProcessor`]."""
    _auto_class = "AutoModelForSequenceClassification"
    accepts_loss_kwargs = True
    """The loss is divided by `num_items_in_batch` where the Trainer gives it (see `forward`)."""

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        inputs_embeds: None = None,
        label_notes: torch.LongTensor | None = None,
        label_codes: torch.LongTensor | None = None,
    ) -> ICDPromptingOutput | tuple:
        """
        Args:
            input_ids (`(batch_size, sequence_length)`):
                Prompt and note as `KeptProcessor` makes them. Rows may hold different numbers of mask tokens.
            attention_mask (`(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding.
            global_attention_mask (`(batch_size, sequence_length)`, *optional*):
                1 where a token has global attention. By default every `config.global_attention_stride`-th token from
                the first to the last mask, and every mask.
            labels (`(batch_size, num_labels)`, *optional*):
                1 for a code that applies, 0 for one that does not, in the order of the masks; -100 for the slots
                beyond the codes of a row.
            num_items_in_batch (*optional*):
                Number of codes over which the loss is averaged, counted by the Trainer over all accumulation steps
                and processes. By default the codes of this batch.
            inputs_embeds (*optional*):
                None, which peft's classes hand on. The masks are found among `input_ids`.
            label_notes (`(batch_size,)`), label_codes (`(batch_size, num_labels)`) (*optional*):
                The number of the note and the positions of the codes that a row asks about. The model does not read
                them: the Trainer gathers them with the labels, and `ICDMetrics` merges the scores by them.

        Returns:
            [`ICDPromptingOutput`], or a tuple of its values with `return_dict=False`.

        Raises:
            ValueError: no `input_ids`, or `inputs_embeds`; a configuration without the ids of "yes", "no" and the mask;
                no mask in the batch; or rows whose numbers of masks and labels differ.
        """
        if input_ids is None:
            raise ValueError("input_ids=None; pass the token ids of prompt and note (KeptProcessor makes them).")
        if inputs_embeds is not None:
            raise ValueError("inputs_embeds is given; pass input_ids alone, the masks are found among them.")
        self._check_token_ids()
        is_mask = input_ids == self.config.mask_token_id
        if attention_mask is not None:
            is_mask = is_mask & (attention_mask > 0)
        if global_attention_mask is None:
            global_attention_mask = prompt_attention(is_mask, self.config.global_attention_stride)
        positions, is_code = mask_slots(is_mask, labels)
        outputs = self.longformer(
            input_ids,
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_positions=positions,
            return_dict=True,
        )
        output = self._read_out(outputs, is_code, labels, num_items_in_batch)
        return_dict = return_dict if return_dict is not None else self.config.return_dict
        return output if return_dict else output.to_tuple()

    def _check_token_ids(self):
        missing = [n for n in ("yes_token_id", "no_token_id", "mask_token_id") if getattr(self.config, n) is None]
        if missing:
            raise ValueError(
                f"The configuration lacks {', '.join(missing)}. Load the model with its processor's ids: "
                "KeptLongformerForICDPrompting.from_pretrained(path, **processor.config_overrides())."
            )

    def _read_out(self, outputs, is_code, labels, num_items_in_batch) -> ICDPromptingOutput:
        """Loss and scores.

        Args:
            outputs: of the encoder; its last hidden states are those at the masks.
            is_code: `(batch_size, num_labels)`, which slots hold a code.
            labels: `(batch_size, num_labels)`, or None.
            num_items_in_batch: over how many codes the loss is averaged; None for those of this batch.
        """
        loss_logits, answers, targets = self._answer_logits(outputs.last_hidden_state, labels)
        scores = (answers[..., 0] - answers[..., 1]).float()
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(
                loss_logits.flatten(0, 1).float(), targets.masked_fill(~is_code, -100).flatten(), reduction="sum"
            )
            loss = loss / (is_code.sum() if num_items_in_batch is None else num_items_in_batch)
        return ICDPromptingOutput(
            loss=loss,
            logits=scores.masked_fill(~is_code, PADDED_SCORE),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            global_attentions=outputs.global_attentions,
        )

    def _answer_logits(self, mask_states, labels):
        """Logits for the loss, those of "yes" and "no" `(batch_size, num_labels, 2)`, and the targets of the loss."""
        yes_no = self._yes_no(mask_states.device)
        if labels is None or self.config.prompt_loss != "full_vocabulary":
            # Without the published loss only two rows of the vocabulary are needed.
            answers = self._yes_and_no(mask_states).float()
            return answers, answers, None if labels is None else (labels != 1).long()
        logits = self.lm_head(mask_states)
        return logits, logits[..., yes_no], yes_no[(labels != 1).long()]

    def _yes_no(self, device: torch.device) -> torch.Tensor:
        return torch.tensor([self.config.yes_token_id, self.config.no_token_id], device=device)

    def _yes_and_no(self, mask_states: torch.Tensor) -> torch.Tensor:
        """`(..., hidden_size)` → logits of "yes" and "no", `(..., 2)`."""
        yes_no, decoder = self._yes_no(mask_states.device), self.lm_head.decoder
        features = self.lm_head.layer_norm(nn.functional.gelu(self.lm_head.dense(mask_states)))
        if not isinstance(decoder, nn.Linear) or type(decoder.weight.data) is not torch.Tensor:
            return decoder(features)[..., yes_no]  # of quantized weights no rows can be taken
        return nn.functional.linear(features, decoder.weight[yes_no], decoder.bias[yes_no])
