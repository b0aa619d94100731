"""What a toolbox has to answer: everything that differs between toolboxes is a method or attribute of this class.

The rest of the package calls the object that :func:`dwnet.toolboxes.toolbox_of` returns. The base class has what all
OpenMMLab toolboxes share, and stands for toolboxes without a module here. A module of this folder overrides what its
toolbox does differently, and imports the toolbox only inside methods.
"""
import colorsys
import copy
import importlib
from typing import TYPE_CHECKING, Any, Protocol

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS, TRANSFORMS
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from dwnet.errors import UserError, some
from dwnet.registry import class_of, lineage

if TYPE_CHECKING:  # importing it loads the readers of all forms of data
    from dwnet.data.own import OwnData

SAY_WHICH = ('say which score counts by --cfg-options default_hooks.checkpoint.save_best=… '
             'default_hooks.checkpoint.rule=greater')


class Network(Protocol):
    """What an exported file computes.

    Attributes:
        channels: Channels of the images.
    """
    channels: int

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Output → tensor, for images (B, C, H, W) as the toolboxes read them."""


class Toolbox:
    """A toolbox without a module here.

    A toolbox with a module sets the attributes, of which ``name``, ``distribution``, ``extra`` and ``task`` are needed,
    and writes :meth:`own_dataset`, :meth:`own_evaluator` and :meth:`inferencer`. The other methods have an answer that
    suits most toolboxes.

    Attributes:
        name: The package, which is also mmengine's scope. A toolbox without a module has the config's scope, or None.
        distribution: The package's name on PyPI.
        extra: The extra of ``dwnet`` that installs the toolbox.
        no_deps: What ``pip install --no-deps`` adds to the extra, if the toolbox declares needs that cannot be had.
        outdated: The name on PyPI of an older generation of the package, whose files would lie in the same folder.
        task: ``'classification'``, ``'detection'``, ``'segmentation'``, ``'pose'``, ``'rotated'``, ``'video'`` or
            ``'text'``; empty without a module.
        keeps_strides: The heads need maps of the old backbone's strides; other heads take maps of any size.
        pipeline_tag: The task by its name on the Hugging Face Hub.
        image_shape: Height and width at which papers count multiply-adds.
        trial_size: Height and width of the image on which ``swap`` runs the old backbone; large enough for all.
        trial_number: How many such images make the batch.
        takes_videos: Models predict a video as a whole, and no images.
        scores: Score → its name in papers, in the order in which scores are shown.
        fractions: How the names of scores begin that are 1 at best; other scores are 100 at best.
        main_scores: Which score chooses the best checkpoint. Metric, by package and class → the name of its argument
            that says what is measured (empty if there is none), and what can be measured → score. Of the things that
            a config measures, the first in this table counts. A config without the argument measures the first.
        preprocessor_type: The data preprocessor of a model that names none.
        checked_datasets: Data set, by package and class → our subclass, which reports broken entries.
        checked_readers: Reader of images or of label images, by package and class → our class, which reports damage.
        downloads: Data sets that download themselves, by package and class.
        dump_type: The metric that writes predictions as a pickle.
        layer_decay: The constructor of optimizers with learning rates by the kind or depth of a layer, by package and
            class, if the constructor refuses DWNet.
        tta_model: The config of the model that averages over an image and its mirror image.
        flip: The transform that mirrors an image, by package and class; by default the toolbox's own RandomFlip.
        only_ascii: The visualizer writes names of classes by OpenCV, which has no other letters.
    """
    name: str | None = None
    distribution = ''
    outdated = ''
    extra = 'all'
    no_deps = ''
    task = ''
    keeps_strides = False
    pipeline_tag = ''
    image_shape = (224, 224)
    trial_size = 512
    trial_number = 2
    takes_videos = False
    scores: dict[str, str] = {}
    fractions: tuple[str, ...] = ()
    main_scores: dict[str, tuple[str, dict[str, str]]] = {}
    preprocessor_type = 'BaseDataPreprocessor'
    checked_datasets: dict[str, str] = {}
    checked_readers: dict[str, str] = {}
    downloads: frozenset[str] = frozenset()
    dump_type = 'DumpResults'
    layer_decay = ''
    tta_model: dict[str, Any] | None = None
    flip = ''
    only_ascii = False

    def __init__(self, name: str | None = None) -> None:
        if name is not None:
            self.name = name

    def load(self) -> None:
        """Imports the toolbox, which registers its classes.

        Raises:
            Exception: Any kind; some toolboxes check versions by assertions.
        """
        if self.task:
            importlib.import_module(f'{self.name}.models')

    def install_command(self, options: str = '') -> str:
        """What installs the toolbox, with these options of pip."""
        command = f"pip install 'dwnet[{self.extra}]'{options}"
        return f"{command} && pip install --no-deps '{self.no_deps}'{options}" if self.no_deps else command

    def when_imported(self) -> None:
        """Sees to it that DWNet works in the toolbox, whoever imports the toolbox; ``import dwnet`` calls this."""

    # --- Configs -----------------------------------------------------------------------------------------

    def score_of(self, metric: dict, scope: str | None) -> str | None:
        """The score of ``main_scores`` that a metric's config measures; None if the table has no such metric.

        Raises:
            UserError: If the table has the metric, and the config measures none of its scores.
        """
        known = next((name for name in lineage(metric, METRICS, scope) if name in self.main_scores), None)
        if known is None:
            return None
        argument, scores = self.main_scores[known]
        measured = as_list(metric.get(argument, next(iter(scores))))
        for kind, score in scores.items():
            if kind in measured:
                return score
        raise UserError(f'val_evaluator measures {some(measured)}, and none of {some(scores)}: {SAY_WHICH}')

    def preprocessor(self, cfg: Config) -> dict:
        """The config of the data preprocessor, with its type."""
        settings = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
        return {'type': self.preprocessor_type, **settings}

    def fit_resolution(self, model: ConfigDict, factor: float) -> None:
        """Changes the heads of a config to maps that are ``factor`` times smaller than those of the old backbone.

        Raises:
            UserError: If the heads need maps of another size.
        """

    def channels_taken(self, part: dict, stated: float) -> float:
        """The channels of the map that a part of a model takes if its config states ``stated`` channels."""
        return stated

    def channels_to_state(self, part: dict, taken: int) -> float:
        """The channels that the config of a part has to state, so that the part takes a map of ``taken`` channels."""
        return taken

    def prepare_visualizer(self, visualizer: Visualizer) -> None:
        """Changes the settings of a visualizer that draws into arrays."""

    # --- A user's own data ---------------------------------------------------------------------------------

    def own_dataset(self, data: 'OwnData', part: str) -> dict:
        """The config, less its pipeline, of the data set that reads ``data.parts[part]``."""
        raise NotImplementedError

    def own_evaluator(self, cfg: Config, data: 'OwnData', part: str) -> dict | list[dict]:
        """The config of the evaluator of ``part``, ``'val'`` or ``'test'``."""
        raise NotImplementedError

    def fit_to_data(self, cfg: Config, data: 'OwnData') -> None:
        """Removes from the model and the pipelines what ``data`` has no ground truth for."""

    def accept_channels(self, cfg: Config, settings: dict) -> None:
        """Makes the data preprocessor with these settings, a part of ``cfg``, accept as many channels as its mean.

        Raises:
            UserError: If it cannot.
        """

    # --- Trainings and tests -------------------------------------------------------------------------------

    def stretch_schedule(self, cfg: Config, factor: float, steps: int) -> None:
        """Fits the schedules that hooks of the toolbox keep to a training of another length.

        Args:
            cfg: The config, which is changed.
            factor: The new length over the old length.
            steps: Iterations of the new training.
        """

    def prepare_model(self, model: nn.Module, cfg: Config) -> None:
        """Changes a model that a Runner has just built."""

    def prepare_evaluator(self, evaluator: Any, cfg: Config) -> Any:
        """The config of an evaluator, with our metrics in the place of the toolbox's."""
        return evaluator

    def fit_truth_to_input(self, batch: dict, model: nn.Module, dataset: Any) -> None:
        """Brings the ground truth of a validation to the pixels of the network's input, as losses need it.

        Args:
            batch: What the data preprocessor of ``model`` makes of a batch of the validation; changed in place.
            model: The model.
            dataset: The validation set.
        """

    def class_scores(self, evaluator: Evaluator) -> dict[str, list]:
        """The scores of each class that a metric has just computed, as columns of a table.

        Returns:
            Headline → a value for each class. The first column, ``'class'``, has the names. The second has how many
            images or objects of the class were tested with. The others are scores as the toolbox gives them, NaN for a
            class that cannot be scored. Empty if no metric scores classes, and in all processes but the first.
        """
        return next(filter(None, (getattr(metric, 'of_classes', {}) for metric in evaluator.metrics)), {})

    def count_classes(self, dataset: Any) -> dict[str, list[int]]:
        """How many images of a data set show each class, and how many objects there are: ``'images'`` (and
        ``'objects'``) → a number for each class. Empty if the toolbox cannot count them.
        """
        return {}

    def save_pictures(self, cfg: Config, folder: str) -> None:
        """Makes a test draw each prediction beside the ground truth, into ``folder``."""
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.save_dir = folder

    def save_predictions(self, cfg: Config, out: str) -> None:
        """Makes a test write its predictions to ``out``.

        Raises:
            UserError: If the toolbox cannot write the kind of file that ``out`` names.
        """
        if not out.endswith(('.pkl', '.pickle')):
            raise UserError(f'--out {out}: the predictions are written as .pkl')
        cfg.test_evaluator = [*as_list(cfg.test_evaluator), dict(type=self.dump_type, out_file_path=out)]

    def add_mirrored_view(self, cfg: Config) -> None:
        """Sets ``tta_model`` and ``tta_pipeline`` of a config that has none: each image and its mirror image.

        Raises:
            UserError: If the toolbox has no ``tta_model``, or the config no pipeline.
        """
        pipeline = cfg.test_dataloader.dataset.get('pipeline')
        if self.tta_model is None or not pipeline:
            raise UserError('--tta needs tta_model and tta_pipeline, and this config has none')
        cfg.tta_model = copy.deepcopy(self.tta_model)
        # Loading the ground truth and padding come after the flip: predictions are flipped back before they meet the
        # truth, and padding has to lie at the right and the bottom of a mirror image, too.
        behind = {'mmcv.LoadAnnotations', 'mmcv.Pad', 'mmyolo.LetterResize'}
        here = next((i for i, step in enumerate(pipeline[:-1])
                     if behind.intersection(lineage(step, TRANSFORMS, cfg.get('default_scope')))), len(pipeline) - 1)
        packing = copy.deepcopy(pipeline[-1])
        if 'meta_keys' in packing:
            packing.meta_keys = [*dict.fromkeys([*packing.meta_keys, 'flip', 'flip_direction'])]
        views = [dict(type=self.flip or f'{self.name}.RandomFlip', prob=prob) for prob in (0., 1.)]
        cfg.tta_pipeline = [*pipeline[:here], dict(type='TestTimeAug', transforms=[
            views, *([step] for step in pipeline[here:-1]), [packing]])]

    def slice_images(self, cfg: Config, size: int, overlap: float) -> None:
        """Makes a model predict images in overlapping tiles.

        Args:
            cfg: A config whose model and test pipeline are changed.
            size: Side of a tile, pixels.
            overlap: The fraction of a side that neighbouring tiles share.

        Raises:
            UserError: If the model predicts an image only as a whole.
        """
        raise UserError('--slice is for detectors and segmentors; a classifier has one answer for an image: leave it '
                        'out')

    # --- Inference -----------------------------------------------------------------------------------------

    def tracker(self) -> Any:
        """What follows the objects of one video; its method ``follow`` takes the data samples in the frames' order.

        Raises:
            UserError: If the toolbox predicts no boxes that can be followed.
        """
        raise UserError('--track follows the boxes of a detector, and this model predicts none: leave it out')

    def random_batch(self, number: int, shape: tuple[int, int]) -> dict:
        """A training batch of ``number`` random images of ``shape``, (height, width), with ground truth."""
        raise NotImplementedError

    def graph(self, model: nn.Module) -> nn.Module:
        """The module to export for ``model``; :mod:`dwnet.toolboxes.graphs` describes its form.

        Raises:
            UserError: If ``model`` cannot be exported.
        """
        raise UserError(f'{type(model).__name__} cannot be exported: only classifiers, segmentors and detectors '
                        'can; its backbone alone can, by --backbone')

    def exported_model(self, network: Network, model: ConfigDict, data_preprocessor: dict) -> nn.Module:
        """A model of the toolbox that predicts by an exported file.

        Args:
            network: Computes the file's outputs, by the names that :mod:`dwnet.toolboxes.graphs` gives them.
            model: The config of the model that was exported.
            data_preprocessor: The config of a data preprocessor that leaves the pixels as they are.

        Raises:
            UserError: If nothing exports models of this toolbox.
        """
        raise UserError(f'models of {self.name} cannot run from an exported file; name the checkpoint')

    def inferencer(self, model: nn.Module) -> Any:
        """The toolbox's own inferencer around a model of :func:`dwnet.apis.init_model`."""
        raise NotImplementedError


