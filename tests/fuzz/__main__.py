"""Coverage-guided fuzzing of the decoder: `python -m tests.fuzz`, for FUZZ_SECONDS (60) over both encodings.

libFuzzer's answer to input that breaks a law is a file `crash-...`, `timeout-...` or `oom-...` below `.cache/fuzz/`,
whose path it prints: put it into the corpus, where `make test` runs it, and mend the decoder.
What widens coverage is kept below `.cache/fuzz/` too, and the next run begins with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CORPUS: Final = HERE / "corpus"
FOUND: Final = Path(".cache/fuzz")
MAX_BYTES: Final = 2048  # longer input says nothing that a shorter one does not, and slows the search
LIMITS: Final = ("-timeout=5", "-rss_limit_mb=2048", f"-max_len={MAX_BYTES}")


def fuzz(target: str, arguments: list[str]) -> None:
    """Run libFuzzer in this process, which it ends."""
    import atheris

    with atheris.instrument_imports(include=["aggregator.core"]):
        from tests.fuzz.verdicts import TARGETS

    atheris.Setup([f"fuzz-{target}", *arguments], TARGETS[target])
    atheris.Fuzz()


def run(target: str, *arguments: str) -> int:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "tests.fuzz", target, *LIMITS, *arguments]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Both encodings, one after the other; 0 where no law was broken."""
    seconds = max(1, int(os.environ.get("FUZZ_SECONDS", "60")) // 2)
    for target in ("protobuf", "json"):
        found = FOUND / target
        found.mkdir(parents=True, exist_ok=True)
        kept = CORPUS / target
        words = HERE / f"{target}.dict"
        print(f"{target}: {seconds} s", flush=True)
        options = (f"-max_total_time={seconds}", f"-dict={words}", f"-artifact_prefix={found.parent}/{target}-")
        if run(target, *options, "-print_final_stats=1", str(found), str(kept)):
            return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fuzz(sys.argv[1], sys.argv[2:])
    else:
        sys.exit(main())
