"""Packaging; the tested versions are in constraints.txt."""
import runpy
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
EXTRAS = {
    'cls': ['mmcv-lite>=2.1.0,<2.2.0', 'mmpretrain>=1.2.0,<2'],
    'det': ['mmcv-lite>=2.1.0,<2.2.0', 'mmdet>=3.3.0,<4', 'lap'],  # lap: --track
    # mmseg imports ftfy and regex without declaring them
    'seg': ['mmcv-lite>=2.1.0,<2.2.0', 'mmsegmentation>=1.2.2,<2', 'ftfy', 'regex'],
    # older timm unpickles files without weights_only
    'timm': ['mmcv-lite>=2.1.0,<2.2.0', 'timm>=1.0.26'],
    'demo': ['scikit-learn'],  # the embedded digits
    'export': ['onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf', 'scikit-learn'],
    # grad-cam brings a second OpenCV, whose files lie over those of the first
    'vis': ['grad-cam', 'opencv-python-headless<5', 'tensorboard', 'scikit-learn'],
    'serve': ['gradio>=6', 'grad-cam', 'opencv-python-headless<5'],
}
EXTRAS['all'] = sorted({package for packages in EXTRAS.values() for package in packages})
# more toolboxes; not in `all`, because each brings packages of its own
TOOLBOXES = {
    # mmpose itself is installed by --no-deps: it declares chumpy and xtcocotools, which have no wheels
    'pose': ['mmcv-lite>=2.1.0,<2.2.0', 'mmdet>=3.3.0,<4', 'json_tricks', 'munkres', 'scipy', 'matplotlib'],
    # PyPI's mmrotate is an older generation
    'rotate': ['mmcv-lite>=2.1.0,<2.2.0', 'mmdet>=3.3.0,<4', 'mmrotate-dev>=1.0.1,<2'],
    # without mmaction2, which needs decord, and opencv-contrib-python, whose files would lie over those of OpenCV:
    # pip install --no-deps mmaction2==1.2.0
    'action': ['mmcv-lite>=2.1.0,<2.2.0', 'decord2', 'einops', 'importlib-metadata', 'matplotlib', 'scipy'],
    'ocr': ['mmcv-lite>=2.1.0,<2.2.0', 'mmdet>=3.3.0,<4', 'mmocr>=1.0.1,<2'],
    # without albumentations, which stock pipelines of YOLOv5 and v8 take: it brings a second OpenCV
    'yolo': ['mmcv-lite>=2.1.0,<2.2.0', 'mmdet>=3.3.0,<4', 'mmyolo>=0.6.0,<0.7'],
}
EXTRAS |= TOOLBOXES
# what docs/libraries.md shows; not in `all`, because each is large and has many packages of its own
EXTRAS['libraries'] = [*EXTRAS['timm'], 'segmentation-models-pytorch>=0.5', 'transformers>=5', 'fastai', 'lightning']
EXTRAS['docs'] = [
    'sphinx', 'myst-nb', 'pydata-sphinx-theme', 'sphinx-copybutton', 'sphinx-design', 'nbclient', 'ipykernel']
EXTRAS['dev'] = [*EXTRAS['all'], *(package for packages in TOOLBOXES.values() for package in packages), 'pytest',
                 'pytest-xdist', 'playwright', 'ruff', 'mypy', 'pre-commit', 'pre-commit-hooks', 'build',
                 'setuptools', 'uv']

setup(
    name='dwnet',
    version=runpy.run_path(str(HERE / 'dwnet/version.py'))['__version__'],
    description='DWNet for OpenMMLab: one backbone for classification, detection and segmentation',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='MIT',
    python_requires='>=3.10',
    classifiers=[f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 15)],
    packages=find_packages(include=['dwnet', 'dwnet.*']),
    package_data={'dwnet': ['.mim/model-index.yml', '.mim/configs/**', '.mim/tools/*']},  # links to the folders
    exclude_package_data={'dwnet': ['.mim/**/*.pyc']},
    # mmcv is not here: `pip install dwnet` beside a compiled mmcv must not bring mmcv-lite, which would
    # overwrite its files. The extras bring it.
    install_requires=[
        'torch>=2.6',  # the first that loads files without running them by default
        'torchvision',
        'mmengine>=0.10.6,<0.11',  # dwnet/compat/private_names.py: what the next may take away
        'numpy',
        'packaging',
        'pillow',
        'filelock',
        'rich',
        'safetensors',
        'pycocotools',
        'tifffile',  # TIFFs of more channels than Pillow opens
        'opencv-python<5',  # mmengine brings it; OpenCV 5 changed the contours that mmdet's masks come from
    ],
    extras_require=EXTRAS)
