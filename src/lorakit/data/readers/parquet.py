"""Rows of Parquet files."""

from __future__ import annotations

import io
from collections.abc import Iterator

from lorakit.data.decoding import ByteSource, reporting
from lorakit.data.settings import DataSettings
from lorakit.errors import DataError
from lorakit.types import Row


def parquet_rows(source: ByteSource, settings: DataSettings, notes: list[str]) -> Iterator[Row]:
    """Yield a row for each record, numbered from 1; the file's own types stay.

    Raises:
        DataError: The file is no Parquet, is damaged or holds text that is not UTF-8.
    """
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with reporting(source.name), source.open() as stream:
            zipped = source.path is None or source.path.suffix.lower() == ".gz"
            table = parquet.ParquetFile(io.BytesIO(stream.read()) if zipped else stream)
            for batch in table.iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(fields, source.name, number)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"{source.name}: row {number + 1:,} or what follows it cannot be read as Parquet "
            f"({str(error).splitlines()[0]}). Fetch or write the file again."
        ) from None
