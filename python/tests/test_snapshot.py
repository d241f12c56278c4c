"""Snapshots without a supervisor: what goes in comes out, bit for bit, and the files are what safetensors reads."""

import json
import math
import random

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bitctl import Shuffle, _tensors, restore, snapshot
from bitctl._plan import Plan


def collect(objects, facts):
    return snapshot.Collector().collect(objects, facts)


def take(local_arena, objects, step=1, facts=None, collector=None):
    taken = (collector or snapshot.Collector()).collect(objects, facts or {"step": step, "metrics": {}})
    arena = local_arena.arena(taken.regions())
    assert arena.holds(taken.needs())
    slot = arena.begin(step, 1)
    used = taken.write(arena, slot)
    arena.commit(slot, used, False)
    return arena, slot, used


def image(arena, slot, used, index):
    return bytes(arena.view(slot, arena.offset_of(index), used[index]))


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(11, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.head = torch.nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("narrow", torch.randn(3, 5).to(torch.bfloat16))
        self.register_buffer("odd", torch.randint(0, 255, (7,), dtype=torch.uint8))
        self.register_buffer("strided", torch.randn(6, 4).t())


def cycle(optimizer, max_lr):
    momentum = "momentum" in optimizer.defaults or "betas" in optimizer.defaults
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=20, cycle_momentum=momentum)


def trained(kind="adamw"):
    torch.manual_seed(0)
    model = Tiny()
    optimizer = {
        "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
        "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
        "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-3),
    }[kind](model.parameters())
    scheduler = cycle(optimizer, 1e-2)
    for _ in range(3):
        loss = model.head(model.norm(model.embed(torch.randint(0, 11, (4,))))).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    return model, optimizer, scheduler


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.equal(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("kind", ["adamw", "sgd", "adafactor"])
def test_everything_comes_back_bit_for_bit(local_arena, kind):
    model, optimizer, scheduler = trained(kind)
    order = Shuffle(10, seed=3)
    for _ in range(13):
        next(order)
    arena, slot, _ = take(local_arena, {"model": model, "optimizer": optimizer, "scheduler": scheduler, "data": order})
    state = {k: v.clone() for k, v in model.state_dict().items()}
    expected = [torch.rand(3), numpy.random.rand(3), [random.random() for _ in range(3)], [next(order) for _ in range(9)]]
    optimizer_state, scheduler_state = optimizer.state_dict(), scheduler.state_dict()

    torch.manual_seed(99)
    random.seed(99)
    numpy.random.seed(99)
    fresh = Tiny()
    pointers = [p.data_ptr() for p in fresh.parameters()]
    fresh_optimizer = type(optimizer)(fresh.parameters(), **({"momentum": 0.1} if kind == "sgd" else {}))
    fresh_scheduler = cycle(fresh_optimizer, 1)
    fresh_order = Shuffle(10)
    objects = {"model": fresh, "optimizer": fresh_optimizer, "scheduler": fresh_scheduler, "data": fresh_order}
    local_arena.put_back(arena, slot, objects)
    assert same(state, dict(fresh.state_dict()))
    assert [p.data_ptr() for p in fresh.parameters()] == pointers, "tensors are copied into, never re-pointed"
    assert same(optimizer_state, fresh_optimizer.state_dict())
    assert same(scheduler_state, fresh_scheduler.state_dict())
    got = [torch.rand(3), numpy.random.rand(3), [random.random() for _ in range(3)], [next(fresh_order) for _ in range(9)]]
    assert got[0].equal(expected[0]) and (got[1] == expected[1]).all() and got[2:] == expected[2:]


def test_a_snapshot_is_a_copy(local_arena):
    model, optimizer, _ = trained()
    arena, slot, _ = take(local_arena, {"model": model, "optimizer": optimizer})
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    local_arena.put_back(arena, slot, {"model": model, "optimizer": optimizer})
    assert same(before, dict(model.state_dict()))


def test_wider_optimizer_state_than_its_parameter_keeps_its_dtype(local_arena):
    parameter = torch.nn.Parameter(torch.randn(4, dtype=torch.bfloat16))
    model = torch.nn.Module()
    model.p = parameter
    optimizer = torch.optim.SGD([parameter], lr=1)
    optimizer.state[parameter]["master"] = torch.randn(4, dtype=torch.float32)
    expected = optimizer.state[parameter]["master"].clone()
    arena, slot, _ = take(local_arena, {"model": model, "optimizer": optimizer})
    optimizer.state[parameter]["master"].zero_()
    local_arena.put_back(arena, slot, {"model": model, "optimizer": optimizer})
    assert optimizer.state[parameter]["master"].dtype == torch.float32
    assert optimizer.state[parameter]["master"].equal(expected)


def test_the_model_file_is_what_safetensors_writes_but_for_the_padding(local_arena, tmp_path):
    model, optimizer, _ = trained()
    arena, slot, used = take(local_arena, {"model": model, "optimizer": optimizer})
    path = tmp_path / "model.safetensors"
    path.write_bytes(image(arena, slot, used, 0))
    loaded = load_file(path)
    state = {k: v for k, v in model.state_dict().items() if k != "head.weight"}
    assert same(dict(sorted(state.items())), dict(sorted(loaded.items())))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    theirs = tmp_path / "theirs.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, theirs, metadata={"format": "pt"})
    ours, other = path.read_bytes(), theirs.read_bytes()
    strip = lambda data: (data[8 : 8 + int.from_bytes(data[:8], "little")].rstrip(b" "), data[8 + int.from_bytes(data[:8], "little") :])
    assert strip(ours) == strip(other)
    assert (8 + int.from_bytes(ours[:8], "little")) % 4096 == 0


def test_the_tied_name_that_the_model_calls_tied_is_left_out(local_arena):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=True
    )
    plan = Plan(("model.safetensors",), [snapshot.model_table(LlamaForCausalLM(config))], [])
    assert plan.aliases == {"lm_head.weight": "model.embed_tokens.weight"}
    assert b'"lm_head.weight"' not in plan.files[0].entries


