"""What the Runner needs beyond mmengine."""
from .progress import ProgressHook
from .runner import Runner

__all__ = ['ProgressHook', 'Runner']
