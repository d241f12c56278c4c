"""Short forms of what scripts/soak does for hours: kills, locks, and a disk that lies about having taken something."""

import os

import durability
import pytest
import saves


def test_a_storm_of_kills_costs_no_snapshot_and_no_checkpoint():
    code, counts, text = durability.kill_storm(200)
    assert code == 0, text
    assert counts["kills"] == 200 and counts["trainer"] > 50 and counts["writer"] > 50
    assert counts["commits"] > 20, "the control: it did save"


def test_no_lock_has_two_owners():
    code, counts, text = durability.lock_storm(1500)
    assert code == 0 and counts["double_owners"] == 0, text
    assert counts["stopped"] > 0 and counts["forked"] > 0 and counts["killed"] > 0


def test_two_owners_would_be_seen():
    code, counts, _ = durability.lock_storm(300, "--without-lock")
    assert code == 1 and counts["double_owners"] > 0


@pytest.fixture
def thin_disk():
    disk = durability.ThinDisk(says=40, has=12)
    try:
        reason = disk.why_not()
        if reason:
            pytest.skip(reason)
        yield disk
    finally:
        disk.close()


def test_an_fsync_that_is_asked_again_would_lie(thin_disk):
    """The control of the next one: by this rule, on this disk, something is acknowledged and gone."""
    acknowledged, failed = [], 0
    for number in range(20):
        path = thin_disk.disk / str(number)
        with open(path, "wb", 0) as file:
            file.write(b"x" * (1 << 20))
            for _ in range(4):
                try:
                    os.fsync(file.fileno())
                    acknowledged.append(path)
                    break
                except OSError:
                    failed += 1
    assert failed
    thin_disk.drop_caches()
    assert any(path.read_bytes() != b"x" * (1 << 20) for path in acknowledged)


def test_what_a_lying_disk_did_not_keep_is_never_acknowledged(thin_disk):
    """Space that is promised and not there: writes are taken, an fsync fails, and a later one may say that all is well."""
    folder = thin_disk.disk / "checkpoints"
    folder.mkdir()
    acknowledged, refused = [], 0
    for step in range(1, 20):
        result = saves.save(folder, step, chr(ord("a") + step % 26), "--elements", "260000", "--keep", "99")
        if "acknowledged" in result.stdout:
            acknowledged.append(step)
        else:
            refused += 1
    assert acknowledged and refused, "the control: it fits at first, and then it does not"
    thin_disk.drop_caches()
    found = saves.load(folder)
    assert found["step"] >= acknowledged[-1] and found["fill"] == chr(ord("a") + found["step"] % 26), found
    assert not [b for b in found["bad"] if any("step-%09d" % step in b for step in acknowledged)], found
