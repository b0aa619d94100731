from .dwnet import DWNet
from .mixers import TokenMixer

__all__ = ['DWNet', 'TokenMixer']