def test_a_model_that_does_not_fit_is_named_before_anything_is_copied(local_arena):
    model, optimizer, _ = trained()
    arena, slot, _ = take(local_arena, {"model": model, "optimizer": optimizer})
    other = torch.nn.Linear(3, 3)
    before = other.weight.clone()
    with pytest.raises(restore.Mismatch) as error:
        local_arena.put_back(arena, slot, {"model": other})
    assert "has no tensor 'weight'" in str(error.value)
    assert other.weight.equal(before)


def test_what_was_not_saved_cannot_be_restored(local_arena):
    model, optimizer, scheduler = trained()
    arena, slot, _ = take(local_arena, {"model": model})
    with pytest.raises(restore.Mismatch, match="no state of optimizer"):
        local_arena.put_back(arena, slot, {"model": model, "optimizer": optimizer})


def test_what_is_neither_tensor_nor_data_is_refused_by_name():
    class Odd:
        def state_dict(self):
            return {"fine": 1, "inner": {"bad": object()}}

    with pytest.raises(TypeError, match=r"odd\.inner\.bad: a value of type object"):
        collect({"odd": Odd()}, {"step": 0})


def test_two_slots_alternate_and_a_dead_writer_defers(local_arena):
    model, _, _ = trained()
    files = collect({"model": model}, {"step": 1})
    arena = local_arena.arena(files.regions())
    slots = []
    for step in (1, 2, 3):
        slot = arena.begin(step, 1)
        assert arena.commit(slot, files.write(arena, slot), False)
        slots.append(slot)
    assert slots == [0, 1, 0], "two READY slots: the older goes"


def test_a_slot_that_was_taken_back_is_no_snapshot(local_arena):
    model, _, _ = trained()
    files = collect({"model": model}, {"step": 1})
    arena = local_arena.arena(files.regions())
    slot = arena.begin(1, 1)
    used = files.write(arena, slot)
    arena.abandon(slot)  # as the supervisor does for a trainer that it holds for dead
    assert not arena.commit(slot, used, False)


def test_a_header_that_grows_still_fits_its_region(local_arena):
    model, _, _ = trained()
    files = collect({"model": model}, {"step": 1, "metrics": {}})
    arena = local_arena.arena(files.regions())
    grown = collect({"model": model}, {"step": 10**12, "metrics": {"m%d" % i: i / 7 for i in range(20)}})
    assert arena.holds(grown.needs())
    bigger = collect({"model": torch.nn.Linear(500, 500)}, {"step": 1})
    assert not arena.holds(bigger.needs())


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner)
    | st.sets(st.integers()),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(plain)
def test_plain_states_survive_json(value):
    pieces = []
    packed = json.loads(json.dumps(_tensors.pack(value, "x", pieces), allow_nan=False))
    assert same(_tensors.unpack(packed, None), value) and not pieces


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 50), st.integers(0, 5), st.integers(0, 200))
def test_shuffle_goes_on_where_it_was(length, seed, taken):
    order = Shuffle(length, seed)
    seen = [next(order) for _ in range(taken)]
    for start in range(0, taken - taken % length, length):
        assert sorted(seen[start : start + length]) == list(range(length)), "every epoch holds every index once"
    other = Shuffle(length)
    other.load_state_dict(json.loads(json.dumps(order.state_dict())))
    assert [next(order) for _ in range(30)] == [next(other) for _ in range(30)]


def test_a_rank_gets_back_what_it_has_saved_and_the_rest_from_rank_0(local_arena):
    """Rank 1 saves its generators and its data alone; a rank that has saved nothing keeps its generators."""
    model = torch.nn.Linear(2, 2)
    saved = []
    for rank, names in ((0, ("model.safetensors", "training.safetensors")), (1, ("training-rank-1.safetensors",))):
        random.seed(rank)
        data = Shuffle(50, seed=rank)
        for _ in range(rank + 3):
            next(data)
        taken = snapshot.Collector(snapshot.file_names(rank, rank == 0, False)).collect({"data": data} if rank else {"model": model, "data": data}, {"step": 1})
        assert [file["name"] for file in taken.regions()] == list(names)
        arena = local_arena.arena(taken.regions(), gen=1 + rank)
        slot = arena.begin(1, 1, 2)
        arena.commit(slot, taken.write(arena, slot), False)
        saved.append((restore.Saved(arena, slot), random.random(), next(data)))
    other, back = torch.nn.Linear(2, 2), Shuffle(50, seed=9)
    restore.put_back(saved[0][0], saved[1][0], {"model": other, "data": back})
    assert torch.equal(other.weight, model.weight)
    assert (random.random(), next(back)) == saved[1][1:]
    random.seed(5)
    restore.put_back(saved[0][0], None, {"model": other, "data": back})
    assert next(back) == saved[0][2]
    drawn = random.random()
    random.seed(5)
    assert random.random() == drawn
