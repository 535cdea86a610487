"""Random changes of training images, batched on their device, and the scaling of every network input.

Each technique is a pure function of the images and of explicit draws, one for every image, and a thin
``random_`` function that makes the draws. All of it keeps three rules, so that a CUDA graph can hold it:
no operation waits for the device, every shape follows from the batch's size alone, and no constant is
copied from the host. Randomness comes from the default generator of the images' device.
"""

from search.training.augmentation.pipeline import Augmenter, plain_batch, preview_batch
from search.training.augmentation.scaling import Scaling, build_scaling

__all__ = ["Augmenter", "Scaling", "build_scaling", "plain_batch", "preview_batch"]
