"""Every file that a test writes is held against its schema."""

import json
import pathlib

import jsonschema

SCHEMAS = pathlib.Path(__file__).parents[1] / "schemas"


def assert_obeys(schema, path):
    """The file holds one JSON document that obeys schemas/<schema>.schema.json."""
    text = pathlib.Path(path).read_text(encoding="utf-8")

    def refuse(token):
        raise AssertionError(f"{path}: {token} is no number of JSON")

    document = json.loads(text, parse_constant=refuse)
    definition = json.loads((SCHEMAS / f"{schema}.schema.json").read_text())
    jsonschema.Draft7Validator(definition).validate(document)
    return document
