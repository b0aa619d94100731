"""Data: where they lie, how they are read, and what is wrong with them, by name.

=============  ====================================================================
``user_data``  a user's own data, found and put into a config
``loading``    images, and which parts of a config are replaced for the checks
``coco``       COCO annotations; imports mmdet
``checks``     what does not fit the model, the other data, or itself
=============  ====================================================================
"""
