"""Images, and data sets of composites with their masks and real photos."""

from hdnet_lib.data.iharmony4 import Triplet, list_triplets
from hdnet_lib.data.samples import Batch, Sample, to_batch

__all__ = ["Batch", "Sample", "Triplet", "list_triplets", "to_batch"]
