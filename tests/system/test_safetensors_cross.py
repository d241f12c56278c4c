"""Our safetensors files and Hugging Face's are the same files, and our reader is never the laxer one."""

import json
import pathlib
import random
import subprocess

import pytest
import safetensors
import safetensors.torch
import torch

# What Hugging Face's reader takes and ours refuses, with the reason. `compat` refuses only those below the line.
STRICTER = {
    "leading space": "starts with byte 0x20",
    "leading newline": "starts with byte 0x0a",
    "padded with tab": "padded with byte 0x09",
    "padded with newline": "padded with byte 0x0a",
    "padded with return": "padded with byte 0x0d",
    "metadata null": "__metadata__ is no object",
    "empty name": "empty name",
    "long name": "more than 4096",
}
STRICTER_IN_BOTH = {
    "tensor twice, same range": "duplicate key",
    "tensor twice when unescaped": "duplicate key",
    "metadata key twice": "duplicate key",
    "unknown field": "unknown field",
    "rank 65": "more than 64",
    "size 2^63 beside a zero": "larger than 2^63-1",
    "NUL in a name": "a NUL byte",
}


def entry(name="a", dtype="F32", shape="[1]", begin=0, end=4, extra=""):
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]{extra}}}'


def file_of(header, data=0, length=None):
    header = header if isinstance(header, bytes) else header.encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + bytes(data)


def with_shape(shape, data, dtype="F32"):
    return file_of("{" + entry(shape=shape, dtype=dtype, end=data) + "}", data)


