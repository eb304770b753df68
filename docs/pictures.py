"""Make docs/demo.svg and docs/top.svg: `python -m docs.pictures`. It needs `distlock[server,plot]`.

The first is what `demo --plot` draws. The second is a frame of `top`, of a pipeline whose generator
was killed 8 s before and whose messages sometimes fail; a cache is in use on the same server.
"""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from distlock import Cache
from distlock.connect import connect
from distlock.demo.stage import end, fresh_folder, start
from distlock.keys import Keys
from distlock.look import Looker
from distlock.server import Embedded
from distlock.top.frame import Pose, frame
from distlock.top.history import History

HERE = Path(__file__).parent
KEYS = Keys("shop")
LINE = "--name shop --messages 2000000 --error-rate 0.0005 --attempts 1 --sleep 0.0004 --batch 200"
SECONDS, KILL = 30, 22


def watched(folder: Path) -> History:
    """What `top` has seen of some copies after a while."""
    embedded, history = Embedded(folder), History()
    embedded.start()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    copies = [start("distlock", LINE.split(), folder, **silent) for _ in range(4)]
    cache = Cache(embedded.url, name="prices")
    try:
        with connect(embedded.url) as client:
            looker = Looker(client, KEYS, ["prices"])
            for second in range(SECONDS):
                for number in range(40):
                    key = str(number % 7)
                    cache.get(key, lambda: "value", expire=2, execution_limit=5)
                history.saw(looker.look())
                if second == KILL:
                    _kill_the_generator(history, copies)
                time.sleep(1)
    finally:
        for copy in copies:
            end(copy)
        embedded.stop()
    return history


def _kill_the_generator(history: History, copies: list[subprocess.Popen[bytes]]) -> None:
    assert history.now
    for copy in copies:
        if f"-{copy.pid}-" in history.now.status.owner:
            copy.send_signal(signal.SIGKILL)


def picture(history: History) -> str:
    """A frame as SVG, without the fonts that rich would have a browser fetch."""
    assert history.now
    pose = Pose(width=90, height=24, keys=True, where="shop at the embedded server")
    pose.now = history.now.at + 0.1
    console = Console(record=True, width=pose.width, file=io.StringIO(), force_terminal=True)
    for line in frame(history, pose):
        console.print(line)
    text = console.export_svg(title="distlock top --name shop")
    text = text.replace("<text ", '<text xml:space="preserve" ')  # some renderers drop the gaps
    return re.sub(r"\s*@font-face \{.*?\}", "", text, flags=re.DOTALL)


def main() -> None:
    """Make both."""
    demo = [sys.executable, "app_start.py", "demo", "--plot", str(HERE / "demo.svg")]
    subprocess.run(demo, cwd=HERE.parent, check=True)
    with fresh_folder() as folder:
        (HERE / "top.svg").write_text(picture(watched(folder)))


if __name__ == "__main__":
    main()
