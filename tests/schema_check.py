"""Every file that a test writes is held against its schema."""

import functools
import json
import pathlib

import jsonschema
import yaml

SCHEMAS = pathlib.Path(__file__).parents[1] / "schemas"


@functools.cache
def validator(schema):
    return jsonschema.Draft7Validator(json.loads((SCHEMAS / f"{schema}.schema.json").read_text()))


def document_of(text, where):
    def refuse(token):
        raise AssertionError(f"{where}: {token} is no number of JSON")

    return json.loads(text, parse_constant=refuse)


def assert_obeys(schema, path):
    """The file holds one JSON document that obeys schemas/<schema>.schema.json."""
    document = document_of(pathlib.Path(path).read_text(encoding="utf-8"), path)
    validator(schema).validate(document)
    return document


def assert_run_obeys(folder):
    """All that bitctl wrote into a run's folder. A row of events that a crash cut short is allowed: the last."""
    folder = pathlib.Path(folder)
    for schema, pattern in (("pulse.v1", "training_status.json"), ("run.v1", "run.json"), ("manifest.v1", "checkpoints/step-*/manifest.json")):
        for path in folder.glob(pattern):
            assert_obeys(schema, path)
    if (folder / "config.yaml").exists():
        validator("config.v1").validate(yaml.safe_load((folder / "config.yaml").read_text()))
    if (folder / "events.jsonl").exists():
        for row in (folder / "events.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
            validator("event.v1").validate(document_of(row, folder))
