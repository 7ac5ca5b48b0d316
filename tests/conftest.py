"""Settings of the whole suite."""

import torch

# Tests run beside each other, one process a core; nested threads would only wait for one another.
torch.set_num_threads(1)
