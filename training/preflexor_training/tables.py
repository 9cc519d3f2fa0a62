"""Rows in Parquet files and in folders of Hugging Face's `datasets`. Both libraries come with the train extra."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preflexor_agents.errors import InputError
from preflexor_agents.preference_rows import LOG

if TYPE_CHECKING:
    import pyarrow

_AT_ONCE = 1000
_REMEDY = "install it with: pip install 'preflexor-agents[train]'"


def is_table(path: Path) -> bool:
    """Whether this is a Parquet file, or a folder that is no run's."""
    if path.is_dir():
        return not (path / LOG).is_file()
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def read_table(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, or of a folder that the `datasets` library saved.

    Raises:
        InputError: it is damaged or neither, has several splits, or the library is missing.
    """
    return _read_folder(path) if path.is_dir() else _read_parquet(path)


def write_parquet(table: "pyarrow.Table", path: Path) -> None:
    """Write a Parquet file. Raises OSError if it cannot be written."""
    from pyarrow import parquet

    parquet.write_table(table, path)


def write_folder(table: "pyarrow.Table", folder: Path) -> None:
    """Write a folder for `datasets.load_from_disk`. Raises OSError if it cannot be written."""
    with library("writing") as datasets:
        features = datasets.Features.from_arrow_schema(table.schema)
        datasets.Dataset.from_dict(table.to_pydict(), features=features).save_to_disk(str(folder))


def arrow(what: str) -> Any:
    """The pyarrow library. Raises InputError: it is missing."""
    try:
        import pyarrow
    except ImportError:
        raise InputError(f"{what} takes pyarrow; {_REMEDY}") from None
    return pyarrow


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    error = arrow("reading Parquet").ArrowException
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_AT_ONCE):
                yield from batch.to_pylist()
    except (error, OSError) as e:
        raise InputError(f"{path} is damaged: {' '.join(str(e).split())[:120]}") from None


def _read_folder(folder: Path) -> Iterator[dict[str, Any]]:
    if not (folder / "state.json").is_file() and not (folder / "dataset_dict.json").is_file():
        raise InputError(f"{folder} is a folder without {LOG} and without a saved dataset; name a file in it")
    with library("reading") as datasets:
        try:
            found = datasets.load_from_disk(str(folder))
        except (OSError, ValueError, KeyError, TypeError, arrow("reading").ArrowException) as e:
            raise InputError(f"{folder} is damaged: {' '.join(str(e).split())[:120]}") from None
    if isinstance(found, dict):
        if len(found) != 1:
            raise InputError(f"{folder} has the splits {', '.join(found)}; name one, as {folder / next(iter(found))}")
        found = next(iter(found.values()))
    yield from found


@contextmanager
def library(what: str) -> Iterator[Any]:
    """The `datasets` library, kept from drawing bars of its own. Raises InputError: it is missing."""
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise InputError(f"{what} a dataset's folder takes the datasets library; {_REMEDY}") from None
    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        if not were_off:
            datasets.enable_progress_bars()
