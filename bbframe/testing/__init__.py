"""Contract tests for the parts of a plugin, as pytest runs them: `pytest --bbframe-plugin my_package.parts`.

Each part of the plugin gives one test, which needs no file of one's own. A part whose options lack
defaults is tested from a file: `check_part("data", {"name": "mine", "root": folder})`.

What each kind of part is called with, and what the result must do:

kind       called with                             the result
---------  --------------------------------------  -----------------------------------------------------------------
task       options, backbone, class_names,         a `bbframe.tasks.task.Task`; options extend `TaskOptions`
           head=, optim=, schedule= (options)
head       options, channels, strides,             an nn.Module; `reads` lists the positions of the maps that it uses.
           num_classes                             task = "classification": forward(maps) -> scores (B, num_classes).
                                                   task = "detection": a `bbframe.heads.detectors.DetectionHead`.
                                                   options extend `HeadOptions` (dropout: `ClassifierOptions`)
loss       options                                 an nn.Module: forward(scores (B, K), labels) -> scalar; labels are
                                                   indices (B,), or shares (B, K) with mixup and label smoothing
metric     options, num_classes                    a torchmetrics.Metric of scores (B, K) and labels (B,), a scalar
data       options, seed=, preprocessing=,         a `bbframe.data.data_module.DataModule`; options extend
           num_channels=, stride= (masks= too      `ImageDataOptions` or `DetectionDataOptions`
           for detection)
transform  options                                 called with a uint8 image (C, H, W) in training, after our own
                                                   augmentations; returns one of the same shape. It draws from torch's
                                                   global generator, seeded by (seed, epoch, index of the image)
optim      options, groups, fused=                 a torch.optim.Optimizer over parameter groups that carry `lr` and
                                                   `weight_decay`; `fused`: whether torch's fused kernels may be used.
                                                   options extend `OptimOptions`
schedule   options, total_steps, steps_per_epoch   called with an optimiser step, returns the factor on all rates
callback   options                                 a Lightning Callback
logger     options, folder                         a Lightning Logger that writes below the run folder
backbone   config                                  a `Backbone`; its `config_class` is the options
"""

from bbframe.testing.contracts import check_backbone_contract, check_part

__all__ = ["check_backbone_contract", "check_part"]
