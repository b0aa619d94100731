"""300 epochs of AdamW at a total batch of 1024; no weight decay on biases and 1-D parameters."""
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=.05, betas=(.9, .999), eps=1e-8),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0., flat_decay_mult=0.),
    clip_grad=dict(max_norm=5.))
# linear warm-up from 1e-6 to 1e-3 in 20 epochs, then a cosine to 1e-5
param_scheduler = dict(
    type='WarmupCosineLR', warmup=20, start_factor=1e-3, end_factor=1e-2, by_epoch=True, convert_to_iter_based=True)
auto_scale_lr = dict(base_batch_size=1024)
