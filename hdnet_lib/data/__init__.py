"""Reading triplets, and making composites from real photos."""

from hdnet_lib.data.iharmony4 import Images, Triplet, list_triplets

__all__ = ["Images", "Triplet", "list_triplets"]
