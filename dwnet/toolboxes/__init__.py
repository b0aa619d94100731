"""What this project has for one toolbox or another.

=====================  ======================================================
``swap``               DWNet in the place of another backbone, in any of them
``timm``               the same backbone with timm's head and interfaces
``timm_registration``  the models of ``timm``, once somebody imports timm
=====================  ======================================================
"""
