"""Data: where they lie, how they are read, and what is wrong with them, by name.

===========  ==============================================================================
``parts``    what the forms below share: a result, the names of parts, a split
``folders``  a user's images in folders of their classes
``coco``     a user's COCO annotations, and reading them with what is broken left out
``masks``    a user's images with label images
``loading``  images that are whole, and an error that names the file for all others
``checks``   what does not fit the model, the other data, or itself
===========  ==============================================================================

A form of data is a module with ``find(root, split)``, which returns :class:`~dwnet.data.parts.OwnData`, or None if the
folder ``root`` holds no data of this form, and ``NEEDS``, what the form needs in words. ``dwnet/toolboxes/own_data.py``
lists the forms of each task in ``FORMS``.
"""
