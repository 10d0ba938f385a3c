"""MSMN initialized from the names of its codes."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from kept_hf import MSMNConfig, MSMNForICDCoding, MSMNTokenizer
from kept_hf.training.msmn_initialization import ATTENTION_SCALE, SCORE_SCALE, initialize_from_names

NAMES = {
    "I10": ["hypertension", "high blood pressure"],
    "R05": ["cough", "dry cough"],
    "R50.9": ["fever", "pyrexia"],
    "N17.9": ["acute kidney failure", "renal failure"],
    "I48.91": ["atrial fibrillation", "flutter"],
}
FILLER = [
    *("the", "patient", "was", "admitted", "seen", "treated", "and", "discharged", "in", "stable", "condition"),
    *("without", "any", "further", "event"),
]


def notes_of(number, synonym=0, seed=0):
    """Notes that name one code each amid other words, and the places of these codes."""
    generator = torch.Generator().manual_seed(seed)
    notes, gold = [], []
    for _ in range(number):
        code = int(torch.randint(len(NAMES), (), generator=generator))
        words = [FILLER[int(place)] for place in torch.randint(len(FILLER), (30,), generator=generator)]
        words.insert(int(torch.randint(30, (), generator=generator)), list(NAMES.values())[code][synonym])
        notes.append(" ".join(words))
        gold.append(code)
    return notes, torch.tensor(gold)


@pytest.fixture(params=[1, 2], ids=["one name", "two names"])
def started(request):
    """A new model that was only started, its tokenizer, and it before that."""
    synonyms = request.param
    terms = [name for names in NAMES.values() for name in names[:synonyms]]
    notes = notes_of(40)[0]
    tokenizer = MSMNTokenizer.from_texts([*notes, *(name for names in NAMES.values() for name in names)], min_count=1)
    torch.manual_seed(0)
    config = MSMNConfig(
        vocab_size=len(tokenizer),
        num_synonyms=synonyms,
        lstm_size=64,
        attention_size=64,
        num_lstm_layers=1,
        id2label=dict(enumerate(NAMES)),
    )
    model = MSMNForICDCoding(config)
    model.set_label_terms(**tokenizer(terms, padding=True, return_tensors="pt"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = tokenizer(notes, padding=True, return_tensors="pt")
    initialize_from_names(model, inputs["input_ids"], inputs["attention_mask"], mean_logit=-1.5)
    return model, tokenizer, before


def logits_of(model, tokenizer, notes):
    with torch.no_grad():
        return model.eval()(**tokenizer(notes, padding=True, return_tensors="pt")).logits


def test_codes_are_found_by_their_names_before_any_training(started):
    model, tokenizer, before = started
    for synonym in range(model.config.num_synonyms):
        notes, gold = notes_of(60, synonym, seed=1)
        assert (logits_of(model, tokenizer, notes).argmax(dim=1) == gold).float().mean() > 0.8
    model.load_state_dict(before)
    notes, gold = notes_of(60, seed=1)
    assert (logits_of(model, tokenizer, notes).argmax(dim=1) == gold).float().mean() < 0.5


def test_scores_begin_where_they_should(started):
    model, tokenizer, _ = started
    notes, gold = notes_of(40)
    logits = logits_of(model, tokenizer, notes)
    assert logits.mean().item() == pytest.approx(-1.5, abs=0.05)
    assert logits.std().item() == pytest.approx(SCORE_SCALE, rel=0.05)
    labels = torch.nn.functional.one_hot(gold, len(NAMES)).float()
    share = torch.full_like(labels, labels.mean().item()).logit()
    assert binary_cross_entropy_with_logits(logits, labels) < binary_cross_entropy_with_logits(share, labels)


def test_attention_is_neither_flat_nor_on_one_word_alone(started):
    model, tokenizer, _ = started
    model.eval()
    inputs = tokenizer(notes_of(40)[0], padding=True, return_tensors="pt")
    lengths = model.term_attention_mask.sum(dim=1)
    with torch.no_grad():
        hidden = model.reduce(model._read(inputs["input_ids"], inputs["attention_mask"].sum(dim=1)))
        heads = torch.tanh(model.attention(hidden)).unflatten(-1, (model.config.num_synonyms, -1))[:, :, 0]
        queries = model.query(model._pool(model._read(model.term_input_ids, lengths), lengths))
    logits = (heads @ queries.T)[inputs["attention_mask"].bool()]
    assert logits.std().item() == pytest.approx(ATTENTION_SCALE, rel=0.05)


def test_it_trains_on_and_is_the_same_each_time(started):
    model, tokenizer, before = started
    after = {name: value.clone() for name, value in model.state_dict().items()}
    notes, gold = notes_of(16)
    inputs = tokenizer(notes, padding=True, return_tensors="pt")
    model.load_state_dict(before)
    every = tokenizer(notes_of(40)[0], padding=True, return_tensors="pt")
    initialize_from_names(model.train(), every["input_ids"], every["attention_mask"], mean_logit=-1.5)
    assert model.training and all(torch.equal(value, after[name]) for name, value in model.state_dict().items())
    model(**inputs, labels=torch.nn.functional.one_hot(gold, len(NAMES)).float()).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_word_without_a_vector_stays_so(started):
    model, tokenizer, before = started
    model.load_state_dict(before)
    with torch.no_grad():
        model.word_embedding.weight[3] = 0
    inputs = tokenizer(notes_of(40)[0], padding=True, return_tensors="pt")
    initialize_from_names(model, inputs["input_ids"], inputs["attention_mask"], mean_logit=0.0)
    lengths = model.word_embedding.weight.norm(dim=1)
    assert lengths[3] == 0 and torch.allclose(lengths[4:], torch.tensor(model.config.embedding_size**0.5))


def test_without_terms():
    model = MSMNForICDCoding(MSMNConfig(vocab_size=10, lstm_size=8, attention_size=8, num_synonyms=1))
    with pytest.raises(ValueError, match=r"call model\.set_label_terms"):
        initialize_from_names(model, torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3), mean_logit=0.0)
