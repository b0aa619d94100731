"""Data: where a user's data lie, how images and annotations are read, and what is wrong with them.

============  =============================================================================
``parts``     what the forms below share: a result, the names of parts, a split
``folders``   a user's images in folders of their classes
``coco``      a user's COCO annotations; broken entries are logged and left out
``masks``     a user's images with label images
``loading``   reading images; a damaged file is an error that names the file
``examiner``  files that are missing or damaged
``files``     the files that a data set names, and the labels in them
``checks``    data that do not fit the model or each other
============  =============================================================================

A form of data is a module with ``find(root, split)``, which returns :class:`~dwnet.data.parts.OwnData`, or None if the
folder ``root`` holds no data of this form, and ``NEEDS``, what the form needs in words. ``dwnet/toolboxes/own_data.py``
lists the forms of each task in ``FORMS``.
"""