CORPUS = {
    "empty object": file_of("{}"),
    "metadata only": file_of('{"__metadata__":{"format":"pt"}}'),
    "scalar": with_shape("[]", 4),
    "empty tensor": with_shape("[0]", 0),
    "one": file_of("{" + entry() + "}", 4),
    "header order is not data order": file_of("{" + entry("a", begin=4, end=8) + "," + entry("b") + "}", 8),
    "not padded": file_of("{" + entry("abc") + "}", 4),
    "empty file": b"",
    "seven bytes": b"1234567",
    "length 0": file_of("", length=0),
    "length 1": file_of("{}", length=1),
    "length over the limit": file_of("{}", length=100_000_001),
    "length overflows": file_of("{}", length=2**64 - 1),
    "length beyond the file": file_of("{}", length=3),
    "length cuts the JSON": file_of("{" + entry() + "}", 4, length=9),
    "length reaches into the data": file_of("{" + entry() + "}", 4, length=len("{" + entry() + "}") + 4),
    "overlong UTF-8": file_of(b'{"\xc0\xaf":1}'),
    "surrogate in UTF-8": file_of(b'{"\xed\xa0\x80":1}'),
    "byte order mark": file_of(b"\xef\xbb\xbf{}"),
    "leading space": file_of(" {}"),
    "leading newline": file_of("\n{}"),
    "padded with tab": file_of("{}\t"),
    "padded with newline": file_of("{}\n"),
    "padded with return": file_of("{}\r"),
    "padded with NUL": file_of(b"{}\0"),
    "bytes after the object": file_of("{} x"),
    "array": file_of("[]"),
    "control character": file_of('{"\x01":1}'),
    "lone surrogate": file_of('{"\\ud800":1}'),
    "comment": file_of("{/**/}"),
    "trailing comma": file_of("{" + entry() + ",}", 4),
    "NaN": file_of('{"a":NaN}'),
    "deep": file_of('{"a":' + "[" * 200 + "]" * 200 + "}"),
    "leading zero": with_shape("[01]", 4),
    "negative zero": with_shape("[-0]", 0),
    "fraction": with_shape("[1.0]", 4),
    "exponent": with_shape("[1e0]", 4),
    "negative": with_shape("[-1]", 4),
    "string": with_shape('["1"]', 4),
    "null": with_shape("[null]", 4),
    "rank 65": with_shape("[" + ",".join(["1"] * 65) + "]", 4),
    "size 2^63 beside a zero": with_shape("[0,9223372036854775808]", 0),
    "size beyond 64 bits": with_shape("[18446744073709551616]", 4),
    "product overflows": with_shape("[4294967296,4294967296]", 4),
    "product overflows before a zero": with_shape("[9223372036854775808,9223372036854775808,0]", 0),
    "bits overflow": with_shape("[1152921504606846976]", 4),
    "half a byte": with_shape("[3]", 2, "F4"),
    "unknown dtype": with_shape("[1]", 4, "F33"),
    "lower case dtype": with_shape("[1]", 4, "f32"),
    "too few bytes": with_shape("[2]", 4),
    "too many bytes": with_shape("[1]", 8),
    "tensor twice, same range": file_of("{" + entry() + "," + entry() + "}", 4),
    "tensor twice, other range": file_of("{" + entry() + "," + entry(begin=4, end=8) + "}", 8),
    "tensor twice when unescaped": file_of("{" + entry() + "," + entry("\\u0061") + "}", 4),
    "metadata twice": file_of('{"__metadata__":{},"__metadata__":{}}'),
    "metadata key twice": file_of('{"__metadata__":{"k":"1","k":"2"}}'),
    "field twice": file_of("{" + entry(extra=',"dtype":"F32"') + "}", 4),
    "unknown field": file_of("{" + entry(extra=',"stride":[1]') + "}", 4),
    "no dtype": file_of('{"a":{"shape":[1],"data_offsets":[0,4]}}', 4),
    "no shape": file_of('{"a":{"dtype":"F32","data_offsets":[0,4]}}', 4),
    "no offsets": file_of('{"a":{"dtype":"F32","shape":[1]}}', 4),
    "three offsets": file_of('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}', 4),
    "empty name": file_of("{" + entry("") + "}", 4),
    "long name": file_of("{" + entry("n" * 4097) + "}", 4),
    "NUL in a name": file_of("{" + entry("a\\u0000") + "}", 4),
    "metadata null": file_of('{"__metadata__":null}'),
    "metadata array": file_of('{"__metadata__":[]}'),
    "metadata number": file_of('{"__metadata__":{"k":1}}'),
    "backwards": file_of("{" + entry(begin=8, end=4) + "}", 8),
    "hole at the start": file_of("{" + entry(begin=4, end=8) + "}", 8),
    "hole between": file_of("{" + entry("a") + "," + entry("b", begin=8, end=12) + "}", 12),
    "overlap": file_of("{" + entry("a") + "," + entry("b", begin=2, end=6) + "}", 6),
    "same range": file_of("{" + entry("a") + "," + entry("b") + "}", 4),
    "empty tensor inside": file_of("{" + entry("a") + "," + entry("b", shape="[0]", begin=2, end=2) + "}", 4),
    "truncated": file_of("{" + entry() + "}", 3),
    "trailing bytes": file_of("{" + entry() + "}", 5),
    "data without tensors": file_of("{}", 5),
}


@pytest.fixture(scope="module")
def tool(build):
    return str(build / "tests" / "safetensors_tool")


def our_verdicts(tool, folder, files):
    """The verdicts of our reader on these contents, in their order."""
    paths = []
    for number, content in enumerate(files):
        path = pathlib.Path(folder) / f"{number}.safetensors"
        path.write_bytes(content)
        paths.append(str(path))
    answer = subprocess.run([tool, "verdicts"], input="\n".join(paths), check=True, capture_output=True, text=True)
    verdicts = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(verdicts) == len(files)
    return verdicts


def they_take(content):
    try:
        safetensors.deserialize(content)
        return True
    except (safetensors.SafetensorError, OverflowError, TypeError):
        return False


