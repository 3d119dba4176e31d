"""Rows of a dataset on the Hub, or of what `datasets` has of it in its cache."""

from __future__ import annotations

from collections.abc import Iterator

from lorakit.data.paths import HUB
from lorakit.data.settings import SourceSettings
from lorakit.errors import DataError
from lorakit.types import Row


def hub_rows(source: SourceSettings, streaming: bool) -> Iterator[Row]:
    """Yield the rows of ``hf://org/name``, numbered from 1, with the types the dataset declares.

    Args:
        source: `path` with the scheme; `config` and `split` as `datasets.load_dataset` takes them.
        streaming: Read rows while they are asked for, in place of preparing the whole split on disk.

    Raises:
        DataError: The dataset, its configuration or its split is not found, or the network is not there.
    """
    import datasets

    name = source.path.removeprefix(HUB)
    try:
        table = datasets.load_dataset(name, source.config, split=source.split, streaming=streaming)
        for number, fields in enumerate(table, start=1):
            yield Row(dict(fields), source.path, number)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        config = f", configuration {source.config!r}" if source.config else ""
        detail = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(
            f"{source.path}: the dataset {name!r}{config}, split {source.split!r}, was not found in the local cache or "
            f"on the Hub ({detail[:300]}). Check the names and the connection (HF_HUB_OFFLINE and HF_TOKEN count), "
            "or download the rows once and give the file."
        ) from None
