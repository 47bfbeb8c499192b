from __future__ import annotations

import subprocess
import sys


def test_making_data_of_chats_loads_nothing_heavy():
    code = (
        "import sys, cotrain.learn.importing, cotrain.learn.log, cotrain.learn.versions\n"
        "heavy = {'torch', 'transformers', 'hivemind', 'aiohttp', 'sqlalchemy', 'scipy', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
