"""Checkpoints: what a run needs to go on, bit for bit, or to predict.

::

    checkpoints/
      step-000250/
        model.safetensors  optimiser.safetensors  ...   one file per group of tensors
        state.json                                      everything that is no tensor
        commit.json                                     step, size and sha256 of each file; written last
      last                                              text: the name of the newest

A commit is made in a temporary folder: every file is synced, read back and compared by hash, then the commit record is
written, and the folder is renamed into place. At every instant the newest committed checkpoint is whole. What is loaded
is compared with its commit record first and parsed after; nothing here can run code.

One process at a time may save: hold the run folder's lock.
"""

from medmtl.checkpoint.optimiser import load_optimiser, optimiser_tensors
from medmtl.checkpoint.reading import Checkpoint, load
from medmtl.checkpoint.saving import save, tidy

__all__ = ["Checkpoint", "load", "load_optimiser", "optimiser_tensors", "save", "tidy"]
