"""The layers hold, and the check can fail."""

import pathlib

import check_layers

SOURCE = pathlib.Path(__file__).parents[2] / "src"


def test_every_include_points_left():
    assert list(check_layers.violations(SOURCE)) == []


def test_every_room_is_known():
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    assert {room for room in rooms if check_layers.allowed(room) is None} == set()


def seed(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return list(check_layers.violations(tmp_path))


def test_an_include_that_points_right_is_found(tmp_path):
    assert "base must not include pulse/read.h" in seed(tmp_path, "base/x.h", '#include "pulse/read.h"\n')[0]


def test_a_neighbour_in_the_same_column_is_found(tmp_path):
    assert seed(tmp_path, "watch/x.cc", '#include "checkpoint/commit.h"\n')


def test_a_torch_header_outside_the_engine_is_found(tmp_path):
    assert "only src/engine" in seed(tmp_path, "checkpoint/x.cc", "#include <torch/torch.h>\n")[0]
    assert seed(tmp_path / "ok", "engine/x.cc", "#include <torch/torch.h>\n") == []


def test_nobody_includes_the_programs(tmp_path):
    assert seed(tmp_path, "commands/x.cc", '#include "writer/writer.h"\n')
