"""Data: where a user's data lie, how images and annotations are read, and what is wrong with them.

===============  ==========================================================================
``parts``        what the forms below share: a result, the names of parts, a split
``folders``      a user's images in folders of their classes
``coco``         a user's COCO annotations, found below a folder
``masks``        a user's images with label images
``coco_file``    reading a COCO file: mended, and broken entries logged and left out
``box_forms``    boxes in another form than COCO's
``orientation``  annotations of photographs that EXIF turns
``loading``      reading images; a damaged file is an error that names the file
``checks``       data that do not fit the model, each other, or themselves
===============  ==========================================================================

A form of data is a module with ``find(root, split)``, which returns :class:`~dwnet.data.parts.OwnData`, or None if the
folder ``root`` holds no data of this form, and ``NEEDS``, what the form needs in words. ``dwnet/toolboxes/own_data.py``
lists the forms of each task in ``FORMS``.
"""
