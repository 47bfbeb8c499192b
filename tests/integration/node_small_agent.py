"""The real agent with the small worker, as a process: `node_small_agent.py URL MODE`."""

from __future__ import annotations

import asyncio
import sys

from cotrain.display import PlainDisplay
from cotrain.errors import CotrainError
from cotrain.identity.wallet import WalletOptions, open_wallet
from cotrain.paths import SharedPaths, home_dir
from node.admission import Place
from node.join import join
from node.options import join_options, over, read_node_file
from tests.integration.node_fixtures import worker_argv


def main() -> int:
    url, mode = sys.argv[1:]
    place = Place(home_dir(), SharedPaths.from_env(), open_wallet(home_dir(), WalletOptions(), ask=None))
    options = join_options(url, over({"threads": 1}, read_node_file(home_dir())))
    display = PlainDisplay(sys.stdout)
    try:
        return asyncio.run(join(options, place, display, command=lambda job: worker_argv(mode, job)))
    except CotrainError as error:
        print(f"error: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
