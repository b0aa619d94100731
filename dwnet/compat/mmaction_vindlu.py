"""Leaves out mmaction's VindLU beside transformers 5, from the import of this module on; imports a part of mmaction.

mmaction2 1.2.0 imports VindLU wherever transformers is installed, by names that transformers 5 dropped
(``apply_chunking_to_forward`` in ``transformers.modeling_utils``), and so the import of all models fails. Without
transformers it puts placeholders in VindLU's place, which say what is missing.
"""
from mmaction.utils import dependency

dependency.WITH_MULTIMODAL = dependency.WITH_MULTIMODAL and not dependency.satisfy_requirement('transformers>=5')
