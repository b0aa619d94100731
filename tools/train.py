import sys
import dwnet
from mmengine.config import Config, DictAction
from dwnet.engine import Runner
import argparse
p=argparse.ArgumentParser(); p.add_argument('config'); p.add_argument('--work-dir'); p.add_argument('--cfg-options',nargs='+',action=DictAction)
a=p.parse_args()
c=Config.fromfile(a.config); c.work_dir=a.work_dir
if a.cfg_options: c.merge_from_dict(a.cfg_options)
Runner.from_cfg(c).train()
