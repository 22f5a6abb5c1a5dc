"""The systems that the paper compares with, by name.

SCS-Co, SP-IC cycle and LEMaRT are missing: their authors published no network, and the paper alone does not fix one.
"""

from dataclasses import dataclass

from hdnet_lib.peers.base import Peer
from hdnet_lib.peers.cdtnet import CDTNet
from hdnet_lib.peers.dccf import DCCF
from hdnet_lib.peers.dht import DHT
from hdnet_lib.peers.duconet import DucoNet
from hdnet_lib.peers.harmonizer import Harmonizer
from hdnet_lib.peers.idih import DIH, IDIH
from hdnet_lib.peers.inr import INR
from hdnet_lib.peers.intrinsic import Intrinsic
from hdnet_lib.peers.issam import IS2AM
from hdnet_lib.peers.maps import PCTNet, PCTNetViT
from hdnet_lib.peers.s2crnet import S2CRNetSN, S2CRNetVGG
from hdnet_lib.peers.unet import S2AM, BargainNet, DoveNet, RainNet

UNET, AUTO_ENCODER, TRUNK = "U-Net of eight levels", "auto-encoder of DIH", "trunk of iS2AM"
PARTS, FILTERS = "reflectance and illumination", "filters with predicted arguments"
COORDINATES = "networks of the coordinate"


@dataclass(frozen=True)
class System:
    """A system of another paper."""

    title: str
    """As the tables of papers call it."""
    family: str
    """What it shares with others."""
    network: type[Peer]
    """Builds it at its published size."""


PEERS = {
    "rainnet": System("RainNet", UNET, RainNet),
    "dovenet": System("DoveNet", UNET, DoveNet),
    "bargainnet": System("BargainNet", UNET, BargainNet),
    "s2am": System("S2AM", UNET, S2AM),
    "dih": System("DIH", AUTO_ENCODER, DIH),
    "idih": System("iDIH", AUTO_ENCODER, IDIH),
    "issam": System("iS2AM", TRUNK, IS2AM),
    "pctnet": System("PCT-Net", TRUNK, PCTNet),
    "dccf": System("DCCF", TRUNK, DCCF),
    "cdtnet": System("CDTNet", TRUNK, CDTNet),
    "duconet": System("DucoNet", TRUNK, DucoNet),
    "pctnet-vit": System("PCT-Net, ViT", FILTERS, PCTNetViT),
    "s2crnet-sn": System("S2CRNet-SN", FILTERS, S2CRNetSN),
    "s2crnet-vgg": System("S2CRNet-VGG", FILTERS, S2CRNetVGG),
    "harmonizer": System("Harmonizer", FILTERS, Harmonizer),
    "intrinsic": System("Intrinsic", PARTS, Intrinsic),
    "dht": System("D-HT", PARTS, DHT),
    "inr": System("INR", COORDINATES, INR),
}
"""By the name for :func:`create_model`."""
