#!/usr/bin/env python3
"""An independent reader of safetensors files: Python's standard library and the format's description, nothing of ours.

    read_safetensors.py FILE            name, dtype, shape and sum of every tensor, in the order of the file
    read_safetensors.py FILE --metadata the metadata, one "key value" a line
"""
import json
import struct
import sys

WIDTHS = {"F64": ("d", 8), "F32": ("f", 4), "F16": ("e", 2), "BF16": (None, 2), "I64": ("q", 8), "I32": ("i", 4),
          "I16": ("h", 2), "I8": ("b", 1), "U8": ("B", 1), "BOOL": ("?", 1)}


def values(dtype, data):
    """The numbers of a tensor, as Python's own."""
    letter, width = WIDTHS[dtype]
    if letter:
        return struct.unpack(f"<{len(data) // width}{letter}", data)
    # A bfloat16 is the upper half of a float32.
    return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]


def no_duplicates(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def read(path):
    """(metadata, [(name, dtype, shape, numbers)]); ValueError when the file breaks a rule of the format."""
    with open(path, "rb") as file:
        whole = file.read()
    if len(whole) < 8:
        raise ValueError("too short")
    (length,) = struct.unpack("<Q", whole[:8])
    if length > len(whole) - 8 or whole[8:9] != b"{":
        raise ValueError("no header")
    header = json.loads(whole[8:8 + length].decode("utf-8"), object_pairs_hook=no_duplicates)
    data = whole[8 + length:]
    metadata = header.pop("__metadata__", {})
    tensors = []
    expected = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        count = 1
        for size in entry["shape"]:
            count *= size
        if begin != expected or end - begin != count * WIDTHS[entry["dtype"]][1]:
            raise ValueError(f"{name}: bytes {begin} to {end} do not fit")
        expected = end
        tensors.append((name, entry["dtype"], entry["shape"], values(entry["dtype"], data[begin:end])))
    if expected != len(data):
        raise ValueError("bytes that belong to no tensor")
    return metadata, tensors


def main():
    metadata, tensors = read(sys.argv[1])
    if "--metadata" in sys.argv:
        for key, value in metadata.items():
            print(key, value)
        return
    for name, dtype, shape, numbers in tensors:
        print(name, dtype, shape, f"{sum(numbers):.9g}")


if __name__ == "__main__":
    main()
