"""What comes out of each file of a folder when it is ingested: a Markdown table, as it stands in docs/ingest.md."""

import argparse
from pathlib import Path

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.documents import Reader

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "data" / "pdf-samples"


def table(folder: Path) -> list[str]:
    """A line for each file under the folder, in the order of their names, source notes left out."""
    lines = ["| file | pages | characters | outcome |", "|---|---:|---:|---|"]
    with Reader() as reader:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SOURCE.txt"):
            name = path.relative_to(folder).as_posix().removeprefix("py-pdf-sample-files/")
            lines.append(f"| {name} | {outcome(reader, path)} |")
    return lines


def outcome(reader: Reader, path: Path) -> str:
    """Pages, characters and outcome of one file."""
    try:
        document = reader.parse(reader.open(path))
    except DocumentError as error:
        return f"| | {str(error).removeprefix(str(path)).strip()}"
    pages = str(len(document.pages)) if document.pages else ""
    form = document.parser.partition("/")[0]
    return f"{pages} | {len(document.text)} | {form}: {document.title}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=SAMPLES)
    folder = parser.parse_args().folder
    if not folder.is_dir():
        print(f"nothing to read: {folder.name} is not beside the repository; name a folder")
        return
    print("\n".join(table(folder)))


if __name__ == "__main__":
    main()
