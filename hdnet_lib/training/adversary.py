"""A discriminator that learns beside the network it judges."""

import torch
from torch import Tensor

from hdnet_lib.peers.discriminator import RegionDiscriminator, gradient_penalty, hinge_loss, realism_loss


class Adversary:
    """The discriminator of DoveNet and RainNet with its optimizer, in float32 whatever the network has.

    It has the network's learning rate and schedule, and Adam's first decay at 0.5. The authors give both networks 2e-4
    and 0.5.
    """

    def __init__(self, device: torch.device, learning_rate: float) -> None:
        self.network = RegionDiscriminator().to(device)
        fused = device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(self.network.parameters(), learning_rate, (0.5, 0.999), fused=fused)

    @torch.compiler.disable
    def __call__(self, image: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """Learn one step by the image, (B, 3, H, W) in [-1, 1], and the real one; then the image's own loss."""
        with torch.autocast(image.device.type, enabled=False):
            image = image.float()
            fake, share = image.detach(), torch.rand(len(image), 1, 1, 1, device=image.device)
            loss = hinge_loss(self.network, fake, real, mask)
            loss = loss + gradient_penalty(self.network, fake, real, mask, share)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.network.requires_grad_(False)
            judged = realism_loss(self.network, image, mask)
            self.network.requires_grad_(True)
        return judged
