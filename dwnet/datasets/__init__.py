"""Data that needs no download; all of it is read by the toolboxes' own dataset classes."""
