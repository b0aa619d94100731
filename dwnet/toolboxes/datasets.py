"""The data sets of this package: mmengine imports this module when a config names one as ``dwnet.…``."""
import importlib
from importlib.util import find_spec

for _toolbox, _module in dict(mmdet='mmdet.coco', mmseg='mmseg.pairs', mmyolo='mmyolo.coco').items():
    if find_spec(_toolbox) is not None:
        importlib.import_module(f'{__package__}.{_module}')
