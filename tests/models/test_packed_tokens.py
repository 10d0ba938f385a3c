import pytest
import torch
from test_attention import naively_seen

from kept_hf.models import packed_tokens as token_packing
from kept_hf.models.packed_tokens import PackedTokens


def random_kinds(batch_size, length, seed, share_global=0.2):
    """Kinds of tokens, with padding at either end of some rows."""
    generator = torch.Generator().manual_seed(seed)
    kinds = 1 + (torch.rand(batch_size, length, generator=generator) < share_global).long()
    for row in range(1, batch_size):
        cut = int(torch.randint(0, length, (1,), generator=generator))
        kinds[row, cut:] = 0
        kinds[row, : cut // 4] = 0
    return kinds


def test_pack_and_unpack():
    kinds = random_kinds(4, 23, 0)
    tokens = PackedTokens(kinds, [2])
    states = torch.randn(4, 23, 5)
    packed = tokens.pack(states)
    assert packed.shape == (1, int((kinds > 0).sum()), 5)
    torch.testing.assert_close(tokens.unpack(packed), states * (kinds > 0)[:, :, None])
    assert torch.equal(packed[0, : tokens.num_global], states[kinds == 2]), "global tokens first, row by row"
    assert torch.equal(packed[0, tokens.num_global :], states[kinds == 1])
    assert tokens.pack(kinds).shape == (1, tokens.num_tokens)


@pytest.mark.parametrize("share_global", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("window", [1, 4, 100])
def test_blocks_hold_what_each_query_sees_once(monkeypatch, window, share_global):
    for lengths in ((16,), token_packing.BLOCK_LENGTHS):
        monkeypatch.setattr(token_packing, "BLOCK_LENGTHS", lengths)
        for batch_size, length, seed in ((1, 1, 0), (1, 70, 1), (3, 50, 2), (5, 17, 3)):
            kinds = random_kinds(batch_size, length, seed, share_global)
            tokens = PackedTokens(kinds, [window])
            positions = torch.randint(0, length, (batch_size, 9), generator=torch.Generator().manual_seed(seed))
            for queries in (tokens.all_queries(), tokens.queries_at(positions)[0]):
                assert_blocks(tokens, queries, kinds, window)


def assert_blocks(tokens, queries, kinds, window):
    slots = queries.slots.tolist()
    assert_covers(queries.global_blocks.blocks, queries.num_global)
    for block in queries.global_blocks.blocks:
        assert queries.global_blocks.bias(block, torch.float32) is None
        rows = {tokens.rows[slots[query]] for query in range(block.queries.start, block.queries.stop)}
        assert len(rows) == 1
        keys = [*range(*block.global_keys.indices(10**6)), *range(*block.local_keys.indices(10**6))]
        assert len(keys) == block.num_keys
        row = rows.pop()
        assert sorted(keys) == [key for key in range(tokens.num_tokens) if tokens.rows[key] == row]
    local = slots[queries.num_global :]
    assert len(local) == queries.num_local
    if not local:
        return
    local_blocks = queries.local_blocks[window]
    assert_covers(local_blocks.blocks, len(local))
    table = local_blocks.table(torch.float32)
    width = table.query_slots.shape[1]
    for block in local_blocks.blocks:
        keys = torch.tensor(
            [*range(*block.global_keys.indices(10**6)), *range(*block.local_keys.indices(10**6))], dtype=torch.long
        )
        bias = local_blocks.bias(block, torch.float32)
        assert bias.shape == (block.num_queries, block.num_keys)
        for line, query in enumerate(range(block.queries.start, block.queries.stop)):
            in_table, table_line = divmod(int(table.output_slots[query]), width)
            assert table.query_slots[in_table, table_line] == query
            seen_in_table = table.key_slots[in_table][table.bias[in_table, 0, table_line] == 0]
            for seen in (keys[bias[line] == 0].tolist(), seen_in_table.tolist()):
                row, position = tokens.rows[local[query]], tokens.positions[local[query]]
                assert {tokens.rows[key] for key in seen} == {row}
                assert sorted(tokens.positions[key] for key in seen) == naively_seen(kinds, row, position, window)
    assert (table.bias == 0).any(dim=3).all(), "no query without a key, filled-up ones neither"
    assert table.key_slots.shape[1] % token_packing.MULTIPLE == 0
    assert set(table.bias.unique().tolist()) <= {0.0, float("-inf")}


def assert_covers(blocks, number):
    ends = [0, *(block.queries.stop for block in blocks)]
    assert [block.queries.start for block in blocks] == ends[:-1]
    assert ends[-1] == number


def test_blocks_of_one_shape_share_a_bias(monkeypatch):
    monkeypatch.setattr(token_packing, "BLOCK_LENGTHS", (16,))
    local_blocks = PackedTokens(torch.ones(1, 160, dtype=torch.long), [4]).all_queries().local_blocks[4]
    biases = {id(local_blocks.bias(block, torch.float32)) for block in local_blocks.blocks}
    assert (len(local_blocks.blocks), len(biases)) == (10, 3), "the first, those between, the last"
    assert local_blocks.bias(local_blocks.blocks[0], torch.bfloat16).dtype == torch.bfloat16
    assert local_blocks.table(torch.float32) is local_blocks.table(torch.float32)


def test_queries_at():
    kinds = torch.tensor([[2, 1, 1, 1], [1, 2, 1, 0]])
    tokens = PackedTokens(kinds, [1])
    queries, index = tokens.queries_at(torch.tensor([[3, 0, 3], [3, 1, 0]]))
    states = tokens.pack(torch.arange(8).view(2, 4))[0]
    assert states[queries.slots].tolist() == [0, 5, 3, 4]
    assert index.tolist() == [[2, 0, 2], [4, 1, 3]]
    assert (queries.num_global, queries.num_local, queries.are_all) == (2, 2, False)
    assert tokens.all_queries().are_all


def test_only_padding():
    tokens = PackedTokens(torch.zeros(2, 3, dtype=torch.long), [1])
    assert (tokens.num_tokens, tokens.num_global) == (0, 0)
    assert tokens.unpack(torch.zeros(1, 0, 4)).shape == (2, 3, 4)
