"""The plan of the last snapshot is used while it is true, and never a moment longer."""

import random

import pytest
import torch

from bitctl import _tensors, snapshot

FACTS = {"step": 1, "metrics": {}}


class Holder:
    """Anything with a state_dict()."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state


def trained():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    model.register_buffer("square", torch.randn(4, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    model(torch.randn(5, 6)).sum().backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "more": Holder({"a": torch.ones(3), "b": [1, 2]})}


def images(local_arena, taken, step):
    """Both files, as the writer would find them."""
    arena = local_arena.arena(taken.regions())
    slot = arena.begin(step, 1)
    used = taken.write(arena, slot)
    assert arena.commit(slot, used, False)
    return [bytes(arena.view(slot, arena.offset_of(i), used[i])) for i in range(2)]


def resized(objects):
    objects["model"].square.resize_(2, 4)


def reshaped_in_place(objects):
    objects["model"].square.data = objects["model"].square.data.view(2, 8)


def transposed_in_place(objects):
    objects["model"].square.t_()


def another_dtype_of_the_same_bytes(objects):
    objects["model"].square.data = objects["model"].square.data.view(torch.int32)


def another_dtype(objects):
    objects["model"][0].bfloat16()


def moved(objects):
    objects["model"][0].weight.data = objects["model"][0].weight.data + 1


def replaced(objects):
    objects["model"][1].weight = torch.nn.Parameter(torch.randn(4, 4))


def renamed(objects):
    objects["model"].register_buffer("oblong", objects["model"].square)
    del objects["model"].square


def tied(objects):
    objects["model"][1].weight = torch.nn.Parameter(objects["model"].square)


def grown(objects):
    objects["model"].append(torch.nn.Linear(2, 2))


def shrunk(objects):
    del objects["model"][2]


def optimizer_state_replaced(objects):
    state = next(iter(objects["optimizer"].state.values()))
    state["exp_avg"] = state["exp_avg"] + 1


def optimizer_state_grown(objects):
    next(iter(objects["optimizer"].state.values()))["max_exp_avg_sq"] = torch.randn(4, 6)


def optimizer_state_of_another_kind(objects):
    next(iter(objects["optimizer"].state.values()))["step"] = 7


def optimizer_state_gone(objects):
    objects["optimizer"].state.clear()


def new_group(objects):
    objects["optimizer"].add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})


def loose_tensor_grown(objects):
    objects["more"].state["a"] = torch.ones(5)


def loose_tensor_strided(objects):
    objects["more"].state["a"] = torch.arange(6.0)[::2]


CHANGES = [
    resized, reshaped_in_place, transposed_in_place, another_dtype_of_the_same_bytes, another_dtype, moved, replaced, renamed,
    tied, grown, shrunk, optimizer_state_replaced, optimizer_state_grown, optimizer_state_of_another_kind,
    optimizer_state_gone, new_group, loose_tensor_grown, loose_tensor_strided,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_seen(local_arena, change):
    objects, collector = trained(), snapshot.Collector()
    before = images(local_arena, collector.collect(objects, FACTS), 1)
    change(objects)
    after = images(local_arena, collector.collect(objects, FACTS), 2)
    assert after == images(local_arena, snapshot.Collector().collect(objects, FACTS), 3)
    assert after != before


def test_many_changes_one_after_the_other(local_arena):
    for seed in range(10):
        objects, collector = trained(), snapshot.Collector()
        pick = random.Random(seed)
        for step in range(8):
            pick.choice([moved, replaced, grown, new_group, loose_tensor_grown, loose_tensor_strided, another_dtype])(objects)
            taken = collector.collect(objects, FACTS)
            assert images(local_arena, taken, step) == images(local_arena, snapshot.Collector().collect(objects, FACTS), step)


def test_new_values_need_no_new_plan(local_arena):
    objects, collector = trained(), snapshot.Collector()
    first = collector.collect(objects, FACTS)
    arena = local_arena.arena(first.regions())
    for step in range(1, 6):
        objects["model"](torch.randn(5, 6)).sum().backward()
        objects["optimizer"].step()
        objects["optimizer"].zero_grad()
        objects["scheduler"].step()
        objects["more"].state["a"] = torch.full((3,), float(step))
        taken = collector.collect(objects, {"step": step, "metrics": {"loss": 1 / step}})
        assert taken._plan is first._plan
        slot = arena.begin(step, 1)
        used = taken.write(arena, slot)
        assert arena.commit(slot, used, False)
        view = arena.view(slot, arena.offset_of(1), used[1])
        header, _, data = _tensors.parse_header(view)
        begin, end = header["more.a"]["data_offsets"]
        assert bytes(view[data + begin : data + end]) == objects["more"].state["a"].numpy().tobytes()
        expected = {k: v.clone() for k, v in objects["model"].state_dict().items()}
        again = trained()
        assert local_arena.put_back(arena, slot, {k: v for k, v in again.items() if k != "more"})["step"] == step
        assert all(v.equal(expected[k]) for k, v in again["model"].state_dict().items())
        states = [o["optimizer"].state_dict()["state"] for o in (objects, again)]
        assert all(states[0][i][k].equal(states[1][i][k]) for i in states[0] for k in states[0][i])
        assert again["scheduler"].state_dict() == objects["scheduler"].state_dict()


def test_a_shorter_header_leaves_nothing_of_the_longer_one(local_arena):
    objects, collector = trained(), snapshot.Collector()
    long = collector.collect(objects, {"step": 1, "metrics": {"m%d" % i: i / 7 for i in range(20)}})
    arena = local_arena.arena(long.regions())
    for step in (1, 2):
        slot = arena.begin(step, 1)
        arena.commit(slot, long.write(arena, slot), False)
    slot = arena.begin(3, 1)
    used = collector.collect(objects, FACTS).write(arena, slot)
    image = bytes(arena.view(slot, arena.offset_of(1), used[1]))
    header = image[8 : 8 + int.from_bytes(image[:8], "little")]
    assert header == collector.collect(objects, FACTS).header(snapshot.TRAINING_FILE).ljust(len(header))


def test_the_plan_keeps_no_tensor_alive(local_arena):
    import gc
    import weakref

    objects, collector = trained(), snapshot.Collector()
    collector.collect(objects, FACTS)
    gone = weakref.ref(objects["model"][1].weight)
    replaced(objects)
    objects["optimizer"] = objects["scheduler"] = None
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("state", [3, "text", None, [1], {}, {"$table": "optim.state"}, {1: {}}])
def test_an_object_with_a_state_of_its_own_making(local_arena, state):
    class Own(Holder):
        def load_state_dict(self, state):
            self.state = state

    taken = snapshot.Collector().collect({"own": Own({"state": state, "param_groups": []})}, FACTS)
    arena = local_arena.arena(taken.regions())
    slot = arena.begin(1, 1)
    arena.commit(slot, taken.write(arena, slot), False)
    back = Own(None)
    local_arena.put_back(arena, slot, {"own": back})
    assert back.state == {"state": state, "param_groups": []}


def test_a_state_dict_of_its_own_is_asked_each_time(local_arena):
    class Model(torch.nn.Linear):
        def state_dict(self, *args, **kwargs):
            return {"renamed." + k: v for k, v in super().state_dict(*args, **kwargs).items()}

    taken = snapshot.Collector().collect({"model": Model(2, 2)}, FACTS)
    assert b'"renamed.weight"' in taken.header(snapshot.MODEL_FILE)
