"""Tensors of which each process holds a part, or no bytes at all."""

import pytest
import torch
import torch.distributed as dist
from test_snapshot import same, take
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from bitctl import _tensors, snapshot

FACTS = {"step": 1, "metrics": {}}


@pytest.fixture
def linear(tmp_path):
    dist.init_process_group("gloo", init_method="file://%s" % (tmp_path / "meeting"), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    yield lambda: fully_shard(torch.nn.Linear(4, 4), mesh=mesh)
    dist.destroy_process_group()


def trained(model):
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


@pytest.mark.parametrize("name", ["model", "other"])
def test_a_part_is_not_saved_as_the_whole(linear, name):
    with pytest.raises(TypeError, match=r"weight: each rank holds a part of it; run.restore\(…, sharded=True\) saves it"):
        snapshot.Collector().collect({name: linear()}, FACTS)


def test_where_one_process_holds_all_it_comes_back(linear, local_arena):
    objects, again = trained(linear()), trained(linear())
    assert snapshot.holds_parts([objects["model"]]) and snapshot.holds_parts([objects["optimizer"]])
    assert not snapshot.holds_parts([torch.nn.Linear(2, 2), None, object()])
    arena, slot, _ = take(local_arena, objects, collector=snapshot.Collector(parts=True))
    local_arena.put_back(arena, slot, again)
    for name in objects:
        assert same(_tensors.local_parts(objects[name].state_dict()), _tensors.local_parts(again[name].state_dict()))
    for kept in again["optimizer"].state.values():
        assert all(map(_tensors.is_distributed, (kept["exp_avg"], kept["exp_avg_sq"])))
    again["optimizer"].step()


def test_what_has_no_bytes_is_not_saved():
    with torch._subclasses.FakeTensorMode():
        model = torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match="cannot be saved"):
        snapshot.Collector().collect({"model": model}, FACTS)
