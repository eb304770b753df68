"""All benchmarks, one after another: `python -m bench`.

Each writes its raw text into a folder. From these texts alone are made the table in Markdown,
`table.md`, and the plot, `bars.svg`: they say what was measured and nothing else. With `--draw`
both are made anew from the texts that are there.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

from .command import add_options
from .drawing import draw, markdown, read

NAMES = ("pipeline", "lease", "cache")


def main() -> int:
    """Run them and draw what they found.

    Returns:
        1 when one of them misses a bar, or fails.
    """
    parser = ArgumentParser(prog="python -m bench")
    add_options(parser)
    parser.add_argument("--draw", action="store_true", help="run nothing: draw what is there")
    parser.add_argument("--out", default="bench/results", metavar="FOLDER", help="for all of it")
    options = parser.parse_args()
    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {folder}: {error.strerror}: name a folder")
    texts = {name: folder / f"{name}.txt" for name in NAMES}
    missed = False
    if not options.draw:
        words = ["--server", options.server]
        words += [f"--{word}" for word in ("quick", "unix", "patient") if getattr(options, word)]
        for name, text in texts.items():
            text.unlink(missing_ok=True)  # or a benchmark that fails would leave an older one's
            command = [sys.executable, "-m", f"bench.{name}", *words, "--out", str(text)]
            missed = bool(subprocess.run(command, check=False).returncode) or missed
    if missing := [str(text) for text in texts.values() if not text.exists()]:
        parser.error(f"nothing to draw: there is no {', '.join(missing)}: run without --draw first")
    runs = {name: read(text.read_text()) for name, text in texts.items()}
    (folder / "table.md").write_text(markdown(runs))
    draw(runs, folder / "bars.svg")
    print(f"{folder / 'table.md'} and {folder / 'bars.svg'} show what the texts beside them say")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
