"""What the networks of this package share: how they are called, and what they ask of sizes."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from hdnet_lib.model.hdnet import check_inputs, describe_sizes, fits


def check_even(width: int) -> None:
    """Refuse an odd width where half of it is needed."""
    if width % 2:
        raise ValueError(f"width must be even here, not {width}.")


class Peer(nn.Module):
    """A network of another paper, called as :class:`~hdnet_lib.model.hdnet.HDNet` is.

    Each changes the ranges of colours as its authors do. The result is that of their code before pasting, where that
    code pastes afterwards.
    """

    multiple: ClassVar[int] = 1
    """Height and width must be multiples of this."""
    smallest: ClassVar[int] = 16
    """Smallest height and width."""
    largest: ClassVar[int | None] = None
    """Largest height and width; None for any."""
    adversarial: ClassVar[bool] = False
    """Whether its authors train it beside a discriminator."""

    def forward(self, composite: Tensor, mask: Tensor) -> Tensor:
        """Predict the whole image; only its foreground is meant to be used.

        Args:
            composite: (B, 3, H, W), float, in [-1, 1].
            mask: (B, 1, H, W), same dtype and device, 1 on the foreground and 0 on the background.

        Returns:
            (B, 3, H, W), meant to lie in [-1, 1]; networks without an activation at the end leave it a little.

        Raises:
            ValueError: a shape does not fit.
            TypeError: a dtype does not fit.
        """
        check_inputs(composite, mask, self.multiple, self.smallest, self.largest)
        return self.predict(composite, mask)

    def takes(self, side: int) -> bool:
        """Whether height or width may be so many pixels."""
        return fits(side, self.multiple, self.smallest, self.largest)

    @property
    def sizes(self) -> str:
        """What it asks of height and width, in words."""
        return describe_sizes(self.multiple, self.smallest, self.largest)

    @property
    def square(self) -> int:
        """Side of a square that it takes: for images of a size that it does not."""
        return self.largest or self.smallest

    def predict(self, composite: Tensor, mask: Tensor) -> Tensor:
        """:meth:`forward` without its checks."""
        raise NotImplementedError

    def own_loss(
        self, composite: Tensor, mask: Tensor, real: Tensor, judge: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """The loss of its authors, without what :mod:`hdnet_lib.peers.losses` leaves out; a scalar.

        Args:
            composite, mask: see :meth:`forward`.
            real: (B, 3, H, W) in [-1, 1].
            judge: for :attr:`adversarial` systems alone: what a discriminator adds, called with the image, mask and
                real.
        """
        raise NotImplementedError
