"""Writes small data sets as their tools write them, for the tests of reading them: `datasets` folders, Parquet and Arrow files.

python3 -m venv VENV && VENV/bin/pip install datasets==5.2.0 pandas==3.1.1 pyarrow==26.0.1
VENV/bin/python tests/peers/datasets_golden.py crates/nlp/testdata/datasets
"""

import pathlib
import shutil
import sys

import pandas
import pyarrow
import pyarrow.feather
import pyarrow.parquet
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

TEXTS = {
    "text": ["first, \"quoted\"", "second\nline", "third \U0001f600", "fourth", "fifth", "sixth"],
    "label": [1, 0, 1, 0, 1, 0],
}
SENTENCES = {
    "id": ["0", "1", "2"],
    "tokens": [["Ana", "lives", "in", "New", "Oslo"], ["nothing"], ["Ben"]],
    "ner_tags": [[3, 0, 0, 1, 2], [0], [3]],
}
NAMES = ["O", "B-loc", "I-loc", "B-per", "I-per"]


def texts():
    return Dataset.from_dict(TEXTS, Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])}))


def sentences():
    tags = List(ClassLabel(names=NAMES))
    return Dataset.from_dict(SENTENCES, Features({"id": Value("string"), "tokens": List(Value("string")), "ner_tags": tags}))


def main(folder):
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "hub" / "data").mkdir(parents=True)
    # `save_to_disk` of several splits, of one with two files, and of rows that were chosen.
    DatasetDict({"train": texts(), "test": texts().select([5, 0])}).save_to_disk(folder / "saved")
    sentences().save_to_disk(folder / "sentences", num_shards=2)
    # Parquet as it lies on the Hub.
    for split, rows in {"train": texts(), "validation": texts().select([1, 2])}.items():
        rows.to_parquet(folder / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    sentences().to_parquet(folder / "sentences.parquet")
    # Every compression and type that tables come with, from pandas.
    frame = pandas.DataFrame({
        "text": TEXTS["text"],
        "label": pandas.Categorical(["b", "a", "b", "a", "b", "a"]),
        "score": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
        "labels": [["x"], [], ["x", "y"], ["y"], ["x"], ["y"]],
        "count": pandas.array([1, 2, 3, 4, 5, None], dtype="Int32"),
        "when": pandas.to_datetime(["2026-01-01"] * 6),
        "nested": [{"a": [1, 2], "b": True}] * 6,
    })
    for codec in ["none", "snappy", "gzip", "zstd", "lz4"]:
        frame.to_parquet(folder / f"table-{codec}.parquet", compression=None if codec == "none" else codec, index=False)
    narrow = pyarrow.Table.from_pandas(frame[["text", "label", "score"]], preserve_index=False)
    pyarrow.feather.write_feather(narrow, folder / "table.feather", compression="uncompressed")
    for cache in folder.rglob("cache-*"):
        cache.unlink()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
