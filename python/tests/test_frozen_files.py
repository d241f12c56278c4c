"""What nothing trains has a file of its own, and comes back like the rest."""

import json

import pytest
import torch
from safetensors.torch import load

from bitctl import _plan, snapshot

FACTS = {"step": 1, "metrics": {}}
WHOLE = ["model.safetensors", "training.safetensors"]
PARTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "training.safetensors"]


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(_plan, "_FROZEN_BYTES", 4096)


def lora(hidden=64):
    """A frozen layer with a small trained one beside it, and a buffer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(hidden, hidden), torch.nn.Linear(hidden, 2), torch.nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(torch.randn(5, hidden)).sum().backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


def names(taken):
    return [name for name, _, _ in taken.needs()]


def put(local_arena, taken, step=1):
    arena = local_arena.arena(taken.regions())
    slot = arena.begin(step, 1)
    used = taken.write(arena, slot)
    assert arena.commit(slot, used, False)
    images = {f["name"]: bytes(arena.view(slot, arena.offset_of(i), used[i])) for i, f in enumerate(arena.files)}
    return arena, slot, images


def header(image):
    return json.loads(image[8 : 8 + int.from_bytes(image[:8], "little")])


def test_the_parts_hold_what_they_should(local_arena):
    objects = lora()
    taken = snapshot.Collector().collect(objects, FACTS)
    assert names(taken) == PARTS
    _, _, images = put(local_arena, taken)
    frozen, trained = load(images[PARTS[0]]), load(images[PARTS[1]])
    assert set(frozen) == {"0.weight", "0.bias"}
    assert {**frozen, **trained}.keys() == objects["model"].state_dict().keys(), "buffers are with the trained ones"
    assert all(v.equal({**frozen, **trained}[k]) for k, v in objects["model"].state_dict().items())
    assert header(images[PARTS[0]])["__metadata__"] == {"format": "pt", "bitctl.frozen": "true"}
    assert header(images[PARTS[1]])["__metadata__"] == {"format": "pt"}


def test_its_bytes_stay_the_same_while_the_rest_is_trained(local_arena):
    objects, collector = lora(), snapshot.Collector()
    _, _, before = put(local_arena, collector.collect(objects, FACTS))
    objects["model"](torch.randn(5, 64)).sum().backward()
    objects["optimizer"].step()
    _, _, after = put(local_arena, collector.collect(objects, {"step": 2, "metrics": {"loss": 0.5}}), 2)
    assert after[PARTS[0]] == before[PARTS[0]]
    assert after[PARTS[1]] != before[PARTS[1]]


def test_a_write_that_no_version_counter_tells_of_is_in_the_next_snapshot(local_arena):
    objects, collector = lora(), snapshot.Collector()
    weight = objects["model"][0].weight
    taken = collector.collect(objects, FACTS)
    arena = local_arena.arena(taken.regions())
    for step in (1, 2):  # both slots hold it
        slot = arena.begin(step, 1)
        assert arena.commit(slot, taken.write(arena, slot), False)
    version = weight._version
    weight.data.add_(1)
    assert weight._version == version, "or this test says nothing"
    slot = arena.begin(3, 1)
    used = collector.collect(objects, FACTS).write(arena, slot)
    assert load(bytes(arena.view(slot, 0, used[0])))["0.weight"].equal(weight)


@pytest.mark.parametrize("before, after", [(True, True), (True, False), (False, True)])
def test_it_comes_back_in_one_file_or_in_two(local_arena, monkeypatch, before, after):
    objects = lora()
    monkeypatch.setattr(_plan, "_FROZEN_BYTES", 4096 if before else 1 << 30)
    taken = snapshot.Collector().collect(objects, FACTS)
    assert names(taken) == (PARTS if before else WHOLE)
    arena, slot, _ = put(local_arena, taken)
    monkeypatch.setattr(_plan, "_FROZEN_BYTES", 4096 if after else 1 << 30)
    again = lora()
    with torch.no_grad():
        for tensor in again["model"].state_dict().values():
            tensor.zero_()
    local_arena.put_back(arena, slot, again)
    expected = objects["model"].state_dict()
    assert all(v.equal(expected[k]) for k, v in again["model"].state_dict().items())
    assert names(snapshot.Collector().collect(again, FACTS)) == (PARTS if after else WHOLE)


def test_what_is_trained_later_moves_once_and_stays(local_arena):
    objects, collector = lora(), snapshot.Collector()
    model = objects["model"]
    assert names(collector.collect(objects, FACTS)) == PARTS
    model[0].requires_grad_(True)
    assert names(collector.collect(objects, FACTS)) == WHOLE
    model[0].requires_grad_(False)  # a GAN's other half
    assert names(collector.collect(objects, FACTS)) == WHOLE
    _, _, images = put(local_arena, collector.collect(objects, FACTS))
    assert load(images[WHOLE[0]])["0.weight"].equal(model[0].weight)


def test_little_is_not_worth_a_file(monkeypatch):
    model = lora()["model"]
    collect = lambda: names(snapshot.Collector().collect({"model": model}, FACTS))
    frozen = 4 * (64 * 64 + 64)
    monkeypatch.setattr(_plan, "_FROZEN_BYTES", frozen)
    assert collect() == PARTS
    monkeypatch.setattr(_plan, "_FROZEN_BYTES", frozen + 1)
    assert collect() == WHOLE
    monkeypatch.setattr(_plan, "_FROZEN_BYTES", 0)
    monkeypatch.setattr(_plan, "_FROZEN_PART", 0.99)
    assert collect() == WHOLE


def test_of_tied_tensors_one_is_kept_whatever_is_frozen(local_arena):
    objects = lora()
    objects["model"].append(torch.nn.Linear(64, 64))
    objects["model"][3].weight = objects["model"][0].weight
    taken = snapshot.Collector().collect(objects, FACTS)
    arena, slot, images = put(local_arena, taken)
    assert "0.weight" in load(images[PARTS[0]])
    assert "3.weight" not in {**load(images[PARTS[0]]), **load(images[PARTS[1]])}
    expected = objects["model"][0].weight.clone()
    with torch.no_grad():
        objects["model"][0].weight.zero_()
    local_arena.put_back(arena, slot, objects)
    assert objects["model"][3].weight.equal(expected)


def test_a_model_without_frozen_parts_is_one_file():
    model = torch.nn.Linear(100, 100)
    model.register_buffer("large", torch.zeros(1000, 1000))
    assert names(snapshot.Collector().collect({"model": model}, FACTS)) == WHOLE
    assert names(snapshot.Collector().collect({}, FACTS)) == WHOLE
