"""KEPT Longformer models: encoder, masked language model and ICD prompting.

Parameter names are those of the published checkpoints: `longformer.*` and `lm_head.*`.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from .isolated_layout import IsolatedPrompting
from .joint_layout import mask_slots, prompt_attention
from .loading import CompleteLoadingMixin
from .longformer_layers import KeptLongformerEncoder, states_at
from .mask_attention import GlobalStates, SeenByMasks
from .packed_tokens import PackedTokens
from .publication import PublicationMixin
from .window_similarity import WindowSimilarity


class KeptLongformerPreTrainedModel(CompleteLoadingMixin, PublicationMixin, LongformerPreTrainedModel):
    """Base class: configuration, and which entries of older checkpoints are of no use here."""

    config_class = KeptLongformerConfig
    config: KeptLongformerConfig
    _keys_to_ignore_on_load_missing = [r"similarity\."]  # noqa: RUF012 (transformers' form)
    _no_split_modules = ["KeptLongformerLayer"]  # noqa: RUF012 (transformers' form)
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$", r"pooler\."]  # noqa: RUF012 (transformers' form)

    def _init_weights(self, module):
        if isinstance(module, WindowSimilarity):
            module.reset_parameters()
        else:
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

    def global_states(
        self,
        input_ids,
        attention_mask=None,
        global_attention_mask=None,
        with_keys: bool = True,
        with_last: bool = False,
    ) -> tuple[GlobalStates, torch.Tensor | None]:
        """Keys and values of each layer for the masks of the isolated layout.

        Args:
            input_ids (`(batch_size, sequence_length)`):
                Notes, or code blocks without their mask.
            attention_mask, global_attention_mask (`(batch_size, sequence_length)`, *optional*):
                As in `forward`.
            with_keys, with_last (`bool`, *optional*):
                Whether keys and values are wanted, and whether the last hidden states are.

        Returns:
            [`GlobalStates`] of the rows, without padding; with `with_last` also the last hidden states
            `(num_tokens, hidden_size)`, one row's tokens after the other's.

        Raises:
            ValueError: the sequence is longer than the position table, or the backend cannot do what is asked.
        """
        self._check_length(input_ids)
        backend = choose_backend(self.config, input_ids.device, self.training, output_attentions=False)
        backend = backend or BACKENDS[DEFAULT]  # transformers' own code knows no masks of this layout
        tokens, embeddings = self._embedded(input_ids, attention_mask, global_attention_mask)
        plan = backend.plan(tokens, tokens.all_queries())
        return self.encoder.global_states(embeddings, plan, with_keys, with_last)

    def masks(self, notes: GlobalStates, note: int, codes: GlobalStates, wanted: Sequence[int], mask_token_id: int):
        """Last hidden states of the masks that ask a note about some codes.

        Args:
            notes, codes: what `global_states` returned.
            note: number of the note.
            wanted: numbers of the codes.
            mask_token_id: of the tokenizer.

        Returns:
            `(len(wanted), hidden_size)`.
        """
        slots = codes.slots(wanted)
        device = notes.keys[0].device
        # Behind the block, where positions start again.
        positions = torch.tensor([codes.lengths[code] for code in wanted]) + self.embeddings.padding_idx + 1
        ids = torch.full((1, len(wanted)), mask_token_id, device=device)
        states = self.embeddings(input_ids=ids, position_ids=positions[None].to(device))
        for number, layer in enumerate(self.encoder.layer):
            states = layer(states, seen=SeenByMasks.in_layer(notes, note, codes, slots, number))[0]
        return states[0]

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


class KeptLongformerForICDPrompting(IsolatedPrompting, KeptLongformerForMaskedLM):
    """
    Scores the codes that a prompt asks about, one at each mask token.

    The parameters are those of [`KeptLongformerForMaskedLM`]; no classifier is added, so the model can be asked about
    codes it was not trained on.

    In the isolated layout (`config.prompt_layout`) each code is a block `<s> description <mask>` of its own. The
    description sees itself, the note sees itself, and the mask sees its description and the whole note, through the
    projections of global attention. Both are encoded by the same layers, once, and can be kept: `encode_codes`,
    `encode_note` and `score`. The score of a code does not depend on the others asked. `attention_backend="eager"`
    computes this layout as `"sdpa"`. With `config.similarity_prior` its scores have a second part: MaxSim, the
    similarity of the description and the note's most similar windows.

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

        The isolated layout: a note asked about two codes.

        >>> config.prompt_layout = "isolated"
        >>> codes = model.encode_codes({"401.9": [0, 10], "038.9": [0, 11, 12]})
        >>> notes = model.encode_note(torch.tensor([[0, 12, 13, 2]]))
        >>> model.score(notes, codes).shape
        torch.Size([1, 2])
    """

    _auto_class = "AutoModelForSequenceClassification"
    accepts_loss_kwargs = True
    """The loss is divided by `num_items_in_batch` where the Trainer gives it (see `forward`)."""

    def __init__(self, config: KeptLongformerConfig):
        super().__init__(config)
        self.config = config
        self.similarity = WindowSimilarity(config) if config.similarity_prior else None

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
        code_input_ids: torch.LongTensor | None = None,
        code_attention_mask: torch.Tensor | None = None,
        code_indices: torch.LongTensor | None = None,
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
            code_input_ids (`(num_blocks, block_length)`, *optional*):
                For the isolated layout: the blocks `<s> description`, without mask, each once. `input_ids` is then the
                note alone, `<s> note </s>`, with global attention on the first token by default. `KeptProcessor` and
                `DataCollatorForICDPrompting` make all three.
            code_attention_mask (`(num_blocks, block_length)`, *optional*):
                1 for tokens, 0 for padding.
            code_indices (`(batch_size, num_labels)`, *optional*):
                Which block each code asked is; -100 for the slots beyond the codes of a row. By default all blocks.
            label_notes (`(batch_size,)`), label_codes (`(batch_size, num_labels)`) (*optional*):
                The number of the note and the positions of the codes that a row asks about. The model does not read
                them: the Trainer gathers them with the labels, and `ICDMetrics` merges the scores by them.

        Returns:
            [`ICDPromptingOutput`], or a tuple of its values with `return_dict=False`.

        Raises:
            ValueError: no `input_ids`, or `inputs_embeds`; a configuration without the ids of "yes", "no" and the mask;
                no mask in the batch; rows whose numbers of masks and labels differ; or, in the isolated layout, an
                index that no block has, or an argument that it cannot serve.
        """
        if input_ids is None:
            raise ValueError("input_ids=None; pass the token ids of prompt and note (KeptProcessor makes them).")
        if inputs_embeds is not None:
            raise ValueError("inputs_embeds is given; pass input_ids alone, the masks are found among them.")
        self._check_token_ids()
        is_isolated = code_input_ids is not None
        self._warn_of_layout("isolated" if is_isolated else "joint")
        encoder_arguments = {
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        inputs = (input_ids, attention_mask, global_attention_mask)
        if is_isolated:
            self._check_isolated(encoder_arguments)
            blocks = (code_input_ids, code_attention_mask, code_indices)
            output = self._forward_isolated(inputs, blocks, labels, num_items_in_batch)
        else:
            output = self._forward_joint(inputs, labels, num_items_in_batch, encoder_arguments)
        return_dict = return_dict if return_dict is not None else self.config.return_dict
        return output if return_dict else output.to_tuple()

    def _forward_joint(self, inputs, labels, num_items_in_batch, encoder_arguments) -> ICDPromptingOutput:
        """All codes of a row in one prompt before its note."""
        if self.similarity is not None:
            raise ValueError(
                "code_input_ids=None with similarity_prior=True: the prior belongs to the isolated layout; pass rows "
                "of KeptProcessor(..., prompt_layout='isolated')."
            )
        input_ids, attention_mask, global_attention_mask = inputs
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
            output_positions=positions,
            return_dict=True,
            **encoder_arguments,
        )
        return self._read_out(
            outputs.last_hidden_state,
            is_code,
            labels,
            num_items_in_batch,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            global_attentions=outputs.global_attentions,
        )

    def _forward_isolated(self, inputs, blocks, labels, num_items_in_batch) -> ICDPromptingOutput:
        """Each code in a block of its own."""
        mask_states, prior, is_code = self._isolated_mask_states(inputs, blocks, labels)
        return self._read_out(mask_states, is_code, labels, num_items_in_batch, prior)

    @staticmethod
    def _check_isolated(encoder_arguments) -> None:
        unused = [name for name, value in encoder_arguments.items() if value is not None and value is not False]
        if unused:
            raise ValueError(f"{', '.join(unused)}: the isolated prompt layout has no use for it; leave it out.")

    def _check_token_ids(self):
        missing = [n for n in ("yes_token_id", "no_token_id", "mask_token_id") if getattr(self.config, n) is None]
        if missing:
            raise ValueError(
                f"The configuration lacks {', '.join(missing)}. Load the model with its processor's ids: "
                "KeptLongformerForICDPrompting.from_pretrained(path, **processor.config_overrides())."
            )

    def _read_out(self, mask_states, is_code, labels, num_items_in_batch, prior=None, **outputs) -> ICDPromptingOutput:
        """Loss and scores.

        Args:
            mask_states: `(batch_size, num_labels, hidden_size)`, last hidden states at the masks.
            is_code: `(batch_size, num_labels)`, which slots hold a code.
            labels: `(batch_size, num_labels)`, or None.
            num_items_in_batch: over how many codes the loss is averaged; None for those of this batch.
            prior: `(batch_size, num_labels)`, added to the scores; None without one.
            outputs: further ones of the encoder.
        """
        loss_logits, answers, targets = self._answer_logits(mask_states, labels, prior)
        scores = (answers[..., 0] - answers[..., 1]).float()
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(
                loss_logits.flatten(0, 1).float(), targets.masked_fill(~is_code, -100).flatten(), reduction="sum"
            )
            loss = loss / (is_code.sum() if num_items_in_batch is None else num_items_in_batch)
        logits = scores.masked_fill(~is_code, PADDED_SCORE)
        return ICDPromptingOutput(loss=loss, logits=logits, prior=prior, **outputs)

    def _answer_logits(self, mask_states, labels, prior):
        """Logits for the loss, those of "yes" and "no" `(batch_size, num_labels, 2)`, and the targets of the loss."""
        yes_no = self._yes_no(mask_states.device)
        if labels is None or self.config.prompt_loss != "full_vocabulary":
            # Without the published loss only two rows of the vocabulary are needed.
            answers = self._yes_and_no(mask_states).float()
            if prior is not None:
                answers = torch.stack([answers[..., 0] + prior, answers[..., 1]], dim=-1)
            return answers, answers, None if labels is None else (labels != 1).long()
        logits = self.lm_head(mask_states)
        if prior is not None:
            # Added to the logit of "yes", so that it is a part of the score.
            is_yes = torch.arange(logits.shape[-1], device=yes_no.device) == yes_no[0]
            logits = logits + is_yes * prior[..., None]
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
