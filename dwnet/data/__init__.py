"""Data: where a user's data lie, how images and annotations are read, and what is wrong with them.

===========  ==============================================================================
``files``    the files below a data root, and how annotations name them
``table``    what every form becomes: images with labels, objects or masks, in parts
``own``      a table as the toolboxes read it, written once into the work dir
``folders``  a user's images in folders of their classes
``labelme``  a user's annotations in LabelMe's JSON files
``cvat``     a user's annotations in CVAT's XML
``shapes``   what these tools draw, as polygons and run lengths
``xml_file`` an XML file that a stranger may have written
``coco``     a user's COCO annotations; broken entries are logged and left out
``drawn``    label images that are drawn from a detector's annotations
``masks``    a user's images with label images
``loading``  reading images; a damaged file is an error that names the file
``checks``   data that do not fit the model, each other, or themselves
===========  ==============================================================================

A form of data is a module with ``NAME``, ``NEEDS``, what the form needs in words, and ``read(files, out)``, which
returns a :class:`~dwnet.data.table.Table`, or None if the data are of another form; what it has to write goes into the
folder ``out``. ``dwnet/toolboxes/own_data.py`` lists the forms of each task in ``FORMS``.
"""
