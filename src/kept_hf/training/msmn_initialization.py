"""An initial state of MSMN for few notes: its codes score by the similarity of their names to words of the note."""

from __future__ import annotations

import torch
from torch import nn

from ..models.modeling_msmn import MSMNForICDCoding

ATTENTION_SCALE = 3.0
"""Standard deviation of the attention's logits: a name looks at few words, yet not at one alone."""
SCORE_SCALE = 1.0
"""Standard deviation of the scores: more than that, and their first loss is above that of the codes' frequencies."""
MOST_CODES = 512
"""Codes by which the deviations are measured, at most."""


@torch.no_grad()
def initialize_from_names(
    model: MSMNForICDCoding,
    input_ids: torch.LongTensor,
    attention_mask: torch.Tensor,
    mean_logit: float,
    seed: int = 0,
) -> None:
    """Set the parameters of a new model so that a code's score is the similarity of its names to words of the note.

    MSMN's random initial attention looks at all words alike, and its classifiers do not tell codes apart. It must learn
    from the labels what the names have to do with the words of a note, and a few hundred notes do not suffice. This
    initial state has an answer already, within the same architecture; nothing else differs from the published training:

    - Word vectors are centred and brought to the length that random ones have.
    - Heads and queries project words and names in the same way, by one random orthonormal map, and their logits get the
      standard deviation `ATTENTION_SCALE`.
    - A code's classifier is its own feature, so that its score is the product of that and of what it found, both
      centred, with the standard deviation `SCORE_SCALE` about `mean_logit`.

    Args:
        model: new, with its word vectors and with the terms of its codes.
        input_ids, attention_mask: `(notes, words)`, some notes of the training split, whose means and deviations count.
            Labels do not.
        mean_logit: of the scores; the logit of the share of codes that a note has.
        seed: of the map.

    Raises:
        ValueError: the model has no terms.

    Examples:
        >>> from kept_hf import MSMNConfig, MSMNTokenizer
        >>> notes = ["fever and cough", "a cough", "high blood pressure", "blood in urine"]
        >>> names = {"R05": "cough", "R50.9": "fever", "I10": "high blood pressure"}
        >>> tokenizer = MSMNTokenizer.from_texts(notes, min_count=1)
        >>> config = MSMNConfig(vocab_size=len(tokenizer), num_synonyms=1, id2label=dict(enumerate(names)))
        >>> _, model = torch.manual_seed(0), MSMNForICDCoding(config)
        >>> model.set_label_terms(**tokenizer(list(names.values()), padding=True, return_tensors="pt"))
        >>> initialize_from_names(model, **tokenizer(notes, padding=True, return_tensors="pt"), mean_logit=-1.0)
        >>> scores = model.eval()(**tokenizer(["high blood pressure"], return_tensors="pt")).logits
        >>> config.id2label[int(scores.argmax())]
        'I10'
    """
    lengths = model._term_lengths()
    was_training = model.training
    model.eval()
    heads, width = model.config.num_synonyms, model.config.attention_size
    _unit_vectors(model.word_embedding)

    is_word = attention_mask.bool()
    hidden = model.reduce(model._read(input_ids, is_word.sum(dim=1).cpu()))
    words = hidden[is_word]
    terms = model._read_terms(model.term_input_ids, lengths.cpu(), lengths)

    generator = torch.Generator().manual_seed(seed)
    projection = nn.init.orthogonal_(torch.empty(width // heads, width), generator=generator).to(hidden)
    _standardise(model.attention, projection.repeat(heads, 1), words)
    _standardise(model.query, projection, terms)
    some = words[:: max(len(words) // 2048, 1)]
    logits = model.query(terms) @ torch.tanh(model.attention(some)).unflatten(-1, (heads, -1))[:, 0].T
    for parameter in model.query.parameters():
        parameter *= ATTENTION_SCALE / logits.std()

    terms = terms.unflatten(0, (-1, heads))
    codes = terms.amax(dim=1)
    every = max(len(codes) // MOST_CODES, 1)
    found = model._find(hidden, model._heads(hidden), is_word, model.query(terms[::every]))
    of_found, of_codes = found.mean(dim=(0, 1)), codes.mean(dim=0)
    products = ((found - of_found) * (codes[::every] - of_codes)).sum(dim=-1)
    scale = SCORE_SCALE / products.std()
    # <found - of_found, codes - of_codes>, by weights and biases that are linear in the code.
    model.code_weight.weight.copy_(scale * torch.eye(width))
    model.code_weight.bias.copy_(-scale * of_codes)
    model.code_bias.weight.copy_(-scale * of_found[None])
    model.code_bias.bias.fill_(scale * (of_found @ of_codes - products.mean()) + mean_logit)
    model.train(was_training)


def _unit_vectors(embedding: nn.Embedding) -> None:
    """Centre the vectors and give them the length of normally distributed ones; a vector of zeros stays."""
    vectors = embedding.weight
    is_known = vectors.abs().sum(dim=1) > 0
    known = vectors[is_known] - vectors[is_known].mean(dim=0)
    vectors[is_known] = nn.functional.normalize(known, dim=1) * vectors.shape[1] ** 0.5


def _standardise(layer: nn.Linear, weight: torch.Tensor, inputs: torch.Tensor) -> None:
    """Let the layer give numbers of mean 0 and standard deviation 1."""
    mean = inputs.mean(dim=0)
    weight = weight / ((inputs - mean) @ weight.T).std()
    layer.weight.copy_(weight)
    layer.bias.copy_(-(weight @ mean))
