"""Data: where a user's data lie, how images and annotations are read, and what is wrong with them.

===============  =============================================================================
``files``        the files below a data root, and how annotations name them
``table``        what every form becomes: images with labels, objects or masks, in parts
``own``          a table as the toolboxes read it, written once into the work dir
``folders``      images in folders of their classes
``listing``      a CSV or JSON-lines file of images and labels; ``records`` reads its rows
``coco``         COCO annotations; ``coco_file`` reads and mends a file
``yolo``         YOLO; ``yolo_settings`` reads names and parts, ``yolo_lines`` the label files
``voc``          Pascal VOC; ``voc_file`` reads an XML file
``labelme``      LabelMe's JSON files
``cvat``         CVAT's XML
``masks``        images with label images; ``pairs``, ``label_images``, ``label_values``, ``legend``
``drawn``        label images that are drawn from a detector's annotations
``shapes``       what annotation tools draw, as polygons and run lengths
``box_forms``    boxes in another form than COCO's
``orientation``  annotations of photographs that EXIF turns
``xml_file``     an XML file that a stranger may have written
``loading``      reading images; a damaged file is an error that names the file
``decoding``     images with the channels and bits of their file
``pixels``       channels, bits, mean and standard deviation of a data set
``limits``       the largest image that is read
``examiner``     files that are missing or damaged
``file_checks``  the files that a data set names, and the labels in them
``checks``       data that do not fit the model or each other
===============  =============================================================================

A form of data is a module with ``NAME``, ``NEEDS``, what the form needs in words, and ``read(files, out)``, which
returns a :class:`~dwnet.data.table.Table`, or None if the data are of another form; what it has to write goes into the
folder ``out``. ``dwnet/toolboxes/own_data.py`` lists the forms of each task in ``FORMS``.
"""
from .limits import apply_limit

apply_limit()
