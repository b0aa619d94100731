"""Weight files for scripts: official names renamed to ours, and strict loading."""
from dwnet.weights.loading import load_backbone, load_weights, read_checkpoint, write_clean
from dwnet.weights.names import convert_state_dict

__all__ = ['convert_state_dict', 'load_backbone', 'load_weights', 'read_checkpoint', 'write_clean']
