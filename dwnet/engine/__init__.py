"""What the Runner needs beyond mmengine."""
from .deploy import DeployHook
from .progress import ProgressHook
from .runner import Runner

__all__ = ['DeployHook', 'ProgressHook', 'Runner']
