"""Train a backbone: `python train.py --help`. It is the console command's `bbframe train`.

Tab completion of Hydra's looks for the word @hydra.main in this file: eval "$(python train.py -sc install=bash)"
"""

import sys

from bbframe.app.train import main

if __name__ == "__main__":
    sys.exit(main())
