"""The training loss (Eq. 1)."""

from torch import Tensor


def foreground_mse(harmonized: Tensor, real: Tensor, mask: Tensor, a_min: float = 100.0) -> Tensor:
    """Eq. 1: squared error over the foreground area, mean over the batch.

    The error is summed over the whole image after pasting, where the background adds nothing, and
    divided by ``3 x max(a_min, mask area)``: A_min keeps tiny objects from dominating. The printed
    equation lacks the square and the 3 (colour channels), which the released code has.

    Args:
        harmonized: the pasted image (B, 3, H, W) in [-1, 1].
        real: the same photo before its foreground was changed, (B, 3, H, W) in [-1, 1].
        mask: (B, 1, H, W), 1 on the foreground.
        a_min: A_min, in pixels.
    """
    error = (harmonized - real).square().sum(dim=(1, 2, 3))
    area = mask.sum(dim=(1, 2, 3)).clamp(min=a_min)
    return (error / (3 * area)).mean()
