from .dwnet import DWNet
from .mixers import TokenMixer
from .necks import ExtraMaps

__all__ = ['DWNet', 'ExtraMaps', 'TokenMixer']