def test_verdicts_on_the_corpus(tool, tmp_path):
    verdicts = dict(zip(CORPUS, our_verdicts(tool, tmp_path, CORPUS.values())))
    theirs = {name for name, content in CORPUS.items() if they_take(content)}
    strict = {name for name, verdict in verdicts.items() if verdict["strict"] == "ok"}
    compat = {name for name, verdict in verdicts.items() if verdict["compat"] == "ok"}
    assert theirs - strict == set(STRICTER) | set(STRICTER_IN_BOTH)
    assert theirs - compat == set(STRICTER_IN_BOTH)
    assert strict - theirs == compat - theirs == set()
    for name, reason in {**STRICTER, **STRICTER_IN_BOTH}.items():
        assert reason in verdicts[name]["strict"]


def mutant(rng, original):
    content = bytearray(original)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content))
        kind = rng.randrange(3)
        if kind == 0:
            content[at] = rng.choice(b'{}[]",:0123456789-.eE \n\x00\xff') if rng.random() < 0.8 else rng.randrange(256)
        elif kind == 1:
            del content[at : at + rng.randint(1, 4)]
        else:
            content.insert(at, rng.choice(b'{}[]",:0123456789 '))
    return bytes(content)


def test_what_we_take_they_take(tool, tmp_path):
    tensors = {"w": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16), "n": torch.tensor(3)}
    original = safetensors.torch.save(tensors, {"format": "pt"})
    rng = random.Random(20261121)
    mutants = [mutant(rng, original) for _ in range(2000)]
    verdicts = our_verdicts(tool, tmp_path, mutants)
    taken = [content for content, verdict in zip(mutants, verdicts) if verdict["compat"] == "ok"]
    assert len(taken) > 10 and all(map(they_take, taken))
    refused = [content for content, verdict in zip(mutants, verdicts) if verdict["compat"] != "ok"]
    assert len(refused) > 1000


DTYPES = [getattr(torch, name) for name in """bool uint8 int8 int16 uint16 int32 uint32 int64 uint64 float16 bfloat16
    float32 float64 complex64 float8_e5m2 float8_e4m3fn float8_e8m0fnu float8_e5m2fnuz float8_e4m3fnuz""".split()]


def tensors_of_every_dtype():
    rng = random.Random(3)
    tensors = {}
    for number, dtype in enumerate(DTYPES):
        for shape in [(), (0,), (3,), (2, 3), (1, 0, 4), (5, 1, 2)]:
            name = rng.choice(["layer.", "Ärger-", "模型/", 'quote"', "back\\slash ", "tab\t"]) + f"{number}.{len(tensors)}"
            count = torch.Size(shape).numel() * dtype.itemsize
            raw = torch.tensor([rng.randrange(2 if dtype == torch.bool else 256) for _ in range(count)], dtype=torch.uint8)
            tensors[name] = raw.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
    return tensors


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)


def test_their_files_are_ours(tool, tmp_path):
    theirs = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(tensors_of_every_dtype(), theirs, {"note": 'é"\\\n\x7f'})
    answer = subprocess.run([tool, "read", theirs], check=True, capture_output=True, text=True).stdout
    ours = json.loads(answer)
    content = theirs.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert ours["metadata"] == header.pop("__metadata__")
    assert ours["tensors"] == header


def test_our_files_are_theirs_byte_for_byte(tool, tmp_path):
    tensors = tensors_of_every_dtype()
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    safetensors.torch.save_file(tensors, theirs, {"note": 'é"\\\n\x7f'})
    subprocess.run([tool, "rewrite", theirs, ours], check=True)
    assert ours.read_bytes() == theirs.read_bytes()
    loaded = safetensors.torch.load_file(ours)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert torch.equal(bits(loaded[name]), bits(tensor))


def test_ten_thousand_tensors_both_ways(tool, tmp_path):
    tensors = {f"model.layers.{i}.weight": torch.full((2, 2), float(i)) for i in range(10_000)}
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    safetensors.torch.save_file(tensors, theirs)
    subprocess.run([tool, "rewrite", theirs, ours], check=True)
    assert ours.read_bytes() == theirs.read_bytes()
