"""What holds for all tests that train."""

import torch

# Tests run side by side on few cores, on tensors so small that threads only wait for each other: with one
# thread they are several times as fast.
torch.set_num_threads(1)
