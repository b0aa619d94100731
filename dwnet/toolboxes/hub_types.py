"""The types that the config of a shared model may name; :mod:`dwnet.toolboxes.hub_config` refuses all others.

All are parts of models around DWNet, and steps that prepare an image. None loads a file, reads a config or calls what
an argument names. For a head of your own, whoever writes and whoever reads the folder adds its name, in a process that
has imported the head: ``TYPES.add('MyHead')``.
"""

# The backbone, its mixers, and layers
LAYERS = '''
    DWNet static dynamic inhomogeneous local_mlp BN SyncBN MMSyncBN LN LN2d GN ReLU GELU SiLU Swish HSwish PReLU
    LeakyReLU Sigmoid Conv2d ConvWS ConvAWS DCN DCNv2 ConvModule nearest bilinear deconv carafe
'''
CLASSIFIERS = '''
    ImageClassifier ClsDataPreprocessor Mixup CutMix GlobalAveragePooling GeneralizedMeanPooling LinearClsHead
    StackedLinearClsHead MultiLabelLinearClsHead MultiLabelClsHead ClsHead CSRAClsHead CrossEntropyLoss
    LabelSmoothLoss AsymmetricLoss SeesawLoss FocalLoss
'''
DETECTORS = '''
    DetDataPreprocessor BatchFixedSizePad BatchSyncRandomResize
    ATSS AutoAssign CascadeRCNN CenterNet CondInst ConditionalDETR DABDETR DDOD DDQDETR DETR DINO DeformableDETR
    FCOS FOVEA FSAF FasterRCNN GFL GridRCNN HybridTaskCascade Mask2Former MaskFormer MaskRCNN MaskScoringRCNN
    NASFCOS PAA PanopticFPN PointRend QueryInst RPN RTMDet RepPointsDetector RetinaNet SCNet SOLO SOLOv2
    SingleStageDetector SparseRCNN TOOD VFNet YOLACT YOLOF YOLOX
    BFP CSPNeXtPAFPN ChannelMapper DilatedEncoder DyHead FPG FPN FPN_CARAFE NASFCOS_FPN NASFPN PAFPN YOLOXPAFPN
    CascadeRoIHead DoubleHeadRoIHead DynamicRoIHead GridRoIHead HybridTaskCascadeRoIHead MaskScoringRoIHead
    PISARoIHead PointRendRoIHead SCNetRoIHead SparseRoIHead StandardRoIHead SingleRoIExtractor GenericRoIExtractor
    RoIAlign
    ATSSHead AutoAssignHead BBoxHead CascadeRPNHead CenterNetUpdateHead CoarseMaskHead CondInstBboxHead
    CondInstMaskHead ConditionalDETRHead ConvFCBBoxHead DABDETRHead DDODHead DDQDETRHead DETRHead DIIHead DINOHead
    DecoupledSOLOHead DecoupledSOLOLightHead DeformableDETRHead DoubleConvFCBBoxHead DynamicConv DynamicMaskHead
    EmbeddingRPNHead FCNMaskHead FCOSHead FSAFHead FeatureRelayHead FoveaHead FreeAnchorRetinaHead FusedSemanticHead
    GARPNHead GFLHead GlobalContextHead GridHead HTCMaskHead HeuristicFusionHead Mask2FormerHead
    MaskFormerFusionHead MaskFormerHead MaskIoUHead MaskPointHead MSDeformAttnPixelDecoder NASFCOSHead PAAHead
    PanopticFPNHead PixelDecoder RPNHead RTMDetHead RTMDetInsHead RTMDetInsSepBNHead RTMDetSepBNHead RepPointsHead
    RetinaHead RetinaSepBNHead SABLHead SABLRetinaHead SCNetBBoxHead SCNetMaskHead SCNetSemanticHead SOLOHead
    SOLOV2Head Shared2FCBBoxHead Shared4Conv1FCBBoxHead StageCascadeRPNHead TOODHead TransformerEncoderPixelDecoder
    VFNetHead YOLACTHead YOLACTProtonet YOLOFHead YOLOXHead
    AnchorGenerator LegacyAnchorGenerator MlvlPointGenerator BucketingBBoxCoder DeltaXYWHBBoxCoder
    DistancePointBBoxCoder LegacyDeltaXYWHBBoxCoder TBLRBBoxCoder
    ATSSAssigner ApproxMaxIoUAssigner CenterRegionAssigner DynamicSoftLabelAssigner GridAssigner HungarianAssigner
    MaxIoUAssigner PointAssigner RegionAssigner SimOTAAssigner TaskAlignedAssigner TopkHungarianAssigner
    UniformAssigner
    CombinedSampler InstanceBalancedPosSampler IoUBalancedNegSampler MaskPseudoSampler OHEMSampler PseudoSampler
    RandomSampler ScoreHLRSampler
    BBoxL1Cost BinaryFocalLossCost ClassificationCost CrossEntropyLossCost DiceCost FocalLossCost IoUCost
    BalancedL1Loss BoundedIoULoss CIoULoss DIoULoss DiceLoss DistributionFocalLoss GHMC GHMR GIoULoss
    GaussianFocalLoss IoULoss L1Loss MSELoss QualityFocalLoss SmoothL1Loss VarifocalLoss
    nms soft_nms
'''
SEGMENTORS = '''
    SegDataPreProcessor EncoderDecoder CascadeEncoderDecoder Feature2Pyramid MLANeck MultiLevelNeck JPU
    ANNHead APCHead ASPPHead CCHead DAHead DMHead DNLHead DepthwiseSeparableASPPHead DepthwiseSeparableFCNHead
    EMAHead EncHead FCNHead FPNHead GCHead ISAHead IterativeDecodeHead KernelUpdateHead KernelUpdator LRASPPHead
    LightHamHead NLHead OCRHead PSAHead PSPHead PointHead SETRMLAHead SETRUPHead SegformerHead
    SegmenterMaskTransformerHead UPerHead
    BoundaryLoss LovaszLoss OhemCrossEntropy OHEMPixelSampler TverskyLoss
'''
# Steps that prepare an image, and what draws predictions
IMAGES = '''
    LoadImageFromFile LoadAnnotations LoadPanopticAnnotations LoadWholeImage
    CenterCrop EfficientNetCenterCrop FixScaleResize Pad Resize ResizeEdge ResizeShortestEdge ResizeToMultiple
    PackDetInputs PackInputs PackSegInputs
    DetLocalVisualizer SegLocalVisualizer UniversalVisualizer
'''
TYPES = {name for part in (LAYERS, CLASSIFIERS, DETECTORS, SEGMENTORS, IMAGES) for name in part.split()}
