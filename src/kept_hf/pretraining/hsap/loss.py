"""The loss of HSAP, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize, softplus

MAX_DISTANCE = 6
"""Concepts this many edges apart, or more, are strangers: so are second cousins."""

_FAR_BELOW = -1e4


def hsap_loss(
    embeddings: torch.Tensor,
    concepts: torch.Tensor,
    distances: torch.Tensor | None = None,
    hierarchy_weight: float = 1.0,
    max_distance: int = MAX_DISTANCE,
    margin: float = 0.2,
    alpha: float = 1.0,
    beta: float = 60.0,
    base: float = 0.5,
) -> torch.Tensor:
    r"""The loss of N names.

    HSAP's authors name a multi-similarity loss, siblings as negatives and "dynamic margins", but publish no formula:
    this one is the project's own.

    With S the cosine similarities, E the Euclidean distances of the unit vectors, d the tree distances,
    D = `max_distance`, h_ij = 1 - min(d_ij, D) / D (1 for the same concept, 0 for strangers), w = `hierarchy_weight`,
    m = `margin`, λ = `base`:

        L = 1/N Σ_i [ 1/α log(1 + Σ_{p ∈ P_i} exp(-α (S_ip - λ)))
                    + 1/β log(1 + Σ_{n ∈ N_i} exp(β (S_in - w m h_in - λ)))
                    + w/|R_i| Σ_{j ∈ R_i} 1/β log(1 + Σ_{k: d_ik > d_ij} exp(β (S_ik - S_ij + m (h_ij - h_ik)))) ]

    P_i and N_i are the names of the same and of other concepts in those triplets that violate the dynamic margin:
    E_in - E_ip <= m (1 - w h_in). With w = 1 that margin is m d_in / D: it grows with the tree distance, from nothing
    for a name of the same concept to m for a stranger's, and so does what a negative is forgiven: siblings are pushed
    apart less than strangers. R_i are the names of other concepts that are related (d < D); their term asks that
    a relative be nearer than each name farther away in the hierarchy, by a margin that grows with the difference: a
    child stays nearer to its parent than to its cousins.

    With w = 0, or without relatives among the names, this is SapBERT's loss: `MultiSimilarityLoss(alpha, beta, base)`
    of the pairs of `TripletMarginMiner(margin, type_of_triplets="all")`, both of pytorch-metric-learning. The first
    two lines stay that package's in any case.

    Args:
        embeddings: `(N, size)`.
        concepts: `(N,)`, integers.
        distances: `(N, N)`, tree distances of the names' concepts: 0 where they are the same and nowhere else. None:
            all are strangers.
        hierarchy_weight: w, from 0 to 1.
        max_distance: D.
        margin, alpha, beta, base: as above; SapBERT's by default.

    Returns:
        A scalar.

    Raises:
        ValueError: a weight outside 0 to 1, a distance below 2 or shapes that do not fit.
        ImportError: pytorch-metric-learning is not installed.

    Sources: Yang et al., Findings of EMNLP 2022, section 3.1 (arXiv 2210.03304); Wang et al., CVPR 2019, equation 16
    (arXiv 1904.06627); Liu et al., NAACL 2021, section 2 (arXiv 2010.11784).

    Examples:
        >>> vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, -0.6], [0.0, -1.0]])
        >>> ids = torch.tensor([0, 0, 1, 1])
        >>> apart = 2 * (ids[:, None] != ids).long()  # the two concepts are siblings
        >>> [round(hsap_loss(vectors, ids, apart, hierarchy_weight=w).item(), 3) for w in (0.0, 1.0)]
        [0.472, 0.406]
    """
    check_hierarchy(hierarchy_weight, max_distance)
    if embeddings.dim() != 2 or concepts.shape != embeddings.shape[:1]:
        raise ValueError(
            f"embeddings has shape {tuple(embeddings.shape)} and concepts {tuple(concepts.shape)}; pass (N, size) and "
            "(N,)."
        )
    is_same = concepts[:, None] == concepts[None]
    if distances is None or not hierarchy_weight:
        relatedness = None
        shift = embeddings.new_zeros(())
    else:
        if distances.shape != is_same.shape:
            raise ValueError(f"distances has shape {tuple(distances.shape)}; pass {tuple(is_same.shape)}.")
        distances = distances.clamp(max=max_distance)
        relatedness = (1 - distances / max_distance).to(embeddings.dtype)
        shift = (hierarchy_weight * margin * relatedness).masked_fill(is_same, 0.0)
    library_distances, library_losses = _metric_learning()
    with torch.no_grad():
        apart = library_distances.LpDistance()(embeddings)
        is_positive, is_negative = mined_pairs(apart + shift, is_same, margin)
    loss = library_losses.MultiSimilarityLoss(alpha=alpha, beta=beta, base=base, distance=_shifted_cosine(shift))(
        embeddings, concepts, (*torch.where(is_positive), *torch.where(is_negative))
    )
    if relatedness is None:
        return loss
    return loss + hierarchy_weight * _order_loss(embeddings, distances, relatedness, max_distance, margin, beta)


def check_hierarchy(hierarchy_weight: float, max_distance: int) -> None:
    """Raises a ValueError for a weight outside 0 to 1, or a distance that leaves no relatives."""
    if not 0 <= hierarchy_weight <= 1:
        raise ValueError(
            f"hierarchy_weight={hierarchy_weight} is outside 0 to 1; pass 0 for SapBERT's loss, 1 for a margin in "
            "proportion to the tree distance."
        )
    if max_distance < 2:
        raise ValueError(
            f"max_distance={max_distance} leaves no relatives; pass at least 2, parents, or 3, siblings too."
        )


def _metric_learning() -> tuple:
    """The modules `distances` and `losses` of pytorch-metric-learning, which no other module needs."""
    try:
        from pytorch_metric_learning import distances, losses
    except ImportError as error:
        raise ImportError("hsap_loss needs pytorch-metric-learning: pip install 'kept-hf[knowledge]'.") from error
    return distances, losses


def _shifted_cosine(shift: torch.Tensor):
    """Cosine similarity, less what relatives are forgiven."""
    library_distances, _ = _metric_learning()

    class ShiftedCosine(library_distances.CosineSimilarity):
        def compute_mat(self, query_emb, ref_emb):
            return super().compute_mat(query_emb, ref_emb) - shift

    return ShiftedCosine()


def mined_pairs(apart: torch.Tensor, is_same: torch.Tensor, margin: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of `TripletMarginMiner(margin, type_of_triplets="all")`, without writing down the triplets.

    A positive is in one of them if the nearest negative is not farther away by more than the margin; a negative, if it
    is not farther away than the farthest positive by more than that.

    Args:
        apart: `(N, N)`, distances.
        is_same: `(N, N)`, whether two names are of one concept.
        margin: a triplet counts where its negative is not farther away than its positive by more than this.

    Returns:
        Which pairs are mined positives, and which mined negatives; both `(N, N)`, bool.

    Examples:
        >>> apart = torch.tensor([[0.0, 0.4, 0.5, 0.9], [0.4, 0.0, 0.7, 0.9], [0.5, 0.7, 0.0, 0.9], [0.9] * 3 + [0.0]])
        >>> concepts = torch.tensor([0, 0, 1, 2])
        >>> positive, negative = mined_pairs(apart, concepts[:, None] == concepts, 0.2)
        >>> positive.nonzero().tolist(), negative.nonzero().tolist()
        ([[0, 1]], [[0, 2]])
    """
    is_other = is_same & ~torch.eye(len(apart), dtype=torch.bool, device=apart.device)
    farthest_positive = apart.masked_fill(~is_other, -torch.inf).amax(dim=1, keepdim=True)
    nearest_negative = apart.masked_fill(is_same, torch.inf).amin(dim=1, keepdim=True)
    return is_other & (nearest_negative - apart <= margin), ~is_same & (apart - farthest_positive <= margin)


def _order_loss(embeddings, distances, relatedness, max_distance, margin, beta):
    """The third line of the loss. The sum over k is the same for all j of one distance, so N² D steps are enough."""
    unit = normalize(embeddings, dim=1)
    scaled = beta * (unit @ unit.T - margin * relatedness)
    total = count = scaled.new_zeros(len(scaled))
    for distance in range(1, max_distance):
        at = distances == distance
        # A finite bound: where nobody is farther away, minus infinity would make the gradient NaN.
        farther = scaled.masked_fill(distances <= distance, _FAR_BELOW).logsumexp(dim=1, keepdim=True)
        total = total + softplus(farther - scaled, threshold=50).masked_fill(~at, 0.0).sum(dim=1) / beta
        count = count + at.sum(dim=1)
    return (total / count.clamp(min=1)).mean()
