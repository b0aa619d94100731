"""What the Runner needs beyond mmengine."""
from .progress import ProgressHook
from .runner import Runner
from .speed import BFloat16Hook, BFloat16OptimWrapper, ChannelsLastHook, CompileHook, DeployHook

__all__ = ['BFloat16Hook', 'BFloat16OptimWrapper', 'ChannelsLastHook', 'CompileHook', 'DeployHook', 'ProgressHook',
           'Runner']
