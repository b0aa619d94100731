"""The tables of options, and how the options are applied."""
import re
from argparse import ArgumentParser, Namespace

import pytest
from mmengine.config import Config

from dwnet.commands import test, train
from dwnet.commands.options import Option, apply_options
from dwnet.errors import UserError

# What the commands themselves look at
OTHERS = {'-h', '--config', '--work-dir', '--cfg-options', '--launcher', '--local-rank', '--data-root', '--data-format',
          '--check'}


@pytest.mark.parametrize('command', [train, test], ids=['train', 'test'])
def test_every_option_is_in_the_table(command):
    parser = ArgumentParser()
    command.add_arguments(parser)
    flags = {action.option_strings[0] for action in parser._actions if action.option_strings}
    rows = [option.flag for option in command.OPTIONS]
    assert len(rows) == len(set(rows)) and {flag.split()[0] for flag in rows} == flags - OTHERS
    for option in command.OPTIONS:
        assert flags.issuperset(option.conflicts + option.with_values_of)


def test_the_table_is_gone_through_in_its_order():
    changed = []
    options = [Option(flag, lambda cfg, *values, flag=flag: changed.append((flag, *values)), **more) for flag, more in {
        '--late': {}, '--early': {}, '--zero': {}, '--empty': {}, '--missing': {}, '--off': {},
        '--with-others': dict(with_values_of=('--late', '--missing')), '--kind b': {}, '--kind c': {}}.items()]
    args = Namespace(early=True, late='x', zero=0, empty='', missing=None, off=False, with_others=2, kind='b')
    apply_options(options, Config(), args)
    assert changed == [('--late', 'x'), ('--early', ), ('--zero', 0), ('--with-others', 2, 'x', None), ('--kind b', )]


@pytest.mark.parametrize('given, message', [
    ('--amp --bf16', '--amp cannot be combined with --bf16; choose one'),
    ('--lr .1 --strategy fsdp --compile', '--strategy fsdp cannot be combined with --compile; choose one'),
    ('--strategy fsdp --channels-last', '--strategy fsdp cannot be combined with --channels-last; choose one')])
def test_options_in_conflict_change_nothing(given, message):
    parser, cfg = ArgumentParser(), Config(dict(optim_wrapper=dict(optimizer=dict(lr=1))))
    train.add_arguments(parser)
    with pytest.raises(UserError, match=re.escape(message)):
        apply_options(train.OPTIONS, cfg, parser.parse_args(['config.py', *given.split()]))
    assert cfg.to_dict() == dict(optim_wrapper=dict(optimizer=dict(lr=1)))
