"""``python -m medmtl``."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # ``-m`` puts the working folder first; a random.py or torch.py that lies there would be run instead of the library
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]

    from medmtl.cli import main

    sys.exit(main())
