"""One thread a process: the networks of the tests are tiny, and the results must not depend on the machine's cores."""

import torch

torch.set_num_threads(1)
