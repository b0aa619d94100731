"""Private names of other packages that this package uses: what an upgrade may take away without notice.

``tests/test_private_names.py`` looks each name up in the installed versions, and finds names that the package uses
and this table lacks. mmcv's compiled operators are listed in :mod:`dwnet.compat.mmcv_ops.ext` instead.
"""

# Owner, a module or `module:attribute` → name → what uses it, or why no public name will do
PRIVATE_NAMES: dict[str, dict[str, str]] = {
    'mmengine.config:Config': {
        '_get_cfg_path': 'finds the file of `dwnet::TASK/NAME.py`, as `_base_` does',
    },
    'mmengine.hooks:CheckpointHook': {
        '_save_checkpoint_with_step': 'SafeCheckpointHook: the pointer and the removal come after the checkpoint',
    },
    'mmengine.model:BaseModule': {
        '_dump_init_info': 'init_model leaves out the log of each initialised parameter',
    },
    'mmengine.model:ImgDataPreprocessor': {
        '_channel_conversion': 'the order of the channels; mmdet has no other name for it',
        '_enable_normalize': 'whether pixels are normalised',
    },
    'mmengine.optim:OptimWrapper': {
        '_accumulative_counts': '--auto-scale-lr counts batches whose gradients are added as one',
    },
    'mmengine.optim.scheduler.param_scheduler': {
        '_ParamScheduler': 'the base class of every schedule',
    },
    'mmengine.optim.scheduler.param_scheduler:_ParamScheduler': {
        '_get_value': 'the method in which a schedule says its value',
    },
    'mmengine.registry:DefaultScope': {
        '_instance_dict': 'the scopes that are entered, the innermost last',
    },
    'mmengine.registry:Registry': {
        '_module_dict': 'whether a registry itself holds a type',
        '_search_child': "a toolbox's registry by its scope",
    },
    'mmengine.runner:EpochBasedTrainLoop': {
        '_decide_current_val_interval': 'the loops validate when a training is resumed, too',
        '_epoch': 'resumption in the middle of an epoch',
        '_iter': 'the same',
        '_max_epochs': 'the same',
    },
    'mmengine.runner:IterBasedTrainLoop': {
        '_decide_current_val_interval': 'the loops validate when a training is resumed, too',
        '_epoch': 'resumption in the middle of an epoch',
        '_iter': 'the same',
        '_max_epochs': 'the same',
        '_max_iters': 'the same',
    },
    'mmengine.runner:Runner': {
        '_has_loaded': 'load_checkpoint is replaced by one that is strict',
        '_init_model_weights': 'FSDP has drawn and spread the weights before',
        '_load_from': 'the checkpoint that is found for --resume',
        '_log_env': 'asks a shell for the compiler, which complains where there is none',
        '_randomness_cfg': 'a resumed training goes on with its seed',
        '_resume': 'whether a training is resumed',
        '_train_loop': 'asking train_loop would build the training data in a test',
    },
    'mmengine.runner.runner': {
        'turn_on_activation_checkpointing': 'not private, but replaced: its form leaves modules without a gradient '
                                            '(open-mmlab/mmengine#1425)',
    },
    'mmdet.evaluation:CocoMetric': {
        '_coco_api': 'the annotations that are scored; read with checks, and compared with the data set',
    },
    'mmdet.models:StandardRoIHead': {
        '_mask_forward': 'masks before they are pasted, against which an ONNX file is compared',
    },
    'mmdet.models:CascadeRoIHead': {
        '_mask_forward': 'the same',
    },
    'mmdet.models:DetTTAModel': {
        '_merge_single_sample': 'test-time augmentation of detectors with masks, which it refuses',
    },
    'mmpretrain.apis.base:BaseInferencer': {
        '_config': "mmpretrain's inferencers look for a model's config under this name",
    },
    'mmpretrain.apis:ImageClassificationInferencer': {
        '_dataset_meta': 'and for the names of its classes under this one',
    },
    'timm.models': {
        '_factory': 'where create_model finds load_checkpoint, which has no place for a reader',
        '_features': 'FeatureGetterNet and feature_take_indices are not exported',
        '_features_fx': 'register_notrace_module',
    },
    'torch': {
        '_foreach_copy_': 'copies many buffers in one kernel',
    },
    'torch._dynamo.decorators:assume_constant_result': {
        '_dynamo_marked_constant': 'the import of the compiler takes 1.5 s',
    },
    'torch.cpu': {
        '_is_amx_tile_supported': 'no public function tells the units of a CPU; without it they count as absent',
        '_is_avx2_supported': 'the same',
        '_is_avx512_supported': 'the same',
    },
    'torch.nn:Module': {
        '_backward_hooks': 'only_computes: nothing listens to a module whose weights an operator takes',
        '_backward_pre_hooks': 'the same',
        '_forward_hooks': 'the same',
        '_forward_pre_hooks': 'the same',
        '_register_load_state_dict_pre_hook': 'the public form keeps a reference from the hook to the module',
    },
    'torch.nn.modules.batchnorm': {
        '_BatchNorm': 'BatchNorm of any dimension, SyncBatchNorm too',
    },
    'torch.nn.modules.module': {
        '_IncompatibleKeys': 'what load_state_dict returns',
        '_global_backward_hooks': 'only_computes, as above, for hooks of all modules',
        '_global_backward_pre_hooks': 'the same',
        '_global_forward_hooks': 'the same',
        '_global_forward_pre_hooks': 'the same',
    },
    'torch.ops.torchvision': {
        '_deform_conv2d_backward': "the gradients of mmcv's operators on a CPU",
        '_roi_align_backward': 'the same',
        '_roi_pool_backward': 'the same',
    },
    'torch.ops.mkldnn': {
        '_is_mkldnn_bf16_supported': 'what oneDNN can do on this CPU; where it is missing, nothing',
        '_is_mkldnn_fp16_supported': 'the same',
    },
    'torch.utils': {
        '_pytree': 'tree_map_only finds the sharded tensors of a nested state',
    },
}