def as_list(part: Any) -> list:
    """A list of one part of a config, or of several."""
    return list(part) if isinstance(part, (list, tuple)) else [part]


def palette(number: int) -> list[tuple[int, ...]]:
    """Colours that are easy to tell apart."""
    colours = [colorsys.hsv_to_rgb(i * .618 % 1, .75, 1 - .25 * (i % 2)) for i in range(number)]
    return [tuple(round(255 * part) for part in colour) for colour in colours]


def innermost(dataset: dict) -> dict:
    """The config of the data set inside wrappers that repeat or mix it."""
    while isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    if 'pipeline' not in dataset:
        raise UserError('--data-root cannot change a config that joins several data sets; set its dataloaders')
    return dataset


def with_metric(evaluator: Any, theirs: type, own: type) -> Any:
    """A copy of an evaluator's config with ``own`` in the place of the metric ``theirs``, but not of subclasses."""
    if isinstance(evaluator, (list, tuple)):
        return [with_metric(metric, theirs, own) for metric in evaluator]
    if not isinstance(evaluator, dict):
        return evaluator
    if 'metrics' in evaluator:  # the config of an Evaluator
        return {**evaluator, 'metrics': with_metric(evaluator['metrics'], theirs, own)}
    if isinstance(evaluator.get('metric'), dict):  # one inside OfRoot
        return {**evaluator, 'metric': with_metric(evaluator['metric'], theirs, own)}
    return {**evaluator, 'type': own} if class_of(evaluator, METRICS) is theirs else evaluator


def inferencer_around(kind: type, model: nn.Module, **arguments) -> Any:
    """An inferencer of class ``kind`` for a model that is built already.

    The toolboxes' inferencers would load files that can run code, and refuse official files.
    """

    class Inferencer(kind):

        def _init_model(self, *_) -> nn.Module:
            return model

    Inferencer.__name__ = kind.__name__
    return Inferencer(model.cfg, device=str(model.data_preprocessor.device), **arguments)
