"""Tensors of which each process holds a part, or no bytes at all."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from bitctl import snapshot


@pytest.fixture
def model(tmp_path):
    dist.init_process_group("gloo", init_method="file://%s" % (tmp_path / "meeting"), rank=0, world_size=1)
    yield fully_shard(torch.nn.Linear(4, 4), mesh=init_device_mesh("cpu", (1,)))
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["model", "other"])
def test_a_part_is_not_saved_as_the_whole(model, name):
    with pytest.raises(TypeError, match=r"weight: each rank holds a part of it; call run.restore\(…, sharded=True\)"):
        snapshot.Collector().collect({name: model}, {"step": 1})
    snapshot.Collector(snapshot.file_names(0, True, True)).collect({name: model}, {"step": 1})


def test_what_has_no_bytes_is_not_saved():
    with torch._subclasses.FakeTensorMode():
        model = torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match="cannot be saved"):
        snapshot.Collector().collect({"model": model}, {"step": 1})
